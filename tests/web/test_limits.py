"""What an owner, an address and a process may use: shared by all replicas, told in headers, and given back."""

import asyncio
import re
from typing import Any

import pytest

from app.web.auth.interface import hash_of
from tests.conftest import Client, Start
from tests.support.browser import ask, get, problem
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.sse import frames_of, parse_all, read_all
from tests.support.store import StoreProcess

COOKIE = {"Cookie": f"parley_owner={'a' * 43}"}
HI = {"content": "Hi"}


@pytest.fixture(params=["one server", "a cluster"])
def store_process(request: pytest.FixtureRequest, store_process: StoreProcess) -> StoreProcess:
    """Each of them, as a cluster's scripts keep to one slot, and limits lie in others than conversations."""
    if request.param == "one server":
        return store_process
    cluster: StoreProcess = request.getfixturevalue("cluster")
    return cluster


async def post(client: Client, **headers: str) -> tuple[int, dict[str, str]]:
    """Say something as one owner, and return the status and the headers."""
    async with client.post("/messages", json=HI, headers=COOKIE | headers) as response:
        await response.read()
        return response.status, dict(response.headers)


async def conversations(client: Client) -> int:
    """Return how many the owner has."""
    async with client.get("/conversations", headers=COOKIE) as response:
        return len((await response.json())["conversations"])


async def test_messages_of_a_minute_are_counted_for_all_replicas_and_refused_with_when_to_come_again(
    start: Start, redis: Any, upstream: ScriptedUpstream
) -> None:
    clients = [await start(limit_messages_per_minute=3, limit_active_answers=2) for _ in range(2)]
    for left in (2, 1, 0):
        status, headers = await post(clients[left % 2])
        assert status == 200
        assert headers["RateLimit-Policy"] == (
            '"messages";q=3;w=60, "answers";q=2;qu="concurrent-requests", "address";q=300;w=60'
        )
        assert re.fullmatch(
            rf'"messages";r={left};t=[0-9]+, "answers";r=1, "address";r={297 + left};t=[0-9]+', headers["RateLimit"]
        )
    for client in clients:
        async with client.post("/messages", json=HI, headers=COOKIE) as response:
            assert (response.status, response.content_type) == (429, "application/problem+json")
            assert (await response.json())["code"] == "rate_limited"
            assert 1 <= int(response.headers["Retry-After"]) <= 60
            assert response.headers["RateLimit"].startswith(f'"messages";r=0;t={response.headers["Retry-After"]}, ')
    assert len(upstream.requests) == 3
    assert await conversations(clients[0]) == 3
    # A refused message takes no place: not of its owner, nor of its address.
    (address,) = [name for name in await redis.keys("limit:*:messages") if "127.0.0.1" in name]
    assert await redis.zcard(address) == 3
    # Somebody else is not refused, and neither is the owner once the minute is over.
    assert (await ask(clients[1], "Hi"))["message"]["status"] == "completed"
    (owners,) = [name for name in await redis.keys("limit:*:messages") if await redis.zcard(name) == 3]
    for member, score in await redis.zrange(owners, 0, 0, withscores=True):
        await redis.zadd(owners, {member: score - 60_000})
    assert (await post(clients[0]))[0] == 200
    assert (await post(clients[0]))[0] == 429


async def test_a_new_cookie_with_each_message_does_not_get_around_the_limit_of_the_address(
    start: Start, redis: Any
) -> None:
    client = await start(limit_address_messages_per_minute=2, trusted_proxies="127.0.0.1")

    async def say(address: str) -> tuple[int, str]:
        async with client.post("/messages", json=HI, headers={"X-Forwarded-For": address}) as response:
            client.session.cookie_jar.clear()
            code = (await response.json())["code"] if response.status == 429 else await response.text()
            return response.status, code

    assert [(await say("192.0.2.1"))[0] for _ in range(2)] == [200, 200]
    assert await say("192.0.2.1") == (429, "rate_limited")
    assert await say("198.51.100.9, 192.0.2.1") == (429, "rate_limited")
    assert (await say("192.0.2.2"))[0] == 200
    # The refused ones gave back what their owners had taken.
    owners = [name for name in await redis.keys("limit:*:messages") if "." not in name]
    assert len(owners) == 3


