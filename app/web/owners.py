"""Whose request it is: an anonymous browser's random secret in the cookie `parley_owner`; the store knows its hash only."""

import hashlib
import re
import secrets
from typing import NamedTuple

from aiohttp import web

from app.domain.errors import NotFound

COOKIE = "parley_owner"
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")  # 256 bits
_YEAR_SECONDS = 365 * 24 * 3600


class Owner(NamedTuple):
    """An owner's id in the store; `secret` where it is new and its browser has to be told."""

    id: str
    secret: str | None

    def introduce(self, request: web.Request, response: web.StreamResponse) -> None:
        """Give a new owner its cookie, before the response is sent."""
        if self.secret is None:
            return
        secure = request.secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https"
        response.set_cookie(
            COOKIE, self.secret, max_age=_YEAR_SECONDS, path="/", httponly=True, samesite="Lax", secure=secure
        )


def known_owner(request: web.Request) -> str:
    """Return the owner's id. Raises NotFound where there is none: what is asked for can't be theirs."""
    secret = request.cookies.get(COOKIE, "")
    if not _SECRET.fullmatch(secret):
        raise NotFound("There is no such thing of yours. Send the cookie that came with it (curl: -b jar -c jar).")
    return _id(secret)


def owner_of(request: web.Request) -> Owner:
    """Return the owner, a new one where the request brings none."""
    secret = request.cookies.get(COOKIE, "")
    if _SECRET.fullmatch(secret):
        return Owner(_id(secret), None)
    secret = secrets.token_urlsafe(32)
    return Owner(_id(secret), secret)


def _id(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:40]
