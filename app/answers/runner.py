"""The runner: one task that pipes the upstream into an answer's event log, and ends the answer whatever happens."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict
from time import monotonic
from typing import Any, cast

from app.domain.errors import InternalError, ParleyError, StoreFull, StoreUnavailable, UpstreamError
from app.domain.events import dump, events_after
from app.domain.live_log import LiveLog
from app.domain.measures import Measures
from app.domain.messages import AnswerError, AnswerHead, Ending, UsageCount
from app.store.answers import AnswerStore
from app.store.journal import Journal
from app.store.limits import Place
from app.store.log_writer import Interrupt
from app.upstream.deltas import Delta, Notice, Sink, ToolCall

log = logging.getLogger("parley.runner")

_WRITTEN_BY_OTHERS = (Interrupt.FENCED, Interrupt.GONE)


class Runner:
    """Writes one answer. It belongs to the process: readers come and go, `live` is what they read."""

    __slots__ = (
        "_ending",
        "_has_token",
        "_interrupted",
        "_journal",
        "_last_token",
        "_max_buffered_bytes",
        "_measures",
        "_piping",
        "_store",
        "_writer",
        "head",
        "live",
        "place",
        "record",
    )

    def __init__(
        self,
        head: AnswerHead,
        live: LiveLog,
        *,
        place: Place,
        name: str,
        store: AnswerStore,
        journal: Journal,
        max_buffered_bytes: int,
        measures: Measures,
    ) -> None:
        """`name` is what the lease says, `place` what ends with the answer. Starts nothing yet: see `run`."""
        self.head = head
        self.live = live
        #: The message as it is stored; None until this runner has ended it.
        self.record: dict[str, Any] | None = None
        #: What ends with the answer.
        self.place = place
        self._store = store
        self._measures = measures
        #: When the last token came, or the answer began; and has one come?
        self._last_token = monotonic()
        self._has_token = False
        self._max_buffered_bytes = max_buffered_bytes or 1 << 62
        self._ending = Ending("completed")
        self._interrupted: Ending | None = None
        self._piping: asyncio.Task[Any] | None = None  # the task that runs this, as long as the upstream is read
        self._journal = journal
        self._writer = journal.open(head.ref, name, live, self._on_interrupt)

    async def run(self, deltas: Callable[[Sink], AsyncGenerator[Delta]]) -> None:
        """Write the answer from its first token to its end; returns when the log is over."""
        try:
            await self._finish(self._interrupted or await self._generate(deltas))
        finally:
            self._journal.release(self._writer)
            if not self.live.over:
                self.live.lose()

    def end_as(self, ending: Ending) -> None:
        """Stop the upstream, and end the answer so: a stop, a shutdown. The first reason counts."""
        if self._interrupted is None:
            self._interrupted = ending
            if self._piping is not None:
                self._piping.cancel()

    def _on_interrupt(self, reason: Interrupt) -> None:
        match reason:
            case Interrupt.STOP:
                self.end_as(Ending("stopped"))
            case Interrupt.FULL:
                self.end_as(failed(StoreFull("The store is full; this is what it had taken.")))
            case Interrupt.OUTAGE:
                self.end_as(failed(StoreUnavailable("The store was away for too long.")))
            case Interrupt.FENCED | Interrupt.GONE:
                self.end_as(Ending("interrupted"))

    async def _generate(self, deltas: Callable[[Sink], AsyncGenerator[Delta]]) -> Ending:
        self._piping = task = asyncio.current_task()
        assert task is not None
        try:
            async with aclosing(deltas(self)) as stream:
                async for delta in stream:
                    if not self.take((delta,), isinstance(delta, tuple | ToolCall)):
                        await self.room()
        except asyncio.CancelledError:
            # An interrupt ends the reading of the upstream, and nothing else; who else cancels, means all of it.
            if self._interrupted is None or task.uncancel():
                raise
        except UpstreamError as error:
            self._ending = failed(error)
        except Exception:  # a defect: it is logged, and the reader still gets an end
            log.exception("An answer failed.")
            self._ending = failed(InternalError("The service failed to write this answer."))
        finally:
            self._piping = None
        return self._interrupted or self._ending

    def say(self, text: str, now: float) -> bool:
        """As `Sink.say`: hand text to the log's writer."""
        self._measures.next_token(now - self._last_token)
        self._last_token = now
        writer = self._writer
        writer.append(("message", text))
        return writer.buffered < self._max_buffered_bytes

    def take(self, deltas: Sequence[Delta], tokens: int) -> bool:
        """As `Sink.take`: hand deltas to the log's writer."""
        writer = self._writer
        if tokens and self._measures.on:
            now = monotonic()
            if self._has_token:
                self._measures.next_tokens(tokens, now - self._last_token)
            else:
                self._measures.first_tokens(tokens, now - self._last_token)
                self._has_token = True
            self._last_token = now
        for delta in deltas:
            if isinstance(delta, tuple):  # nearly all are
                writer.append(delta)
            elif isinstance(delta, Notice):
                writer.append(("notice", dump(delta.data)))
            elif isinstance(delta, ToolCall):
                writer.append(("tool_call", dump(asdict(delta))))
            else:
                counts = cast("UsageCount", delta.usage._asdict()) if delta.usage else None
                self._ending = Ending("completed", delta.reason, delta.model, counts)
        return writer.buffered < self._max_buffered_bytes

    async def room(self) -> None:
        """As `Sink.room`: wait until the store has taken some of what is buffered."""
        await self._writer.room(self._max_buffered_bytes)

    async def _finish(self, ending: Ending) -> None:
        writer, live = self._writer, self.live
        reconciled = -1
        # Again where a failover has lost what was committed, and the writer has put it back: in other entries.
        while writer.reconciled != reconciled:
            tail = await writer.tail()
            if writer.broken in _WRITTEN_BY_OTHERS:
                break
            if writer.broken is Interrupt.FULL and self._interrupted is not None:
                ending = self._interrupted
            reconciled = writer.reconciled
            outcome = await self._store.finish(
                self.head, live.events, ending, writer.last_id, tail=tail, place=self.place
            )
            if outcome.finished == "done":
                self.record = outcome.record
                live.extend([*tail, outcome.end])
                return
        await self._read_foreign_end()

    async def _read_foreign_end(self) -> None:
        """Somebody else has ended the answer: our readers get that end, or, where the log is gone, none."""
        log.warning("An answer of this process was ended by another one; this runner stops.")
        running = await self._store.read_log(self.head.ref)
        fresh = events_after(running.events, self.live.position)
        if fresh and fresh[-1].kind == "end":
            self.live.extend(fresh)


def failed(error: ParleyError) -> Ending:
    """Return the ending of an answer that an error ended."""
    told: AnswerError = {"code": error.code, "message": error.detail, "retryable": error.retryable}
    return Ending("failed", error=told)
