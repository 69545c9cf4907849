"""Redis that restarts, stays away, hangs, or is full."""

import asyncio
import os
import shutil
import signal
from typing import Any

import pytest
from aiohttp import ClientSession
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tests.faults.conftest import Replicas
from tests.support.proxy import Proxy
from tests.support.reader import Reader
from tests.support.scripted_upstream import Gate, ScriptedUpstream
from tests.support.service import NO_LIMITS
from tests.support.store import StoreProcess, prolonged

WORDS = [f"{number} " for number in range(1, 61)]


async def _begin(session: ClientSession, url: str, until: int | None = None, content: str = "Hi") -> Reader:
    reader = Reader()
    async with session.post(f"{url}/messages", json={"content": content}) as response:
        await reader.read(response, until=until)
    return reader


async def test_readers_see_a_pause_and_then_the_rest_when_redis_is_killed_and_started_again(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_store: StoreProcess
) -> None:
    async with asyncio.timeout(60):
        one, two = await replicas(2, lease_seconds=3)
        upstream.reply(WORDS, delay=0.02)
        here = Reader()
        async with session.post(f"{one.url}/messages", json={"content": "Hi"}) as response:
            await here.read(response, until=10)
            elsewhere = here.again()
            reading = asyncio.create_task(elsewhere.resume(session, two.url))
            await elsewhere.begun()
            own_store.kill()
            await own_store.start()
            # The same connections go on: their readers have seen a pause, nothing else.
            await here.read(response)
            await reading
    for reader in (here, elsewhere):
        assert reader.text == "".join(WORDS)
        assert reader.end is not None
        assert reader.end["status"] == "completed"
    async with session.get(f"{two.url}/messages/{here.answer}") as response:
        assert (await response.json())["content"] == "".join(WORDS)


async def test_an_outage_longer_than_the_lease_ends_nothing(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_store: StoreProcess
) -> None:
    async with asyncio.timeout(60):
        one, two = await replicas(2, lease_seconds=1)
        gate = upstream.gate()
        script = upstream.reply(WORDS, gate=gate)
        gate.release(3)
        reader = await _begin(session, one.url, until=7)
        elsewhere = reader.again()
        reading = asyncio.create_task(elsewhere.resume(session, two.url))
        await elsewhere.begun()
        own_store.kill()
        gate.release(20)
        await upstream.wait_for_sent(script, 23)
        await asyncio.sleep(2.5)  # the outage itself: longer than two leases
        await own_store.start()
        gate.open()
        await reading
        await reader.finish(session, one.url)
    for taken in (reader, elsewhere):
        assert taken.text == "".join(WORDS)
        assert taken.end is not None
        assert taken.end["status"] == "completed"


async def test_a_runner_that_comes_back_after_its_lease_and_within_another_one_is_not_taken_for_dead(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_store: StoreProcess
) -> None:
    """Redis is away for the runner alone: others see that the lease has lapsed, and give it another one's time."""
    async with asyncio.timeout(60), Proxy(str(own_store.socket)) as proxy:
        (one,) = await replicas(1, lease_seconds=2, redis_url=f"redis://{proxy.address}")
        (two,) = await replicas(1, lease_seconds=2)
        gate = upstream.gate()
        upstream.reply(WORDS, gate=gate)
        gate.release(3)
        reader = await _begin(session, one.url, until=7)
        elsewhere = reader.again()
        reading = asyncio.create_task(elsewhere.resume(session, two.url))
        await elsewhere.begun()
        proxy.accepting = False
        proxy.cut()
        await asyncio.sleep(3.4)  # the outage itself: the lease is gone after 2 s, and doubted at 3 s at the latest
        proxy.accepting = True
        gate.open()
        await reading
    assert elsewhere.text == "".join(WORDS)
    assert elsewhere.end is not None
    assert elsewhere.end["status"] == "completed"


