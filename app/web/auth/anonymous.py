"""`AUTH=anonymous`: a browser's random secret in the cookie `parley_owner`; the store knows its hash only."""

import re
import secrets

from aiohttp import web

from app.web.auth.interface import Owner, hash_of

COOKIE = "parley_owner"
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")  # 256 bits


class Anonymous:
    """Everybody is somebody: who brings no cookie is a new owner."""

    async def start(self) -> None:
        """Nothing is needed."""

    def missing(self) -> None:
        """Nothing is missing."""

    async def identify(self, request: web.Request) -> Owner:
        """Return the owner, a new one where the request brings none."""
        secret = request.cookies.get(COOKIE, "")
        if _SECRET.fullmatch(secret):
            return Owner(hash_of(secret), anonymous=True)
        secret = secrets.token_urlsafe(32)
        return Owner(hash_of(secret), secret, anonymous=True)
