"""A reader who is too slow to be told each word still reads: the answer is not abandoned."""

import asyncio
import socket

from app.main import ANSWERS
from tests.conftest import Start
from tests.support.scripted_upstream import ScriptedUpstream


async def test_a_reader_that_is_behind_counts_as_a_reader(start: Start, upstream: ScriptedUpstream) -> None:
    client = await start()
    gate = upstream.gate()
    upstream.reply(["x" * 60_000] * 300, gate=gate)
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        async with asyncio.timeout(30):
            await loop.sock_connect(sock, (client.host, client.port))
            head = "POST /messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n"
            await loop.sock_sendall(sock, head.encode() + b'{"content":"Hi"}')
            running = client.server.app[ANSWERS]._running  # type: ignore[attr-defined]  # a server of an application has it
            while not running:
                await asyncio.sleep(0.01)
            (live,) = [runner.live for runner in running.values()]
            while live.readers == 0:
                await asyncio.sleep(0.01)
            gate.open()
            while live._listeners:  # as long as it takes what comes
                await asyncio.sleep(0.01)
            assert live.readers == 1
    async with asyncio.timeout(30):
        while live.readers:  # its connection is gone
            await asyncio.sleep(0.01)
