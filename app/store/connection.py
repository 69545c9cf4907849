"""Connections to Redis: one pool for short commands, single ones for the journal and for blocking reads.

Also the one place where Redis's errors become the service's.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from typing import Any

import hiredis
import redis.exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.domain.errors import StoreFull, StoreUnavailable

#: What a connection that cannot be used raises; error replies are `redis.exceptions.ResponseError` instead.
CONNECTION_ERRORS = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError, TimeoutError)

_PASSING = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.MasterDownError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.NoScriptError,
)

CONNECT_SECONDS = 2.0
#: A short command that takes longer than this counts as an unreachable store.
REPLY_SECONDS = 5.0
POOL_SIZE = 50


class _StoreErrors:
    """A class, as several stand on the way of each message, and a generator of `contextmanager` takes six times as long."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            return
        if isinstance(error, redis.exceptions.OutOfMemoryError):
            raise StoreFull("The store is full. Reading and deleting still work.") from error
        if isinstance(error, CONNECTION_ERRORS):
            raise StoreUnavailable("The store does not answer. Try again shortly.") from error
        if isinstance(error, redis.exceptions.ResponseError) and is_passing(error):
            raise StoreUnavailable("The store is not ready. Try again shortly.") from error


_STORE_ERRORS = _StoreErrors()


def store_errors() -> AbstractContextManager[None]:
    """Turn Redis's errors into `StoreUnavailable` and `StoreFull`; what is a defect of ours passes through."""
    return _STORE_ERRORS


def is_passing(error: redis.exceptions.ResponseError) -> bool:
    """Does an error reply speak of a state of the server (failover, a full disk, somebody's long script), not of the command?

    Scripts that are gone are such a state: they are loaded with each connection of the journal.
    """
    return isinstance(error, _PASSING) or str(error).startswith(("MISCONF", "NOREPLICAS", "UNBLOCKED", "BUSY "))


class Connector:
    """Makes connections to one Redis by its URL (redis://, rediss://, unix://)."""

    def __init__(self, url: str) -> None:
        """Raise ValueError for a URL of another kind."""
        self._kwargs: dict[str, Any] = dict(parse_url(url))
        self._kwargs |= {"decode_responses": True, "socket_connect_timeout": CONNECT_SECONDS}
        self._class: type[Connection] = self._kwargs.pop("connection_class", Connection)
        # One retry: a pooled connection may have been closed while it idled, and all of our commands may be repeated.
        # None after a timeout: a store that hangs is not waited for twice.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=POOL_SIZE,
            timeout=REPLY_SECONDS,
            decode_responses=True,
            socket_timeout=REPLY_SECONDS,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,)),
        )
        #: For short commands, from anywhere. Any: redis-py's annotations are unions of its sync and async forms.
        self.redis: Any = Redis.from_pool(pool)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection of one's own, connected (handshake, AUTH, TLS), without a limit of time on replies."""
        connection = self._class(**self._kwargs, socket_timeout=None, retry=Retry(NoBackoff(), 0))
        try:
            async with asyncio.timeout(REPLY_SECONDS):  # a server that is stopped accepts, and then says nothing
                await connection.connect()  # type: ignore[no-untyped-call]
            yield connection
        finally:
            with suppress(*CONNECTION_ERRORS):
                await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Close the pool."""
        await self.redis.aclose()


#: Returns a command, a tuple of words and numbers, as it goes over the wire (RESP).
pack: Callable[[tuple[str | int, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its stub allows tuples of one only
