"""The readers of the measurements: what they take for a whole answer, and what they find wrong."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.bench.load import Job, Stream, percentile
from tests.bench.script import Script
from tests.bench.upstream import Model, Seen, chunk, event, writes
from tests.bench.wire import dechunked, once

#: As a server sends it which writes the head by itself; its end looks like that of a body.
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nServer: some/1.0\r\n\r\n"
SCRIPT = Script(3)


@asynccontextmanager
async def _server(pieces: Sequence[bytes]) -> AsyncIterator[str]:
    """Answer every request with these writes, and close the connection; yields a URL."""
    answered = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001)  # no two in one segment
        writer.close()
        await writer.wait_closed()
        answered.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await answered.wait()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
async def test_a_response_ends_with_its_last_chunk_however_it_was_cut(size: int) -> None:
    body = chunk(b"Hel") + chunk(b"lo") + b"0\r\n\r\n"
    wire = HEAD + body
    async with _server([wire[at : at + size] for at in range(0, len(wire), size)]) as url:
        response = await once("GET", url)
    assert (response.status, response.chunks) == (200, [b"Hel", b"lo"])
    assert response.reads[-1][1] == len(body)
    assert response.header("server") == "some/1.0"


async def test_a_response_with_a_length_ends_with_it() -> None:
    async with _server([b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nHe", b"llo"]) as url:
        response = await once("GET", url)
    assert (response.status, response.body) == (404, b"Hello")


async def test_a_right_answer_is_counted_and_timed() -> None:
    seen = await _seen([HEAD, *writes(SCRIPT)])
    assert (seen["events"], seen["writes"], "wrong" in seen) == (3, 4, False)
    assert 0 < seen["first"] < 5
    assert len(seen["gaps"]) == seen["reads"] - 1


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD, *writes(Script(3, how="wrong"))],
        [HEAD, *writes(Script(2))],  # a token is missing
        [HEAD, chunk(event(0)), *writes(SCRIPT)],  # one came twice
        [HEAD, chunk(b"".join(map(event, range(3)))), b"0\r\n\r\n"],  # no end, but of the body
        [HEAD, *writes(SCRIPT)[:2]],  # cut
        [HEAD, *writes(SCRIPT)[:2], chunk(b'data: {"choices": []}\n\n'), b"0\r\n\r\n"],
        [HEAD, *writes(SCRIPT)[:2], chunk(b"data: \xff\n\n"), b"0\r\n\r\n"],
        [HEAD, *writes(SCRIPT)[:2], b"no chunk\r\n", b"0\r\n\r\n"],
        [b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"],
        [],
    ],
)
async def test_whatever_is_not_the_whole_answer_is_wrong(pieces: list[bytes]) -> None:
    assert (await _seen(pieces))["wrong"]


async def test_a_first_token_that_was_cut_is_timed_from_its_first_byte() -> None:
    at = event(0).index(b"w0") + 1
    first, rest = event(0)[:at], event(0)[at:]
    pieces = [HEAD, chunk(first), chunk(rest), *writes(SCRIPT)[1:]]
    async with _server(pieces) as url:
        stream = Stream(Job("openai", url, 0, 1, SCRIPT.model))
        await stream.read(0)
    seen, response = stream.seen(), stream.response
    assert response is not None
    assert (seen["events"], seen["writes"]) == (3, 5)
    assert response.place(len(first) - 1) == (0, len(b"%x\r\n" % len(first)) + len(first) - 1)
    assert response.place(len(first))[0] == 1


async def test_nobody_there_is_a_wrong_answer_too() -> None:
    stream = Stream(Job("openai", "http://127.0.0.1:9/", 0, 1, SCRIPT.model))
    await stream.read(0)
    assert stream.seen()["wrong"]


def test_the_upstream_sends_what_the_script_says_in_as_many_writes() -> None:
    for burst, count in ((1, 5), (2, 3), (8, 1)):
        sent = writes(Script(5, 0, burst))
        assert len(sent) == count
        events = b"".join(dechunked(b"".join(sent)))
        assert events.startswith(b"".join(map(event, range(5))))


@pytest.mark.parametrize("how", ["plain", "cut"])
async def test_the_upstream_keeps_the_order_of_its_writes_when_all_are_late(how: str) -> None:
    script = Script(30, 1_000_000, 1, how)
    server = await asyncio.get_running_loop().create_server(lambda: Model(Seen()), "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        stream = Stream(Job("openai", url, 0, 1, script.model))
        await stream.read(0)
    assert "wrong" not in stream.seen()


async def _seen(pieces: Sequence[bytes]) -> dict[str, Any]:
    async with _server(pieces) as url:
        stream = Stream(Job("openai", url, 0, 1, SCRIPT.model))
        await stream.read(0)
        return stream.seen()


@pytest.mark.parametrize(
    ("count", "share", "found"), [(100, 0.99, 99), (100, 0.5, 50), (101, 0.99, 100), (3, 0.5, 2), (1, 0.99, 1)]
)
def test_a_percentile_is_the_least_value_that_so_many_are_not_above(count: int, share: float, found: int) -> None:
    assert percentile([number / 1000 for number in range(count, 0, -1)], share) == found


def test_a_percentile_of_nothing_is_none_at_all() -> None:
    assert percentile([], 0.99) == 0
