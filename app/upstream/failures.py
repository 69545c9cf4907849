"""What the upstream's failures are called: statuses and network errors as errors of ours, and logs without secrets.

Details are sentences of ours with the status at most; what the upstream said itself goes to the log.
"""

import re
from collections.abc import Iterable

import aiohttp

from app.domain.errors import (
    UpstreamBadResponse,
    UpstreamConnectTimeout,
    UpstreamCut,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamUnreachable,
)

#: How much of what an upstream sent is logged, in bytes.
LOGGED_BYTES = 2048

_REFUSED = frozenset((400, 401, 403, 404, 422))
_TOO_MANY_REQUESTS = 429
# Shorter values would blacken ordinary words, and are no secrets.
_SHORTEST_SECRET = 6
# Keys of the usual form, also those of somebody else or with a part starred out, as some upstreams quote them.
_KEY = re.compile(rb"\bsk-[\w*-]+")


def of_status(status: int) -> UpstreamError:
    """Return the error for an HTTP status that is not 200."""
    detail = f"The model server answered with status {status}."
    if status == _TOO_MANY_REQUESTS:
        return UpstreamRateLimited(detail)
    return UpstreamRefused(detail) if status in _REFUSED else UpstreamError(detail)


def of_request(error: Exception) -> UpstreamError:
    """Return the error for what went wrong between asking and the response's headers."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return UpstreamConnectTimeout("The model server could not be connected in time.")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError):
        return UpstreamUnreachable("The model server cannot be reached.")
    if isinstance(error, aiohttp.ClientResponseError):
        return UpstreamBadResponse("The model server did not answer in HTTP.")
    # A bad URL, proxy or header: a defect of the settings.
    if isinstance(error, ValueError | aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return UpstreamUnreachable("The model server's address or headers cannot be used.")
    return UpstreamCut("The model server closed the connection before it answered.")


class Redactor:
    """Makes bytes from the upstream fit for a log: short, on one line, and with every secret starred out."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """`secrets` are the values that must not be seen."""
        # The longest first, so that one which contains another goes as a whole.
        values = sorted((s.encode() for s in secrets if len(s) >= _SHORTEST_SECRET), key=len, reverse=True)
        self._secrets = values
        #: How many bytes `text` wants of what may be longer: a secret that is cut by the limit is still seen whole.
        self.wanted = LOGGED_BYTES + (len(values[0]) if values else 0)

    def text(self, data: bytes) -> str:
        """Return the first `LOGGED_BYTES` of the data, as text in quotes with escapes."""
        data = data[: self.wanted]
        # Stars keep the length, so nothing moves from behind the limit to before it.
        for secret in self._secrets:
            data = data.replace(secret, b"*" * len(secret))
        data = _KEY.sub(lambda match: b"*" * len(match[0]), data)
        return repr(data[:LOGGED_BYTES].decode("utf-8", "replace"))
