"""Waiting on a live log without reading it."""

import asyncio
from collections.abc import Callable, Sequence

from app.domain.events import Event
from app.domain.live_log import LiveLog


async def until(live: LiveLog, reached: Callable[[], bool]) -> None:
    """Wait until `reached()`, which is asked again after each growth of the log."""
    if reached():
        return
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def look(_: Sequence[Event]) -> None:
        if not done.done() and reached():
            done.set_result(None)

    live.listen(look)
    live.readers += 1
    try:
        await done
    finally:
        live.unlisten(look)
        live.readers -= 1
