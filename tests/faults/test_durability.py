"""`DURABILITY`: what must have happened to an event before it is shown."""

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from redis.asyncio import Redis

from tests.faults.conftest import Replicas
from tests.support.ports import free_port
from tests.support.reader import Reader
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.service import ServiceProcess
from tests.support.store import StoreProcess


async def test_with_fsync_killing_process_and_redis_together_loses_nothing_that_was_seen(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_store: StoreProcess, own_redis: Any
) -> None:
    async with asyncio.timeout(60):
        await own_redis.config_set("appendfsync", "always")
        (service,) = await replicas(1, durability="fsync", lease_seconds=0.5)
        upstream.reply([f"{number} " for number in range(200)], delay=0.005)
        reader = Reader()
        async with session.post(f"{service.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=100)
            service.kill()
            own_store.kill()
            await reader.read(response)  # what was on its way was shown, too
        assert reader.end is None
        await own_store.start()
        await service.start()
        seen = reader.text
        again = reader.again()
        await again.finish(session, service.url)
        await reader.finish(session, service.url)  # fails on a gap, a repeat or a cursor beyond the log
    assert again.text.startswith(seen)
    assert again.text == reader.text
    assert again.end is not None
    assert again.end["status"] == "interrupted"


async def test_with_fsync_each_commit_waits_for_the_disk(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_redis: Any
) -> None:
    async with asyncio.timeout(60):
        (service,) = await replicas(1, durability="fsync")
        await own_redis.config_resetstat()
        upstream.reply(["one ", "two"], delay=0.01)
        reader = Reader()
        async with session.post(f"{service.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response)
        stats = await own_redis.info("commandstats")
        assert reader.text == "one two"
        # begin, at least one for the text, finish; each with what else was in its commit
        assert stats["cmdstat_waitaof"]["calls"] >= 3


@pytest.mark.parametrize(
    "option", [("--rename-command", "WAITAOF", ""), ("--appendonly", "no")], ids=["old", "no file"]
)
async def test_a_store_that_cannot_give_fsync_is_refused_at_start_up_in_a_sentence(
    folder: Path, upstream: ScriptedUpstream, option: tuple[str, ...]
) -> None:
    store = StoreProcess(folder, *option)
    try:
        await store.start()
        service = ServiceProcess(folder, redis_url=store.url, openai_base_url=upstream.base_url, durability="fsync")
        service.spawn()
        assert await service.ended() == 1
        assert "can't give" in service.log.replace("cannot", "can't")
        assert "7.2" in service.log
        assert "Traceback" not in service.log
        service.close()
    finally:
        store.close()


async def test_with_replica_nothing_is_shown_that_the_replica_has_not_taken(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_store: StoreProcess
) -> None:
    # A replica follows over TCP, so the first store listens on a port of its own choice in this test.
    folder = Path(tempfile.mkdtemp(prefix="parley-replica-"))
    port = free_port()
    master = StoreProcess(folder, "--port", str(port), "--repl-diskless-sync-delay", "0")
    second = Path(tempfile.mkdtemp(prefix="parley-replica-"))
    follower = StoreProcess(second, "--replicaof", f"127.0.0.1 {port}")
    try:
        async with asyncio.timeout(60), AsyncExitStack() as stack:
            await master.start()
            await follower.start()
            redis: Any = await stack.enter_async_context(Redis.from_url(master.url, decode_responses=True))
            settings = {"durability": "replica", "redis_url": master.url, "redis_outage_seconds": 20}
            service, other = await replicas(2, **settings, lease_seconds=3)
            gate = upstream.gate()
            upstream.reply(["one ", "two"], gate=gate)
            gate.release()
            reader = Reader()
            async with session.post(f"{service.url}/messages", json={"content": "Hi"}) as response:
                await reader.read(response, until=5)
                elsewhere = reader.again()
                async with session.get(f"{other.url}/messages/{reader.answer}/events") as followed:
                    await elsewhere.read(followed, until=5)
                    follower.freeze()
                    gate.release()
                    while await redis.xlen(f"chat:{{{reader.conversation[5:]}}}:events:2") < 3:
                        await asyncio.sleep(0.01)  # the first store has it
                    reading = [
                        asyncio.create_task(reader.read(response)),
                        asyncio.create_task(elsewhere.read(followed)),
                    ]
                    done, _ = await asyncio.wait(reading, timeout=1.5)
                    assert not done
                    assert (reader.text, elsewhere.text) == ("one ", "one ")
                    asked = [session.get(f"{at.url}/messages/{reader.answer}") for at in (service, other)]
                    for seen in await asyncio.gather(*asked):  # after seconds in which no replica has it
                        assert (seen.status, (await seen.json())["code"]) == (503, "store_unavailable")
                    follower.thaw()
                    gate.open()
                    await asyncio.gather(*reading)
                    await elsewhere.finish(session, other.url)
            for read in (reader, elsewhere):
                assert (read.text, read.end and read.end["status"]) == ("one two", "completed")
    finally:
        for process in (follower, master):
            process.close()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(second, ignore_errors=True)
