"""`AUTH=token`: bearer tokens from `TOKENS_FILE`; a token's name is the owner, so a new token for it keeps what is theirs."""

import hmac
import logging
from pathlib import Path

from aiohttp import web

from app.domain.startup import StartupError
from app.web.auth import token_file
from app.web.auth.bearer import bearer_of, refused
from app.web.auth.interface import Owner, owner_id
from app.web.auth.token_file import Entry, TokenFileError

log = logging.getLogger("parley.auth")


class Tokens:
    """The file's tokens, read again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_as: tuple[int, int, int] | None = None
        self._entries: dict[str, Entry] = {}

    async def start(self) -> None:
        """Read the file. Raises StartupError."""
        try:
            self._refresh()
        except TokenFileError as error:
            raise StartupError(f"TOKENS_FILE: {error}. `python -m app token new NAME` makes a token.") from error
        if missing := self.missing():
            log.warning("%s", missing)

    def missing(self) -> str | None:
        """Say that there is no token, if so; None: there is one."""
        if self._entries:
            return None
        return "TOKENS_FILE holds no token, so nobody is let in: `python -m app token new NAME` makes one."

    async def identify(self, request: web.Request) -> Owner:
        """Return the owner of the token. Raises Unauthorized."""
        token = bearer_of(request)
        try:
            self._refresh()
        except TokenFileError as error:
            log.error("TOKENS_FILE: %s. The tokens that were read before go on.", error)  # noqa: TRY400
        digest = token_file.digest_of(token)
        # What is looked up is part of a hash, of which nobody can choose the beginning; the whole is compared in
        # constant time.
        entry = self._entries.get(digest[:16])
        if entry is None or not hmac.compare_digest(entry.digest, digest):
            raise refused("The token is not known")
        return Owner(owner_id("token", entry.name))

    def _refresh(self) -> None:
        """Read the file where it is another than before: one `stat` for each request."""
        try:
            found = self._path.stat()
        except OSError as error:
            seen = (0, 0, 0)
            if seen == self._read_as:
                return
            self._read_as = seen if self._read_as is not None else None
            raise TokenFileError(f"{error.strerror}: {self._path}") from error
        seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        if seen != self._read_as:
            self._read_as = seen  # also where it can't be used: that is told once
            self._entries = {entry.digest[:16]: entry for entry in token_file.read(self._path)}
