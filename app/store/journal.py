"""The journal: every write of this process's answers, in one pipeline at a time over one connection.

What arrives while a commit is in flight forms the next one. A process that writes few answers commits each event at once;
one that writes many lets some milliseconds pass between two turns, so that each has many events, and commits between them
only what hurries: first words, and what requests wait for. Nothing is shown to a reader before its commit was acknowledged,
as durably as `DURABILITY` asks for. After a lost connection every writer's log is compared with what it had committed.

A commit is no task's work: the acknowledgement's callback hands the events to the readers, and sends what has come
meanwhile. The task `_run` connects, recovers, and otherwise waits for the link to break.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from time import monotonic
from types import NoneType
from typing import Any, Literal

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from app.domain.errors import ParleyError, StoreUnavailable
from app.domain.ids import MessageRef
from app.domain.live_log import LiveLog
from app.domain.measures import Measures
from app.domain.startup import StartupError
from app.store import keys
from app.store.beats import Beats
from app.store.commits import Call, Command, Commit, Waiting
from app.store.connection import CONNECTION_ERRORS, REPLY_SECONDS, Connector, is_passing, pack, store_errors
from app.store.link import Link, link
from app.store.log_writer import Interrupt, LogWriter
from app.store.scripts import JOURNALED, Script

log = logging.getLogger("parley.journal")

Durability = Literal["acknowledged", "fsync", "replica"]

#: A request waits this long for a store that is away; then it is told so.
CALL_PATIENCE_SECONDS = 3.0
#: The store has so long to take what has been posted, at the end.
CLOSE_SECONDS = 1.0
RECONNECT_SECONDS = (0.05, 0.5)
#: For each answer that is written, the next turn waits so long after the one before it, and no longer than so, in seconds.
#: With a hundred streams of 50 tokens/s it has 50 events instead of 6, and a token takes 0.9 of the CPU, 0.75 of the store's.
SPACING_SECONDS = 100e-6
LONGEST_SPACING_SECONDS = 0.01
#: uvloop's timers count milliseconds: a shorter wait than half of one is none.
SHORTEST_WAIT_SECONDS = 0.0005

#: What replies are, but for errors.
_NO_ERRORS = frozenset((str, int, list, NoneType))


class _Outage(Exception):
    """The connection works, but what was asked of the store was not done."""


class Journal:
    """Commits for all runners of the process. `start` it before use; `close` it when no writer is open any more."""

    def __init__(
        self,
        connector: Connector,
        *,
        durability: Durability,
        lease_seconds: float,
        outage_seconds: float,
        measures: Measures,
        conversation_ttl_seconds: float = 0,
    ) -> None:
        """All times in seconds. `conversation_ttl_seconds`: what is written stays so long at least; 0: for ever."""
        self._connector = connector
        self._measures = measures
        self._beats = Beats(lease_seconds=lease_seconds, ttl_seconds=conversation_ttl_seconds, post=self.post)
        self._outage_seconds = outage_seconds
        outage_ms = int(outage_seconds * 1000)
        # A write of our own before it, as these wait for no other: what is sent again after a reconnect may write nothing.
        write = pack(("SET", keys.BARRIER, "", "PX", keys.BARRIER_MS))
        self._wait = {
            "acknowledged": [],
            "fsync": [write, pack(("WAITAOF", 1, 0, outage_ms))],
            "replica": [write, pack(("WAIT", 1, outage_ms))],
        }[durability]
        self._loop: asyncio.AbstractEventLoop
        self._commit_seconds = REPLY_SECONDS + (outage_seconds if self._wait else 0)
        self._writers: dict[MessageRef, LogWriter] = {}
        self._waiting = Waiting()
        self._beat_due = False
        self._link: Link | None = None
        self._soon = False  # is there a commit at the end of this turn of the loop?
        self._later: asyncio.TimerHandle | None = None  # one that waits for its turn
        self._rest_until = 0.0  # the next turn
        self._in_flight: Commit | None = None
        self._down_since: float | None = None
        self._last_error = "no answer"
        self._give_up: asyncio.TimerHandle | None = None
        self._ready: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect; raise StartupError where the store cannot be reached or cannot do what is asked of it."""
        self._loop = asyncio.get_running_loop()  # kept, as asking for it is a system call (getpid) up to Python 3.11
        self._ready = self._loop.create_future()
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._beat())]
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                await self._ready
        except TimeoutError:
            await self.close()
            raise StartupError(
                f"The store cannot be reached ({self._last_error}). Is REDIS_URL right, and does Redis run?"
            ) from None
        except StartupError:
            await self.close()
            raise

    async def close(self) -> None:
        """Send what has been posted, and end the connection. What is not committed then is lost: end all answers first."""
        if self._link is not None and (self._waiting.calls or self._in_flight):
            with suppress(TimeoutError, ParleyError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self.call("PING")  # answered behind all that
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for timer in (self._give_up, self._later):
            if timer is not None:
                timer.cancel()
        for call in self._waiting.calls:
            if call.reply is not None:
                call.reply.cancel()

    def open(self, ref: MessageRef, runner: str, live: LiveLog, interrupt: Callable[[Interrupt], None]) -> LogWriter:
        """Return the writer of an answer that `begin` has opened; its lease is renewed until `release`."""
        writer = LogWriter(ref, runner, live, interrupt=interrupt, wake=self._wake_for)
        self._writers[ref] = writer
        return writer

    def release(self, writer: LogWriter) -> None:
        """Forget a writer."""
        if self._writers.get(writer.ref) is writer:  # another one's, where a failover has lost the answer
            del self._writers[writer.ref]
        self._waiting.forget(writer)
        # It belongs to whom it interrupts: that circle would keep an answer that is over until the collector comes.
        writer.interrupt = _ignore

    def run_script(
        self,
        script: Script,
        names: list[str],
        args: list[str | int],
        *,
        patience: float | None = CALL_PATIENCE_SECONDS,
        overdue: Callable[[], None] | None = None,
    ) -> Awaitable[Any]:
        """Run a journaled script with the next commit, and what is posted right behind this call with it; await the reply.

        It may be sent twice where a connection is lost, so it has to be one that can be repeated. Raises StoreFull, and
        StoreUnavailable after `patience` seconds (None: waits for as long as it takes, and for its turn as tokens do).
        `overdue` as in `ask`.
        """
        command = ("EVALSHA", script.sha, len(names), *names, *args)
        return _reply_of(self.ask(*command, patience=patience, overdue=overdue))

    async def call(self, *command: str | int, patience: float | None = CALL_PATIENCE_SECONDS) -> Any:
        """Send one command that can be repeated with the next commit; as `run_script`."""
        return await _reply_of(self.ask(*command, patience=patience))

    def ask(
        self,
        *command: str | int,
        patience: float | None = CALL_PATIENCE_SECONDS,
        overdue: Callable[[], None] | None = None,
    ) -> asyncio.Future[Any]:
        """Return the reply to come instead, which raises Redis's errors; for commands that are to go together.

        `overdue`: called after `patience` where the command has been sent, so that it may have been done: its reply is
        waited for `outage_seconds` longer then, since what it has begun is to be gone on with.
        """
        now = self._loop.time()
        down = self._down_since
        if patience is not None and down is not None and now - down > patience:
            raise StoreUnavailable("The store does not answer. Try again shortly.")
        reply: asyncio.Future[Any] = self._loop.create_future()
        call = Call(pack(command), reply, inf if patience is None else now + patience, overdue)
        self._waiting.call(call, hurry=patience is not None)
        self._wake()
        return reply

    def post(self, *command: str | int) -> None:
        """Send one command that can be repeated, some time soon; nobody waits for its reply, an error is logged."""
        self._waiting.call(Call(pack(command), None, inf))
        self._wake()

    # --- the loop -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        delay, longest = RECONNECT_SECONDS
        while True:
            try:
                async with link(self._connector) as connected:
                    await self._recover(connected)
                    delay = RECONNECT_SECONDS[0]
                    self._link = connected
                    self._wake()
                    await connected.ended()
            except (*CONNECTION_ERRORS, RedisError, _Outage) as error:
                self._went_down(error)
            except Exception as error:  # a defect: every writer is reconciled, and it goes on
                log.exception("The journal failed.")
                self._went_down(error)
            finally:
                self._link = None
                self._take_back()
            # Full jitter, and never longer than half a second: a runner has to be back before its lease is doubted.
            await asyncio.sleep(random.uniform(0, delay))  # noqa: S311 - no secret
            delay = min(delay * 2, longest)

    async def _recover(self, connected: Link) -> None:
        """Load the scripts, take the leases again, and bring every writer to where its log stands."""
        writers = [writer for writer in self._writers.values() if writer.broken is None]
        packed = [pack(("SCRIPT", "LOAD", script.text)) for script in JOURNALED]
        for writer in writers:
            packed.append(self._beats.renewal(writer))
            packed.append(pack(("XREVRANGE", writer.key, "+", "-", "COUNT", 1)))
        async with asyncio.timeout(self._commit_seconds):
            replies = await connected.exchange(packed + self._wait)
        self._check(replies)
        for script, reply in zip(JOURNALED, replies, strict=False):
            if reply != script.sha:
                self._refuse(
                    f"The store cannot run this service's scripts: it needs Redis or Valkey 7.0 or newer ({reply})."
                )
        tops = replies[len(JOURNALED) + 1 : len(packed) : 2]
        for writer, top in zip(writers, tops, strict=True):
            writer.reconcile(top[0] if top else None)
        self._came_up()

    def _wake(self) -> None:
        """See to it that there is a commit: behind that in flight, and once all that this turn of the loop brings is there."""
        if self._link is None or self._link.busy or self._soon:
            return
        wait = self._rest_until - self._loop.time()
        if self._waiting.hurry or wait < SHORTEST_WAIT_SECONDS:
            self._soon = True
            self._loop.call_soon(self._commit)
        elif self._later is None:
            self._later = self._loop.call_later(wait, self._in_turn)

    def _in_turn(self) -> None:
        self._later = None
        self._rest_until = 0.0  # the timer may be early
        self._commit()

    def _commit(self) -> None:
        """Send what hurries, and, where it is their turn, the words of all answers."""
        self._soon = False
        connected = self._link
        if connected is None or connected.busy:
            return
        now = self._loop.time()
        in_turn = self._rest_until - now < SHORTEST_WAIT_SECONDS
        if in_turn:
            self._rest_until = now + min(SPACING_SECONDS * len(self._writers), LONGEST_SPACING_SECONDS)
            if self._later is not None:
                self._later.cancel()
                self._later = None
        # Where a commit waits for more than Redis, two of them would take twice as long as one.
        calls, writers, packed = self._waiting.take(all_words=in_turn or bool(self._wait))
        beats: list[Command] = []
        if self._beat_due:
            self._beat_due = False
            beats = self._beats.commands(self._writers.values())
            packed += [command.packed for command in beats]
        if packed:
            self._in_flight = Commit(calls, writers, beats, monotonic())
            connected.send(packed + self._wait, self._acknowledged)
        elif self._waiting:
            self._wake()  # whoever hurried has left

    def _acknowledged(self, replies: list[Any]) -> None:
        """Take the replies of the commit that was in flight. Raises _Outage where they tell of one."""
        assert self._in_flight is not None
        self._check(replies)
        commit, self._in_flight = self._in_flight, None
        calls, writers, beats = commit.calls, commit.writers, commit.beats
        self._measures.committed(len(replies) - len(self._wait), monotonic() - commit.since)
        if calls or beats:
            for call, reply in zip(calls, replies, strict=False):
                call.deliver(reply)
            first_beat = len(calls) + len(writers)
            for command, reply in zip(beats, replies[first_beat:], strict=False):
                command.done(reply)
            replies = replies[len(calls) : first_beat]
        for writer, reply in zip(writers, replies, strict=False):
            writer.acknowledged(reply)
        if self._waiting:
            self._wake()

    def _check(self, replies: list[Any]) -> None:
        """Raise _Outage where a reply speaks of the server's state, or the commit is not as durable as asked for."""
        if not {*map(type, replies)} <= _NO_ERRORS:
            for reply in replies:
                if isinstance(reply, Exception) and (not isinstance(reply, ResponseError) or is_passing(reply)):
                    raise _Outage(str(reply)) from reply
        if self._wait:
            self._check_durability(replies[-1])

    def _take_back(self) -> None:
        """Queue the calls of a commit that was lost again; what the writers had in flight, they know themselves."""
        lost, self._in_flight = self._in_flight, None
        if lost is not None:
            self._waiting.repeat(lost.calls)

    def _check_durability(self, reply: Any) -> None:
        if isinstance(reply, ResponseError):
            self._refuse(
                f"The store cannot give the DURABILITY that is asked for ({reply}): `fsync` needs Redis or Valkey 7.2 "
                "or newer with `appendonly yes`."
            )
        if (reply[0] if isinstance(reply, list) else reply) < 1:
            raise _Outage("fewer acknowledgements than DURABILITY asks for")

    def _refuse(self, sentence: str) -> None:
        """Fail for a reason that no waiting mends: end the start-up, or, later, count it as an outage."""
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(StartupError(sentence))
        raise _Outage(sentence)

    # --- leases and stop marks ----------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._beats.seconds)
            if self._writers:
                self._beat_due = True
                self._wake()
            # Looked at here, as a timer for each call and for each commit would cost more than these.
            self._expire_calls()
            since = self._in_flight.since if self._in_flight is not None else monotonic()
            if monotonic() - since > self._commit_seconds and self._link is not None:
                self._link.fail(RedisConnectionError("a commit was not answered in time"))

    def _expire_calls(self) -> None:
        now = self._loop.time()
        for call in self._in_flight.calls if self._in_flight is not None else ():
            call.sent = True
        for call in (*self._waiting.calls, *(self._in_flight.calls if self._in_flight is not None else ())):
            if call.until >= now:
                continue
            if call.sent and call.overdue is not None:
                call.overdue()
                call.overdue, call.until = None, now + self._outage_seconds
            else:
                call.fail(TimeoutError())

    # --- states -------------------------------------------------------------------------------------------------------

    def _wake_for(self, writer: LogWriter) -> None:
        self._waiting.words(writer)
        if self._later is None or self._waiting.hurry:
            self._wake()

    def _went_down(self, error: Exception) -> None:
        self._last_error = str(error) or type(error).__name__
        self._measures.store_failed()
        if self._down_since is not None:
            return
        self._down_since = self._loop.time()
        self._measures.store_went()
        self._give_up = self._loop.call_later(self._outage_seconds, self._interrupt_all)
        if self._ready is not None and self._ready.done() and not self._ready.exception():
            log.warning("The store is away (%s); %d answers wait for it.", self._last_error, len(self._writers))

    def _came_up(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
        elif self._down_since is not None:
            log.warning("The store is back after %.1f s.", self._loop.time() - self._down_since)
        self._down_since = None
        self._measures.store_came()
        if self._give_up is not None:
            self._give_up.cancel()

    def _interrupt_all(self) -> None:
        for writer in tuple(self._writers.values()):
            writer.interrupt(Interrupt.OUTAGE)


async def _reply_of(asked: asyncio.Future[Any]) -> Any:
    with store_errors():
        return await asked


def _ignore(_: object) -> None:
    """Nobody is to be interrupted any more."""
