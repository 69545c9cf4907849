"""The journal's own connection: bytes of a pipeline out, all its replies at once into a callback, no task between.

redis-py's `Connection` makes it (handshake, AUTH, TLS), then hands its transport over: reading replies through streams
and awaits costs a token as much as writing it to its reader.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import hiredis
from redis.asyncio.connection import Connection, DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse

from app.store.connection import Connector

#: From this size on a pipeline is not put together before it is sent: a long answer's end would stand in memory twice.
LARGE_BYTES = 65_536

_INCOMPLETE = object()


class Link(asyncio.Protocol):
    """One pipeline at a time."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            # Errors are values: the class by the error's first word, as redis-py has it.
            replyError=cast("Callable[[str], Exception]", DefaultParser.parse_error),
            encoding="utf-8",
            notEnoughData=_INCOMPLETE,
        )
        self._transport: asyncio.Transport | None = None
        self._replies: list[Any] = []
        self._wanted = 0
        self._done: Callable[[list[Any]], None] | None = None
        #: Is a pipeline in flight?
        self.busy = False
        #: Resolved with the reason when it can't be used any more.
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    def take_over(self, transport: asyncio.Transport) -> None:
        """Go on with a transport that is connected, and on which nothing is under way."""
        self._transport = transport
        transport.set_protocol(self)

    def send(self, packed: Sequence[bytes], done: Callable[[list[Any]], None]) -> None:
        """Send packed commands, one each, and call `done` with their replies, error replies as exceptions among them.

        It is not called where the connection is lost before: see `lost`. What it raises ends the connection.
        """
        assert self._transport is not None
        assert self._done is None
        self._wanted, self._done, self.busy = len(packed), done, True
        if sum(map(len, packed)) < LARGE_BYTES:
            self._transport.write(b"".join(packed))
        else:
            self._transport.writelines(packed)

    async def exchange(self, packed: Sequence[bytes]) -> list[Any]:
        """Do the same and return the replies. Raises the reason where the connection is lost."""
        answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.send(packed, answered.set_result)
        await asyncio.wait((answered, self.lost), return_when=asyncio.FIRST_COMPLETED)
        if not answered.done():
            answered.cancel()
            raise self.lost.result()
        return answered.result()

    async def ended(self) -> None:
        """Wait until it can't be used any more, and raise the reason."""
        raise await self.lost

    def fail(self, error: Exception) -> None:
        """Use it no more."""
        self._done = None
        if not self.lost.done():
            self.lost.set_result(error)
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take bytes of replies; where all of a pipeline are there, hand them over."""
        try:
            self._reader.feed(data)
            replies = self._replies
            replies.extend(iter(self._reader.gets, _INCOMPLETE))
            if len(replies) >= self._wanted and self._done is not None:
                done, self._done, self.busy = self._done, None, False
                self._replies = []
                done(replies)
        except Exception as error:  # noqa: BLE001 - it is handed on: here only asyncio would hear of it
            self.fail(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Take the end of the connection."""
        self._transport = None
        self.fail(error or RedisConnectionError("the store closed the connection"))


@asynccontextmanager
async def link(connector: Connector) -> AsyncIterator[Link]:
    """Lend a link, connected; it is closed behind the block. Raises `CONNECTION_ERRORS`."""
    async with connector.connection() as connection:
        made = Link()
        made.take_over(_transport_of(connection))
        try:
            yield made
        finally:
            made.fail(RedisConnectionError("it was closed"))


def _transport_of(connection: Connection) -> asyncio.Transport:
    # redis-py has no public name for it; tests against a real server hold that this works.
    writer = cast("asyncio.StreamWriter", connection._writer)  # noqa: SLF001
    return cast("asyncio.Transport", writer.transport)
