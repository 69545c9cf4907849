"""The fast way to the upstream: HTTP/1.1 over a protocol of our own, for every token comes this way.

With aiohttp's client a token of a hundred streams cost 2.02 times what it costs a pipe of bytes, with this 1.65 times.
Parsing is httptools' (llhttp, as Node has it); connecting is asyncio's and aiohappyeyeballs'. Proxies are left to
`general.py`.
"""

import asyncio
import re
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache, partial
from ipaddress import ip_address
from typing import cast
from urllib.parse import SplitResult

import aiohappyeyeballs

from app.domain.errors import UpstreamConnectTimeout, UpstreamCut, UpstreamUnreachable
from app.upstream.direct_reply import DirectReply
from app.upstream.transport import UNUSABLE, Patience

#: An idle connection is kept so long, in seconds: less than what servers and balancers keep theirs.
KEEP_ALIVE_SECONDS = 15.0
#: The next address of a host is tried beside the first one after so long, in seconds (RFC 8305 has it so).
NEXT_ADDRESS_SECONDS = 0.25

# RFC 9110: what may stand in a header's value; a line break in one would begin another header.
_HEADER = re.compile(r"[^\x00\r\n]*")


class DirectTransport:
    """Connections to one server, those that idle in a pool. Make it in the loop that uses it."""

    def __init__(self, address: SplitResult, *, connect_timeout: float) -> None:
        """`address` has the server's scheme, host and port; `connect_timeout` in seconds, 0: none."""
        self._host = address.hostname or ""
        secure = address.scheme == "https"
        self._port = address.port or (443 if secure else 80)
        self._host_header = address.netloc
        self._connect_timeout = connect_timeout
        self._is_address = _is_address(self._host)
        self._tls = ssl.create_default_context() if secure else None
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, patience: Patience
    ) -> DirectReply:
        """As `Transport.request`."""
        fields = _fields(method, target, tuple(headers.items()), self._host_header)
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        message = b"%b%b\r\n%b" % (fields, length, body or b"")
        stale = False
        while True:
            fresh = stale or not self._idle
            if fresh:
                async with patience.scope():
                    connection = await self._connect()
            else:
                connection = self._idle.pop()
            reply = connection.ask(message)
            patience.watch(reply)
            try:
                await reply.head()
            except BaseException as error:
                reply.close()
                # It may have been closed while it idled; where no byte came, nothing can have been said.
                if fresh or reply.head_bytes or not isinstance(error, UpstreamCut):
                    raise
                stale = True  # and so may the others: were they tried, too, all of them might be asked
            else:
                return reply

    async def close(self) -> None:
        """As `Transport.close`."""
        for connection in tuple(self._all):
            connection.abort()

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        connect: Callable[..., Awaitable[tuple[object, _Connection]]] = partial(
            loop.create_connection,
            partial(_Connection, self._idle, self._all),
            ssl=self._tls,
            server_hostname=self._host if self._tls else None,
        )
        try:
            async with asyncio.timeout(self._connect_timeout or None):
                if self._is_address:  # nothing to look up in a thread, nor to choose from: half of the work
                    _, connection = await connect(self._host, self._port)
                    return connection
                addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                bound = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS)
                try:
                    _, connection = await connect(sock=bound)
                except BaseException:
                    bound.close()
                    raise
        except TimeoutError as error:
            raise UpstreamConnectTimeout("The model server could not be connected in time.") from error
        except UnicodeError as error:  # what no name of a host can be
            raise UpstreamUnreachable(UNUSABLE, transient=False) from error
        except OSError as error:
            raise UpstreamUnreachable("The model server cannot be reached.") from error
        return connection


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


@lru_cache(16)
def _fields(method: str, target: str, headers: tuple[tuple[str, str], ...], host: str) -> bytes:
    """Return the head of a request, but for the length of the body: the same for each answer."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    if not all(map(_HEADER.fullmatch, lines)):
        raise UpstreamUnreachable(UNUSABLE, transient=False)
    if all(name.lower() != "host" for name, _ in headers):
        lines.append(f"Host: {host}")
    return "\r\n".join((*lines, "")).encode()


class _Connection(asyncio.Protocol):
    """One connection: a request at a time."""

    __slots__ = ("_all", "_expiry", "_idle", "_reply", "_transport")

    def __init__(self, idle: "list[_Connection]", everyone: "set[_Connection]") -> None:
        """`idle` is the pool, to which it adds itself; `everyone` are all that are open."""
        self._idle = idle
        self._all = everyone
        self._transport: asyncio.Transport | None = None
        self._reply: DirectReply | None = None
        self._expiry: asyncio.TimerHandle | None = None

    def ask(self, message: bytes) -> DirectReply:
        """Send a request and return the reply that will come."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self._reply = reply = DirectReply(self)
        if self._transport is None:
            reply.connection_lost("it had been closed")
        else:
            self._transport.write(message)
        return reply

    def let_go(self, *, reusable: bool) -> None:
        """Serve the next request, or end: the reply is not read any more."""
        self._reply = None
        if reusable and self._transport is not None and not self._transport.is_closing():
            self.resume()
            self._idle.append(self)
            self._expiry = asyncio.get_running_loop().call_later(KEEP_ALIVE_SECONDS, self.abort)
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once; what was not sent is dropped."""
        if self._transport is not None:
            self._transport.abort()
        self._leave()

    def expect_more(self) -> None:
        """Let the system acknowledge two tokens with one packet, where the second one comes within 40 ms.

        Otherwise it sends a packet for each that is read, which takes a sixth of all that the system does for a token. A
        server that waits for acknowledgements (Nagle's algorithm) waits 40 ms once: then each read has its own again.
        """
        if sys.platform == "linux" and self._transport is not None and not self._transport.is_closing():
            bound = self._transport.get_extra_info("socket")
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)

    def pause(self) -> None:
        """Read no further."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_reading():
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._all.add(self)

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the reply; what nobody has asked for ends the connection."""
        if self._reply is not None:
            self._reply.feed(data)
        else:
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Leave the pool, and tell the reply."""
        self._transport = None
        self._leave()
        if self._reply is not None:
            self._reply.connection_lost(type(error).__name__ if error else "it closed the connection")

    def _leave(self) -> None:
        self._all.discard(self)
        if self in self._idle:
            self._idle.remove(self)
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
