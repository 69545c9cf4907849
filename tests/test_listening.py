"""The sockets that the service listens on: what each connection inherits from them, and a port that is taken."""

import socket
from contextlib import ExitStack
from typing import Any

import pytest

from app import serve
from app.domain.startup import StartupError
from app.listening import Sockets, bind
from app.settings import Settings
from tests.support.ports import free_port
from tests.support.store import StoreProcess


def _accepted(sockets: Sockets) -> socket.socket:
    """Connect to the first of the sockets and return the server's end."""
    sockets[0].listen()
    with socket.create_connection(sockets[0].getsockname(), timeout=5):
        return sockets[0].accept()[0]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(120.0, 120_000), (1.5, 1_500), (0, 0), (315_360_000, 2**31 - 1)]
)
@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Only Linux looks after it.")
def test_a_connection_inherits_the_send_timeout_and_signs_of_life(
    processes: int, seconds: float, milliseconds: int
) -> None:
    with ExitStack() as stack:
        rows = bind("127.0.0.1", 0, processes, stack, send_timeout_seconds=seconds)
        assert len(rows) == processes
        for number, sockets in enumerate(rows):
            for other in rows[:number]:
                other[0].close()  # else the kernel may give it the connection
            with _accepted(sockets) as accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == milliseconds
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_the_processes_listen_at_one_port_and_at_each_address_of_the_host() -> None:
    with ExitStack() as stack:
        rows = bind("localhost", 0, 3, stack, send_timeout_seconds=0)
        names = [[sock.getsockname()[:2] for sock in sockets] for sockets in rows]
        assert len({port for row in names for _, port in row}) == 1
        assert names == [names[0]] * 3
        assert {address for address, _ in names[0]} <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_port_that_is_taken_is_said_to_be(processes: int) -> None:
    port = free_port()
    said = f"^Can't listen at 127.0.0.1:{port}: .* Is PORT in use\\?$"
    with ExitStack() as stack, socket.create_server(("127.0.0.1", port)), pytest.raises(StartupError, match=said):
        bind("127.0.0.1", port, processes, stack, send_timeout_seconds=0)


def test_a_port_that_is_taken_during_the_start_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, store_process: StoreProcess
) -> None:
    with ExitStack() as stack:

        def bind_too_late(*arguments: Any, **options: Any) -> list[Sockets]:
            rows = bind(*arguments, **options)
            stack.enter_context(socket.create_server(rows[0][0].getsockname()))
            return rows

        monkeypatch.setattr(serve, "bind", bind_too_late)
        with pytest.raises(StartupError, match=r"^Can't listen at 127\.0\.0\.1:0: .* Is PORT in use\?$"):
            serve.run(serve.serve_here(Settings(port=0, redis_url=store_process.url)))
