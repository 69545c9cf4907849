"""What pages of other origins may do: nothing, unless `CORS_ORIGINS` names them (https://fetch.spec.whatwg.org/#http-cors-protocol).

A short middleware: aiohttp-cors wants each route wrapped, and leaves out refusals, errors and what changes something
without asking first (a form's POST).
"""

from collections.abc import Awaitable
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from app.domain.errors import ForbiddenOrigin
from app.web.proxies import Proxies

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
METHODS = "GET, POST, PATCH, DELETE"
REQUEST_HEADERS = "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, X-Request-ID"
RESPONSE_HEADERS = "ETag, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID, x-should-retry"
PREFLIGHT_SECONDS = 600

_PORTS = {"http": 80, "https": 443}


class CrossSite:
    """The middleware that refuses foreign origins, and the signal that lets listed ones read."""

    def __init__(self, origins: tuple[str, ...], proxies: Proxies) -> None:
        """`origins` as browsers spell them: scheme, host, and the port where it is not the usual one."""
        self._origins = frozenset(origins)
        self._proxies = proxies

    @web.middleware
    def middleware(self, request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        """Answer a listed origin's preflight, and refuse what a foreign page asks to change. Raises ForbiddenOrigin."""
        origin = request.headers.get(hdrs.ORIGIN)
        if request.method not in SAFE_METHODS:
            if origin is None:
                # Browsers leave it out of few requests, none of which another site can make; the older ones of all.
                if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
                    raise ForbiddenOrigin("This request comes from a page of another site.")
            elif origin not in self._origins and not self._own(origin, request):
                raise ForbiddenOrigin("Pages of this origin may not do that (CORS_ORIGINS lists those that may).")
        elif (
            request.method == hdrs.METH_OPTIONS
            and origin in self._origins
            and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        ):
            return _preflight()
        return handler(request)  # no coroutine of its own: it would live as long as a stream

    async def allow(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Signal handler: tell a browser which origin may read this response, an error or a stream as well."""
        headers = response.headers
        headers.setdefault("X-Content-Type-Options", "nosniff")
        if not self._origins:
            return
        vary = headers.get(hdrs.VARY)
        headers[hdrs.VARY] = f"{vary}, {hdrs.ORIGIN}" if vary else hdrs.ORIGIN  # a cache is not to mix them up
        origin = request.headers.get(hdrs.ORIGIN)
        if origin in self._origins:
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
            headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = RESPONSE_HEADERS

    def _own(self, origin: str, request: web.Request) -> bool:
        """Is it the origin that the request was sent to?

        What came by https has no origin of http, which anybody on the way could have made. The other way round may be:
        something that ends TLS stands before us and does not say so.
        """
        given = _split(origin)
        if given is None or (given[0] == "http" and self._proxies.scheme(request) == "https"):
            return False
        return given == _split(f"{given[0]}://{self._proxies.host(request)}")


async def _preflight() -> web.Response:
    return web.Response(
        status=204,
        headers={
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: REQUEST_HEADERS,
            hdrs.ACCESS_CONTROL_MAX_AGE: str(PREFLIGHT_SECONDS),
        },
    )


def _split(origin: str) -> tuple[str, str, int] | None:
    """Return an origin's scheme, host and port; None for `null` and all else that is no origin of the web."""
    try:
        parts = urlsplit(origin)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    plain = parts.hostname and not (parts.path or parts.query or parts.fragment or parts.username is not None)
    return (parts.scheme, parts.hostname or "", port) if plain else None
