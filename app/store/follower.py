"""Follows event logs that other processes write: one blocking read for each answer, however many readers it has here."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from app.domain.errors import StoreUnavailable
from app.domain.ids import MessageRef
from app.domain.live_log import LiveLog
from app.store import keys
from app.store.barrier import Barrier
from app.store.connection import CONNECTION_ERRORS, REPLY_SECONDS, Connector, store_errors
from app.store.entries import new_events

log = logging.getLogger("parley.follower")

#: A blocking read that ran dry for so long asks whether the runner still lives.
BLOCK_SECONDS = 1.0
RETRY_SECONDS = 0.2


class Follower:
    """Lends live logs of answers that run elsewhere; a log is followed as long as somebody has it."""

    def __init__(
        self,
        connector: Connector,
        barrier: Barrier,
        suspect: Callable[[MessageRef], None],
        *,
        announce_seconds: float,
    ) -> None:
        """`suspect` is called when an answer that has no `end` has fallen silent and has no lease.

        `announce_seconds`: how long a sign that an answer is read here holds, for its runner elsewhere; 0: none is set.
        """
        self._connector = connector
        self._barrier = barrier
        self._suspect = suspect
        self._announce_ms = int(announce_seconds * 1000)
        self._block_ms = int(min(BLOCK_SECONDS, announce_seconds / 4 or BLOCK_SECONDS) * 1000)
        self._followed: dict[MessageRef, _Followed] = {}

    @asynccontextmanager
    async def follow(self, ref: MessageRef) -> AsyncIterator[LiveLog]:
        """Lend the live log of an answer, complete up to now. Raises StoreUnavailable where it can't be read."""
        followed = self._followed.get(ref)
        if followed is None:
            # Entered before the first await, so that two readers at once share one.
            followed = self._followed[ref] = _Followed()
            followed.task = asyncio.create_task(self._feed(ref, followed))
        followed.users += 1
        try:
            await asyncio.shield(followed.filled)
            yield followed.live
        finally:
            followed.users -= 1
            if followed.users == 0 and self._followed.get(ref) is followed:
                del self._followed[ref]
                await _end(followed.task)

    async def _feed(self, ref: MessageRef, followed: "_Followed") -> None:
        try:
            while followed.users and not followed.live.over:
                try:
                    async with self._connector.connection() as connection:
                        await self._tail(connection, ref, followed)
                except (*CONNECTION_ERRORS, RedisError, StoreUnavailable) as error:
                    if not followed.filled.done():
                        with store_errors():
                            raise
                    log.warning("Following an answer was interrupted (%s); going on.", type(error).__name__)
                    await asyncio.sleep(RETRY_SECONDS)
        except BaseException as error:
            if not followed.filled.done():
                followed.filled.set_exception(error)
                followed.filled.exception()  # whoever waits gets it; nobody may be left
            else:
                followed.live.lose()  # its readers come again, here or elsewhere
            if not isinstance(error, Exception):
                raise
            log.debug("Following an answer ended: %s", error)

    async def _tail(self, connection: Connection, ref: MessageRef, followed: "_Followed") -> None:
        live, key = followed.live, keys.events(*ref)
        # From the log's beginning after every reconnect: a failover may have cut entries off, which the runner appends
        # again under other ids. Positions tell what is new.
        await connection.send_command("XRANGE", key, "-", "+")
        async with asyncio.timeout(REPLY_SECONDS):
            entries = await connection.read_response()
        last = "0-0"
        # Its end does not hang on its cancellation alone: redis-py sends with `asyncio.wait_for`, which may lose one, up to
        # Python 3.11.
        while followed.users:
            if entries:
                last = entries[-1][0]
                fresh = new_events(entries, live.position)
                if fresh and not live.over:
                    await self._barrier.passed()
                    live.extend(fresh)
            if not followed.filled.done():
                followed.filled.set_result(None)
            if live.over:
                return
            if not entries and not await self._still_there(ref, live):
                return
            if self._announce_ms:
                await connection.send_command("SET", keys.reader(*ref), "1", "PX", self._announce_ms)
                await connection.read_response()
            await connection.send_command("XREAD", "BLOCK", self._block_ms, "STREAMS", key, last)
            async with asyncio.timeout(BLOCK_SECONDS + REPLY_SECONDS):
                reply = await connection.read_response()
            streams = list(reply.items()) if isinstance(reply, dict) else reply
            entries = streams[0][1] if streams else []

    async def _still_there(self, ref: MessageRef, live: LiveLog) -> bool:
        pipeline = self._connector.redis.pipeline(transaction=False)
        pipeline.exists(keys.events(*ref)).exists(keys.lease(*ref))
        log_exists, lease_exists = await pipeline.execute()
        if not log_exists:
            live.lose()
            return False
        if not lease_exists:
            self._suspect(ref)
        return True


class _Followed:
    def __init__(self) -> None:
        self.live = LiveLog()
        self.users = 0
        self.filled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None]


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
