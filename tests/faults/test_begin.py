"""The moment in which a message is stored: who leaves then, or is told 503, has its answer written all the same."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.faults.conftest import Replicas
from tests.support.proxy import Proxy
from tests.support.reader import Reader
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.service import NO_LIMITS, ServiceProcess
from tests.support.store import StoreProcess, prolonged

KEY = {"Accept": "application/json", "Idempotency-Key": "k"}


@pytest.fixture
async def between(own_store: StoreProcess) -> AsyncIterator[Proxy]:
    """What stands between the service and its store."""
    async with asyncio.timeout(60), Proxy(str(own_store.socket)) as proxy:
        yield proxy


async def test_a_client_that_leaves_while_its_message_is_stored_gets_an_answer_and_a_row_in_its_list(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_redis: Any, between: Proxy
) -> None:
    (service,) = await replicas(1, redis_url=f"redis://{between.address}", **NO_LIMITS)
    await _come(session, service)
    between.flowing.clear()
    await _leave(session, service, lambda: own_redis.keys("chat:*:lease:*"))
    between.flowing.set()
    status, body = await _post(session, service, KEY)
    assert (status, body["message"]["content"]) == (200, "Echo: Hi")
    assert len(upstream.requests) == 1
    async with session.get(f"{service.url}/conversations") as response:
        assert [row["id"] for row in (await response.json())["conversations"]] == [body["conversation"]]


async def test_a_client_that_leaves_while_its_limits_are_asked_for_holds_no_place(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_redis: Any, between: Proxy
) -> None:
    (service,) = await replicas(1, redis_url=f"redis://{between.address}", limit_active_answers=1)
    await _come(session, service)
    between.flowing.clear()
    await _leave(session, service, lambda: own_redis.keys("limit:*:answers"))
    between.flowing.set()
    while len(upstream.requests) < 1 or await own_redis.keys("limit:*:answers"):  # its answer begins, and ends
        await asyncio.sleep(0.01)
    assert (await _post(session, service))[0] == 200


async def test_a_message_that_a_store_takes_too_late_is_told_as_503_and_answered_when_it_is_sent_again(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_redis: Any, own_store: StoreProcess
) -> None:
    (service,) = await replicas(1, **NO_LIMITS)
    await _come(session, service)
    own_store.freeze()
    try:
        status, body = await asyncio.wait_for(_post(session, service, KEY), 10)
    finally:
        own_store.thaw()
    assert (status, body["code"]) == (503, "store_unavailable")
    while not upstream.requests:  # what was sent is done by the store
        await asyncio.sleep(0.01)
    status, body = await _post(session, service, KEY)
    assert (status, body["message"]["status"], body["message"]["content"]) == (200, "completed", "Echo: Hi")
    assert len(upstream.requests) == 1


async def test_a_message_that_is_lost_with_the_connection_is_told_as_503_and_not_stored_later(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_redis: Any, own_store: StoreProcess
) -> None:
    """It never reached the store, so nothing of it is to come."""
    (service,) = await replicas(1, **NO_LIMITS)
    await _come(session, service)
    own_store.kill()
    assert (await asyncio.wait_for(_post(session, service), 10))[0] == 503
    await own_store.start()
    status, _ = await _post(session, service)
    while status == 503:
        status, _ = await _post(session, service)
    assert len(upstream.requests) == 1
    assert len(await own_redis.keys("chat:*:messages")) == 1


async def test_an_answer_whose_message_is_stored_at_sigterm_has_the_whole_grace(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_redis: Any, between: Proxy
) -> None:
    (service,) = await replicas(1, redis_url=f"redis://{between.address}", shutdown_grace_seconds=20, **NO_LIMITS)
    await _come(session, service)
    gate = upstream.gate()
    upstream.reply(["one ", "two"], gate=gate)
    between.flowing.clear()
    posting = asyncio.create_task(_post(session, service))
    while not await own_redis.keys("chat:*:lease:*"):
        await asyncio.sleep(0.01)
    service.signal(signal.SIGTERM)
    while "Shutting down: 1 answers may finish within 20 s." not in service.log:
        await asyncio.sleep(0.01)
    between.flowing.set()
    gate.open()
    status, body = await posting
    assert (status, body["message"]["status"], body["message"]["content"]) == (200, "completed", "one two")
    assert await service.ended(5) == 0


async def test_an_id_that_a_failover_gives_out_again_belongs_to_the_answer_that_has_it_now(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, own_redis: Any, own_store: StoreProcess
) -> None:
    """The store comes back without `begin`; the client repeats its POST with its key before the first runner has noticed."""
    async with asyncio.timeout(60):
        one, two = await replicas(2, **NO_LIMITS)
        await _come(session, one)
        lost, new = upstream.gate(), upstream.gate()
        upstream.reply(["a ", "b "], gate=lost)
        upstream.reply(["x ", "y "], gate=new)
        shutil.copytree(own_store.folder / "appendonlydir", own_store.folder / "before")
        lost.release()
        first, second = Reader(), Reader()
        headers = {"Idempotency-Key": "k"}
        response = await session.post(f"{one.url}/messages", json={"content": "Hi"}, headers=headers)
        await first.read(response, until=3)
        own_store.kill()
        shutil.rmtree(own_store.folder / "appendonlydir")
        (own_store.folder / "before").rename(own_store.folder / "appendonlydir")
        while "The store is away" not in one.log:
            await asyncio.sleep(0.01)
        posting = asyncio.create_task(session.post(f"{one.url}/messages", json={"content": "Hi"}, headers=headers))
        await asyncio.sleep(0)
        await own_store.start()
        response = await posting
        new.release()
        await second.read(response, until=3)
        assert second.answer == first.answer
        # Two leases later it is alive to everybody, though its model says nothing.
        (lease,) = await own_redis.keys("chat:*:lease:2")
        for _ in range(6):
            await prolonged(own_redis, lease)
        async with session.get(f"{two.url}/messages/{second.answer}") as seen:
            assert (await seen.json())["status"] == "streaming"
        new.open()
        await second.read(response)
    assert second.end is not None
    assert (second.text, second.end["status"]) == ("x y ", "completed")


async def _come(session: ClientSession, service: ServiceProcess) -> None:
    """Get the cookie."""
    async with session.get(f"{service.url}/conversations") as response:
        assert response.status == 200


async def _post(
    session: ClientSession, service: ServiceProcess, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    headers = headers or {"Accept": "application/json"}
    async with session.post(f"{service.url}/messages", json={"content": "Hi"}, headers=headers) as response:
        return response.status, await response.json()


async def _leave(session: ClientSession, service: ServiceProcess, has_come: Callable[[], Any]) -> None:
    """Post, and go as soon as the store has what it takes, while its reply is held back."""
    posting = asyncio.create_task(session.post(f"{service.url}/messages", json={"content": "Hi"}, headers=KEY))
    while not await has_come():
        await asyncio.sleep(0.01)
    posting.cancel()
    while "POST /messages 499" not in service.log:
        await asyncio.sleep(0.01)
