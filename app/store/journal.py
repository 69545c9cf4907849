"""The journal: every write of this process's answers, in one pipeline at a time over one connection.

What arrives while a commit is in flight forms the next one; there is no timer, so an idle process commits each event at
once and a busy one commits many together. Nothing is shown to a reader before its commit was acknowledged, as durably
as `DURABILITY` asks for. After a lost connection every writer's log is compared with what it had committed.

redis-py's `Connection` with packed commands, not its pipeline object: the object costs some 30 microseconds a token.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from redis.asyncio.connection import Connection
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError, ResponseError

from app.domain.errors import StoreUnavailable
from app.domain.ids import MessageRef
from app.domain.live_log import LiveLog
from app.domain.startup import StartupError
from app.store import keys
from app.store.connection import CONNECTION_ERRORS, REPLY_SECONDS, Connector, is_passing, pack, store_errors
from app.store.log_writer import Interrupt, LogWriter
from app.store.scripts import JOURNALED, Script

log = logging.getLogger("parley.journal")

Durability = Literal["acknowledged", "fsync", "replica"]

#: A request waits this long for a store that is away; then it is told so.
CALL_PATIENCE_SECONDS = 3.0
#: How often stop marks are read (half of the second within which a stop from another replica is to take effect).
BEAT_SECONDS = 0.4
RECONNECT_SECONDS = (0.05, 0.5)


class _Outage(Exception):
    """The connection works, but what was asked of the store was not done."""


class _Call(NamedTuple):
    packed: bytes
    reply: asyncio.Future[Any]


class _Command(NamedTuple):
    packed: bytes
    done: Callable[[Any], None]


class Journal:
    """Commits for all runners of the process. `start` it before use; `close` it when no writer is open any more."""

    def __init__(
        self, connector: Connector, *, durability: Durability, lease_seconds: float, outage_seconds: float
    ) -> None:
        self._connector = connector
        self._lease_ms = int(lease_seconds * 1000)
        self._lease_beats = max(1, int(lease_seconds / 3 / BEAT_SECONDS))
        self._outage_seconds = outage_seconds
        outage_ms = int(outage_seconds * 1000)
        self._wait = {
            "acknowledged": b"",
            "fsync": pack("WAITAOF", 1, 0, outage_ms),
            "replica": pack("WAIT", 1, outage_ms),
        }[durability]
        self._commit_seconds = REPLY_SECONDS + (outage_seconds if self._wait else 0)
        self._writers: dict[MessageRef, LogWriter] = {}
        self._dirty: dict[LogWriter, None] = {}
        self._calls: deque[_Call] = deque()
        self._beats = 0
        self._beat_due = False
        self._idle: asyncio.Future[None] | None = None
        self._down_since: float | None = None
        self._last_error = "no answer"
        self._give_up: asyncio.TimerHandle | None = None
        self._ready: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect; raise StartupError where the store cannot be reached or cannot do what is asked of it."""
        self._ready = asyncio.get_running_loop().create_future()
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
        """End the connection. What is not committed by now is lost: end all answers first."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._give_up is not None:
            self._give_up.cancel()
        for call in self._calls:
            call.reply.cancel()

    def open(self, ref: MessageRef, runner: str, live: LiveLog, interrupt: Callable[[Interrupt], None]) -> LogWriter:
        """Return the writer of an answer that `begin` has opened; its lease is renewed until `release`."""
        writer = LogWriter(ref, runner, live, interrupt=interrupt, wake=self._wake_for)
        self._writers[ref] = writer
        return writer

    def release(self, writer: LogWriter) -> None:
        """Forget a writer."""
        self._writers.pop(writer.ref, None)
        self._dirty.pop(writer, None)

    async def run_script(
        self, script: Script, names: list[str], args: list[str | int], *, patience: float | None = CALL_PATIENCE_SECONDS
    ) -> Any:
        """Run a journaled script with the next commit and return its reply.

        It may be sent twice where a connection is lost, so it has to be one that can be repeated. Raises StoreFull, and
        StoreUnavailable after `patience` seconds (None: waits for as long as it takes).
        """
        return await self.call("EVALSHA", script.sha, len(names), *names, *args, patience=patience)

    async def call(self, *command: str | int, patience: float | None = CALL_PATIENCE_SECONDS) -> Any:
        """Send one command that can be repeated with the next commit; as `run_script`."""
        loop = asyncio.get_running_loop()
        down = self._down_since
        if patience is not None and down is not None and loop.time() - down > patience:
            raise StoreUnavailable("The store does not answer. Try again shortly.")
        call = _Call(pack(*command), loop.create_future())
        self._calls.append(call)
        self._wake()
        with store_errors():
            async with asyncio.timeout(patience):
                return await call.reply

    def post(self, *command: str | int) -> None:
        """Send one command that can be repeated with the next commit, and don't wait for it; an error is logged."""
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        reply.add_done_callback(_log_failure)
        self._calls.append(_Call(pack(*command), reply))
        self._wake()

    # --- the loop -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        delay, longest = RECONNECT_SECONDS
        while True:
            try:
                async with self._connector.connection() as connection:
                    await self._recover(connection)
                    delay = RECONNECT_SECONDS[0]
                    await self._serve(connection)
            except (*CONNECTION_ERRORS, RedisError, _Outage) as error:
                self._went_down(error)
            # Full jitter, and never longer than half a second: a runner has to be back before its lease is doubted.
            await asyncio.sleep(random.uniform(0, delay))  # noqa: S311 - no secret
            delay = min(delay * 2, longest)

    async def _recover(self, connection: Connection) -> None:
        """Load the scripts, take the leases again, and bring every writer to where its log stands."""
        writers = [writer for writer in self._writers.values() if writer.broken is None]
        packed = [pack("SCRIPT", "LOAD", script.text) for script in JOURNALED]
        for writer in writers:
            packed.append(self._renewal(writer))
            packed.append(pack("XREVRANGE", writer.key, "+", "-", "COUNT", 1))
        replies = await self._exchange(connection, packed)
        for script, reply in zip(JOURNALED, replies, strict=False):
            if reply != script.sha:
                self._refuse(
                    f"The store cannot run this service's scripts: it needs Redis or Valkey 7.0 or newer ({reply})."
                )
        tops = replies[len(JOURNALED) + 1 :: 2]
        for writer, top in zip(writers, tops, strict=False):
            writer.reconcile(top[0] if top else None)
        self._came_up()

    async def _serve(self, connection: Connection) -> None:
        while True:
            if not (self._calls or self._dirty or self._beat_due):
                self._idle = asyncio.get_running_loop().create_future()
                await self._idle
            commands: list[_Command] = []
            calls, self._calls = self._calls, deque()
            dirty, self._dirty = self._dirty, {}
            commands += [_Command(call.packed, _deliver(call.reply)) for call in calls if not call.reply.done()]
            commands += [_Command(pack(*writer.take()), writer.acknowledged) for writer in dirty if writer.has_pending]
            if self._beat_due:
                self._beat_due = False
                commands += self._beat_commands()
            try:
                replies = await self._exchange(connection, [command.packed for command in commands])
            except BaseException:
                self._calls = deque(call for call in (*calls, *self._calls) if not call.reply.done())
                raise
            for command, reply in zip(commands, replies, strict=False):
                command.done(reply)

    async def _exchange(self, connection: Connection, packed: list[bytes]) -> list[Any]:
        """Send commands and return their replies, error replies among them, once they are as durable as asked for."""
        if not packed:
            return []
        count = len(packed)
        async with asyncio.timeout(self._commit_seconds):
            if self._wait:
                packed = [*packed, self._wait]
            await connection.send_packed_command([b"".join(packed)], check_health=False)
            replies = [await _reply(connection) for _ in range(count)]
            if self._wait:
                self._check_durability(await _reply(connection))
        return replies

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
            await asyncio.sleep(BEAT_SECONDS)
            if self._writers:
                self._beat_due = True
                self._wake()

    def _beat_commands(self) -> list[_Command]:
        renew = self._beats % self._lease_beats == 0
        self._beats += 1
        commands: list[_Command] = []
        for writer in self._writers.values():
            if writer.broken is None:
                mark = pack("HGET", keys.chat(writer.ref.conversation), "stop")
                commands.append(_Command(mark, _stop_mark(writer)))
                if renew:
                    commands.append(_Command(self._renewal(writer), _ignore))
        return commands

    def _renewal(self, writer: LogWriter) -> bytes:
        return pack("SET", keys.lease(*writer.ref), writer.runner, "PX", self._lease_ms)

    # --- states -------------------------------------------------------------------------------------------------------

    def _wake_for(self, writer: LogWriter) -> None:
        self._dirty[writer] = None
        self._wake()

    def _wake(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _went_down(self, error: Exception) -> None:
        self._last_error = str(error) or type(error).__name__
        if self._down_since is not None:
            return
        loop = asyncio.get_running_loop()
        self._down_since = loop.time()
        self._give_up = loop.call_later(self._outage_seconds, self._interrupt_all)
        if self._ready is not None and self._ready.done() and not self._ready.exception():
            log.warning("The store is away (%s); %d answers wait for it.", self._last_error, len(self._writers))

    def _came_up(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
        elif self._down_since is not None:
            log.warning("The store is back after %.1f s.", asyncio.get_running_loop().time() - self._down_since)
        self._down_since = None
        if self._give_up is not None:
            self._give_up.cancel()

    def _interrupt_all(self) -> None:
        for writer in tuple(self._writers.values()):
            writer.interrupt(Interrupt.OUTAGE)


async def _reply(connection: Connection) -> Any:
    try:
        return await connection.read_response()
    except OutOfMemoryError as error:
        return error
    except NoScriptError as error:
        raise _Outage("the scripts are gone") from error  # connecting again loads them
    except ResponseError as error:
        if is_passing(error):
            raise _Outage(str(error)) from error
        return error


def _deliver(future: asyncio.Future[Any]) -> Callable[[Any], None]:
    def deliver(reply: Any) -> None:
        if not future.done():
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

    return deliver


def _stop_mark(writer: LogWriter) -> Callable[[Any], None]:
    def read(reply: Any) -> None:
        if reply == str(writer.ref.number):
            writer.interrupt(Interrupt.STOP)

    return read


def _ignore(_: Any) -> None:
    """A renewal that failed shows at the next commit."""


def _log_failure(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.warning("A write that nobody waits for failed: %s", error)