async def test_a_post_whose_reply_from_redis_is_lost_is_stored_and_asked_once(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_store: StoreProcess, own_redis: Any
) -> None:
    async with asyncio.timeout(60), Proxy(str(own_store.socket)) as proxy:
        # Without limits, whose script would be the first whose reply is lost.
        (service,) = await replicas(1, redis_url=f"redis://{proxy.address}", **NO_LIMITS)
        async with session.get(f"{service.url}/conversations"):
            pass
        proxy.flowing.clear()
        body, headers = {"content": "Hi"}, {"Idempotency-Key": "k"}
        posting = asyncio.create_task(session.post(f"{service.url}/messages", json=body, headers=headers))
        while not await own_redis.keys("chat:*"):  # stored, and nobody has heard of it
            await asyncio.sleep(0.01)
        proxy.cut()
        proxy.flowing.set()
        reader = Reader()
        async with await posting as response:
            await reader.read(response)
        assert (reader.text, reader.end and reader.end["status"]) == ("Echo: Hi", "completed")
        async with session.get(f"{service.url}/conversations/{reader.conversation}") as response:
            assert len((await response.json())["messages"]) == 2
    assert len(upstream.requests) == 1


async def test_a_post_whose_limits_reply_is_lost_takes_one_place_of_each(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_store: StoreProcess, own_redis: Any
) -> None:
    async with asyncio.timeout(60), Proxy(str(own_store.socket)) as proxy:
        (service,) = await replicas(1, redis_url=f"redis://{proxy.address}")
        async with session.get(f"{service.url}/conversations"):
            pass
        proxy.flowing.clear()
        posting = asyncio.create_task(session.post(f"{service.url}/messages", json={"content": "Hi"}))
        while len(await own_redis.keys("limit:*:messages")) < 2:  # taken, and nobody has heard of it
            await asyncio.sleep(0.01)
        proxy.cut()
        proxy.flowing.set()
        reader = Reader()
        async with await posting as response:
            assert '"messages";r=59;' in response.headers["RateLimit"]
            assert '"address";r=299;' in response.headers["RateLimit"]
            await reader.read(response)
        assert reader.text == "Echo: Hi"


async def test_entries_that_were_acknowledged_and_then_lost_are_written_again_from_memory(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_store: StoreProcess, own_redis: Any
) -> None:
    """What a failover does: the store comes back as it was some time ago."""
    async with asyncio.timeout(60):
        await own_redis.config_set("appendfsync", "always")
        one, two = await replicas(2, lease_seconds=3)
        gate = upstream.gate()
        script = upstream.reply(WORDS, gate=gate)
        gate.release(3)
        reader = await _begin(session, one.url, until=7)
        elsewhere = reader.again()
        reading = asyncio.create_task(elsewhere.resume(session, two.url))
        old = own_store.folder / "old"
        shutil.copytree(own_store.folder / "appendonlydir", old)
        gate.release(10)
        await upstream.wait_for_sent(script, 13)
        while elsewhere.text != "".join(WORDS[:13]):
            await asyncio.sleep(0.01)
        own_store.kill()
        shutil.rmtree(own_store.folder / "appendonlydir")
        old.rename(own_store.folder / "appendonlydir")
        await own_store.start()
        gate.open()
        await reading
        await reader.finish(session, two.url)
        late = reader.again()
        await late.finish(session, two.url)
    for taken in (reader, elsewhere, late):
        assert taken.text == "".join(WORDS)
        assert taken.end is not None
        assert taken.end["status"] == "completed"


@pytest.mark.parametrize("shown", [4, len(WORDS)])
async def test_an_answer_that_ends_while_a_failover_loses_its_last_entries_is_complete(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_store: StoreProcess, shown: int
) -> None:
    async with asyncio.timeout(60):
        (service,) = await replicas(1, lease_seconds=3)
        gate = upstream.gate()
        upstream.reply(WORDS, gate=gate)
        gate.release(3)
        reader = await _begin(session, service.url, until=7)
        old = own_store.folder / "old"
        shutil.copytree(own_store.folder / "appendonlydir", old)
        gate.release(shown - 3)
        async with session.get(f"{service.url}/messages/{reader.answer}/events") as response:
            elsewhere = Reader()
            await elsewhere.read(response, until=1 + len("".join(WORDS[:shown])))
        own_store.kill()
        gate.open()
        await upstream.wait_for_open_streams(0)  # the end is asked for, and what is left goes with it
        shutil.rmtree(own_store.folder / "appendonlydir")
        old.rename(own_store.folder / "appendonlydir")
        await own_store.start()
        for taken in (reader, elsewhere):
            await taken.finish(session, service.url)
    for taken in (reader, elsewhere):
        assert taken.text == "".join(WORDS)
        assert taken.end is not None
        assert taken.end["status"] == "completed"


