"""What an answer costs Redis: counted, so that a regression shows without a clock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.conftest import Client, Start
from tests.store.conftest import trips_of_an_answer
from tests.support.browser import ask
from tests.support.scripted_upstream import Script, ScriptedUpstream, chunk, reply
from tests.support.service import NO_LIMITS
from tests.support.sse import frames_of
from tests.support.store import reads_of


async def counts(redis: Any) -> dict[str, int]:
    """Return how often each command ran since the last reset, leases and stop marks (by the clock) left out."""
    stats = await redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()}


@asynccontextmanager
async def text_before_the_end(client: Client, upstream: ScriptedUpstream) -> AsyncIterator[None]:
    """Ask, and run the block between an answer's text, which is shown then, and its end."""
    gate = upstream.gate()
    upstream.reply(["x"], gate=gate)
    gate.release()
    async with asyncio.timeout(30), client.post("/messages", json={"content": "Hi"}) as response:
        frames = frames_of(response)
        while (await anext(frames)).data != "x":
            pass
        yield
        gate.open()
        async for _ in frames:
            pass


async def test_a_post_is_one_script_within_its_limits_and_so_is_the_end(
    client: Client, redis: Any, upstream: ScriptedUpstream
) -> None:
    await ask(client, "Hi")  # connections and scripts are there now
    await redis.config_resetstat()
    async with text_before_the_end(client, upstream):
        pass
    seen = await counts(redis)
    # admit and finish
    assert seen["evalsha"] == 2
    # the list twice; a place among the owner's messages, its answers and the address's messages
    assert seen["zadd"] == 5
    # the answer's place given back
    assert seen["zrem"] == 1
    # begin's start, the text, finish's end
    assert seen["xadd"] == 3
    assert seen.get("xread", 0) == 0


async def test_without_limits_a_post_is_one_script_and_one_entry_of_the_list(
    start: Start, redis: Any, upstream: ScriptedUpstream
) -> None:
    client = await start(**NO_LIMITS)
    await ask(client, "Hi")
    await redis.config_resetstat()
    await ask(client, "Hi")
    seen = await counts(redis)
    assert (seen["evalsha"], seen["zadd"], seen.get("zrem", 0)) == (2, 2, 0)


async def test_an_answer_that_comes_at_once_is_two_round_trips_in_a_new_conversation_and_in_an_old_one(
    client: Client, redis: Any, upstream: ScriptedUpstream
) -> None:
    """Its begin within its limits, and the text and the end with all that goes with it."""
    assert await trips_of_an_answer(client, redis, upstream) == [2, 2]


async def test_an_end_that_comes_later_is_a_round_trip_of_its_own(
    client: Client, redis: Any, upstream: ScriptedUpstream
) -> None:
    seen = []
    for _ in range(10):
        async with text_before_the_end(client, upstream):
            before = await reads_of(redis)
        seen.append(await reads_of(redis) - before - 1)  # the second INFO
    assert min(seen) == 1


@pytest.mark.parametrize("pieces", [10, 100])
async def test_each_event_is_one_append_whatever_came_before_it(
    client: Client, redis: Any, upstream: ScriptedUpstream, pieces: int
) -> None:
    gate = upstream.gate()
    upstream.reply(["x"] * pieces, gate=gate)
    async with asyncio.timeout(30), client.post("/messages", json={"content": "Hi"}) as response:
        frames = frames_of(response)
        await anext(frames)
        await redis.config_resetstat()
        for _ in range(pieces):
            gate.release()
            await anext(frames)  # shown, so committed: each piece is a commit of its own
        seen = await counts(redis)
        gate.open()
        async for _ in frames:
            pass
    assert seen["xadd"] == pieces
    assert set(seen) <= {"xadd", "hget", "set", "config|resetstat", "info", "zadd"}  # the lease and the stop mark


@pytest.mark.parametrize("readers", [1, 20])
async def test_readers_in_the_answers_own_process_cost_redis_nothing(
    client: Client, redis: Any, upstream: ScriptedUpstream, readers: int
) -> None:
    gate = upstream.gate()
    upstream.reply(["x"] * 20, gate=gate)
    async with asyncio.timeout(30), client.post("/messages", json={"content": "Hi"}) as response:
        frames = frames_of(response)
        answer = (await anext(frames)).json["message"]
        others = [await client.get(f"/messages/{answer}/events") for _ in range(readers)]
        streams = [frames_of(other) for other in others]
        for stream in streams:
            await anext(stream)
        await redis.config_resetstat()
        for _ in range(20):
            gate.release()
            for stream in (frames, *streams):
                await anext(stream)
        seen = await counts(redis)
        gate.open()
        for stream in (frames, *streams):
            async for _ in stream:
                pass
    assert seen["xadd"] == 20
    assert seen.get("xread", 0) + seen.get("xrange", 0) + seen.get("evalsha", 0) == 0


async def test_readers_in_another_process_share_one_blocking_read(
    start: Start, redis: Any, upstream: ScriptedUpstream
) -> None:
    client, other = await start(), await start()
    gate = upstream.gate()
    upstream.reply(["x"] * 10, gate=gate)
    async with asyncio.timeout(30), client.post("/messages", json={"content": "Hi"}) as response:
        frames = frames_of(response)
        answer = (await anext(frames)).json["message"]
        other.session.cookie_jar.update_cookies(client.session.cookie_jar.filter_cookies(client.make_url("/")))
        streams = [frames_of(await other.get(f"/messages/{answer}/events")) for _ in range(10)]
        for stream in streams:
            await anext(stream)
        blocked = [entry for entry in await redis.client_list() if entry["cmd"] == "xread"]
        assert len(blocked) == 1
        gate.open()
        for stream in (frames, *streams):
            async for _ in stream:
                pass


async def test_answers_that_write_at_once_share_commits(client: Client, redis: Any, upstream: ScriptedUpstream) -> None:
    """Group commit: what waits while a pipeline is in flight goes out together, and texts of one answer as one entry."""
    upstream.default = lambda _: _burst()
    await redis.config_resetstat()
    answers = await asyncio.gather(*(ask(client, f"Hi {number}") for number in range(20)))
    assert {answer["message"]["content"] for answer in answers} == {"x" * 200}
    seen = await counts(redis)
    assert seen["xadd"] < 20 * 200 / 4


def _burst() -> Script:
    script = reply([])
    script.steps = [b"".join(chunk({"content": "x"}) for _ in range(200)), *script.steps]
    return script


async def test_a_thousand_readers_leave_no_task_behind(start: Start, upstream: ScriptedUpstream) -> None:
    client = await start(limit_readers=0)
    gate = upstream.gate()
    upstream.reply(["x"], gate=gate)
    async with asyncio.timeout(60), client.post("/messages", json={"content": "Hi"}) as response:
        frames = frames_of(response)
        answer = (await anext(frames)).json["message"]
        await upstream.wait_for_open_streams(1)  # its tasks run in this loop, too
        tasks = len(asyncio.all_tasks())
        for _ in range(20):
            batch = await asyncio.gather(*(client.get(f"/messages/{answer}/events") for _ in range(50)))
            assert len(asyncio.all_tasks()) > tasks
            for reader in batch:
                reader.close()
        while len(asyncio.all_tasks()) > tasks:
            await asyncio.sleep(0.01)
        gate.open()
        async for _ in frames:
            pass
