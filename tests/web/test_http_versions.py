"""Who speaks HTTP/1.0, as nginx does to what is behind it unless told otherwise: streams without chunks, to their end.

And who speaks HTTP/1.1, and wants his connection closed.
"""

import asyncio
import json

import pytest

from app.web.native import HEARTBEAT
from tests.conftest import Client, Start
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.sse import parse_all

HI = json.dumps({"content": "Hi"}).encode()


@pytest.mark.parametrize("wish", [b"", b"Connection: keep-alive\r\n"])
async def test_a_stream_has_no_chunks_and_ends_with_its_connection(
    start: Start, upstream: ScriptedUpstream, wish: bytes
) -> None:
    gate = upstream.gate()
    upstream.reply(["a", "é", "\n"], gate=gate)
    client = await start(heartbeat_seconds=0.2)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    head = b"POST /messages HTTP/1.0\r\nHost: x\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    writer.write(head % (wish, len(HI), HI))
    async with asyncio.timeout(10):
        answered = await reader.readuntil(b"\r\n\r\n")
        assert answered.startswith(b"HTTP/1.0 200 OK\r\n")
        assert b"transfer-encoding" not in answered.lower()
        assert b"\r\nconnection: close\r\n" in answered.lower()
        assert (await reader.readuntil(b"\n\n")).startswith(b"event: start\nid: 1\ndata: {")
        for piece in ("id: 2\ndata: a\n\n", "id: 3\ndata: é\n\n", "id: 4\ndata: \ndata: \n\n"):
            assert await reader.readexactly(len(HEARTBEAT)) == HEARTBEAT  # none is cut up either
            gate.release()
            while (line := await reader.readuntil(b"\n")) == HEARTBEAT:
                pass
            assert line + await reader.readexactly(len(piece.encode()) - len(line)) == piece.encode()
        gate.open()
        rest = await reader.read()
        assert rest.replace(HEARTBEAT, b"").startswith(b"event: end\nid: 5\ndata: {")
        assert rest.endswith(b"}\n\n")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("wish", [b"", b"Connection: keep-alive\r\n"])
async def test_the_ticks_end_with_their_connection(client: Client, wish: bytes) -> None:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"GET /health/stream HTTP/1.0\r\nHost: x\r\n%b\r\n" % wish)
    async with asyncio.timeout(10):
        head, _, ticks = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    assert b"\r\nconnection: close" in head.lower()
    assert [frame.id for frame in parse_all(ticks.decode())] == ["1", "2", "3", "4", "5"]


async def test_a_connection_that_is_closed_behind_a_stream_is_said_to_be(start: Start) -> None:
    client = await start()
    headers = {"Connection": "close"}
    async with client.post("/messages", json={"content": "Hi"}, headers=headers) as response:
        assert response.headers["Connection"] == "close"
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert (await response.text()).endswith("}\n\n")
    async with client.post("/messages", json={"content": "Hi"}) as response:
        assert response.headers["Connection"] == "keep-alive"
