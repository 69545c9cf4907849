"""Places of a process that was killed are given back by whoever is in need of one."""

import asyncio
from typing import Any

from aiohttp import ClientSession

from tests.faults.conftest import Replicas
from tests.support.reader import Reader
from tests.support.scripted_upstream import ScriptedUpstream


async def test_answers_of_a_killed_process_do_not_count_for_ever(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_redis: Any
) -> None:
    async with asyncio.timeout(60):
        one, two = await replicas(2, limit_active_answers=3)
        gate = upstream.gate()
        for _ in range(3):
            upstream.reply(["one"], gate=gate)
        async with session.get(f"{one.url}/conversations"):
            pass

        async def begin(url: str) -> Reader:
            reader = Reader()
            async with session.post(f"{url}/messages", json={"content": "Hi"}) as response:
                await reader.read(response, until=1)
            return reader

        dead = [await begin(one.url) for _ in range(2)]
        alive = await begin(two.url)
        one.kill()
        (name,) = await own_redis.keys("limit:*:answers")
        (messages,) = [key for key in await own_redis.keys("limit:*:messages") if "." not in key]
        places = await own_redis.zrange(name, 0, -1, withscores=True)
        assert len(places) == 3
        # As if some seconds were over since they began; the leases of the dead ones run out by themselves.
        await own_redis.zadd(name, {member: score - 10_000 for member, score in places})
        refused = 0
        while True:
            async with session.post(f"{two.url}/messages", json={"content": "Hi"}) as response:
                if response.status == 200:
                    reader = Reader()
                    await reader.read(response)
                    assert reader.text == "Echo: Hi"
                    break
                assert (response.status, (await response.json())["code"]) == (429, "too_many_answers")
                refused += 1
            await asyncio.sleep(0.1)
        assert refused
        assert await own_redis.zcard(messages) == 4  # those that were refused took no place
        left = await own_redis.zrange(name, 0, -1)
        assert [member for member in left if alive.conversation[5:] in member] == left
        gate.open()
        await alive.finish(session, two.url)
        assert alive.end
        assert alive.end["status"] == "completed"
        await asyncio.gather(*(answer.finish(session, two.url) for answer in dead))
        for answer in dead:
            assert answer.end
            assert answer.end["status"] == "interrupted"
        assert await own_redis.exists(name) == 0
