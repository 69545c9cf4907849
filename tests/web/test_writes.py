"""In how many packets a stream reaches its reader: what belongs together comes together."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.conftest import Client, Start
from tests.support.browser import ask
from tests.support.scripted_upstream import ScriptedUpstream, reply
from tests.support.sse import frames_of

HI = json.dumps({"content": "Hi"}).encode()
ASK = b"POST /messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(HI),
    HI,
)

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Only Linux counts the packets of a connection.")


@asynccontextmanager
async def connected(client: Client) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Lend a connection to the service."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


def _packets(writer: asyncio.StreamWriter) -> int:
    """Return how many packets with data have come in: `tcpi_data_segs_in` of Linux' struct tcp_info."""
    info = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
    return int.from_bytes(info[152:156], sys.byteorder)


@ON_LINUX
async def test_an_answer_that_comes_at_once_is_two_packets_and_the_connection_serves_on(
    client: Client, upstream: ScriptedUpstream
) -> None:
    """The head with `start`, and the text with `end` and the end of the body."""
    script = reply(["x"])
    upstream.default = lambda _: replace(script, steps=[b"".join(script.steps)])
    await ask(client, "Hi")  # what is made once has been made
    async with asyncio.timeout(10), connected(client) as (reader, writer):
        for number in range(1, 4):
            writer.write(ASK)
            head, _, start = (await reader.readuntil(b"}\n\n\r\n")).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\nevent: start\nid: 1\ndata: {" in start
            size, _, rest = (await reader.readuntil(b"0\r\n\r\n")).partition(b"\r\n")
            assert rest.startswith(b"id: 2\ndata: x\n\nevent: end\nid: 3\ndata: {")
            assert rest == rest[: int(size, 16)] + b"\r\n0\r\n\r\n"
            assert _packets(writer) == 2 * number


@ON_LINUX
async def test_an_end_that_comes_alone_is_one_packet_with_the_end_of_the_body(
    client: Client, upstream: ScriptedUpstream
) -> None:
    gate = upstream.gate()
    upstream.reply(["x"], gate=gate)
    async with asyncio.timeout(10), connected(client) as (reader, writer):
        writer.write(ASK)
        await reader.readuntil(b"}\n\n\r\n")
        gate.release()
        assert (await reader.readuntil(b"\n\n\r\n")).endswith(b"\r\nid: 2\ndata: x\n\n\r\n")
        before = _packets(writer)
        gate.open()
        assert b"\r\nevent: end\nid: 3\ndata: {" in b"\r\n" + await reader.readuntil(b"0\r\n\r\n")
        assert _packets(writer) == before + 1


async def test_who_has_all_events_of_an_answer_that_goes_on_is_answered_before_the_next_one(
    start: Start, upstream: ScriptedUpstream
) -> None:
    gate = upstream.gate()
    upstream.reply(["a", "b"], gate=gate)
    client = await start(heartbeat_seconds=0)
    async with asyncio.timeout(10), client.post("/messages", json={"content": "Hi"}) as response:
        frames = frames_of(response)
        answer = json.loads((await anext(frames)).data)["message"]
        gate.release()
        assert (await anext(frames)).data == "a"
        async with client.get(f"/messages/{answer}/events", headers={"Last-Event-ID": "2"}) as resumed:
            assert resumed.status == 200
            gate.open()
            assert [frame.data async for frame in frames_of(resumed) if frame.event == "message"] == ["b"]
