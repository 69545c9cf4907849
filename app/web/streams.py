"""Streams an answer's events to one client: a cursor over the committed events, never a queue.

The hot path is `_Reader._write`: it runs inside the journal's acknowledgement, without a task for each event (8 to 13
microseconds a token). A client that reads too slowly leaves the log's listeners and is caught up with when it can take more.
"""

import asyncio
import logging
from collections.abc import Sequence

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter
from aiohttp.web_request import BaseRequest
from aiohttp_sse import EventSourceResponse

from app.domain.events import Event, events_after
from app.domain.live_log import LiveLog
from app.domain.measures import Measures
from app.web.native import HEARTBEAT, frame, frames

log = logging.getLogger("parley.streams")

#: Characters that a reader who is behind gets in one write. What it has not taken yet waits in the shared log, not in
#: a buffer of its own: twenty stalled readers of a long answer would otherwise hold twenty copies of it.
CATCH_UP = 65_536
#: The streams get their heartbeats in so many parts, one after another, so that they don't all come at one moment.
BEATS = 16


class _Response(EventSourceResponse):
    """aiohttp-sse's response; the heartbeats come from `Streams`."""

    # As in aiohttp's responses that are no streams: the head goes in one write with what follows it.
    _send_headers_immediately = False

    async def _ping(self) -> None:
        # aiohttp-sse's own ends with a blank line, which some clients take for an empty event, and its task would take
        # a tenth of the memory of a stream. It is the only way to change it; a test holds what is sent.
        return

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Begin, and keep nothing of that task."""
        writer = await super().prepare(request)
        self._ping_task = None
        return writer


def tell_end(request: web.Request, response: EventSourceResponse) -> bool:
    """See to it that a client knows where its stream ends, before that is prepared; return whether it comes in chunks."""
    chunked = request.version >= HttpVersion11  # aiohttp-sse says so of any response
    if not chunked:
        response.force_close()  # nothing else tells where it ends
    if not (chunked and request.keep_alive):
        response.headers["Connection"] = "close"
    return chunked


class Streams:
    """All event streams of the process. `start` it before use, `stop` it when none is open any more."""

    def __init__(self, *, heartbeat_seconds: float, send_timeout_seconds: float, measures: Measures) -> None:
        """`heartbeat_seconds` 0: none; `send_timeout_seconds` 0: a client may stall for ever."""
        self._heartbeat_seconds = heartbeat_seconds
        self._send_timeout_seconds = send_timeout_seconds or None
        self._measures = measures
        self._readers: dict[_Reader, int] = {}  # the part that a reader's heartbeats come with
        self._part = 0
        self._beating: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def count(self) -> int:
        """Return how many clients are reading."""
        return len(self._readers)

    def start(self) -> None:
        """Begin with the heartbeats."""
        if self._heartbeat_seconds:
            self._beating = asyncio.create_task(self._beat())

    def stop(self) -> None:
        """End them."""
        if self._beating is not None:
            self._beating.cancel()

    async def send(
        self, request: web.Request, live: LiveLog, cursor: int, response: EventSourceResponse
    ) -> EventSourceResponse:
        """Send all events behind the cursor until the log is over, the client goes, or the service ends."""
        chunked = tell_end(request, response)
        writer = await response.prepare(request)
        assert isinstance(writer, StreamWriter)
        response.headers.clear()  # the head is made of them; they would be kept as long as the stream
        reader = _Reader(request, writer, live, cursor, chunked=chunked)
        self._readers[reader] = self._part
        live.readers += 1
        self._measures.reader_came()
        try:
            if self._closing and not live.over:
                reader.close()
            await reader.run(self._send_timeout_seconds)
        finally:
            del self._readers[reader]
            live.readers -= 1
            self._measures.reader_went()
        return response

    def response(self) -> EventSourceResponse:
        """Make the response of a stream; headers may be set until it is handed to `send`."""
        return _Response(sep="\n", allow_all_methods=True, send_timeout=None)  # connections inherit that timeout

    def close(self) -> None:
        """End all streams of answers that go on: their clients resume elsewhere. Others end when all is sent."""
        self._closing = True
        for reader in tuple(self._readers):
            if not reader.live.over:
                reader.close()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_seconds / BEATS)
            # One that comes now is in the part whose turn comes last.
            self._part = (self._part + 1) % BEATS
            self._beat_part()

    def _beat_part(self) -> None:
        """Beat for those whose turn it is. By itself, so that no last one is kept until the next time."""
        for reader, part in tuple(self._readers.items()):
            if part != self._part:
                continue
            try:
                reader.beat()
            except Exception:  # one reader's defect must not silence the others
                log.exception("A heartbeat failed.")


class _Reader:
    """One client's cursor."""

    __slots__ = ("_chunked", "_closed", "_cursor", "_in_chunks", "_protocol", "_turn", "_writer", "live")

    def __init__(
        self, request: web.Request, writer: StreamWriter, live: LiveLog, cursor: int, *, chunked: bool
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
                self._write(())
                self._writer.send_headers()  # where there was nothing yet that they could go with
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

    def beat(self) -> None:
        """Send a sign of life."""
        # One that doesn't read needs none, and its send timeout is already running.
        if not (self._closed or self._protocol.writing_paused):
            self._send(HEARTBEAT)
            if self._closed:
                self._wake()

    def _write(self, fresh: Sequence[Event]) -> None:
        """Send what is new. Called after each growth of the log, in the acknowledgement of the commit."""
        live = self.live
        if len(fresh) == 1 and self._cursor == live.before and not live.over:
            self._cursor = live.position
            self._send(frame(fresh[0]))
        else:
            self._catch_up()
        if live.over or self._closed or self._protocol.writing_paused:
            live.unlisten(self._write)
            self._wake()

    def _catch_up(self) -> None:
        """Send what is behind the cursor, as long as the client takes it."""
        while self._cursor < self.live.position and not (self._closed or self._protocol.writing_paused):
            events = events_after(self.live.events, self._cursor, CATCH_UP)
            self._cursor = events[-1].end
            self._send(frames(events), last=self._done())

    def _send(self, data: bytes, *, last: bool = False) -> None:
        if not self._in_chunks:
            self._begin(data)
            return
        transport = self._protocol.transport
        if transport is None or transport.is_closing():
            self._closed = True
        elif last:
            transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
            self._writer.chunked = False  # aiohttp need not end it
            self._closed = True
        else:
            transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _begin(self, data: bytes) -> None:
        """Send aiohttp's way: with the head of the response, or all of it to who speaks HTTP/1.0.

        What follows the head is chunked by hand: aiohttp's way to the same bytes takes 0.86 us, this one 0.13.
        """
        try:
            # Public, and never suspends without `drain` and compression: so it can be driven from a callback.
            self._writer.write(data, drain=False).send(None)
        except StopIteration:
            self._in_chunks = self._chunked
        except ConnectionError:
            self._closed = True

    def _wake(self) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)
