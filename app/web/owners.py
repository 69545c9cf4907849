"""Whose request it is: told once for each, before its handler; and the cookie of an anonymous owner."""

from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Handler

from app.domain.errors import NotFound
from app.domain.log_context import about_owner
from app.web.auth.anonymous import COOKIE
from app.web.auth.interface import Authenticator, Owner
from app.web.proxies import Proxies

_OWNER = web.RequestKey("_OWNER", Owner)
_INTRODUCED = web.RequestKey("_INTRODUCED", Owner)
_YEAR_SECONDS = 365 * 24 * 3600


def owner_of(request: web.Request) -> Owner:
    """Return the owner; where it is a new one, its browser gets the cookie with the response."""
    owner = request[_OWNER]
    if owner.secret is not None:
        request[_INTRODUCED] = owner
    return owner


def known_owner(request: web.Request) -> str:
    """Return the owner's id. Raises NotFound for a new one: what is asked for can't be theirs."""
    owner = request[_OWNER]
    if owner.secret is not None:
        raise NotFound("There is no such thing of yours. Send the cookie that came with it (curl: -b jar -c jar).")
    return owner.id


def address_of(request: web.Request, proxies: Proxies) -> str | None:
    """Return the client's address where it has limits of its own: an anonymous owner is a new one at will."""
    return proxies.client(request) if request[_OWNER].anonymous else None


class Owners:
    """The middleware that asks who it is, of every route that is not public."""

    def __init__(self, authenticator: Authenticator, proxies: Proxies, *, cross_site: bool) -> None:
        """`cross_site`: pages of other origins may bring the cookie (`CORS_ORIGINS`)."""
        self._authenticator = authenticator
        self._proxies = proxies
        self._cross_site = cross_site
        self._public: set[web.AbstractRoute] = set()

    def let_all_in(self, routes: Iterable[web.AbstractRoute]) -> None:
        """Make routes public: health, the page and its files, the documentation."""
        self._public.update(routes)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note the owner before anything of the request is read. Raises what the authenticator does."""
        # aiohttp's own route for what is not found, or not with this method, has no resource.
        route = request.match_info.route
        if route not in self._public and route.resource is not None:
            request[_OWNER] = await self._authenticator.identify(request)
            about_owner(request[_OWNER].id)
        return await handler(request)

    async def introduce(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Signal handler: give a new owner its cookie."""
        owner = request.get(_INTRODUCED) if isinstance(request, web.Request) else None
        if owner is None or owner.secret is None:
            return
        # A proxy's word that nobody vouches for can only make the cookie stricter.
        secure = (
            self._proxies.scheme(request) == "https" or request.headers.get("X-Forwarded-Proto", "").lower() == "https"
        )
        # By hand, as `set_cookie` makes a jar that lives as long as the stream; a secret needs no quoting.
        # Browsers take None with https only. What it opens, the check of `Origin` shuts.
        same_site = "None" if self._cross_site and secure else "Lax"
        cookie = f"{COOKIE}={owner.secret}; HttpOnly; Max-Age={_YEAR_SECONDS}; Path=/; SameSite={same_site}"
        response.headers.add("Set-Cookie", f"{cookie}; Secure" if secure else cookie)
