"""What is somebody else's is not found, whatever is asked, in each way of knowing who somebody is; and nothing changes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.web.openapi import document
from tests.conftest import Start
from tests.support.people import MODES, People
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.sse import frames_of, parse_all

#: What a stranger gets from every documented request, about things of somebody else's.
ASKED: dict[tuple[str, str], int] = {
    ("post", "/messages"): 404,
    ("get", "/messages/{id}"): 404,
    ("get", "/messages/{id}/events"): 404,
    ("post", "/messages/{id}/stop"): 404,
    ("post", "/messages/{id}/regenerate"): 404,
    ("get", "/conversations/{id}"): 404,
    ("patch", "/conversations/{id}"): 404,
    ("delete", "/conversations/{id}"): 404,
    # Their own: these name nothing of anybody's.
    ("get", "/conversations"): 200,
    ("post", "/conversations"): 201,
    ("get", "/conversations/before/{id}"): 200,
    ("get", "/models"): 200,
}
#: Anybody may ask, without saying who they are.
PUBLIC = {("get", "/health/live"), ("get", "/health/ready"), ("get", "/health/stream"), ("get", "/metrics")}

DOCUMENTED = {(method, path) for path, item in document("0")["paths"].items() for method in item}


def test_every_documented_request_is_tried_by_a_stranger() -> None:
    assert set(ASKED) == DOCUMENTED - PUBLIC


async def _stored(redis: Any) -> dict[str, bytes]:
    """Return all that is stored of conversations, but for the stranger's own."""
    keys = await redis.keys("chat:*")
    kinds = {"hash": redis.hgetall, "string": redis.get, "stream": redis.xrange}
    return {key: await kinds[await redis.type(key)](key) for key in keys}


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_somebody_elses_is_not_found_and_stays_as_it_is(
    mode: str, start: Start, redis: Any, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    people = People(mode, tmp_path)
    client = await start(**people.settings)
    ada, eve = people.headers("ada"), people.headers("eve")
    key = {"Idempotency-Key": "k"}
    async with client.post("/messages", json={"content": "Hi"}, headers=ada | key) as response:
        done = parse_all(await response.text())[0].json
    gate = upstream.gate()
    upstream.reply(["one", "two"], gate=gate)
    async with asyncio.timeout(30), client.post("/messages", json={"content": "Hi"}, headers=ada) as response:
        frames = frames_of(response)
        running = (await anext(frames)).json
        gate.release()
        await anext(frames)
        before = await _stored(redis)
        for ids in (done, running):
            activity = int(before[f"chat:{{{ids['conversation'][5:]}}}"]["updated"])  # type: ignore[call-overload]
            for (method, path), expected in ASKED.items():
                bodies: list[Any] = [{"title": "Mine"} if method != "get" else None]
                name = ids["message"] if path.startswith("/messages/") else ids["conversation"]
                if path == "/conversations/before/{id}":
                    name = f"{activity + 1}-{'f' * 32}"
                elif path.startswith("/messages/"):
                    bodies = [None]
                elif path == "/messages":
                    bodies = [
                        {"content": "Hi", "conversation": ids["conversation"]},
                        {"content": "Hi", "parent": ids["message"]},
                        {"role": "tool", "tool_call_id": "x", "content": "x", "parent": ids["message"]},
                    ]
                url = path.replace("{id}", name)
                for body in bodies:
                    for more in ({}, key, {"Last-Event-ID": "1"}) if method == "post" else ({}, {"Last-Event-ID": "1"}):
                        # The key, too, is somebody else's: it attaches to nothing.
                        async with client.request(method, url, json=body, headers=eve | more) as told:
                            text = await told.text()
                            assert told.status == expected, (method, url, body, more, text)
                            assert ids["conversation"][5:] not in text
        after = await _stored(redis)
        assert {name: after.get(name) for name in before} == before
        mine = set(after) - set(before)
        assert {(await redis.hget(name, "title")) for name in mine} == {"Mine"}
        gate.open()
        async for _ in frames:
            pass
    async with client.get(f"/messages/{running['message']}", headers=ada) as response:
        assert (await response.json())["status"] == "completed"
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("mode", ["token", "jwt"])
async def test_who_says_nothing_is_told_how_to_by_every_request_that_is_not_public(
    mode: str, start: Start, redis: Any, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    client = await start(**People(mode, tmp_path).settings)
    for method, path in DOCUMENTED:
        async with client.request(method, path.replace("{id}", "x"), json={"content": "Hi"}) as response:
            if (method, path) in PUBLIC:
                assert response.status in (200, 404), path  # 404: not switched on
                continue
            assert (response.status, response.content_type) == (401, "application/problem+json"), path
            assert response.headers["WWW-Authenticate"] == 'Bearer realm="parley"'
            assert "Set-Cookie" not in response.headers
            assert (await response.json())["code"] == "unauthorized"
    for path in ("/", "/docs", "/openapi.json"):
        async with client.get(path) as response:
            assert response.status == 200
    assert await redis.keys("*") == []
    assert upstream.requests == []


async def test_owners_of_one_name_in_two_ways_are_not_the_same(start: Start, tmp_path: Path) -> None:
    for mode in MODES:
        people = People(mode, tmp_path)
        client = await start(**people.settings)
        headers = people.headers("ada")
        async with client.get("/conversations", headers=headers) as response:
            assert (await response.json())["conversations"] == []
        async with client.post("/conversations", json={}, headers=headers) as response:
            assert response.status == 201
