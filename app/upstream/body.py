"""The body of an upstream's response, read as it comes; an end and a break look alike to the one who reads."""

import asyncio
import logging

import aiohttp

from app.domain.errors import UpstreamError

log = logging.getLogger("parley.upstream")

#: How long the end of the body is waited for after the end of the answer, in seconds. With it the connection can serve
#: the next request, which saves a TLS handshake; most servers send it in the same packet.
LINGER_SECONDS = 0.1


class Body:
    """Reads one response. Time limits that are raised in a read (see `Deadlines`) pass through."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        """Take a response whose body nobody has read."""
        self._content = response.content
        #: Has everything been read, to the body's end or to where it broke?
        self.ended = False
        #: Did the connection break before the body's end?
        self.broken = False

    async def read(self) -> bytes:
        """Return what came since, at least a byte; empty at the end, also where the connection broke (`broken`)."""
        data = b"" if self.broken else await self._read()
        self.ended = not data
        return data

    async def read_at_most(self, size: int) -> bytes:
        """Return the body to its end, or its first bytes where that is more than `size`."""
        parts: list[bytes] = []
        length = 0
        while length <= size and (data := await self.read()):
            parts.append(data)
            length += len(data)
        return b"".join(parts)

    async def linger(self) -> None:
        """Read a little further, so that a body which is as good as over comes to its end; no failure matters now."""
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while await self.read():
                    pass
        except (TimeoutError, UpstreamError):
            pass

    async def _read(self) -> bytes:
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            log.info("the upstream broke off: %s", type(error).__name__)
            self.broken = True
            # aiohttp raises the error before it hands out what had come until then: without the error it does.
            self._content.set_exception(None)  # type: ignore[arg-type] # None is "no exception", as at the beginning
            return self._content.read_nowait()
