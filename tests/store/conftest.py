"""What tests of the journal and of what goes through it stand on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from app.domain.events import Event
from app.domain.ids import MessageRef
from app.domain.live_log import LiveLog
from app.domain.measures import Measures
from app.store import keys
from app.store.connection import Connector
from app.store.journal import Durability, Journal
from app.store.log_writer import LogWriter
from tests.conftest import Client
from tests.support.browser import ask
from tests.support.scripted_upstream import ScriptedUpstream, reply
from tests.support.store import StoreProcess, reads_of


@asynccontextmanager
async def journal_of(store: StoreProcess, *, durability: Durability) -> AsyncIterator[Journal]:
    """Lend a journal of a real store."""
    connector = Connector(store.url)
    made = Journal(connector, durability=durability, lease_seconds=3, outage_seconds=3, measures=Measures(on=False))
    try:
        await made.start()
        yield made
    finally:
        await made.close()
        await connector.redis.aclose()


@pytest.fixture
async def journal(redis: Any, store_process: StoreProcess) -> AsyncIterator[Journal]:
    """A journal as it is by default."""
    async with journal_of(store_process, durability="acknowledged") as made:
        yield made
    await redis.flushall()


async def writers_of(journal: Journal, redis: Any, count: int) -> list[LogWriter]:
    """Open answers, as `begin` leaves them."""
    refs = [MessageRef(f"{number:032x}", 2) for number in range(count)]
    for ref in refs:
        await redis.xadd(keys.events(*ref), {"start": "{}"}, id="1-0")
    return [journal.open(ref, "runner", LiveLog([Event("start", "{}", 1)]), lambda _: None) for ref in refs]


async def trips_of_an_answer(client: Client, redis: Any, upstream: ScriptedUpstream) -> list[int]:
    """Return the round trips of an answer that comes at once: in a new conversation, and in one that there was."""
    script = reply(["x"])
    upstream.default = lambda _: replace(script, steps=[b"".join(script.steps)])
    old = (await ask(client, "Hi"))["conversation"]
    trips = []
    for further in ({}, {"conversation": old}):
        seen = []
        for _ in range(10):
            before = await reads_of(redis)
            await ask(client, "Hi", **further)
            seen.append(await reads_of(redis) - before - 1)  # the second INFO
        trips.append(min(seen))  # the others: what comes by the clock
    return trips