async def test_an_owner_whose_address_is_refused_has_all_places_left(start: Start) -> None:
    client = await start(limit_address_messages_per_minute=1, limit_messages_per_minute=1, limit_active_answers=1)
    await ask(client, "Hi")
    client.session.cookie_jar.clear()  # that was somebody else there
    async with client.post("/messages", json=HI, headers=COOKIE) as response:
        body = await response.json()
        assert (response.status, body["code"]) == (429, "rate_limited")
        assert "from this address" in body["detail"]
        assert re.sub("t=[0-9]+", "t", response.headers["RateLimit"]) == (
            '"messages";r=1;t, "answers";r=1, "address";r=0;t'
        )


async def test_a_repeated_post_that_attaches_is_neither_refused_nor_counted(
    start: Start, redis: Any, upstream: ScriptedUpstream
) -> None:
    client = await start(limit_messages_per_minute=2, max_active_answers=1)
    key = {"Idempotency-Key": "k"}
    assert (await post(client, **key))[0] == 200
    status, headers = await post(client, **key)
    assert (status, headers.get("RateLimit")) == (200, None)
    gate = upstream.gate()
    upstream.reply(["one"], gate=gate)
    async with client.post("/messages", json=HI, headers=COOKIE | {"Idempotency-Key": "other"}) as response:
        frames = frames_of(response)
        await anext(frames)
        # The limit is reached, and the process is full.
        assert (await post(client))[0] == 503
        assert (await post(client, **key))[0] == 200
        assert (await post(client, **key, **{"Last-Event-ID": "1"}))[0] == 200
        gate.open()
        async for _ in frames:
            pass
    assert (await post(client))[0] == 429
    assert (await post(client, **key))[0] == 200
    async with client.post("/messages", json={"content": "Ho"}, headers=COOKIE | key) as response:
        assert (response.status, (await response.json())["code"]) == (422, "idempotency_key_reused")
    assert len(upstream.requests) == 2


async def test_a_refused_message_leaves_nothing_in_the_store(start: Start, redis: Any) -> None:
    client = await start(limit_messages_per_minute=1)
    assert (await post(client))[0] == 200
    names = sorted(await redis.keys("*"))
    for key in ({}, {"Idempotency-Key": "k"}):
        assert (await post(client, **key))[0] == 429
        await get(client, "/health/ready")  # what was posted behind it is done
    assert sorted(await redis.keys("*")) == names
    assert [await redis.zcard(name) for name in names if name.endswith(":conversations")] == [1]
    assert await redis.keys("limit:*:answers") == []


async def test_what_is_refused_for_another_reason_is_not_counted(start: Start, redis: Any) -> None:
    client = await start(limit_messages_per_minute=1, limit_active_answers=1)
    for body in ({}, HI | {"model": "gpt-9"}, HI | {"conversation": f"conv_{'0' * 32}"}):
        async with client.post("/messages", json=body, headers=COOKIE) as response:
            assert response.status in (404, 422)
    assert (await post(client))[0] == 200


async def test_regenerate_is_a_message_too(start: Start) -> None:
    client = await start(limit_messages_per_minute=2)
    answer = (await ask(client, "Hi"))["message"]["id"]
    async with client.post(f"/messages/{answer}/regenerate") as response:
        assert (response.status, response.headers["RateLimit"][:15]) == (200, '"messages";r=0;')
        await response.read()
    assert await problem(client, "POST", f"/messages/{answer}/regenerate") == (429, "rate_limited")


async def test_answers_that_run_are_counted_for_all_replicas_and_given_back_at_their_end(
    start: Start, upstream: ScriptedUpstream
) -> None:
    one, two = [await start(limit_active_answers=2) for _ in range(2)]
    gate = upstream.gate()
    for _ in range(2):
        upstream.reply(["one"], gate=gate)
    running = [await client.post("/messages", json=HI, headers=COOKIE) for client in (one, two)]
    frames = [frames_of(response) for response in running]
    ids = [(await anext(stream)).json["message"] for stream in frames]
    for client in (one, two):
        async with client.post("/messages", json=HI, headers=COOKIE) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "5")
            assert (await response.json())["code"] == "too_many_answers"
            assert '"answers";r=0' in response.headers["RateLimit"]
    async with one.post(f"/messages/{ids[1]}/stop", headers=COOKIE) as stopped:
        assert stopped.status == 200
    gate.open()
    for stream in frames:
        async for _ in stream:
            pass
    for client in (one, two):
        assert (await post(client))[0] == 200


