"""Readers that are slow, dead, or many."""

import asyncio
import os
import socket
from pathlib import Path

from aiohttp import ClientSession

from tests.faults.conftest import Replicas
from tests.support.reader import Reader
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.service import ServiceProcess

PIECES = [f"{number:06d} " + "x" * 993 for number in range(16_000)]  # 16 MB, more than the kernel takes for a reader


async def _stalled(session: ClientSession, service: ServiceProcess, answer: str) -> socket.socket:
    """Open a stream as a browser would, and read nothing of it."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    cookies = session.cookie_jar.filter_cookies(session._build_url(service.url))
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (host, int(port)))
    cookie = "; ".join(f"{name}={morsel.value}" for name, morsel in cookies.items())
    head = f"GET /messages/{answer}/events HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n"
    await loop.sock_sendall(sock, head.encode())
    return sock


async def test_a_reader_that_reads_nothing_slows_nobody_costs_bounded_memory_and_then_catches_up(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(60):
        (service,) = await replicas(1)
        gate = upstream.gate()
        upstream.reply(PIECES, gate=gate)
        gate.release()
        reader = Reader()
        async with session.post(f"{service.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=2)
            stalled = [await _stalled(session, service, reader.answer) for _ in range(20)]
            gate.open()
            await reader.read(response)  # to the end, whatever the others do
        assert reader.end is not None
        assert reader.text == "".join(PIECES)
        # The text itself, once for all: 16 MB in events, as much in the finished message; 20 queues would be 320 MB.
        assert _resident(service.pid) < 280e6
        loop = asyncio.get_running_loop()
        for sock in stalled[:3]:
            body = bytearray()  # bytes would be copied as a whole with each piece
            while b'"status":"completed"' not in body[-300:]:
                body += await loop.sock_recv(sock, 1 << 20)
            assert body.count(b"xxx ") <= 16_000
            for number in (0, 1, 8_000, 15_999):
                assert body.count(f"{number:06d} ".encode()) == 1
        for sock in stalled:
            sock.close()


async def test_a_reader_that_reads_nothing_is_cut_after_the_send_timeout(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(60):
        (service,) = await replicas(1, send_timeout_seconds=1)
        upstream.reply(PIECES)
        reader = Reader()
        async with session.post(f"{service.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=2)
            sock = await _stalled(session, service, reader.answer)
            await reader.read(response)
        assert reader.end is not None
        while _connected(service, sock):
            await asyncio.sleep(0.02)
        received = 0
        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(sock, 1 << 20):
                received += len(data)
        except ConnectionResetError:
            pass
        assert 0 < received < len("".join(PIECES))
        sock.close()


async def test_a_thousand_readers_that_come_and_go_leave_nothing_behind(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(120):
        one, two = await replicas(2)
        gate = upstream.gate()
        upstream.reply(["one "] * 4, gate=gate)
        gate.release()
        reader = Reader()
        async with session.post(f"{one.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=5)
        services = (one, two)

        async def come_and_go(count: int) -> None:
            for start in range(0, count, 50):
                readers = [reader.again() for _ in range(start, start + 50)]
                await asyncio.gather(
                    *(other.resume(session, services[i % 2].url, until=1) for i, other in enumerate(readers))
                )

        async def settled(service: ServiceProcess, expected: int) -> int:
            while (count := _sockets(service.pid)) > expected:
                await asyncio.sleep(0.02)
            return count

        await come_and_go(200)  # buffers and pools that are made once
        idle = [await _quiet(service) for service in services]
        memory = [_resident(service.pid) for service in services]
        await come_and_go(1000)
        for service, sockets, resident in zip(services, idle, memory, strict=True):
            # The pool of short commands may have grown to what 25 readers at once want.
            assert await settled(service, sockets + 25) <= sockets + 25
            assert _resident(service.pid) - resident < 10e6
        gate.open()
        await reader.finish(session, two.url)
        assert reader.text == "one " * 4


def _connected(service: ServiceProcess, sock: socket.socket) -> bool:
    """Does the service still hold its end of a connection?"""
    ours, theirs = sock.getsockname()[1], int(service.url.rpartition(":")[2])
    established = "01"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(
        row[1].endswith(f":{theirs:04X}") and row[2].endswith(f":{ours:04X}") and row[3] == established for row in rows
    )


async def _quiet(service: ServiceProcess) -> int:
    """Wait until the number of sockets has not changed for a while, and return it."""
    last, since = -1, 0
    while since < 10:
        count = _sockets(service.pid)
        last, since = count, since + 1 if count == last else 0
        await asyncio.sleep(0.05)
    return last


def _sockets(pid: int) -> int:
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += str(entry.readlink()).startswith("socket:")
        except FileNotFoundError:  # closed between two looks
            continue
    return count


def _resident(pid: int) -> float:
    """Return a process's resident memory in bytes."""
    return float(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
