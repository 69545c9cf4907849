"""A store whose scripts keep to one slot, as a cluster's do: everything works, and a message takes a round trip more."""

import asyncio
from typing import Any

import pytest

from tests.conftest import Client, Start
from tests.store.conftest import trips_of_an_answer
from tests.support.browser import ask, get
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.sse import frames_of, read_all
from tests.support.store import ClusterNode, StoreProcess


@pytest.fixture
def store_process(cluster: ClusterNode) -> StoreProcess:
    """The store of all these tests."""
    return cluster


async def test_limits_are_a_round_trip_of_their_own_and_the_list_is_one_where_the_conversation_is_old(
    client: Client, redis: Any, upstream: ScriptedUpstream
) -> None:
    assert await trips_of_an_answer(client, redis, upstream) == [3, 4]


async def test_that_a_script_is_refused_is_said_once_and_costs_one_message_a_round_trip(
    client: Client, redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "parley.store")
    await redis.config_resetstat()
    for _ in range(3):
        assert (await ask(client, "Hi"))["message"]["content"] == "Echo: Hi"
    assert caplog.text.count("The store is a cluster") == 1
    assert (await redis.info("errorstats"))["errorstat_CROSSSLOT"] == {"count": 1}


async def test_every_request_works(start: Start, redis: Any, upstream: ScriptedUpstream) -> None:
    client, other = await start(), await start()
    other.session.cookie_jar.update_cookies(await cookies_of(client))
    first = await ask(client, "Hi", headers={"Idempotency-Key": "k"})
    assert await ask(client, "Hi", headers={"Idempotency-Key": "k"}) == first
    conversation, answer = first["conversation"], first["message"]["id"]
    await ask(client, "More", conversation=conversation)
    async with client.post(f"/messages/{answer}/regenerate") as response:
        assert (await read_all(response))[-1].json["status"] == "completed"
    async with client.patch(f"/conversations/{conversation}", json={"title": "Ours"}) as response:
        assert response.status == 200
    assert len((await get(other, f"/conversations/{conversation}"))["messages"]) == 5

    gate = upstream.gate()
    upstream.reply(["one", "two"], gate=gate)
    gate.release()
    async with asyncio.timeout(30), client.post("/messages", json={"content": "Go"}) as response:
        frames = frames_of(response)
        running = (await anext(frames)).json["message"]
        assert (await anext(frames)).data == "one"
        async with other.get(f"/messages/{running}/events") as elsewhere:
            following = frames_of(elsewhere)
            assert [(await anext(following)).data for _ in range(2)][1] == "one"
            async with other.post(f"/messages/{running}/stop") as stopping:
                assert (await stopping.json())["status"] == "stopped"
            assert (await anext(following)).json["status"] == "stopped"
        assert (await anext(frames)).json["status"] == "stopped"

    rows = (await get(client, "/conversations"))["conversations"]
    assert [row["title"] for row in rows] == ["Go", "Ours"]
    async with client.delete(f"/conversations/{conversation}") as response:
        assert response.status == 204
    assert len((await get(other, "/conversations"))["conversations"]) == 1


async def cookies_of(client: Client) -> dict[str, str]:
    """Let a browser become known, and return what it is known by."""
    await get(client, "/conversations")
    return {cookie.key: cookie.value for cookie in client.session.cookie_jar}
