"""The general way to the upstream: aiohttp's client, which can pass through a proxy."""

import logging
from collections.abc import Callable, Mapping
from typing import Self

import aiohttp

from app.domain.errors import (
    UpstreamBadResponse,
    UpstreamConnectTimeout,
    UpstreamCut,
    UpstreamError,
    UpstreamUnreachable,
)
from app.upstream.transport import READ_AHEAD_BYTES, UNUSABLE, Patience

log = logging.getLogger("parley.upstream")


class GeneralTransport:
    """A pool of aiohttp's. Make it in the loop that uses it."""

    def __init__(self, origin: str, *, connect_timeout: float, proxy: str | None) -> None:
        """`origin` is scheme, host and port; `connect_timeout` in seconds, 0: none; `proxy` None: none."""
        self._origin = origin
        self._proxy = proxy
        self._session = aiohttp.ClientSession(
            # No bound on connections: how many answers run at once is bounded elsewhere, and a request that waited
            # here for its turn would look like a slow connection.
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout or None),
            # A cookie would tie the requests of different people together.
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=READ_AHEAD_BYTES,
        )

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, patience: Patience
    ) -> "GeneralReply":
        """As `Transport.request`."""
        async with patience.scope():
            try:
                response = await self._session.request(
                    method,
                    f"{self._origin}{target}",
                    data=body,
                    headers=headers,
                    proxy=self._proxy,
                    allow_redirects=False,  # the key is for this server only
                )
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise _failure(error) from error
        reply = GeneralReply(response)
        patience.watch(reply)
        return reply

    async def close(self) -> None:
        """As `Transport.close`."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()


class GeneralReply:
    """A `Reply` over aiohttp's response."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._content = response.content
        self.status = response.status
        self.headers = response.headers
        self.content_type = response.content_type
        self.ended = False
        self.broken = False

    @property
    def complete(self) -> bool:
        """As `Reply.complete`."""
        return self._content.is_eof()

    async def read(self) -> bytes:
        """As `Reply.read`."""
        data = b"" if self.broken else await self._read()
        self.ended = not data
        return data

    async def push(self, take: Callable[[bytes], bool]) -> None:
        """As `Reply.push`."""
        while (data := await self.read()) and take(data):
            pass

    def fail(self, error: UpstreamError) -> None:
        """As `Reply.fail`."""
        self._content.set_exception(error)

    def close(self) -> None:
        """As `Reply.close`."""
        self._response.close()

    async def _read(self) -> bytes:
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            log.info("the upstream broke off: %s", type(error).__name__)
            self.broken = True
            # aiohttp raises the error before it hands out what had come until then: without the error it does.
            self._content.set_exception(None)  # type: ignore[arg-type] # None is "no exception", as at the beginning
            return self._content.read_nowait()


def _failure(error: Exception) -> UpstreamError:
    """Return the error for what went wrong between asking and the response's headers."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return UpstreamConnectTimeout("The model server could not be connected in time.")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError):
        return UpstreamUnreachable("The model server cannot be reached.")
    if isinstance(error, aiohttp.ClientResponseError):
        return UpstreamBadResponse("The model server did not answer in HTTP.")
    # A bad URL, proxy or header: a defect of the settings.
    if isinstance(error, ValueError | aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return UpstreamUnreachable(UNUSABLE, transient=False)
    return UpstreamCut("The model server closed the connection before it answered.")
