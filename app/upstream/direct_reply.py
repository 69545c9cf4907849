"""A response of the direct way: bytes of HTTP/1.1 in, the body out, as `transport.Reply` has it."""

import asyncio
import logging
import zlib
from collections.abc import Callable
from typing import Any, Final, Protocol

import httptools
from multidict import CIMultiDict

from app.domain.errors import UpstreamBadResponse, UpstreamCut, UpstreamError
from app.upstream.transport import READ_AHEAD_BYTES

log = logging.getLogger("parley.upstream")

#: The largest head of a response, in bytes; the parser has no limit of its own.
MAX_HEAD_BYTES = 64 * 1024

_OK: Final = 200
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS  # told apart by how they begin
_GZIP_BYTE: Final = 0x1F
_ZLIB_METHOD: Final = 8
_ENCODINGS = frozenset(("gzip", "x-gzip", "deflate"))


class Connection(Protocol):
    """What a response needs of the connection that brings it."""

    def expect_more(self) -> None:
        """Know that more will come soon, again and again."""

    def pause(self) -> None:
        """Read no further."""

    def resume(self) -> None:
        """Read on."""

    def let_go(self, *, reusable: bool) -> None:
        """Serve the next request, or end: the response is not read any more."""


class DirectReply:
    """A `Reply` whose response is parsed as it comes: the listener of httptools' parser (the `on_…` methods)."""

    __slots__ = (
        "_chunks",
        "_connection",
        "_delimited",
        "_encoded",
        "_error",
        "_inflate",
        "_loop",
        "_parser",
        "_paused",
        "_sink",
        "_waiter",
        "begun",
        "broken",
        "complete",
        "content_type",
        "ended",
        "head_bytes",
        "headers",
        "keep_alive",
        "status",
    )

    def __init__(self, connection: Connection) -> None:
        self.status = 0
        #: Of a 200 they are forgotten: nobody wants them, and many streams would keep them.
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.content_type = "application/octet-stream"
        self.ended = False
        self.broken = False
        #: Is the head there? Is the body there to its end? May the connection serve another request?
        self.begun = False
        self.complete = False
        self.keep_alive = False
        #: How many bytes have come and not completed the head.
        self.head_bytes = 0
        self._connection: Connection | None = connection
        self._loop = asyncio.get_running_loop()  # kept, as asking for it is a system call (getpid) up to Python 3.11
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._chunks: list[bytes] = []
        self._sink: Callable[[bytes], bool] | None = None
        self._paused = False
        self._error: UpstreamError | None = None
        self._encoded = False
        self._inflate: Any = None  # between two parts of an encoded body there is none
        self._delimited = False  # is the end of the body told, by a length or a last chunk?
        self._waiter: asyncio.Future[None] | None = None

    async def head(self) -> None:
        """Wait until the head of the response is there. Raises UpstreamCut or UpstreamBadResponse."""
        while not self.begun and self._error is None:
            await self._change()
        if self._error is not None:
            raise self._error

    async def read(self) -> bytes:
        """As `Reply.read`."""
        chunks = self._chunks
        while not chunks or self._error is not None:
            if self._error is not None:
                raise self._error
            if self.complete or self.broken:
                self.ended = True
                return b""
            await self._change()
        return self._taken()

    async def push(self, take: Callable[[bytes], bool]) -> None:
        """As `Reply.push`."""
        if self._chunks and self._error is None and not take(self._taken()):
            return
        self._sink = take
        if self._connection is not None:
            self._connection.expect_more()
        try:
            while self._sink is not None:
                if self._error is not None:
                    raise self._error
                if self.complete or self.broken:
                    self.ended = True
                    return
                await self._change()
        finally:
            self._sink = None

    def fail(self, error: UpstreamError) -> None:
        """As `Reply.fail`."""
        self._error = error
        self._wake()

    def close(self) -> None:
        """As `Reply.close`."""
        connection, self._connection = self._connection, None
        self._parser = None
        if connection is not None:
            connection.let_go(reusable=self.complete and self.keep_alive)

    # --- what the connection brings -----------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take bytes of the response."""
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._garble(error)
        chunks = self._chunks
        if not chunks:
            if not self.begun:
                self.head_bytes += len(data)
                if self.head_bytes > MAX_HEAD_BYTES:
                    self._garble(ValueError("the head of the response is too large"))
        elif self._sink is None:
            self._read_ahead()
        elif self._error is None and not self._sink(chunks.pop() if len(chunks) == 1 else self._taken()):
            self._sink = None
            self._wake()

    def connection_lost(self, why: str) -> None:
        """Take the end of the connection, which is the end of a body whose length was not told."""
        if self.complete:
            self.keep_alive = False
        elif self.begun and not self._delimited:
            self.complete = True
        elif self.begun:
            log.info("the upstream broke off: %s", why)
            self.broken = True
        elif self._error is None:
            self._error = UpstreamCut("The model server closed the connection before it answered.")
            self._error.__cause__ = ConnectionError(why)
        self._wake()

    def on_message_begin(self) -> None:
        """Take the begin of a response: one behind ours was not asked for."""
        if self.complete:
            self.keep_alive = False
            self._parser = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self.headers.add(name.decode("latin-1"), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        """Take the end of the head: of the response, or of a 1xx that goes before it."""
        if self._parser is None:
            return
        status = self._parser.get_status_code()
        if status < _OK:
            self.headers.clear()
            return
        self.status = status
        named = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self.content_type = named or self.content_type
        self._encoded = self.headers.get("Content-Encoding", "").lower() in _ENCODINGS  # although we ask for none
        self._delimited = "Content-Length" in self.headers or "Transfer-Encoding" in self.headers
        if status == _OK:
            self.headers.clear()
        self.begun = True
        self._wake()

    def on_body(self, data: bytes) -> None:
        """Take some of the body."""
        if self._parser is None:
            return
        if self._encoded:
            try:
                data = self._inflated(data)
            except zlib.error as error:
                self._garble(error)
                return
            if not data:
                return
        self._chunks.append(data)

    def on_message_complete(self) -> None:
        """Take the end of the body, or of a 1xx."""
        if self.begun and self._parser is not None:
            self.complete = True
            self.keep_alive = self._parser.should_keep_alive()
            self._wake()

    def _inflated(self, data: bytes) -> bytes:
        """Decode some of the body: gzip, in one part or several, or deflate, which some send without zlib's head."""
        inflated: list[bytes] = []
        while data:
            if self._inflate is None:
                headed = data[0] == _GZIP_BYTE or data[0] & 15 == _ZLIB_METHOD
                self._inflate = zlib.decompressobj(wbits=_GZIP_OR_ZLIB if headed else -zlib.MAX_WBITS)
            inflated.append(self._inflate.decompress(data))
            data = self._inflate.unused_data
            if self._inflate.eof:
                self._inflate = None
        return b"".join(inflated)

    def _garble(self, error: Exception) -> None:
        """Take what is no HTTP."""
        if self.complete:
            self.keep_alive = False  # something behind the response
        elif self.begun:
            self.connection_lost(type(error).__name__)
        elif self._error is None:
            self._error = UpstreamBadResponse("The model server did not answer in HTTP.")
            self._error.__cause__ = error
            self._wake()

    def _read_ahead(self) -> None:
        """Keep what came until it is wanted; no more of it than may be kept."""
        if not self._paused and self._connection is not None and sum(map(len, self._chunks)) > READ_AHEAD_BYTES:
            self._paused = True
            self._connection.pause()
        self._wake()

    def _taken(self) -> bytes:
        """Return all that has come, and let more come."""
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        if self._paused and self._connection is not None:
            self._paused = False
            self._connection.resume()
        return data

    async def _change(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
