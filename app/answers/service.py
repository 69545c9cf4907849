"""Answers as the outside sees them: ask, read, stop, regenerate, drain. Knows which of them are written here."""

import asyncio
import itertools
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

from app.answers.asking import Asking
from app.answers.questions import Questions
from app.answers.readers import Abandonment
from app.answers.recovery import Recovery
from app.answers.runner import Runner
from app.answers.waiting import until
from app.domain.errors import (
    BadCursor,
    ConversationBusy,
    NotAnAnswer,
    ParleyError,
    RateLimited,
    ShuttingDown,
    StoreUnavailable,
    TooBusy,
)
from app.domain.events import Event
from app.domain.ids import MessageRef, message_id, ref_of
from app.domain.limits import Allowance
from app.domain.live_log import LiveLog
from app.domain.log_context import about_answer
from app.domain.measures import Measures
from app.domain.messages import AnswerHead, Ending, replayed, start_data, wire_message
from app.domain.requests import NewMessage, Regenerate
from app.store.admission import Admission, Attached, Begun, Question
from app.store.answers import AnswerStore
from app.store.conversations import ConversationStore, MessageView
from app.store.follower import Follower
from app.store.journal import Journal
from app.store.limits import Limits, Place
from app.upstream.deltas import Delta, Sink

log = logging.getLogger("parley.answers")

_NOT_STOPPED = "The answer could not be stopped yet. Try again shortly."

#: How often a POST that meets a dead answer, or a DELETE that stops one, may find yet another one in its way.
MOST_TRIES = 3
#: How long a request waits for the end of an answer that it has stopped.
STOP_SECONDS = 30.0


class Asked(NamedTuple):
    """The answer to a question, and, where it has begun with this request, what is left of the asker's limits."""

    ref: MessageRef
    left: tuple[Allowance, ...] = ()
    #: The events of an answer that has begun with this request; None: it began before.
    live: LiveLog | None = None


