"""Limits whose scripts go to the store together, where it fails all of them."""

import asyncio
import gc
from typing import Any

from app.domain.errors import StoreUnavailable
from app.store import keys
from app.store.connection import Connector
from app.store.journal import Journal
from app.store.limits import Limits, Place
from tests.support.store import StoreProcess


async def test_a_store_that_fails_all_of_them_is_told_once_and_nothing_is_left_unheard(
    journal: Journal, store_process: StoreProcess
) -> None:
    journal._link = None  # it has just gone away
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    limits = _limits(journal, store_process, messages_per_minute=1, address_messages_per_minute=1)
    taking = asyncio.create_task(limits.take(Place("owner", "address", "name")))
    async with asyncio.timeout(10):
        while len(journal._waiting.calls) < 2:
            await asyncio.sleep(0)
    for call in journal._waiting.calls:
        call.fail(TimeoutError())
    await asyncio.wait((taking,), timeout=10)
    assert isinstance(taking.exception(), StoreUnavailable)  # not raised: a traceback would keep all of it
    journal._waiting.calls.clear()
    del call, taking
    gc.collect()
    assert heard == []


async def test_the_tokens_of_an_answer_count_once_however_often_they_are_sent(
    journal: Journal, store_process: StoreProcess, redis: Any
) -> None:
    """A connection that is lost behind a write has it sent again."""
    limits = _limits(journal, store_process, tokens_per_day=1000, address_tokens_per_day=1000)
    for answer in ("msg_1", "msg_1", "msg_2"):
        limits.spend("owner", "address", answer, 100)
    await journal.call("PING")  # answered behind all that
    assert [await redis.get(keys.limit_tokens(who)) for who in ("owner", "address")] == ["200", "200"]


def _limits(journal: Journal, store: StoreProcess, **some: int) -> Limits:
    none = dict.fromkeys(
        ("messages_per_minute", "address_messages_per_minute", "tokens_per_day", "address_tokens_per_day"), 0
    )
    return Limits(
        Connector(store.url), journal, process="p", active_answers=0, readers=0, answer_seconds=0, **none | some
    )