async def test_a_full_process_says_when_to_come_again_and_stores_nothing(
    start: Start, redis: Any, upstream: ScriptedUpstream
) -> None:
    client, other = await start(max_active_answers=1), await start()
    gate = upstream.gate()
    upstream.reply(["one"], gate=gate)
    async with client.post("/messages", json=HI, headers=COOKIE) as response:
        frames = frames_of(response)
        await anext(frames)
        before = sorted(await redis.keys("*"))
        replies = await asyncio.gather(*(post(client) for _ in range(5)))
        assert [(status, headers["Retry-After"]) for status, headers in replies] == [(503, "3")] * 5
        async with client.post("/messages", json=HI, headers=COOKIE) as busy:
            assert (await busy.json())["code"] == "too_busy"
        assert sorted(await redis.keys("*")) == before
        assert (await post(other))[0] == 200  # another process has room
        gate.open()
        async for _ in frames:
            pass
    assert (await post(client))[0] == 200


async def test_many_at_once_do_not_overrun_the_process(start: Start, upstream: ScriptedUpstream) -> None:
    client = await start(max_active_answers=3, limit_active_answers=0)
    gate = upstream.gate()
    for _ in range(3):
        upstream.reply(["one"], gate=gate)
    posting = [asyncio.create_task(post(client)) for _ in range(12)]
    async with asyncio.timeout(10):
        while sum(task.done() for task in posting) < 9:
            await asyncio.sleep(0.01)
    gate.open()
    replies = await asyncio.gather(*posting)
    assert sorted(status for status, _ in replies) == [200] * 3 + [503] * 9
    assert len(upstream.requests) == 3


async def test_tokens_are_counted_at_the_end_as_the_upstream_counts_them(
    start: Start, redis: Any, upstream: ScriptedUpstream
) -> None:
    one, two = [await start(limit_tokens_per_day=100, limit_address_tokens_per_day=1000) for _ in range(2)]
    upstream.reply(["x"], usage=(50, 10, 60))
    assert (await post(one))[0] == 200
    upstream.reply(["x"], usage=(30, 10, 40))
    status, headers = await post(two)
    assert status == 200
    assert headers["RateLimit-Policy"].count(';w=86400;qu="tokens"') == 2
    assert '"tokens";r=40;t=' in headers["RateLimit"]
    assert '"address-tokens";r=940;t=' in headers["RateLimit"]
    for client in (one, two):
        async with client.post("/messages", json=HI, headers=COOKIE) as response:
            assert (response.status, (await response.json())["code"]) == (429, "token_limit")
            assert 1 <= int(response.headers["Retry-After"]) <= 86_400
    (owner,) = [name for name in await redis.keys("limit:*:tokens") if "." not in name]
    assert await redis.get(owner) == "100"
    assert 0 < await redis.ttl(owner) <= 86_400
    assert (await ask(one, "somebody else"))["message"]["status"] == "completed"


async def test_an_answer_that_is_broken_off_counts_by_its_size(
    start: Start, redis: Any, upstream: ScriptedUpstream
) -> None:
    client = await start(limit_tokens_per_day=1000)
    upstream.reply(["x" * 300], unfinished=True)
    async with client.post("/messages", json=HI, headers=COOKIE) as response:
        frames = frames_of(response)
        answer = (await anext(frames)).json["message"]
        await anext(frames)
        async with client.post(f"/messages/{answer}/stop", headers=COOKIE) as stopped:
            assert (await stopped.json())["usage"] is None
        async for _ in frames:
            pass
    (name,) = await redis.keys("limit:*:tokens")
    used = int(await redis.get(name))
    assert 100 < used < 140  # a third of its bytes, and as much for the prompt's record


