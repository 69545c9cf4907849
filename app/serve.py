"""Serves the application in this process, until it is told to drain and to end."""

import asyncio
import gc
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any, TypeVar

from aiohttp import web

from app.domain.measures import Measures
from app.listening import BACKLOG, bind, cannot_listen
from app.main import create_app, drain, metrics_app
from app.settings import Settings

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]
try:
    import uvloop
except ImportError:  # not on every platform
    uvloop = None  # type: ignore[assignment]

Result = TypeVar("Result")

log = logging.getLogger("parley")


class Stop:
    """What the process was told: to drain, and then to end at once."""

    def __init__(self) -> None:
        self.drain = asyncio.Event()
        self.now = asyncio.Event()

    def twice(self) -> None:
        """Drain, and when told a second time end at once: what a person at a terminal means."""
        if self.drain.is_set():
            self.now.set()
        self.drain.set()

    def at_once(self) -> None:
        """End at once."""
        self.drain.set()
        self.now.set()

    def on_signals(self) -> None:
        """Listen to SIGTERM and SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.twice)


def collect_what_is_new() -> None:
    """Set the collector to work, which has stood still until now (see `__main__`)."""
    # What is alive now stays: it need not be looked at again. Nor now, which would take 0.1 s of the start.
    gc.freeze()
    # Streams make many objects and no cycles: a young generation of 700 would be looked through with every commit, one
    # of 20,000 stops all streams for 18 ms (this one for 5). The next one is as seldom as with that: 400,000.
    gc.set_threshold(5_000, 80, 50)
    gc.enable()


async def serve_here(settings: Settings) -> None:
    """Serve in this process alone. Raises StartupError."""
    measures = Measures(on=settings.metrics)

    async def listen(runner: web.AppRunner) -> None:
        try:
            for sock in sockets:
                sock.listen(BACKLOG)  # where it can't, uvloop would say so to nobody
                await web.SockSite(runner, sock, backlog=BACKLOG).start()
        except OSError as error:  # somebody else has begun to listen since
            raise cannot_listen(settings.host, settings.port, error) from error
        say_where(*runner.addresses[0][:2])

    stop = Stop()
    with ExitStack() as stack:
        (sockets,) = bind(settings.host, settings.port, 1, stack, send_timeout_seconds=settings.send_timeout_seconds)
        async with metrics_listener(settings, measures):
            await serve(settings, create_app(settings, measures=measures), listen, stop, stop.on_signals)
    log.info("Ended.")


async def serve(
    settings: Settings,
    app: web.Application,
    listen: Callable[[web.AppRunner], Awaitable[None]],
    stop: Stop,
    heed: Callable[[], None],
) -> None:
    """Serve until told to stop, then drain: running answers may finish, with their readers, within the grace.

    `heed` makes the process listen to what may stop it, `listen` opens the port.
    """
    # `handler_cancellation`: a handler that waits for its client's next event is to notice that the client has gone.
    runner = web.AppRunner(
        app,
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=0.5,
        tcp_keepalive=False,  # they inherit it
    )
    try:
        await runner.setup()
        heed()  # before anybody can know that we listen
        await listen(runner)
        collect_what_is_new()
        await stop.drain.wait()
        if settings.close_on_shutdown:
            await asyncio.gather(*(site.stop() for site in runner.sites))  # connections that are open stay
        draining = asyncio.create_task(drain(app, settings.shutdown_grace_seconds))
        now = asyncio.create_task(stop.now.wait())
        await asyncio.wait((draining, now), return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            log.info("Ending now.")
            draining.cancel()
            await asyncio.gather(draining, return_exceptions=True)
            await drain(app, 0)
        now.cancel()
    finally:
        await runner.cleanup()


@asynccontextmanager
async def metrics_listener(settings: Settings, measures: Measures) -> AsyncIterator[None]:
    """Answer `/metrics` at `METRICS_PORT`, if there is one. Raises StartupError."""
    if settings.metrics_port is None:
        yield
        return
    runner = web.AppRunner(metrics_app(measures), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, settings.host, settings.metrics_port).start()
        except OSError as error:
            raise cannot_listen(settings.host, settings.metrics_port, error, "METRICS_PORT") from error
        log.info("Metrics at http://%s:%s/metrics.", *runner.addresses[0][:2])
        yield
    finally:
        await runner.cleanup()


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run it on the fastest loop there is."""
    _raise_file_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop else None) as runner:
        return runner.run(work)


def _raise_file_limit() -> None:
    """Take as many open files as the system lets us have: a stream costs one, an answer another, and many begin with 1024."""
    if resource is not None:
        with suppress(OSError, ValueError):  # macOS says "unlimited", and takes less
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def say_where(host: str, port: int) -> None:
    """Log where the service is found."""
    log.info("Listening at http://%s:%s/ (documentation: /docs).", f"[{host}]" if ":" in host else host, port)
