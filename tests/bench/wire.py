"""The readers' side of HTTP, as lean as it goes: a protocol that keeps what came, and when; it is looked at afterwards."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, cast
from urllib.parse import urlsplit

#: No answer of these measurements has this in it, so that its end needs no parser.
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Response:
    """What came: the head, the chunks of the body (each is one write of the server's), and the reads with their times.

    `asked` is when the request was sent; `reads` are pairs of a time and how many bytes of the body had come by then.
    """

    asked: float
    head: bytes
    chunks: list[bytes]
    reads: list[tuple[float, int]]
    raw: bytes

    @property
    def status(self) -> int:
        """Return the status."""
        return int(self.head.split(b" ", 2)[1])

    @property
    def body(self) -> bytes:
        """Return the whole body."""
        return b"".join(self.chunks)

    @property
    def seconds(self) -> float:
        """Return how long it took until its last byte had come."""
        return self.reads[-1][0] - self.asked

    def place(self, at: int) -> tuple[int, int]:
        """Return where a byte of the body came: the number of its chunk, and its place in `raw`."""
        if self.chunks == [self.raw]:
            return 0, at
        place = 0
        for number, chunk in enumerate(self.chunks):
            place = self.raw.index(b"\r\n", place) + 2  # behind the chunk's size
            if at < len(chunk):
                return number, place + at
            at -= len(chunk)
            place += len(chunk) + 2
        raise IndexError(at)

    def header(self, name: str) -> str | None:
        """Return a header's value, None where it has not come."""
        found = re.search(rb"\r\n%b: ?([^\r]*)" % re.escape(name.encode()), self.head, re.IGNORECASE)
        return found[1].decode() if found else None


class Connection(asyncio.Protocol):
    """One connection, on which one request after another is asked."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._done: asyncio.Future[None]

    async def ask(self, request: bytes) -> Response:
        """Send a request and return its response. Raises ConnectionError where it is cut before its end."""
        self._head = b""
        self._left: int | None = None
        self._tail = b""
        self._pieces: list[tuple[float, bytes]] = []
        self._done = asyncio.get_running_loop().create_future()
        asked = perf_counter()
        self._transport.write(request)
        await self._done
        return self._response(asked)

    def close(self) -> None:
        """Close it."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Keep what came, and see whether it is all."""
        now = perf_counter()
        if self._left is None:
            self._head += data
            head, mark, data = self._head.partition(b"\r\n\r\n")
            if not mark:
                return
            self._head = head
            length = re.search(rb"\r\ncontent-length: ?(\d+)", head, re.IGNORECASE)
            self._left = int(length[1]) if length else -1
        self._pieces.append((now, data))
        if self._left >= 0:
            self._left -= len(data)
            ended = self._left == 0
        else:
            self._tail = (self._tail + data[-5:])[-5:]
            ended = self._tail == LAST_CHUNK
        if ended and not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, *_: object) -> None:
        """Say so to whoever waits."""
        if hasattr(self, "_done") and not self._done.done():
            self._done.set_exception(ConnectionError("the server has closed the connection within a response"))

    def _response(self, asked: float) -> Response:
        raw = b"".join(data for _, data in self._pieces)
        reads, come = [], 0
        for time, data in self._pieces:
            come += len(data)
            reads.append((time, come))
        chunks = dechunked(raw) if self._left == -1 else [raw]
        return Response(asked, self._head, chunks, reads, raw)


async def connect(url: str) -> Connection:
    """Return a connection to a URL's server."""
    host, _, port = urlsplit(url).netloc.partition(":")
    _, connection = await asyncio.get_running_loop().create_connection(Connection, host, int(port))
    return connection


async def once(method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Response:
    """Ask on a connection of its own. Raises OSError where there is none, or it is cut before the response has ended."""
    connection = await connect(url)
    try:
        return await connection.ask(request(method, url, body, headers))
    finally:
        connection.close()


def request(method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a request's bytes; `body` goes as JSON."""
    parts = urlsplit(url)
    lines = [f"{method} {parts.path} HTTP/1.1", f"Host: {parts.netloc}"]
    data = b"" if body is None else json.dumps(body).encode()
    if data:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + data


def dechunked(raw: bytes) -> list[bytes]:
    """Return the chunks of a chunked body."""
    chunks: list[bytes] = []
    at = 0
    while True:
        end = raw.index(b"\r\n", at)
        size = int(raw[at:end], 16)
        if size == 0:
            return chunks
        chunks.append(raw[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
