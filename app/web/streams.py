"""Streams an answer's events to one client: a cursor over the committed events, never a queue.

The hot path is `_Reader._write`: it runs inside the journal's acknowledgement, without a task for each event (8 to 13
microseconds a token). A client that reads too slowly leaves the log's listeners and is caught up with when it can take more.
"""

import asyncio
import contextlib

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp_sse import EventSourceResponse

from app.domain.events import events_after
from app.domain.live_log import LiveLog
from app.domain.measures import Measures
from app.web.native import HEARTBEAT, frame, frames

#: Characters that a reader who is behind gets in one write. What it has not taken yet waits in the shared log, not in
#: a buffer of its own: twenty stalled readers of a long answer would otherwise hold twenty copies of it.
CATCH_UP = 65_536


class _Response(EventSourceResponse):
    """aiohttp-sse's response, with a heartbeat that every client survives."""

    async def _ping(self) -> None:
        # aiohttp-sse's own ping ends with a blank line, which some clients take for an empty event. It is the only way
        # to change it; a test holds what is sent.
        while True:
            await asyncio.sleep(self._ping_interval)
            with contextlib.suppress(ConnectionError, RuntimeError):
                if not self._stalled():
                    await self.write(HEARTBEAT)

    def _stalled(self) -> bool:
        # One that doesn't read needs no sign of life, and its send timeout is already running.
        return self._req is None or self._req.protocol.writing_paused


class Streams:
    """All event streams of the process."""

    def __init__(self, *, heartbeat_seconds: float, send_timeout_seconds: float, measures: Measures) -> None:
        """`send_timeout_seconds` 0: a client may stall for ever."""
        # aiohttp-sse takes no 0 for 'none': a year is none.
        self._heartbeat_seconds = heartbeat_seconds or 365 * 24 * 3600.0
        self._send_timeout_seconds = send_timeout_seconds or None
        self._measures = measures
        self._readers: set[_Reader] = set()
        self._closing = False

    @property
    def count(self) -> int:
        """Return how many clients are reading."""
        return len(self._readers)

    async def send(
        self, request: web.Request, live: LiveLog, cursor: int, response: EventSourceResponse
    ) -> EventSourceResponse:
        """Send all events behind the cursor until the log is over, the client goes, or the service ends."""
        writer = await response.prepare(request)
        assert writer is not None
        async with response:
            reader = _Reader(request, writer, live, cursor, chunked=response.chunked)
            self._readers.add(reader)
            self._measures.reader_came()
            try:
                if self._closing and not live.over:
                    reader.close()
                await reader.run(self._send_timeout_seconds)
            finally:
                self._readers.discard(reader)
                self._measures.reader_went()
        return response

    def response(self) -> EventSourceResponse:
        """Make the response of a stream; headers may be set until it is handed to `send`."""
        return _Response(
            sep="\n",
            allow_all_methods=True,
            send_timeout=self._send_timeout_seconds,
            ping_interval=self._heartbeat_seconds,
        )

    def close(self) -> None:
        """End all streams of answers that go on: their clients resume elsewhere. Others end when all is sent."""
        self._closing = True
        for reader in tuple(self._readers):
            if not reader.live.over:
                reader.close()


class _Reader:
    """One client's cursor."""

    __slots__ = ("_chunked", "_closed", "_cursor", "_in_chunks", "_protocol", "_turn", "_writer", "live")

    def __init__(
        self, request: web.Request, writer: AbstractStreamWriter, live: LiveLog, cursor: int, *, chunked: bool
    ) -> None:
        self._protocol = request.protocol
        self._writer = writer
        self.live = live
        self._cursor = cursor
        self._closed = False
        self._chunked = chunked
        self._in_chunks = False
        self._turn: asyncio.Future[None] | None = None

    async def run(self, send_timeout: float | None) -> None:
        """Send until nothing more can come."""
        live = self.live
        while not self._closed:
            self._turn = asyncio.get_running_loop().create_future()
            live.listen(self._write)
            try:
                self._write()
                await self._turn
            finally:
                live.unlisten(self._write)
            if self._done():
                return
            try:
                async with asyncio.timeout(send_timeout):
                    await self._writer.drain()
            except TimeoutError:
                if self._protocol.transport is not None:
                    self._protocol.transport.abort()  # a polite close would wait for what is not read
                return

    def close(self) -> None:
        """End the stream."""
        self._closed = True
        self._wake()

    def _done(self) -> bool:
        return self._closed or (self.live.over and self._cursor >= self.live.position)

    def _write(self) -> None:
        """Send what is new. Called after each growth of the log, in the acknowledgement of the commit."""
        live, protocol = self.live, self._protocol
        while not (self._closed or protocol.writing_paused) and self._cursor < live.position:
            self._send(self._next())
        if live.ended or live.gone or self._closed or protocol.writing_paused:
            live.unlisten(self._write)
            self._wake()

    def _send(self, data: bytes) -> None:
        if self._in_chunks:  # by hand: aiohttp's way to the same bytes takes 0.86 us, this one 0.13
            transport = self._protocol.transport
            if transport is None or transport.is_closing():
                self._closed = True
            else:
                transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            return
        try:
            # Public, and never suspends without `drain` and compression: so it can be driven from a callback.
            self._writer.write(data, drain=False).send(None)  # type: ignore[call-arg]
        except StopIteration:
            # The head has gone out with it; what follows is chunks, unless the client speaks HTTP/1.0.
            self._in_chunks = self._chunked
        except ConnectionError:
            self._closed = True

    def _next(self) -> bytes:
        """Return the frames that come next, and move the cursor behind them."""
        events = self.live.events
        if len(events) > 1 and events[-2].end == self._cursor:
            event = events[-1]  # the one event that this acknowledgement has brought
            self._cursor = event.end
            return frame(event)
        fresh = events_after(events, self._cursor, CATCH_UP)
        self._cursor = fresh[-1].end
        return frames(fresh)

    def _wake(self) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)
