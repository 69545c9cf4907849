"""Processes that die, or only seem dead."""

import asyncio
import signal
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.faults.conftest import Replicas
from tests.support.reader import Reader
from tests.support.scripted_upstream import ScriptedUpstream

#: A death is noticed one lease later, and believed after another one. No answer here has to outlive a lease.
QUICK = {"lease_seconds": 0.5}


async def _read_some(session: ClientSession, url: str, upstream: ScriptedUpstream) -> tuple[Reader, Any]:
    """POST, read "one " (up to position 5) of an answer that has more to say, and leave."""
    gate = upstream.gate()
    upstream.reply(["one ", "two ", "three"], gate=gate)
    reader = Reader()
    gate.release()
    async with session.post(f"{url}/messages", json={"content": "Hi"}) as response:
        await reader.read(response, until=5)
    return reader, gate


async def test_a_reader_on_another_replica_gets_the_rest_and_interrupted_when_the_runner_is_killed(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(30):
        one, two = await replicas(2, **QUICK)
        reader, gate = await _read_some(session, one.url, upstream)
        elsewhere = reader.again()
        reading = asyncio.create_task(elsewhere.resume(session, two.url))
        gate.release()
        await reader.resume(session, one.url, until=9)
        one.kill()
        async with asyncio.timeout(10):
            await reading
    assert (elsewhere.text, elsewhere.end) == (
        "one two ",
        {"status": "interrupted", "finish_reason": None, "model": None, "usage": None, "error": None},
    )
    await reader.finish(session, two.url)
    assert (reader.text, reader.end) == (elsewhere.text, elsewhere.end)
    async with session.get(f"{two.url}/messages/{reader.answer}") as response:
        message = await response.json()
    assert (message["status"], message["content"]) == ("interrupted", "one two ")
    async with session.post(
        f"{two.url}/messages", json={"content": "go on", "conversation": reader.conversation}
    ) as response:
        after = Reader()
        await after.read(response)
    assert after.end is not None
    assert after.end["status"] == "completed"


async def test_a_post_that_comes_first_takes_the_conversation_of_a_dead_runner(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(30):
        one, two = await replicas(2, **QUICK)
        reader, _ = await _read_some(session, one.url, upstream)
        one.kill()
        async with asyncio.timeout(10):
            body = {"content": "go on", "conversation": reader.conversation}
            async with session.post(f"{two.url}/messages", json=body) as response:
                after = Reader()
                await after.read(response)
        await reader.finish(session, two.url)
    assert after.text == "Echo: go on"
    assert reader.text == "one "
    assert reader.end is not None
    assert reader.end["status"] == "interrupted"


@pytest.mark.parametrize("look", ["conversation", "conversation that is known", "list"])
async def test_a_get_of_the_conversation_ends_the_answer_of_a_dead_runner(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_redis: Any, look: str
) -> None:
    async with asyncio.timeout(30):
        one, two = await replicas(2, **QUICK)
        reader, _ = await _read_some(session, one.url, upstream)
        async with session.get(f"{one.url}/conversations/{reader.conversation}") as response:
            known = {"If-None-Match": response.headers["ETag"]} if look == "conversation that is known" else {}
        one.kill()
        path = f"{two.url}/conversations/{reader.conversation}"
        async with asyncio.timeout(10):
            while await own_redis.hexists(f"chat:{{{reader.conversation[5:]}}}", "active"):
                async with session.get(
                    f"{two.url}/conversations" if look == "list" else path, headers=known
                ) as response:
                    assert response.status in (200, 304)
                await asyncio.sleep(0.05)
        async with session.get(path, headers=known) as response:
            body = await response.json()
    assert (body["messages"][1]["status"], body["messages"][1]["content"]) == ("interrupted", "one ")


async def test_a_stop_that_cannot_be_seen_to_its_end_is_told_as_503(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_redis: Any
) -> None:
    async with asyncio.timeout(30):
        one, two = await replicas(2, **QUICK)
        reader, gate = await _read_some(session, one.url, upstream)
        one.signal(signal.SIGSTOP)
        try:
            await own_redis.delete(f"chat:{{{reader.conversation[5:]}}}:events:2")
            async with session.post(f"{two.url}/messages/{reader.answer}/stop") as response:
                assert (response.status, (await response.json())["code"]) == (503, "store_unavailable")
        finally:
            one.signal(signal.SIGCONT)
            gate.open()


async def test_the_only_process_is_killed_and_started_again(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(40):
        (service,) = await replicas(1, **QUICK)
        reader, _ = await _read_some(session, service.url, upstream)
        service.kill()
        await service.start()
        async with asyncio.timeout(10):
            await reader.finish(session, service.url)
        assert (reader.text, reader.end and reader.end["status"]) == ("one ", "interrupted")
        body = {"content": "go on", "conversation": reader.conversation}
        async with session.post(f"{service.url}/messages", json=body) as response:
            after = Reader()
            await after.read(response)
    assert after.text == "Echo: go on"


async def test_stop_of_an_answer_whose_runner_is_dead_ends_it_as_interrupted(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(30):
        one, two = await replicas(2, **QUICK)
        reader, _ = await _read_some(session, one.url, upstream)
        one.kill()
        async with session.post(f"{two.url}/messages/{reader.answer}/stop") as response:
            message = await response.json()
    assert (response.status, message["status"], message["content"]) == (200, "interrupted", "one ")


async def test_a_runner_that_was_only_asleep_finds_its_answer_ended_and_writes_nothing(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_redis: Any
) -> None:
    async with asyncio.timeout(40):
        one, two = await replicas(2, **QUICK)
        reader, gate = await _read_some(session, one.url, upstream)
        key = f"chat:{{{reader.conversation.removeprefix('conv_')}}}:events:2"
        watcher = reader.again()
        reading = asyncio.create_task(watcher.resume(session, one.url))  # on the sleeper itself
        one.signal(signal.SIGSTOP)
        await reader.finish(session, two.url)
        assert (reader.text, reader.end and reader.end["status"]) == ("one ", "interrupted")
        before = await own_redis.dump(key)
        gate.open()
        one.signal(signal.SIGCONT)
        await upstream.wait_for_open_streams(0)
        await reading
        assert (watcher.text, watcher.end) == (reader.text, reader.end)
        assert await own_redis.dump(key) == before
        assert await own_redis.xlen(key) == 3
        # Asked again, the sleeper serves what the other one has written, and takes a new message.
        body = {"content": "go on", "conversation": reader.conversation}
        async with session.post(f"{one.url}/messages", json=body) as response:
            after = Reader()
            await after.read(response)
    assert after.text == "Echo: go on"


async def test_a_runner_that_wakes_with_nothing_but_its_end_to_write_hands_on_the_end_of_the_other(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_redis: Any
) -> None:
    async with asyncio.timeout(40):
        one, two = await replicas(2, **QUICK)
        gate = upstream.gate()
        upstream.reply(["one "], gate=gate)
        gate.release()
        reader = Reader()
        async with session.post(f"{one.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=5)
            watcher = reader.again()
            one.signal(signal.SIGSTOP)
            await watcher.finish(session, two.url)
            key = f"chat:{{{reader.conversation.removeprefix('conv_')}}}:events:2"
            before = await own_redis.dump(key)
            gate.open()
            one.signal(signal.SIGCONT)
            await reader.read(response)
        assert (reader.text, reader.end) == (watcher.text, watcher.end)
        assert reader.end is not None
        assert reader.end["status"] == "interrupted"
        assert await own_redis.dump(key) == before


async def test_a_runner_that_was_asleep_writes_nothing_into_a_log_that_has_expired(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_redis: Any
) -> None:
    async with asyncio.timeout(40):
        one, two = await replicas(2, event_log_ttl_seconds=0.2, **QUICK)
        reader, gate = await _read_some(session, one.url, upstream)
        key = f"chat:{{{reader.conversation.removeprefix('conv_')}}}:events:2"
        one.signal(signal.SIGSTOP)
        await reader.finish(session, two.url)
        while await own_redis.exists(key):
            await asyncio.sleep(0.02)
        gate.open()
        one.signal(signal.SIGCONT)
        await upstream.wait_for_open_streams(0)
        async with session.get(f"{one.url}/messages/{reader.answer}") as response:
            message = await response.json()
        assert (message["status"], message["content"]) == ("interrupted", "one ")
        assert await own_redis.exists(key) == 0
