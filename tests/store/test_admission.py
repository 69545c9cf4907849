"""How an answer begins in the store: within limits, and listed."""

import asyncio
from typing import Any

import pytest

from app.domain.errors import StoreUnavailable
from app.store import keys
from app.store.admission import Admission, Attached, Begun, Question
from app.store.connection import Connector
from app.store.journal import Journal
from app.store.limits import Limits, Place
from app.store.owner_list import OwnerLists
from tests.support.store import StoreProcess

CONVERSATION = "0" * 32
QUESTION = Question(
    *("owner", CONVERSATION), may_create=True, record='"role":"user"}', asked_at=1000, parent=None, model=None,
    system=None, title="", idempotency_key="k", digest="d", address=None,
)  # fmt: skip
PLACE = Place("owner", None, f"{CONVERSATION}.runner")


@pytest.fixture
def admission(journal: Journal, store_process: StoreProcess) -> Admission:
    """One that counts the answers that run."""
    limits = Limits(
        Connector(store_process.url), journal, process="p", messages_per_minute=0, address_messages_per_minute=0,
        tokens_per_day=0, address_tokens_per_day=0, active_answers=2, readers=0, answer_seconds=0,
    )  # fmt: skip
    return Admission(
        journal, limits, OwnerLists(journal, ttl_seconds=0), default_model="m", window_bytes=1000,
        lease_seconds=3, conversation_ttl_seconds=0,
    )  # fmt: skip


async def test_a_place_is_taken_by_what_begins_and_by_nothing_that_attaches(
    admission: Admission, journal: Journal, redis: Any
) -> None:
    begun = await admission.begin(QUESTION, "runner", PLACE)
    assert isinstance(begun, Begun)
    assert [(left.policy, left.remaining) for left in begun.left] == [("answers", 1)]
    attached = await admission.begin(QUESTION, "other", PLACE._replace(name="other"))
    assert attached == Attached(begun.head.ref)
    await journal.call("PING")  # answered behind all that
    assert await redis.zrange(keys.limit_answers("owner"), 0, -1) == [PLACE.name]


async def test_what_is_sent_again_takes_one_place_and_begins_one_answer(admission: Admission, redis: Any) -> None:
    """A connection that is lost behind a write has it sent again."""
    first = await admission.begin(QUESTION, "runner", PLACE)
    assert await admission.begin(QUESTION, "runner", PLACE) == first
    assert await redis.zrange(keys.limit_answers("owner"), 0, -1) == [PLACE.name]
    assert await redis.hlen(keys.messages(CONVERSATION)) == 2


async def test_a_place_that_was_taken_is_given_back_where_nobody_heard_of_it(
    admission: Admission, journal: Journal, redis: Any
) -> None:
    beginning = asyncio.create_task(admission.begin(QUESTION, "runner", PLACE))
    async with asyncio.timeout(10):
        while journal._in_flight is None:
            await asyncio.sleep(0)
        for call in journal._in_flight.calls:
            call.fail(TimeoutError())
        with pytest.raises(StoreUnavailable):
            await beginning
    await journal.call("PING")  # answered behind all that
    assert await redis.hlen(keys.messages(CONVERSATION)) == 2  # it was done
    assert not await redis.exists(keys.limit_answers("owner"))


async def test_a_clock_that_is_behind_does_not_move_a_conversation_down_the_list(
    admission: Admission, journal: Journal, redis: Any
) -> None:
    name = keys.owner_conversations("owner")
    await redis.zadd(name, {CONVERSATION: 2000})
    await admission.begin(QUESTION, "runner", PLACE)
    assert await redis.zscore(name, CONVERSATION) == 2000
