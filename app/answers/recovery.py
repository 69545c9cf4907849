"""Ends answers whose runner has died, for whoever meets one: a reader that fell silent, a GET, the next POST.

A runner proves its life by its lease, or by what it writes. One without either gets another lease's time, because a
runner whose store was away has to come back first; then the answer ends as `interrupted`, with its text so far.
"""

import asyncio
import logging

from app.domain.errors import ParleyError
from app.domain.ids import MessageRef
from app.domain.messages import Ending
from app.store.answers import AnswerStore, RunningLog

log = logging.getLogger("parley.recovery")

LOOK_SECONDS = 0.2


class Recovery:
    """One watch at a time for each answer, however many ask for it."""

    def __init__(self, store: AnswerStore, *, lease_seconds: float) -> None:
        self._store = store
        self._lease_seconds = lease_seconds
        self._watches: dict[MessageRef, asyncio.Task[bool]] = {}

    async def settle(self, ref: MessageRef) -> bool:
        """Wait until an answer's runner has shown life (False), or the answer has ended, if need be by us (True).

        Takes one renewal where the runner lives, at most two leases where it is dead. Raises StoreUnavailable.
        """
        return await asyncio.shield(self._watch(ref))

    def suspect(self, ref: MessageRef) -> None:
        """Do the same in the background."""
        self._watch(ref)

    async def close(self) -> None:
        """End all watches."""
        watches = list(self._watches.values())
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)

    def _watch(self, ref: MessageRef) -> asyncio.Task[bool]:
        watch = self._watches.get(ref)
        if watch is None:
            watch = self._watches[ref] = asyncio.create_task(self._settle(ref))
            watch.add_done_callback(lambda done: self._over(ref, done))
        return watch

    def _over(self, ref: MessageRef, watch: asyncio.Task[bool]) -> None:
        self._watches.pop(ref, None)
        if not watch.cancelled() and (error := watch.exception()) is not None:
            level = logging.INFO if isinstance(error, ParleyError) else logging.ERROR
            log.log(level, "Could not look after an answer: %s", error)

    async def _settle(self, ref: MessageRef) -> bool:
        loop = asyncio.get_running_loop()
        first = last = await self._store.proof_of_life(ref)
        silent_since = loop.time()
        while last.lease_ms > 0 or loop.time() - silent_since < self._lease_seconds:
            await asyncio.sleep(LOOK_SECONDS)
            now = await self._store.proof_of_life(ref)
            if now.ended:
                return True
            if now.lease_ms > last.lease_ms or now.last_id != first.last_id:
                return False
            if last.lease_ms > 0:
                silent_since = loop.time()
            last = now
        running = await self._store.read_log(ref)
        if running.leased or running.last_id != first.last_id:
            return False
        return await self._interrupt(running)

    async def _interrupt(self, running: RunningLog) -> bool:
        if running.head is None:
            return True
        outcome = await self._store.finish(running.head, running.events, Ending("interrupted"), running.last_id)
        if outcome.finished == "done":
            log.warning("The runner of an answer is gone; the answer was ended as interrupted.")
        return outcome.finished != "refused"
