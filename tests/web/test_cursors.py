"""A reader's cursor and the log that it reads: each gets what is behind its cursor, wherever that stands."""

import asyncio

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from app.domain.events import Event
from app.domain.live_log import LiveLog
from app.domain.measures import Measures
from app.web.streams import Streams

START, AB, CD, END = (
    Event("start", "{}", 1),
    Event("message", "ab", 3),
    Event("message", "cd", 5),
    Event("end", "{}", 6),
)


async def _read(cursor: int, *growths: list[Event]) -> str:
    """Return what a reader gets whose log is empty when it comes, and grows so."""
    streams = Streams(heartbeat_seconds=0, send_timeout_seconds=0, measures=Measures())
    live = LiveLog()

    async def handler(request: web.Request) -> web.StreamResponse:
        return await streams.send(request, live, cursor, streams.response())

    app = web.Application()
    app.router.add_get("/", handler)
    async with TestClient(TestServer(app)) as client, asyncio.timeout(10), client.get("/") as response:
        while not live.readers:
            await asyncio.sleep(0)
        for events in growths:
            live.extend(events)
        return await response.text()


async def test_a_reader_who_is_ahead_of_the_log_gets_nothing_twice() -> None:
    """Its process has only begun to read what is written elsewhere, and the reader has seen more of it."""
    assert await _read(4, [START], [AB], [CD], [END]) == "id: 5\ndata: d\n\nevent: end\nid: 6\ndata: {}\n\n"
    assert await _read(5, [START], [AB, CD], [END]) == "event: end\nid: 6\ndata: {}\n\n"


async def test_a_reader_gets_what_comes_together_and_what_comes_alone() -> None:
    whole = "event: start\nid: 1\ndata: {}\n\nid: 3\ndata: ab\n\nid: 5\ndata: cd\n\nevent: end\nid: 6\ndata: {}\n\n"
    assert await _read(0, [START], [AB], [CD], [END]) == whole
    joined = whole.replace("id: 3\ndata: ab\n\nid: 5\ndata: cd", "id: 5\ndata: abcd")
    assert await _read(0, [START, AB, CD], [END]) == joined
