"""The keys of an identity provider (`JWT_JWKS_URL`, RFC 7517): kept in memory, fetched again when it is time.

PyJWT's own client fetches them, in a thread: the event loop goes on. Its cache is not used, as it fetches again with each
request while the provider is away, and holds a thread for each of them.
"""

import asyncio
import logging
from typing import Any, NamedTuple

import jwt

from app.domain.errors import KeysUnavailable
from app.domain.startup import StartupError
from app.web.auth.jwts import ALGORITHMS

log = logging.getLogger("parley.auth")

#: How long the keys are used before they are fetched anew.
FRESH_SECONDS = 300.0
#: An unknown key is a reason to look again, and so is a failure: this often, whoever sends what.
LOOK_AGAIN_SECONDS = 10.0
FETCH_SECONDS = 5.0


class _Key(NamedTuple):
    key: Any
    algorithms: tuple[str, ...]


class Jwks:
    """The provider's keys by their ids. While it is away, those that are known go on."""

    def __init__(
        self, url: str, algorithms: tuple[str, ...], *, look_again_seconds: float = LOOK_AGAIN_SECONDS
    ) -> None:
        """`algorithms` empty: RS256 and ES256. Raises StartupError for those of a shared secret, and for unknown ones."""
        self._algorithms = algorithms or ("RS256", "ES256")
        possible = [name for kind, names in ALGORITHMS.items() if kind != "oct" for name in names]
        if wrong := [name for name in self._algorithms if name not in possible]:
            raise StartupError(
                f"JWT_ALGORITHMS: {', '.join(wrong)} can't be used with the public keys of JWT_JWKS_URL; "
                f"{', '.join(possible)} can."
            )
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_SECONDS)
        self._look_again_seconds = look_again_seconds
        self._keys: dict[str | None, _Key] | None = None
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Fetch the keys. A provider that is away is no reason not to start: it is asked again."""
        await self._fetch()

    def missing(self) -> str | None:
        """Say that there is no usable key, if so; None: there is one."""
        if self._keys:
            return None
        return "JWT_JWKS_URL gives no key that JWT_ALGORITHMS can use, so nobody is let in. Is it right, and reached?"

    async def find(self, kid: str | None) -> _Key | None:
        """Return the key of an id; without an id, the only one. Raises KeysUnavailable where none could be fetched."""
        now = asyncio.get_running_loop().time()
        may_look = now - self._tried_at >= self._look_again_seconds
        if self._keys is None or kid not in self._keys:
            if may_look or self._fetching is not None:
                await self._fetch()
        elif may_look and now - self._fetched_at >= FRESH_SECONDS:
            self._start_fetching()  # nobody waits for it
        if self._keys is None:
            raise KeysUnavailable("The keys that tokens are checked with can't be fetched now. Try again shortly.")
        return self._keys.get(kid)

    async def _fetch(self) -> None:
        """Fetch, or wait for the fetch that is on its way."""
        await asyncio.shield(self._start_fetching())

    def _start_fetching(self) -> "asyncio.Task[None]":
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._run())
        return self._fetching

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            found = await asyncio.to_thread(self._client.fetch_data)
            self._keys = self._usable(found)
            self._fetched_at = loop.time()
        except (jwt.PyJWTError, OSError, ValueError) as error:
            log.warning("The keys at JWT_JWKS_URL can't be fetched: %s", error)
        finally:
            self._tried_at = loop.time()
            self._fetching = None

    def _usable(self, found: Any) -> dict[str | None, _Key]:
        keys: dict[str | None, _Key] = {}
        listed = found.get("keys")
        for data in listed if isinstance(listed, list) else []:
            if not isinstance(data, dict) or data.get("use", "sig") != "sig":
                continue
            kind = str(data.get("kty"))
            # A shared secret (`oct`) among published keys is none.
            allowed = () if kind == "oct" else ALGORITHMS.get(kind, ())
            names = tuple(n for n in self._algorithms if n in allowed and data.get("alg", n) == n)
            try:
                key = jwt.PyJWK(data).key if names else None
            except jwt.PyJWTError:
                continue
            if key is not None:
                keys[data.get("kid")] = _Key(key, names)
        if len(keys) == 1:
            keys[None] = next(iter(keys.values()))  # a token need not name the only key
        return keys
