"""`python -m app token`: make, list and remove the bearer tokens of `TOKENS_FILE`."""

import argparse
import sys
from typing import Any

from app.domain.startup import StartupError
from app.settings import Settings
from app.web.auth import token_file
from app.web.auth.token_file import TokenFileError


def add_token_command(commands: Any) -> None:
    """Add the command to argparse's subcommands."""
    parser = commands.add_parser("token", help="make, list and remove the bearer tokens of TOKENS_FILE (AUTH=token)")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="new | list | remove")
    new = verbs.add_parser("new", help="make a token, print it once, and keep its hash")
    new.add_argument("name", help="whose it is: tokens of one name have the same conversations")
    verbs.add_parser("list", help="print the names")
    remove = verbs.add_parser("remove", help="take all tokens of a name out; a running service notices")
    remove.add_argument("name")


def run_token_command(settings: Settings, arguments: argparse.Namespace) -> int:
    """Do what is asked and return the exit code. Raises StartupError with a sentence."""
    path = settings.tokens_file
    if path is None:
        raise StartupError("TOKENS_FILE is not set: where are the tokens' hashes to be kept?")
    try:
        match arguments.verb:
            case "new":
                sys.stdout.write(f"{token_file.add(path, arguments.name)}\n")
            case "list":
                sys.stdout.write("".join(f"{entry.name}\n" for entry in token_file.read(path)))
            case "remove":
                count = token_file.remove(path, arguments.name)
                sys.stdout.write(f"{count} removed\n")
                return 0 if count else 1
    except TokenFileError as error:
        raise StartupError(f"TOKENS_FILE: {error}") from error
    return 0
