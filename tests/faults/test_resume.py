"""Exact resume: any cut, any cursor, any replica, before and after the end."""

import asyncio
from contextlib import suppress
from typing import Any

from aiohttp import ClientError, ClientSession

from tests.faults.conftest import Replicas
from tests.support.proxy import Proxy
from tests.support.reader import Reader
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.sse import parse_all, text_of

PIECES = ["Grüße, ", "世界! ", "😀", "\n\n", "x = 1\n", "- a\n- b", " ", "end: ", "data: id: 7"]
REASONING = ["Hmm… ", "yes"]
TEXT = "".join(PIECES)
CALL = ("c1", "look", '{"at":1}')


async def _begin(session: ClientSession, url: str, until: int | None = None) -> Reader:
    reader = Reader()
    async with session.post(f"{url}/messages", json={"content": "Hi"}) as response:
        await reader.read(response, until=until)
    return reader


async def test_readers_that_are_cut_again_and_again_each_time_at_another_byte_get_every_event_once_and_in_order(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(60):
        one, two = await replicas(2)
        upstream.reply(PIECES, reasoning=REASONING, tool_calls=[CALL], delay=0.05)
        first = await _begin(session, one.url, until=1)
        readers = [first.again() for _ in range(60)]

        async def read(reader: Reader, number: int) -> None:
            """Come again and again, each time cut some bytes later, at one replica and the other."""
            allowed = 250 + 17 * number  # a response's head is about 300 bytes
            async with Proxy(one.url.removeprefix("http://")) as near, Proxy(two.url.removeprefix("http://")) as far:
                proxies = (near, far)
                while reader.end is None:
                    proxy = proxies[number % 2]
                    proxy.cut_after, proxy.split = allowed, 5
                    await _try(session, reader, f"http://{proxy.address}")
                    number += 1
                    allowed += 41

        await asyncio.gather(*(read(reader, number) for number, reader in enumerate(readers)))
        await first.finish(session, two.url)
    for reader in (first, *readers):
        assert (reader.text, reader.reasoning) == (TEXT, "".join(REASONING))
        assert [frame.event for frame in reader.others] == ["tool_call"]
        assert reader.end is not None
        assert reader.end["status"] == "completed"
    async with session.get(f"{one.url}/messages/{first.answer}") as response:
        assert (await response.json())["content"] == TEXT


async def _try(session: ClientSession, reader: Reader, url: str) -> None:
    with suppress(ClientError, ConnectionError):
        await reader.resume(session, url)


async def test_readers_that_come_late_or_ten_at_once_see_the_same(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(30):
        one, two = await replicas(2)
        gate = upstream.gate()
        upstream.reply(PIECES, reasoning=REASONING, gate=gate)
        gate.release(4)
        first = await _begin(session, one.url, until=15)
        late = [first.again() for _ in range(10)]
        reading = [
            asyncio.create_task(reader.resume(session, url))
            for reader, url in zip(late, [one.url, two.url] * 5, strict=True)
        ]
        for reader in late:
            await reader.begun()
        gate.open()
        await asyncio.gather(*reading)
        await first.finish(session, one.url)
    assert {(reader.text, reader.reasoning, str(reader.end)) for reader in (*late, first)} == {
        (TEXT, "".join(REASONING), str(first.end))
    }


async def test_every_cursor_of_an_ended_answer_gets_the_rest_and_none_beyond_it(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_redis: Any
) -> None:
    async with asyncio.timeout(30):
        one, two = await replicas(2, event_log_ttl_seconds=0.05)
        upstream.reply(PIECES, reasoning=REASONING, tool_calls=[CALL])
        whole = await _begin(session, one.url)
        key = f"chat:{{{whole.conversation.removeprefix('conv_')}}}:events:2"
        while await own_redis.exists(key):
            await asyncio.sleep(0.01)
        path = f"{two.url}/messages/{whole.answer}/events"
        for cursor in range(1, whole.cursor):
            reader = whole.again()
            reader.cursor = cursor
            await reader.resume(session, two.url)
            assert TEXT.endswith(reader.text)
            assert "".join(REASONING).endswith(reader.reasoning)
            assert reader.cursor == whole.cursor
        async with session.get(path, headers={"Last-Event-ID": str(whole.cursor)}) as response:
            assert response.status == 204
        async with session.get(path, headers={"Last-Event-ID": str(whole.cursor + 1)}) as response:
            assert (response.status, (await response.json())["code"]) == (400, "bad_cursor")
        # From the stored message the rest of the text is one event.
        async with session.get(path, headers={"Last-Event-ID": str(1 + len("".join(REASONING)) + 3)}) as response:
            frames = parse_all(await response.text())
    assert [frame.event for frame in frames] == ["message", "tool_call", "end"]
    assert text_of(frames) == TEXT[3:]
