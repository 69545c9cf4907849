"""The `Authorization: Bearer` header (RFC 6750), and how a request without a usable one is answered."""

import re

from aiohttp import web

from app.domain.errors import Unauthorized

_BEARER = re.compile(r"Bearer +([A-Za-z0-9._~+/-]{1,8000}=*)", re.IGNORECASE)


def bearer_of(request: web.Request) -> str:
    """Return the token that a request brings. Raises Unauthorized."""
    given = request.headers.getall("Authorization", ())
    if not given:
        raise Unauthorized("Say who you are: `Authorization: Bearer <token>`.", headers=_challenge(""))
    match = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
    if match is None:
        raise refused("`Authorization` holds no bearer token")
    return match[1]


def refused(reason: str) -> Unauthorized:
    """Return the error for a token that is not taken."""
    return Unauthorized(f"{reason}. Get a new one.", headers=_challenge(', error="invalid_token"'))


def _challenge(error: str) -> dict[str, str]:
    return {"WWW-Authenticate": f'Bearer realm="parley"{error}'}
