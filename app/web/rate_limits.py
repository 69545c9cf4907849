"""How a client is told what is left of its limits: `RateLimit-Policy` and `RateLimit`.

Format: https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ (its ninth and tenth versions).
"""

from collections.abc import Sequence
from functools import lru_cache

from app.domain.limits import Allowance

#: What is counted, where it is no requests.
_UNITS = {
    "tokens": ';qu="tokens"',
    "address-tokens": ';qu="tokens"',
    "answers": ';qu="concurrent-requests"',
    "readers": ';qu="concurrent-requests"',
}


def rate_headers(allowances: Sequence[Allowance]) -> dict[str, str]:
    """Return the fields, none where nothing is limited: `q` the quota, `w` its window, `r` what is left, `t` until when."""
    if not allowances:
        return {}
    policies, states = [], []
    for policy, limit, window, remaining, reset in allowances:
        policies.append(_policy(policy, limit, window))
        states.append(f'"{policy}";r={remaining}' if reset is None else f'"{policy}";r={remaining};t={reset}')
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}


@lru_cache(64)  # there are five
def _policy(policy: str, limit: int, window: int | None) -> str:
    within = f";w={window}" if window is not None else ""
    return f'"{policy}";q={limit}{within}{_UNITS.get(policy, "")}'
