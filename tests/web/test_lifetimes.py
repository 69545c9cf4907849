"""`CONVERSATION_TTL_SECONDS`: how long conversations and the owner's list stay."""

import asyncio
from typing import Any

from tests.conftest import Start
from tests.support.browser import ask, get
from tests.support.reader import Reader
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.store import prolonged


async def test_what_is_written_stays_while_it_is_written(start: Start, redis: Any, upstream: ScriptedUpstream) -> None:
    client = await start(conversation_ttl_seconds=5, lease_seconds=1)
    gate = upstream.gate()
    upstream.reply(["one ", "two"], gate=gate)
    gate.release()
    reader = Reader()
    async with asyncio.timeout(30), client.post("/messages", json={"content": "Hi"}) as response:
        await reader.read(response, until=5)
        names = sorted(name for name in await redis.keys("chat:*") if ":lease:" not in name)
        assert [name.partition("}")[2] for name in names] == ["", ":events:2", ":messages"]
        for name in names:
            await prolonged(redis, name)  # though nothing is written
        [name] = await redis.keys("owner:*:conversations")
        assert 0 < await redis.pttl(name) <= 5000
        gate.open()
        await reader.read(response)
    assert reader.end is not None
    assert (reader.text, reader.end["status"]) == ("one two", "completed")


async def test_the_owners_list_ends_with_the_last_conversation_and_not_before(start: Start, redis: Any) -> None:
    client = await start(conversation_ttl_seconds=100)
    async with asyncio.timeout(30):
        async with client.post("/conversations", json={}) as response:
            path = response.headers["Location"]
        await _lasts(redis, 90)
        [name] = await redis.keys("owner:*:conversations")
        for change in ("PATCH", "GET", "POST"):
            await redis.pexpire(name, 50_000)
            match change:
                case "PATCH":
                    await (await client.patch(path, json={"title": "t"})).read()
                case "GET":
                    await redis.delete(name)
                    await get(client, path)  # mends the list
                case "POST":
                    await ask(client, "Hi", conversation=path.rpartition("/")[2])
            await _lasts(redis, 90)
        assert [row["id"] for row in (await get(client, "/conversations"))["conversations"]] == [
            path.rpartition("/")[2]
        ]


async def _lasts(redis: Any, seconds: float) -> None:
    """Wait until the owner's list will stay so long. Without a lifetime it never does."""
    while not (names := await redis.keys("owner:*:conversations")) or await redis.pttl(names[0]) < seconds * 1000:
        await asyncio.sleep(0.01)
