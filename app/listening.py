"""The sockets that the service listens on, and what all their connections inherit from them."""

import socket
import sys
from contextlib import ExitStack, closing

from app.domain.startup import StartupError

Sockets = list[socket.socket]

#: Connections that wait to be accepted.
BACKLOG = 1024
#: What fits into an option of a socket: 24 days.
MOST_MILLISECONDS = 2**31 - 1


def bind(host: str, port: int, processes: int, stack: ExitStack, *, send_timeout_seconds: float) -> list[Sockets]:
    """Return each process's sockets, one for each address that the host has; the stack closes them. Raises StartupError.

    `send_timeout_seconds`: how long a client may leave unacknowledged, or not take, what it was sent, where the system
    can look after that; 0: for ever.
    """
    shares = processes > 1 and sys.platform == "linux"  # elsewhere SO_REUSEPORT doesn't spread: one socket is better
    rows: list[Sockets] = [[] for _ in range(processes)]
    try:
        addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, *_, address in dict.fromkeys(addresses):
            # Without SO_REUSEPORT, so that a port which another service shares with its own workers counts as taken.
            with closing(_socket(family, send_timeout_seconds)) as probe:
                probe.bind((address[0], port, *address[2:]))
                port = probe.getsockname()[1]
                if not shares:
                    only = stack.enter_context(probe.dup())
                    if processes > 1:  # one alone does when it can answer
                        only.listen(BACKLOG)
            for row in rows:
                if shares:
                    sock = stack.enter_context(_socket(family, send_timeout_seconds))
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    sock.bind((address[0], port, *address[2:]))
                    row.append(sock)
                else:
                    row.append(only)
    except OSError as error:
        raise cannot_listen(host, port, error) from error
    return rows


def cannot_listen(host: str, port: int, error: OSError, name: str = "PORT") -> StartupError:
    """Say so in a sentence."""
    return StartupError(f"Can't listen at {host}:{port}: {error.strerror or error}. Is {name} in use?")


def _socket(family: int, send_timeout_seconds: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    # aiohttp and aiohttp-sse would set these for each connection and each stream: with seven system calls.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if send_timeout_seconds and hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = min(int(send_timeout_seconds * 1000), MOST_MILLISECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    return sock