async def test_an_answer_that_never_reached_the_model_costs_no_tokens(start: Start, redis: Any) -> None:
    client = await start(limit_tokens_per_day=1000, openai_base_url="http://127.0.0.1:9", upstream_retry_seconds=0)
    async with client.post("/messages", json=HI, headers=COOKIE) as response:
        assert parse_all(await response.text())[-1].json["status"] == "failed"
    assert await redis.keys("limit:*:tokens") == []


async def test_streams_of_an_owner_are_counted_for_all_replicas_and_given_back(
    start: Start, redis: Any, upstream: ScriptedUpstream
) -> None:
    one, two = [await start(limit_readers=2) for _ in range(2)]
    gate = upstream.gate()
    upstream.reply(["one"], gate=gate)
    async with asyncio.timeout(30), one.post("/messages", json=HI, headers=COOKIE) as response:
        frames = frames_of(response)
        answer = (await anext(frames)).json["message"]
        path = f"/messages/{answer}/events"
        readers = [await client.get(path, headers=COOKIE) for client in (one, two)]
        assert [reader.status for reader in readers] == [200, 200]
        for client in (one, two):
            async with client.get(path, headers=COOKIE) as refused:
                assert (refused.status, (await refused.json())["code"]) == (429, "too_many_readers")
                assert refused.headers["RateLimit"] == '"readers";r=0'
                assert refused.headers["Retry-After"] == "5"
        readers[1].close()
        while True:  # its process has noticed that it has gone
            again = await one.get(path, headers=COOKIE)
            if again.status == 200:
                break
            again.close()
            await asyncio.sleep(0.01)
        gate.open()
        async for _ in frames:
            pass
        for reader in (readers[0], again):
            assert (await read_all(reader))[-1].event == "end"
    # An answer that has ended is read without being in anybody's way, and all is given back.
    async with two.get(path, headers=COOKIE) as response:
        assert (await read_all(response))[-1].event == "end"
    async with asyncio.timeout(5):
        while await redis.keys("limit:*:readers"):
            await asyncio.sleep(0.01)


async def test_readers_of_a_killed_process_are_forgotten(start: Start, redis: Any, upstream: ScriptedUpstream) -> None:
    client = await start(limit_readers=1)
    answer = (await ask(client, "Hi"))["message"]["id"]
    await get(client, "/conversations")
    async with client.get(f"/messages/{answer}/events") as response:
        await response.read()
    cookie = client.session.cookie_jar.filter_cookies(client.make_url("/"))["parley_owner"].value
    name = f"limit:{{{hash_of(cookie)}}}:readers"
    seconds, micros = await redis.time()
    now = seconds * 1000 + micros // 1000
    await redis.hset(name, "dead", f"1 {now + 60_000}")
    await redis.pexpire(name, 60_000)
    assert await problem(client, "GET", f"/messages/{answer}/events") == (429, "too_many_readers")
    await redis.hset(name, "dead", f"1 {now - 1}")  # it has said nothing for a minute
    async with client.get(f"/messages/{answer}/events") as response:
        assert response.status == 200
        await response.read()


async def test_where_limits_are_off_nothing_is_counted(start: Start, redis: Any) -> None:
    client = await start(
        limit_messages_per_minute=0, limit_address_messages_per_minute=0, limit_active_answers=0, limit_readers=0
    )
    status, headers = await post(client)
    assert (status, headers.get("RateLimit"), headers.get("RateLimit-Policy")) == (200, None, None)
    assert await redis.keys("limit:*") == []


@pytest.mark.parametrize("field", ["next", "bytes"])
async def test_a_conversation_does_not_grow_for_ever(client: Client, redis: Any, field: str) -> None:
    conversation = (await ask(client, "Hi"))["conversation"]
    key = f"chat:{{{conversation[5:]}}}"
    assert int(await redis.hget(key, "bytes")) > 100
    await redis.hset(key, field, 10_000 if field == "next" else 16 << 20)
    before = await redis.hgetall(key)
    body = {"content": "Hi", "conversation": conversation}
    assert await problem(client, "POST", "/messages", json=body) == (409, "conversation_full")
    assert await redis.hgetall(key) == before
    await get(client, f"/conversations/{conversation}")
