"""`python -m app.worker`: one of `WORKERS` processes. The parent in `app/workers.py` starts it, and tells it the rest."""

import gc

gc.disable()  # until it serves: what is imported stays, and to look through it again and again takes a seventh of the start

import asyncio
import json
import logging
import signal
import socket
import sys
from typing import Any

from aiohttp import web

from app.domain.measures import Board, Measures
from app.domain.startup import StartupError
from app.listening import BACKLOG
from app.logs import configure_logs
from app.main import create_app
from app.serve import Stop, run, serve
from app.settings import Settings, load
from app.shared import Shared, Target

log = logging.getLogger("parley")


def main() -> int:
    """Serve until the parent says so, or is gone. The only argument is the descriptor of the connection to it."""
    with socket.socket(fileno=int(sys.argv[1])) as parent:
        with parent.makefile("rb", buffering=0) as lines:
            said = lines.readline()
        if not said:
            return 1  # it went before it could say what is to be done
        try:
            settings = load()
            configure_logs(settings)
            run(_serve(settings, json.loads(said), parent))
        except StartupError as error:
            log.error("%s", error)  # noqa: TRY400 - a sentence for the operator, no traceback
            return 1
    return 0


async def _serve(settings: Settings, told: dict[str, Any], parent: socket.socket) -> None:
    store_url, (base_url, models, owner) = told["shared"]
    *files, board = told["files"]
    measures = Measures(Board(told["workers"], board), told["index"], on=settings.metrics)
    app = create_app(
        settings,
        shared=Shared(store_url, Target(base_url, tuple(models), owner)),
        measures=measures,
    )
    stop = Stop()

    def heed() -> None:
        loop = asyncio.get_running_loop()
        # A second SIGTERM means nothing new: the parent's may come beside one that went to all processes.
        loop.add_signal_handler(signal.SIGTERM, stop.drain.set)
        loop.add_signal_handler(signal.SIGINT, stop.at_once)

        def parent_is_gone() -> None:
            loop.remove_reader(parent)
            log.warning("The parent process is gone: ending now.")
            stop.at_once()

        parent.settimeout(0)
        loop.add_reader(parent, parent_is_gone)  # it says nothing more

    async def listen(runner: web.AppRunner) -> None:
        for file in files:
            await web.SockSite(runner, socket.socket(fileno=file), backlog=BACKLOG).start()
        parent.send(json.dumps(measures.routes).encode() + b"\n")

    await serve(settings, app, listen, stop, heed)


if __name__ == "__main__":
    sys.exit(main())
