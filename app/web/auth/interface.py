"""What a way of knowing the owner has to do."""

import hashlib
from typing import NamedTuple, Protocol

from aiohttp import web


class Owner(NamedTuple):
    """Whose request it is: the owner's id in the store."""

    id: str
    #: A new anonymous owner's secret, which its browser has to be told; None where the owner is known.
    secret: str | None = None
    #: Anybody can be a new one: an address has a limit of its own then.
    anonymous: bool = False


class Authenticator(Protocol):
    """Tells the owner of a request. Built once, shared by all requests."""

    async def start(self) -> None:
        """Read what is needed. Raises StartupError with a sentence for the operator."""

    def missing(self) -> str | None:
        """Say, once started, what is missing for anybody to be let in; None: nothing."""

    async def identify(self, request: web.Request) -> Owner:
        """Return the owner. Raises Unauthorized, or KeysUnavailable where it can't be told now."""


def owner_id(space: str, *names: str) -> str:
    """Return the store's id of an owner: 40 hex digits.

    `space` keeps those of one way apart from all others: an anonymous owner's secret holds no line break.
    """
    return hash_of("\n".join((space, *names)))


def hash_of(text: str) -> str:
    """Return 40 hex digits of a SHA-256, of which nothing can be learnt about the text."""
    return hashlib.sha256(text.encode()).hexdigest()[:40]
