"""A free port on loopback, for a server that can't pick one itself."""

import itertools
import random
import socket

#: Above the ports that browsers refuse, and below those that systems give to connections (from 32,768 on Linux): one of
#: these that is free now could be taken by then.
_LOWEST = 11_000
_COUNT = 20_000

#: Each port once, and every process of a test run begins elsewhere.
_numbers = itertools.count(random.randrange(_COUNT))


def free_port() -> int:
    """Return a port that nobody listens at."""
    for number in _numbers:
        port = _LOWEST + number % _COUNT
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError  # it counts for ever
