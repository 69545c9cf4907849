"""What follows a log that another process writes, and when it ends."""

import asyncio
from typing import Any

import pytest

from app.domain.ids import MessageRef
from app.domain.live_log import LiveLog
from app.store import keys
from app.store.barrier import Barrier
from app.store.connection import Connector
from app.store.follower import Follower
from tests.support.store import StoreProcess


async def test_a_log_is_not_followed_without_readers_also_where_a_cancellation_was_lost(
    redis: Any, store_process: StoreProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`asyncio.wait_for`, with which redis-py sends, loses one that comes as it is done, up to Python 3.11."""
    ref = MessageRef("0" * 32, 2)
    await redis.xadd(keys.events(*ref), {"start": "{}"}, id="1-0")
    looking = asyncio.Event()
    lost: list[asyncio.CancelledError] = []

    async def deaf(*_: object) -> bool:
        looking.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            lost.append(error)
            if len(lost) > 1:
                raise
        return True

    monkeypatch.setattr(Follower, "_still_there", deaf)
    connector = Connector(store_process.url)
    follower = Follower(connector, Barrier(connector, "acknowledged"), lambda _: None, announce_seconds=0.2)
    async with asyncio.timeout(10):
        async with follower.follow(ref) as live:
            assert isinstance(live, LiveLog)
            assert live.position == 1
            await looking.wait()
    assert len(lost) == 1
    await connector.close()
    await redis.flushall()
