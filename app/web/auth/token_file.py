"""The file of bearer tokens: a line for each, `<name> <SHA-256 of the token in hex>`; the tokens are nowhere.

A token is 256 random bits, so a plain hash is enough: there is nothing to guess that a slow one would protect.
"""

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import NamedTuple

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_LINE = re.compile(rf"({NAME.pattern}) ([0-9a-f]{{64}})")


class Entry(NamedTuple):
    """A token's name and hash (hex)."""

    name: str
    digest: str


class TokenFileError(Exception):
    """The file cannot be used; the text says why."""


def digest_of(token: str) -> str:
    """Return the hash under which a token stands in the file."""
    return hashlib.sha256(token.encode()).hexdigest()


def read(path: Path) -> list[Entry]:
    """Return the file's tokens; lines that are empty or begin with `#` are passed over. Raises TokenFileError."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise TokenFileError(f"{error.strerror}: {path}") from error
    except UnicodeDecodeError:
        raise TokenFileError(f"is no text: {path}") from None
    entries = []
    for number, text in enumerate(lines, 1):
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise TokenFileError(f"line {number} is not `<name> <SHA-256 in hex>`: {path}")
        entries.append(Entry(match[1], match[2]))
    return entries


def add(path: Path, name: str) -> str:
    """Make a token, append its hash, and return it: nobody can tell it again. Raises TokenFileError."""
    if not NAME.fullmatch(name):
        raise TokenFileError("a name has up to 64 letters, digits and . _ @ -, and begins with a letter or digit")
    token = f"parley_{secrets.token_urlsafe(32)}"
    try:
        # A last line without its end, as some editors leave one, is not to become part of ours.
        before = "\n" if path.exists() and path.read_bytes()[-1:] not in (b"", b"\n") else ""
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{before}{name} {digest_of(token)}\n")
    except OSError as error:
        raise TokenFileError(f"{error.strerror}: {path}") from error
    return token


def remove(path: Path, name: str) -> int:
    """Take all tokens of a name out, leaving the other lines as they are; return how many. Raises TokenFileError."""
    count = sum(entry.name == name for entry in read(path))
    if count:
        kept = [line for line in path.read_text("utf-8").splitlines() if line.strip().partition(" ")[0] != name]
        fresh = path.with_name(f"{path.name}.new")
        try:
            fresh.touch(0o600)
            fresh.write_text("".join(f"{line}\n" for line in kept), "utf-8")
            fresh.chmod(path.stat().st_mode & 0o777)
            fresh.replace(path)  # a reader finds the old file or the new one, never a half
        except OSError as error:
            raise TokenFileError(f"{error.strerror}: {path}") from error
    return count
