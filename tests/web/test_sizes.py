"""Requests that are too large or too slow: a clear refusal, and the service goes on."""

import asyncio
from typing import Any

import pytest

from tests.conftest import Client, Start
from tests.support.browser import get


async def sent(client: Client, *pieces: bytes) -> bytes:
    """Send bytes, and return the first line of what comes back before the connection ends."""
    host, port = client.server.host, client.server.port
    reader, writer = await asyncio.open_connection(host, port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(10):
            return await reader.readline()
    finally:
        writer.close()


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 20_000, id="a header"),
        pytest.param(b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x", id="the line"),
        pytest.param(b"GET /health/live HTTP/1.1\r\nHost: x\r\nCookie: " + b"x" * 20_000, id="a cookie"),
    ],
)
async def test_a_head_that_is_too_large_is_refused_and_others_are_served(client: Client, head: bytes) -> None:
    assert (await sent(client, head + b"\r\n\r\n")).split(b" ")[1] in (b"400", b"414", b"431")
    assert (await get(client, "/health/live")) == {"status": "live"}


async def test_a_body_that_comes_too_slowly_is_refused_and_nothing_is_stored(start: Start, redis: Any) -> None:
    client = await start(body_timeout_seconds=0.2)
    head = b"POST /messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    assert (await sent(client, head, b'{"content"')).split(b" ")[1] == b"408"
    assert await redis.keys("*") == []


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(start: Start, redis: Any) -> None:
    client = await start(max_message_bytes=1000)
    head = b"POST /messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2000\r\n"
    assert (await sent(client, head + b"\r\n")).split(b" ")[1] == b"413"
    assert (await sent(client, head + b"Expect: 100-continue\r\n\r\n")).split(b" ")[1] == b"413"
    assert (await sent(client, head + b"\r\n", b"x" * 2000)).split(b" ")[1] == b"413"
    assert await redis.keys("*") == []


async def test_a_body_of_a_fitting_size_is_asked_for(client: Client) -> None:
    head = b"POST /messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2000\r\n"
    assert await sent(client, head + b"Expect: 100-Continue\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n"


async def test_another_expectation_is_passed_over(client: Client) -> None:
    body = b'{"content": "Hi"}'
    head = b"POST /messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    assert await sent(client, head + b"Expect: foo\r\n\r\n" + body) == b"HTTP/1.1 200 OK\r\n"
    head = b"GET /messages/x HTTP/1.1\r\nHost: x\r\nExpect: foo\r\n\r\n"
    assert await sent(client, head) == b"HTTP/1.1 404 Not Found\r\n"
