"""What is left of a limit."""

from typing import NamedTuple


class Allowance(NamedTuple):
    """How much of one limit an owner (or an address) has left."""

    #: Its name among the policies: `messages`, `address`, `tokens`, `answers` or `readers`.
    policy: str
    limit: int
    #: Within how many seconds; None: at the same time.
    window_seconds: int | None
    remaining: int
    #: Seconds until there is more; None where that depends on when something ends.
    reset_seconds: int | None
