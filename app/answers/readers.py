"""Answers that nobody reads: stops them after `ABANDONED_ANSWER_SECONDS`, also counting readers in other processes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from app.answers.runner import Runner
from app.domain.errors import StoreUnavailable
from app.domain.messages import Ending
from app.store.answers import AnswerStore


class Abandonment:
    """Watches for readers; `seconds` 0: answers go on whoever reads them."""

    def __init__(self, store: AnswerStore, *, seconds: float) -> None:
        self._store = store
        self._seconds = seconds

    def watch(self, runner: Runner) -> AbstractAsyncContextManager[None]:
        """Stop the runner when it has had no reader for so long."""
        return self._watching(runner) if self._seconds else nullcontext()

    @asynccontextmanager
    async def _watching(self, runner: Runner) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch(runner))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, runner: Runner) -> None:
        step = self._seconds / 4
        unread = 0
        while unread < 4:
            await asyncio.sleep(step)
            unread = 0 if await self._is_read(runner) else unread + 1
        runner.end_as(Ending("stopped"))

    async def _is_read(self, runner: Runner) -> bool:
        if runner.live.readers:
            return True
        try:
            return await self._store.has_reader(runner.head.ref)
        except StoreUnavailable:
            return True  # it can't be known, and readers elsewhere may be waiting for the store as we are
