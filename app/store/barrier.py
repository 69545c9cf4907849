"""What is read from the store is shown only when it is as durable as `DURABILITY` asks for: others may have written it just now.

`WAIT` and `WAITAOF` wait for what their own connection has written, and with it for all that the server had done before:
so each is sent behind a small write. One is under way at a time; whoever comes meanwhile shares the next one.
"""

import asyncio

from app.domain.errors import StoreUnavailable
from app.store import keys
from app.store.connection import REPLY_SECONDS, Connector, store_errors
from app.store.journal import Durability

#: Less than what a command of the pool may take.
WAIT_MS = int((REPLY_SECONDS - 1) * 1000)


class Barrier:
    """Waits for what has been read to be durable."""

    def __init__(self, connector: Connector, durability: Durability) -> None:
        """With 'acknowledged' nothing is waited for."""
        self._redis = connector.redis
        self._command = {"acknowledged": (), "fsync": ("WAITAOF", 1, 0, WAIT_MS), "replica": ("WAIT", 1, WAIT_MS)}[
            durability
        ]
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def passed(self) -> None:
        """Return when all that the store holds now is durable. Raises StoreUnavailable where it is not within seconds."""
        if self._command:
            if self._next is None:
                self._next = asyncio.create_task(self._wait(self._running))
            await asyncio.shield(self._next)

    async def _wait(self, before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await asyncio.wait((before,))
        self._running, self._next = self._next, None
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.set(keys.BARRIER, "", px=keys.BARRIER_MS).execute_command(*self._command)
        with store_errors():
            _, reply = await pipeline.execute()
        if (reply[0] if isinstance(reply, list) else reply) < 1:
            raise StoreUnavailable("The store has fewer copies than DURABILITY asks for. Try again shortly.")
