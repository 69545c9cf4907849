"""`python -m app`: serve until SIGTERM or SIGINT; or one of the commands that `--help` names."""

import argparse
import asyncio
import gc
import logging
import signal
import sys
from contextlib import suppress

from aiohttp import web

from app.domain.startup import StartupError
from app.main import create_app, drain
from app.settings import Settings, load
from app.token_command import add_token_command, run_token_command

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]
try:
    import uvloop
except ImportError:  # not on every platform
    uvloop = None  # type: ignore[assignment]

log = logging.getLogger("parley")


def main() -> int:
    """Run the service, or a command, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m app", description="Serve, with settings from the environment.")
    add_token_command(parser.add_subparsers(dest="command", metavar="COMMAND"))
    arguments = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", level=logging.INFO)
    try:
        settings = load()
        _quiet(settings.log_level)
        if arguments.command == "token":
            return run_token_command(settings, arguments)
        _raise_file_limit()
        runner = _loop_runner()
        with runner:
            runner.run(serve(settings))
    except StartupError as error:
        log.error("%s", error)  # noqa: TRY400 - a sentence for the operator, no traceback
        return 1
    return 0


async def serve(settings: Settings) -> None:
    """Serve until a signal comes, then drain: running answers may finish, with their readers, within the grace."""
    app = create_app(settings)
    # `handler_cancellation`: a handler that waits for its client's next event is to notice that the client has gone.
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.5)
    try:
        await runner.setup()
        stop = _stop_signals()  # before anybody can know that we listen
        site = web.TCPSite(runner, settings.host, settings.port, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            raise StartupError(
                f"Can't listen at {settings.host}:{settings.port}: {error.strerror or error}. Is PORT in use?"
            ) from error
        host, port = runner.addresses[0][:2]
        log.info("Listening at http://%s:%s/ (documentation: /docs).", host, port)
        # What is alive now stays: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        await stop.wait()
        stop.clear()
        if settings.close_on_shutdown:
            await site.stop()  # connections that are open stay
        draining = asyncio.create_task(drain(app, settings.shutdown_grace_seconds))
        again = asyncio.create_task(stop.wait())
        await asyncio.wait((draining, again), return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            log.info("A second signal: ending now.")
            draining.cancel()
            await asyncio.gather(draining, return_exceptions=True)
            await drain(app, 0)
        again.cancel()
    finally:
        await runner.cleanup()
    log.info("Ended.")


def _stop_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _loop_runner() -> asyncio.Runner:
    return asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop else None)


def _raise_file_limit() -> None:
    """Take as many open files as the system lets us have: a stream costs one, an answer another, and many begin with 1024."""
    if resource is not None:
        with suppress(OSError, ValueError):  # macOS says "unlimited", and takes less
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _quiet(level: str) -> None:
    logging.getLogger().setLevel(level)
    # aiohttp's log of malformed requests quotes raw bytes, cookies included.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main())