async def test_an_outage_longer_than_the_limit_fails_the_answer_with_its_text_and_refuses_posts_meanwhile(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_store: StoreProcess
) -> None:
    async with asyncio.timeout(60):
        (service,) = await replicas(1, redis_outage_seconds=1)
        gate = upstream.gate()
        script = upstream.reply(WORDS, gate=gate)
        gate.release(3)
        reader = await _begin(session, service.url, until=7)
        own_store.kill()
        gate.release(2)
        await upstream.wait_for_sent(script, 5)
        async with session.post(f"{service.url}/messages", json={"content": "and?"}) as response:
            assert (response.status, (await response.json())["code"]) == (503, "store_unavailable")
            assert int(response.headers["Retry-After"]) > 0
        async with session.get(f"{service.url}/health/ready") as response:
            assert response.status == 503
        async with session.get(f"{service.url}/health/live") as response:
            assert response.status == 200
        await upstream.wait_for_open_streams(0)
        await own_store.start()
        await reader.finish(session, service.url)
        assert reader.text == "".join(WORDS[:5])
        assert reader.end is not None
        assert (reader.end["status"], reader.end["error"]["code"]) == ("failed", "store_unavailable")
        async with session.get(f"{service.url}/messages/{reader.answer}") as response:
            message = await response.json()
        assert (message["status"], message["content"]) == ("failed", reader.text)
        body = {"content": "go on", "conversation": reader.conversation}
        async with session.post(f"{service.url}/messages", json=body) as response:
            after = Reader()
            await after.read(response)
    assert after.text == "Echo: go on"


async def test_an_upstream_is_not_read_further_than_the_buffer_while_redis_is_away(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_store: StoreProcess
) -> None:
    pieces = ["x" * 1000] * 20_000  # 20 MB: more than all buffers between here and there
    async with asyncio.timeout(60):
        (service,) = await replicas(1, max_buffered_bytes=100_000)
        gate = upstream.gate()
        script = upstream.reply(pieces, gate=gate)
        gate.release(1)
        reader = await _begin(session, service.url, until=1001)
        own_store.kill()
        gate.open()
        sent = -1
        while sent != script.sent:  # until the upstream can send no more
            sent = script.sent
            await asyncio.sleep(0.5)
        assert sent < 15_000
        memory = _resident(service.pid)
        assert memory < 150e6
        await own_store.start()
        await reader.finish(session, service.url)
        assert len(reader.text) == 20_000_000
        assert reader.end is not None
        assert reader.end["status"] == "completed"


async def test_a_redis_that_hangs_is_an_outage_like_any_other(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_store: StoreProcess
) -> None:
    async with asyncio.timeout(60):
        (service,) = await replicas(1, lease_seconds=3)
        gate = upstream.gate()
        upstream.reply(WORDS, gate=gate)
        gate.release(3)
        reader = await _begin(session, service.url, until=7)
        own_store.freeze()
        gate.release(5)
        async with session.get(f"{service.url}/health/ready") as response:
            assert response.status == 503
        own_store.thaw()
        gate.open()
        await reader.finish(session, service.url)
    assert reader.text == "".join(WORDS)


