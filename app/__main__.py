"""`python -m app`: serve until SIGTERM or SIGINT; or one of the commands that `--help` names."""

import gc

gc.disable()  # until it serves: what is imported stays, and to look through it again and again takes a seventh of the start

import argparse
import logging
import sys

from app.check import check
from app.domain.startup import StartupError
from app.logs import configure_logs
from app.serve import run, serve_here
from app.settings import load
from app.token_command import add_token_command, run_token_command
from app.workers import serve_with_workers

log = logging.getLogger("parley")


def main() -> int:
    """Run the service, or a command, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m app", description="Serve, with settings from the environment.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("check", help="say in words whether settings, store and model server are fit for use")
    add_token_command(commands)
    arguments = parser.parse_args()
    configure_logs(None)
    try:
        settings = load()
        configure_logs(settings)
        if arguments.command == "token":
            return run_token_command(settings, arguments)
        if arguments.command == "check":
            return 0 if run(check(settings)) else 1
        run(serve_here(settings) if settings.workers == 1 else serve_with_workers(settings))
    except StartupError as error:
        log.error("%s", error)  # noqa: TRY400 - a sentence for the operator, no traceback
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
