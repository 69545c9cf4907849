"""What the client needs of HTTP: one request, one reply whose body is read as it comes. Two ways give it.

`direct.py` is the fast one; `general.py` can do what that cannot (proxies). Both feed the same decoder and pass the same
tests.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final, Protocol

from app.domain.errors import UpstreamError

#: How long the end of the body is waited for after the end of the answer, in seconds. With it the connection can serve
#: the next request, which saves a TLS handshake; most servers send it in the same packet.
LINGER_SECONDS = 0.1
#: What is read ahead of the consumer, in bytes: 2,000 answers that wait for the store hold 256 MB at most.
READ_AHEAD_BYTES = 64 * 1024

#: What a defect of the settings is told as.
UNUSABLE: Final = "The model server's address or headers cannot be used."


class Reply(Protocol):
    """A response, and its body as it comes."""

    status: int
    #: In lower case, without parameters; "application/octet-stream" where the response names none.
    content_type: str
    #: Has everything been read, to the body's end or to where it broke?
    ended: bool
    #: Did the connection break before the body's end?
    broken: bool

    @property
    def complete(self) -> bool:
        """Has the body come to its end, though it may not have been read?"""

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the response's headers, names in any case; those of a 200 need not be there."""

    async def read(self) -> bytes:
        """Return what came since, at least a byte; empty at the end, also where the connection broke (`broken`)."""

    async def push(self, take: Callable[[bytes], bool]) -> None:
        """Hand everything that comes to `take`, at once, until it returns False or the body ends; as `read` otherwise."""

    def fail(self, error: UpstreamError) -> None:
        """End the read that waits, and every later one, by raising an error in it."""

    def close(self) -> None:
        """Let go of the connection: back to its pool where the body was read to its end, else closed."""


class Patience(Protocol):
    """How long a response is waited for."""

    def scope(self) -> AbstractAsyncContextManager[object]:
        """Return what ends a wait in which there is no reply yet, with a TimeoutError."""

    def watch(self, reply: Reply) -> None:
        """From now on end a wait for this reply that takes too long, by its `fail`."""


class Endless:
    """The `Patience` of who sets a limit around the whole request."""

    def scope(self) -> AbstractAsyncContextManager[object]:
        """As `Patience.scope`."""
        return nullcontext()

    def watch(self, reply: Reply) -> None:
        """As `Patience.watch`."""


class Transport(Protocol):
    """Asks one server. Whatever goes wrong before a response has begun is an `UpstreamError`, from what caused it."""

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, patience: Patience
    ) -> Reply:
        """Ask, and return as soon as the response's headers are there, watched by `patience`. Raises its TimeoutError, too.

        `target`: what follows the base URL's host.
        """

    async def close(self) -> None:
        """Close all connections; what is still read ends as broken."""


async def read_at_most(reply: Reply, size: int) -> bytes:
    """Return a body to its end, or its first bytes where that is more than `size`."""
    parts: list[bytes] = []
    length = 0
    while length <= size and (data := await reply.read()):
        parts.append(data)
        length += len(data)
    return b"".join(parts)


async def linger(reply: Reply) -> None:
    """Read a little further, so that a body which is as good as over comes to its end; no failure matters now."""
    if reply.complete:
        return
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while await reply.read():
                pass
    except (TimeoutError, UpstreamError):
        pass
