"""Limits whose scripts go to the store together, where it fails all of them."""

import asyncio
import gc
from typing import Any

from app.domain.errors import StoreUnavailable
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
    limits = Limits(
        Connector(store_process.url),
        journal,
        process="p",
        messages_per_minute=1,
        address_messages_per_minute=1,
        tokens_per_day=0,
        address_tokens_per_day=0,
        active_answers=0,
        readers=0,
        answer_seconds=0,
    )
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