async def test_a_redis_that_is_busy_with_somebodys_script_is_an_outage_like_any_other(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_redis: Any, own_store: StoreProcess
) -> None:
    async with asyncio.timeout(60):
        (service,) = await replicas(1, lease_seconds=3)
        await own_redis.config_set("busy-reply-threshold", 10)
        gate = upstream.gate()
        upstream.reply(WORDS, gate=gate)
        gate.release(3)
        reader = await _begin(session, service.url, until=7)
        other: Any = Redis.from_url(own_store.url)
        async with other:
            script = asyncio.create_task(other.eval("while true do end", 0))
            while True:
                try:
                    await own_redis.ping()
                except ResponseError:
                    break
            gate.release(5)
            for method, path, body in (("POST", "/messages", {"content": "and?"}), ("GET", "/conversations", None)):
                async with session.request(method, f"{service.url}{path}", json=body) as response:
                    assert (response.status, (await response.json())["code"]) == (503, "store_unavailable")
            await own_redis.script_kill()
            with pytest.raises(ResponseError):
                await script
        gate.open()
        await reader.finish(session, service.url)
    assert reader.text == "".join(WORDS)
    assert reader.end is not None
    assert reader.end["status"] == "completed"


async def test_a_runner_that_waits_for_its_model_lives_though_the_store_is_full(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_redis: Any
) -> None:
    async with asyncio.timeout(60):
        one, two = await replicas(2)
        gate = upstream.gate()
        upstream.reply(WORDS, gate=gate)
        gate.release(3)
        reader = Reader()
        async with session.post(f"{one.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=7)
            lease = f"chat:{{{reader.conversation[5:]}}}:lease:2"
            await own_redis.config_set("maxmemory-policy", "noeviction")
            await own_redis.config_set("maxmemory", 1)
            for _ in range(4):  # renewals: more than a lease
                await prolonged(own_redis, lease)
            async with session.get(f"{two.url}/messages/{reader.answer}") as seen:
                assert (await seen.json())["status"] == "streaming"
            await own_redis.config_set("maxmemory", 0)
            gate.open()
            await reader.read(response)
    assert reader.end is not None
    assert (reader.text, reader.end["status"]) == ("".join(WORDS), "completed")


async def test_a_full_redis_refuses_posts_ends_answers_with_what_it_had_taken_and_still_reads_and_deletes(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_redis: Any
) -> None:
    async with asyncio.timeout(60):
        one, two = await replicas(2)
        gate = upstream.gate()
        upstream.reply(WORDS, gate=gate)
        gate.release(3)
        reader = Reader()
        async with session.post(f"{one.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=7)
            await own_redis.config_set("maxmemory-policy", "noeviction")
            await own_redis.config_set("maxmemory", 1)
            gate.release(1)
            await reader.read(response)
        assert reader.end is not None
        assert (reader.end["status"], reader.end["error"]["code"]) == ("failed", "store_full")
        assert reader.text == "".join(WORDS[:3])
        await upstream.wait_for_open_streams(0)
        for fields in ({}, {"conversation": reader.conversation}):
            async with session.post(f"{two.url}/messages", json={"content": "and?", **fields}) as response:
                assert (response.status, (await response.json())["code"]) == (507, "store_full")
        async with session.post(f"{two.url}/conversations", json={}) as response:
            assert (response.status, (await response.json())["code"]) == (507, "store_full")
        async with session.get(f"{two.url}/conversations/{reader.conversation}") as response:
            body = await response.json()
        assert [(m["status"], m["content"]) for m in body["messages"]] == [
            ("completed", "Hi"),
            ("failed", reader.text),
        ]
        async with session.get(f"{two.url}/conversations") as response:
            assert len((await response.json())["conversations"]) == 1
        async with session.delete(f"{two.url}/conversations/{reader.conversation}") as response:
            assert response.status == 204
        await own_redis.config_set("maxmemory", 0)
        again = await _begin(session, one.url, content="again")
    assert again.text == "Echo: again"


async def test_a_store_that_is_stopped_for_good_leaves_a_service_that_can_be_ended(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_store: StoreProcess
) -> None:
    async with asyncio.timeout(60):
        (service,) = await replicas(1, shutdown_grace_seconds=1)
        gate: Gate = upstream.gate()
        upstream.reply(WORDS, gate=gate)
        gate.release(3)
        await _begin(session, service.url, until=7)
        own_store.kill()
        service.signal(signal.SIGTERM)
        assert await service.ended(4) == 0


def _resident(pid: int) -> float:
    """Return a process's resident memory in bytes."""
    with open(f"/proc/{pid}/statm") as statm:  # noqa: PTH123 - no file of ours
        return float(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