class Answers:
    """All answers, wherever they are written; those of this process in `running`."""

    def __init__(
        self,
        *,
        admission: Admission,
        store: AnswerStore,
        conversations: ConversationStore,
        journal: Journal,
        follower: Follower,
        recovery: Recovery,
        asking: Asking,
        max_buffered_bytes: int,
        abandonment: Abandonment,
        measures: Measures,
        limits: Limits,
        max_active: int,
    ) -> None:
        """`max_active`: as many answers may be written here at the same time; 0: any number."""
        self._admission = admission
        self._store = store
        self._conversations = conversations
        self._journal = journal
        self._follower = follower
        self._recovery = recovery
        self._asking = asking
        self._questions = Questions(store, conversations, models=asking.models)
        #: Those that may be asked for, the default one first.
        self.models = asking.models
        self._max_buffered_bytes = max_buffered_bytes
        self._abandonment = abandonment
        self._measures = measures
        self._limits = limits
        self._max_active = max_active or 1 << 62
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._running: dict[MessageRef, Runner] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.draining = False

    # --- asking -------------------------------------------------------------------------------------------------------

    async def ask(self, owner: str, message: NewMessage, key: str | None, address: str | None) -> Asked:
        """Store a message and begin its answer; with a known idempotency key, return the answer that it began.

        `address`: the client's, where it has limits of its own.
        """
        question = await self._questions.of_message(owner, message, key, address)
        return await self._ask(question, message.options())

    async def regenerate(
        self, owner: str, ref: MessageRef, request: Regenerate, key: str | None, address: str | None
    ) -> Asked:
        """Begin another answer to the message that an answer replies to; as `ask`."""
        question = self._questions.of_regenerate(owner, ref, request, key, address)
        return await self._ask(question, request.options())

    async def attach(self, owner: str, message: NewMessage, key: str | None) -> MessageRef:
        """Find the answer that a repeated POST means, without asking again. Raises BadCursor where there is none."""
        return await self._questions.answered(owner, message, key)

    async def attach_sibling(self, owner: str, ref: MessageRef, request: Regenerate, key: str | None) -> MessageRef:
        """Find the answer that a repeated `regenerate` means, without asking again. Raises BadCursor where there is none."""
        return await self._questions.regenerated(owner, await self._answer(owner, ref), request, key)

    async def _ask(self, question: Question, options: dict[str, Any]) -> Asked:
        if self.draining:
            raise ShuttingDown("This process is shutting down. Send the message again: another one will take it.")
        try:
            asked = await self._spawn(question, options)
        except (TooBusy, RateLimited):
            # What was asked before costs nothing: it attaches.
            ref = await self._questions.asked_before(question)
            if ref is None:
                raise
            return Asked(ref)
        if asked.live is not None:
            about_answer(message_id(*asked.ref))
        return asked

    def _spawn(self, question: Question, options: dict[str, Any]) -> "asyncio.Future[Asked]":
        """Begin an answer and write it, in a task of this process: whoever asks may leave at any moment."""
        if len(self._tasks) >= self._max_active:
            raise TooBusy("This process writes as many answers as it may (MAX_ACTIVE_ANSWERS). Try again shortly.")
        told: asyncio.Future[Asked] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._write(question, options, told))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return told

    async def _write(self, question: Question, options: dict[str, Any], told: "asyncio.Future[Asked]") -> None:
        opened = await self._open(question, options, told)
        del question, options, told  # not kept for as long as the answer is written
        if opened is None:
            return
        runner, deltas = opened
        del opened
        ref = runner.head.ref
        about_answer(message_id(*ref))
        self._measures.answer_begun()
        try:
            async with self._abandonment.watch(runner):
                await runner.run(deltas)
        except Exception:  # a defect: nobody awaits this task, and recovery will end the answer
            log.exception("A runner failed.")
        finally:
            # Where a failover has lost the answer, its id may be another one's now.
            if self._running.get(ref) is runner:
                del self._running[ref]
            self._measures.answer_left()
            if runner.record is None:  # else the end has given it back
                self._limits.ended(runner.place)

    async def _open(
        self, question: Question, options: dict[str, Any], told: "asyncio.Future[Asked]"
    ) -> tuple[Runner, Callable[[Sink], AsyncGenerator[Delta]]] | None:
        """Tell whoever asks what has begun, and return the runner and what it is to write; None where nothing has."""
        name = f"{self._name}.{next(self._numbers)}"
        place = Place(question.owner, question.address, f"{question.conversation}.{name}")
        try:
            begun = await self._begin(question, name, place, partial(_tell_late, told))
        except asyncio.CancelledError:
            _refuse(told, ShuttingDown("This process is shutting down. Send the message again."))
            raise
        except Exception as error:  # whoever asks is told; a defect is logged there, or here where they have left
            if told.done() and not isinstance(error, ParleyError):
                log.exception("An answer could not be begun.")  # a defect, of which nobody else hears
            _refuse(told, error)
            return None
        if isinstance(begun, Attached):
            _tell(told, Asked(begun.ref))
            return None
        runner = self._runner(begun.head, name, place)
        _tell(told, Asked(begun.head.ref, begun.left, runner.live))
        system = question.system or begun.system
        return runner, partial(self._asking.deltas, begun.head, system, begun.records, options)

    async def _begin(
        self, question: Question, name: str, place: Place, overdue: Callable[[], None]
    ) -> Begun | Attached:
        """Open an answer, after the end of a dead one in its way."""
        for last in (*[False] * (MOST_TRIES - 1), True):
            try:
                return await self._admission.begin(question, name, place, overdue)
            except ConversationBusy as busy:
                ref = ref_of(busy.extra["message"])
                if last or ref in self._running or not await self._recovery.settle(ref):
                    raise
        raise AssertionError  # the last try returns or raises

    def _runner(self, head: AnswerHead, name: str, place: Place) -> Runner:
        live = LiveLog([Event("start", start_data(*head.ref, head.parent, head.model), 1)])
        runner = self._running[head.ref] = Runner(
            head,
            live,
            place=place,
            name=name,
            store=self._store,
            journal=self._journal,
            max_buffered_bytes=self._max_buffered_bytes,
            measures=self._measures,
        )
        return runner

    # --- reading ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def reader(self, owner: str) -> AsyncIterator[None]:
        """Count a stream for its owner while it lasts. Raises TooManyReaders.

        Those that a POST has begun are not counted: they end with their answers, which are.
        """
        await self._limits.open_reader(owner)
        try:
            yield
        finally:
            self._limits.close_reader(owner)

    @asynccontextmanager
    async def read(self, owner: str, ref: MessageRef, *, granted: bool = False) -> AsyncIterator[LiveLog]:
        """Lend an answer's events: from memory, from the store as they come, or made again from the stored message.

        `granted`: `ask` or `regenerate` has returned it, so it need not be asked whose it is. Raises NotFound, NotAnAnswer,
        StoreUnavailable.
        """
        runner = self._running.get(ref)
        if runner is not None and granted:
            yield runner.live
            return
        view = await self._answer(owner, ref)
        runner = self._running.get(ref)
        if runner is not None:
            yield runner.live
        elif view.running:
            async with self._follower.follow(ref) as live:
                if live.gone:  # it ended, and its log expired, between two looks
                    view = await self._answer(owner, ref)
                yield LiveLog(replayed(ref, view.record)) if live.gone and not view.running else live
        else:
            yield LiveLog(replayed(ref, view.record))

    async def message(self, owner: str, ref: MessageRef) -> dict[str, Any]:
        """Return a message; of an answer that runs, the text so far. Raises NotFound."""
        view = await self._conversations.read_message(owner, ref)
        if view.running:
            self.look_after(ref)
        return view.wire()

    async def check_cursor(self, ref: MessageRef, live: LiveLog, cursor: int) -> None:
        """Raise BadCursor for one beyond what the answer has; another replica may be ahead of what has come here."""
        if cursor <= live.position:
            return
        if not live.over and ref not in self._running:
            running = await self._store.read_log(ref)
            if running.events and cursor <= running.events[-1].end:
                return
        raise BadCursor("The cursor is beyond what this answer has. Use the id of an event that was received.")

    async def wait(self, owner: str, ref: MessageRef, *, granted: bool = False) -> dict[str, Any]:
        """Wait for the end of an answer and return the message; `granted` as in `read`."""
        runner = self._running.get(ref) if granted else None
        if runner is not None:
            await until(runner.live, lambda: runner.live.over)
            if runner.record is not None:
                return wire_message(ref, runner.record)  # the store need not be asked
        async with self.read(owner, ref, granted=granted) as live:
            await until(live, lambda: live.over)
        view = await self._answer(owner, ref)
        if view.running:
            raise StoreUnavailable("The answer could not be followed to its end. Read the message again.")
        return view.wire()

    def look_after(self, ref: MessageRef) -> None:
        """A GET has met an answer that runs: where nobody writes it any more, it is ended, in the background."""
        if ref not in self._running:
            self._recovery.suspect(ref)

    async def _answer(self, owner: str, ref: MessageRef) -> MessageView:
        view = await self._conversations.read_message(owner, ref)
        if view.record["role"] != "assistant":
            raise NotAnAnswer("That message is a user's. Events, stop and regenerate are for answers.")
        return view

    # --- stopping -----------------------------------------------------------------------------------------------------

    async def stop(self, owner: str, ref: MessageRef) -> dict[str, Any]:
        """Stop an answer, wherever it is written, and return the message once it is final."""
        view = await self._answer(owner, ref)
        if view.running:
            try:
                async with asyncio.timeout(STOP_SECONDS), self.read(owner, ref) as live:
                    runner = self._running.get(ref)
                    if runner is not None:
                        runner.end_as(Ending("stopped"))
                    else:
                        await self._store.mark_stop(ref)
                    await until(live, lambda: live.over)
            except TimeoutError:
                raise StoreUnavailable(_NOT_STOPPED) from None
            view = await self._answer(owner, ref)
            if view.running:
                self.look_after(ref)
                raise StoreUnavailable(_NOT_STOPPED)
        return view.wire()

    async def delete(self, owner: str, conversation: str) -> None:
        """Delete a conversation; a running answer is stopped first. Raises ConversationBusy where others begin all the time."""
        for last in (*[False] * (MOST_TRIES - 1), True):  # another one may begin behind the one that was stopped
            try:
                await self._conversations.delete(owner, conversation)
            except ConversationBusy as busy:
                if last:
                    raise
                await self.stop(owner, ref_of(busy.extra["message"]))
            else:
                return

    async def drain(self, grace_seconds: float) -> None:
        """Begin no more answers; let those that run finish for `grace_seconds`, then end each with its text so far."""
        self.draining = True
        if self._tasks:
            log.info("Shutting down: %d answers may finish within %g s.", len(self._tasks), grace_seconds)
            await asyncio.wait(self._tasks, timeout=grace_seconds)
        for runner in self._running.values():
            runner.end_as(Ending("interrupted"))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)  # two round trips, unless the store is away
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _tell(told: "asyncio.Future[Asked]", asked: Asked) -> None:
    """Tell whoever asks, if they still wait."""
    if not told.done():
        told.set_result(asked)


def _tell_late(told: "asyncio.Future[Asked]") -> None:
    _refuse(
        told,
        StoreUnavailable(
            "The store does not answer yet, and may still take the message. Send it again with the same Idempotency-Key."
        ),
    )


def _refuse(told: "asyncio.Future[Asked]", error: Exception) -> None:
    """As `_tell`."""
    if not told.done():
        told.set_exception(error)
        told.exception()  # asyncio is not to report it where they leave now
