"""Whose word counts on where a request comes from: `TRUSTED_PROXIES`, and nobody else's.

Each proxy appends the address of its own client to `X-Forwarded-For`. So the header is read from its right end: as long
as the one who wrote an entry is trusted, the entry is believed. What stands further to the left may be anybody's.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web

#: Stands for whoever connects by a unix socket, who has no address.
UNIX = "unix"
#: An IPv6 client has a network of this size to itself: it counts as one address.
IPV6_CLIENT_BITS = 64

Address = IPv4Address | IPv6Address


class Proxies:
    """The trusted proxies: addresses, networks, and `unix`."""

    def __init__(self, trusted: tuple[str, ...]) -> None:
        """Raise ValueError for what is no address, network or `unix`."""
        self._networks: list[IPv4Network | IPv6Network] = [
            ip_network(item, strict=False) for item in trusted if item != UNIX
        ]
        self._unix = UNIX in trusted
        self._trusts = lru_cache(1024)(self._is_trusted)

    def client(self, request: web.BaseRequest) -> str:
        """Return the client's address: of IPv6 its network; `unix` for who comes by a socket, without a proxy's word."""
        current = _peer(request)
        if not self._trusts(current):
            return _counted(current)
        hops = [hop for line in request.headers.getall("X-Forwarded-For", ()) for hop in line.split(",")]
        while hops and self._trusts(current):
            named = _parse(hops.pop())
            if named is None:
                break  # no proxy writes that: the last that is known
            current = named
        return _counted(current)

    def scheme(self, request: web.BaseRequest) -> str | None:
        """Return `https` or `http`; None where it can't be known: a proxy that is not trusted may end TLS before us."""
        if request.transport is not None and request.transport.get_extra_info("sslcontext") is not None:
            return "https"
        told = request.headers.get("X-Forwarded-Proto", "").rpartition(",")[2].strip().lower()
        return told if told in ("https", "http") and self._trusts(_peer(request)) else None

    def host(self, request: web.BaseRequest) -> str:
        """Return the host (and port) that the client has asked for."""
        if self._trusts(_peer(request)):
            told = request.headers.get("X-Forwarded-Host", "").rpartition(",")[2].strip()
            if told:
                return told
        return request.headers.get("Host", "")

    def _is_trusted(self, address: str) -> bool:
        if address == UNIX:
            return self._unix
        parsed = ip_address(address)
        return any(parsed in network for network in self._networks if network.version == parsed.version)


def _peer(request: web.BaseRequest) -> str:
    name = request.transport.get_extra_info("peername") if request.transport is not None else None
    # Of a unix socket it is an empty string.
    return (_parse(name[0]) or UNIX) if isinstance(name, tuple) else UNIX


@lru_cache(4096)
def _parse(text: str) -> str | None:
    """Return an address in its one spelling, without a port; None for what is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


@lru_cache(4096)
def _counted(address: str) -> str:
    if ":" not in address:
        return address
    return str(ip_network(f"{address}/{IPV6_CLIENT_BITS}", strict=False))
