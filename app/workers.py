"""`WORKERS` processes that share a port and a store, and their parent, which serves nothing itself.

The parent owns what there is once: the port, the embedded store, the demo model, the memory of what is counted. It starts
the workers, puts another one in the place of one that died, and hands signals on.

On Linux each worker has a listening socket of its own (SO_REUSEPORT), made by the parent. The kernel spreads connections
evenly over them, by a hash; with one socket for all, the worker that wakes first takes a whole burst, and streams stay
where they are. As the parent keeps the sockets open, a connection that a dead worker had not accepted waits for the next
one, where it would otherwise be reset.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from typing import Any

from app.domain.measures import ROW_BYTES, Board, Measures
from app.domain.startup import StartupError
from app.listening import Sockets, bind
from app.serve import Stop, collect_what_is_new, metrics_listener, say_where
from app.settings import Settings
from app.shared import Shared, shared

log = logging.getLogger("parley.workers")

#: The wait before a dead worker's place is filled again: nothing at first, more where the next one dies early.
RESTART_SECONDS = (0.1, 5.0)
#: One that has lived so long has not died of its start.
HEALTHY_SECONDS = 10.0
#: Beyond the grace, until a worker that doesn't end is killed.
END_SECONDS = 10.0


async def serve_with_workers(settings: Settings) -> None:
    """Start the workers, keep them, and end them. Raises StartupError."""
    with ExitStack() as stack:
        listening = bind(
            settings.host,
            settings.port,
            settings.workers,
            stack,
            send_timeout_seconds=settings.send_timeout_seconds,
        )
        board = stack.enter_context(_board(settings.workers))
        stop = Stop()
        async with shared(settings) as common, AsyncExitStack() as serving:
            stop.on_signals()
            crew = [_Worker(settings, common, index, sockets, board) for index, sockets in enumerate(listening)]
            try:
                # One alone, first: what is wrong with all of them is said once.
                for some in (crew[:1], crew[1:]):
                    if not all(await asyncio.gather(*(worker.start() for worker in some))):
                        raise StartupError("A worker could not start.")
                measures = Measures(Board(settings.workers, board), row=None)
                measures.watch_routes(crew[0].routes)
                await serving.enter_async_context(metrics_listener(settings, measures))
                say_where(*listening[0][0].getsockname()[:2])
                collect_what_is_new()
                keeping = [asyncio.create_task(worker.keep()) for worker in crew]
                await stop.drain.wait()
                if settings.close_on_shutdown:  # the workers close their own
                    for sock in (sock for sockets in listening for sock in sockets):
                        sock.close()
                await _end(crew, keeping, stop, settings.shutdown_grace_seconds)
            finally:
                for worker in crew:
                    worker.send(signal.SIGKILL)
    log.info("Ended.")


async def _end(crew: list["_Worker"], keeping: list[asyncio.Task[None]], stop: Stop, grace_seconds: float) -> None:
    for worker in crew:
        worker.end()
    now = asyncio.create_task(stop.now.wait())
    everyone = asyncio.gather(*keeping)
    try:
        async with asyncio.timeout(grace_seconds + END_SECONDS):
            await asyncio.wait((everyone, now), return_when=asyncio.FIRST_COMPLETED)
            if not everyone.done():
                log.info("A second signal: ending now.")
                for worker in crew:
                    worker.send(signal.SIGINT)
            await everyone
    except TimeoutError:
        log.warning("A worker did not end when asked to; killing it.")
    finally:
        now.cancel()


class _Worker:
    """A worker's place: the process that has it now, and those that come after it."""

    def __init__(self, settings: Settings, common: Shared, index: int, sockets: Sockets, board: int) -> None:
        self._index = index
        self._sockets = sockets
        self._files = [*(sock.fileno() for sock in sockets), board]
        self._told = {"index": index, "workers": settings.workers, "shared": common, "files": self._files}
        #: (method, path template) of all routes, in the order in which they are counted.
        self.routes: list[tuple[str, str]] = []
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._started = 0.0
        self._ending = asyncio.Event()

    async def start(self) -> bool:
        """Start a process and wait until it listens. Then `routes` are known.

        Says False where it has ended before, or none could be started: no memory, no descriptors.
        """
        self._started = asyncio.get_running_loop().time()
        self._process = self._writer = None
        try:
            reader, self._writer = await self._spawn()
        except OSError as error:
            log.warning("Worker %d could not be started: %s.", self._index, error)
            return False
        self._writer.write(json.dumps(self._told).encode() + b"\n")  # it has secrets: no argument shows it
        if self._ending.is_set():  # told to end while it was started
            self.send(signal.SIGTERM)
        try:
            said = await reader.readline()
        except ConnectionError:
            return False
        if said:
            self.routes = [tuple(route) for route in json.loads(said)]
        return bool(said)

    async def _spawn(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Start a process; its end of the connection is how it learns of ours, whatever we die of."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "app.worker", str(theirs.fileno())),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *self._files),
                    # Ctrl-C in a terminal goes to the whole process group, and the parent hands it on.
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        return await asyncio.open_connection(sock=ours)

    async def keep(self) -> None:
        """Fill the place again whenever its process dies; returns when it has ended because of `end`."""
        first, longest = RESTART_SECONDS
        delay = 0.0
        while True:
            process = self._process
            if process is not None:
                code = await process.wait()
                if self._writer is not None:
                    self._writer.close()
                if not self._ending.is_set():
                    log.error("Worker %d (process %d) has died (%s).", self._index, process.pid, _cause(code))
            lived = asyncio.get_running_loop().time() - self._started
            delay = 0.0 if lived > HEALTHY_SECONDS else min(max(first, delay * 2), longest)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._ending.wait()
            if self._ending.is_set():
                return
            if await self.start() and self._process is not None:
                log.warning("Worker %d is process %d now.", self._index, self._process.pid)

    def end(self) -> None:
        """Let it drain, and put nobody in its place. Its port is closed when it is: others may drain for longer."""
        self._ending.set()
        for sock in self._sockets:
            sock.close()
        self.send(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        """Send its process a signal, if there is one."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


def _cause(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


@contextmanager
def _board(workers: int) -> Iterator[int]:
    """Lend the descriptor of memory that the workers share."""
    if hasattr(os, "memfd_create"):
        file: Any = os.fdopen(os.memfd_create("parley-measures"), "wb")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    with file:
        os.ftruncate(file.fileno(), workers * ROW_BYTES)
        yield file.fileno()
