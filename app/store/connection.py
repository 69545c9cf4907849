"""Connections to Redis: one pool for short commands, single ones for the journal and for blocking reads.

Also the one place where Redis's errors become the service's.
"""

import asyncio
import logging
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
from app.domain.startup import StartupError

log = logging.getLogger("parley.store")

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
#: Options of redis-py that a URL may hold for other programs, and that have one right value here.
OURS = frozenset(
    (
        *("decode_responses", "encoding", "encoding_errors", "legacy_responses"),
        *("max_connections", "timeout", "socket_timeout", "socket_connect_timeout", "retry_on_timeout"),
    )
)


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
        """Raise StartupError for a URL that can't be used."""
        self._kwargs = _options(url) | {"decode_responses": True, "socket_connect_timeout": CONNECT_SECONDS}
        self._class: type[Connection] = self._kwargs.pop("connection_class", Connection)
        self._check()
        # One retry: a pooled connection may have been closed while it idled, and all of our commands may be repeated.
        # None after a timeout: a store that hangs is not waited for twice.
        pool = BlockingConnectionPool(
            max_connections=POOL_SIZE,
            timeout=REPLY_SECONDS,
            connection_class=self._class,
            **self._kwargs,
            socket_timeout=REPLY_SECONDS,
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,)),
        )
        #: For short commands, from anywhere. Any: redis-py's annotations are unions of its sync and async forms.
        self.redis: Any = Redis.from_pool(pool)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection of one's own, connected (handshake, AUTH, TLS), without a limit of time on replies."""
        connection = self._make()
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

    def _make(self) -> Connection:
        return self._class(**self._kwargs, socket_timeout=None, retry=Retry(NoBackoff(), 0))

    def _check(self) -> None:
        """Make a connection, and don't connect it: an option that redis-py doesn't know is said at the start."""
        try:
            self._make()
        except (TypeError, ValueError, redis.exceptions.RedisError) as error:
            raise StartupError(
                "REDIS_URL: behind its ? stands an option that redis-py does not take, or not there."
            ) from error


def _options(url: str) -> dict[str, Any]:
    """Return the options of a connection that a URL names, without those that are ours. Raises StartupError."""
    try:
        options = dict(parse_url(url))
    except ValueError:  # which may quote what is of a password
        raise StartupError("REDIS_URL is no address, or an option behind its ? has no such value.") from None
    if ours := sorted(OURS & options.keys()):
        log.warning("REDIS_URL: %s is left out, as the service sees to that itself.", ", ".join(ours))
    return {name: value for name, value in options.items() if name not in OURS}


#: Returns a command, a tuple of words and numbers, as it goes over the wire (RESP).
pack: Callable[[tuple[str | int, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its stub allows tuples of one only
