"""Conversations: create, list, pages, ETag, change, delete; branches, regenerate; whose they are."""

import asyncio
import re
from typing import Any

import pytest

from app.store.conversations import ConversationStore
from app.web.schemas import Conversation, ConversationPage
from tests.conftest import Client, Start
from tests.support.browser import ask, get, problem
from tests.support.reader import Reader
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.sse import frames_of, read_all


async def test_a_conversation_is_created_empty_and_found_at_its_location(client: Client) -> None:
    fields = {"title": "Trip", "system": "Be kind.", "model": "model-b", "metadata": {"a": [1, None, "ü"]}}
    async with client.post("/conversations", json=fields) as response:
        assert response.status == 201
        body = await response.json()
        location = response.headers["Location"]
    assert Conversation.model_validate(body)
    assert {name: body[name] for name in fields} == fields
    assert location == f"/conversations/{body['id']}"
    assert await get(client, location) == body
    assert (body["messages"], body["active"]) == ([], None)


async def test_its_system_message_and_model_are_used_for_every_answer(
    client: Client, upstream: ScriptedUpstream
) -> None:
    async with client.post("/conversations", json={"system": "Be kind.", "model": "model-b"}) as response:
        conversation = (await response.json())["id"]
    await ask(client, "Hi", conversation=conversation)
    assert upstream.requests[-1]["model"] == "model-b"
    assert upstream.requests[-1]["messages"][0] == {"role": "system", "content": "Be kind."}
    await ask(client, "Hi", conversation=conversation, model="model-a", system="Be short.")
    assert upstream.requests[-1]["model"] == "model-a"
    assert upstream.requests[-1]["messages"][0] == {"role": "system", "content": "Be short."}
    body = await get(client, f"/conversations/{conversation}")
    assert (body["system"], body["model"], body["title"]) == ("Be kind.", "model-b", "Hi")


async def test_the_title_comes_from_the_first_message_until_a_client_sets_one(client: Client) -> None:
    conversation = (await ask(client, "What is\nlove?"))["conversation"]
    path = f"/conversations/{conversation}"
    assert (await get(client, path))["title"] == "What is love?"
    async with client.patch(path, json={"title": "Love"}) as response:
        assert response.status == 200
        assert (await response.json())["title"] == "Love"
    await ask(client, "And then?", conversation=conversation)
    assert (await get(client, path))["title"] == "Love"


async def test_a_change_sets_what_it_names_and_null_takes_away(client: Client) -> None:
    async with client.post("/conversations", json={"title": "a", "system": "b", "metadata": {"c": 1}}) as response:
        path = response.headers["Location"]
    async with client.patch(path, json={"system": None, "model": "model-b"}) as response:
        body = await response.json()
    assert (body["title"], body["system"], body["model"], body["metadata"]) == ("a", None, "model-b", {"c": 1})
    async with client.patch(path, json={"metadata": None}) as response:
        assert (await response.json())["metadata"] == {}


async def test_an_unchanged_conversation_is_304_and_a_changed_one_is_sent(client: Client) -> None:
    conversation = (await ask(client, "Hi"))["conversation"]
    path = f"/conversations/{conversation}"
    async with client.get(path) as response:
        etag = response.headers["ETag"]
        assert re.fullmatch('"[^"]+"', etag)
    async with client.get(path, headers={"If-None-Match": etag}) as response:
        assert response.status == 304
        assert response.headers["ETag"] == etag
        assert await response.read() == b""
    for known in (f"W/{etag}", f'"other", {etag}', f'W/"other", "another" , W/{etag}', "*"):
        async with client.get(path, headers={"If-None-Match": known}) as response:
            assert (response.status, response.headers["ETag"]) == (304, etag), known
    for unknown in ('"other"', '"other", W/"another"', "nonsense", f"{etag[:-1]}0"):
        async with client.get(path, headers={"If-None-Match": unknown}) as response:
            assert response.status == 200, unknown
    await ask(client, "again", conversation=conversation)
    async with client.get(path, headers={"If-None-Match": etag}) as response:
        assert response.status == 200
        assert response.headers["ETag"] != etag


async def test_the_etag_moves_with_a_running_answer(client: Client, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    upstream.reply(["one"], gate=gate)
    async with asyncio.timeout(10), client.post("/messages", json={"content": "Hi"}) as response:
        frames = frames_of(response)
        path = f"/conversations/{(await anext(frames)).json['conversation']}"
        async with (
            client.get(path) as first,
            client.get(path, headers={"If-None-Match": first.headers["ETag"]}) as same,
        ):
            assert same.status == 304
        gate.release()
        await anext(frames)
        async with client.get(path, headers={"If-None-Match": first.headers["ETag"]}) as changed:
            assert changed.status == 200
        gate.open()
        async for _ in frames:
            pass


async def test_the_list_has_the_newest_activity_first_in_pages_that_a_path_leads_to(client: Client) -> None:
    ids = []
    for number in range(102):
        async with client.post("/conversations", json={"title": str(number)}) as response:
            ids.append((await response.json())["id"])
    await ask(client, "Hi", conversation=ids[0])
    listed: list[str] = []
    path: str | None = "/conversations"
    sizes = []
    while path is not None:
        page = await get(client, path)
        assert ConversationPage.model_validate(page)
        sizes.append(len(page["conversations"]))
        listed += [row["id"] for row in page["conversations"]]
        path = page["next"]
    assert sizes == [50, 50, 2]
    assert listed[0] == ids[0]
    assert sorted(listed) == sorted(ids)
    times = {row["id"]: row["updated_at"] for row in (await get(client, "/conversations"))["conversations"]}
    assert list(times.values()) == sorted(times.values(), reverse=True)


async def test_a_page_holds_when_the_conversation_that_it_follows_is_deleted_or_moves(client: Client) -> None:
    ids = []
    for number in range(53):
        async with client.post("/conversations", json={"title": str(number)}) as response:
            ids.append((await response.json())["id"])
    page = await get(client, "/conversations")
    last, moved = page["conversations"][-1]["id"], page["conversations"][-2]["id"]
    async with client.delete(f"/conversations/{last}") as response:
        assert response.status == 204
    await ask(client, "Hi", conversation=moved)
    rest = await get(client, page["next"])
    assert {row["id"] for row in rest["conversations"]} == set(ids) - {row["id"] for row in page["conversations"]}
    assert rest["next"] is None


async def test_the_list_mends_itself(client: Client, redis: Any) -> None:
    kept = (await ask(client, "kept"))["conversation"]
    gone = (await ask(client, "gone"))["conversation"]
    (name,) = await redis.keys("owner:*")
    await redis.delete(f"chat:{{{gone.removeprefix('conv_')}}}")
    await redis.zadd(name, {kept.removeprefix("conv_"): 1})
    page = await get(client, "/conversations")
    assert [row["id"] for row in page["conversations"]] == [kept]
    assert await redis.zcard(name) == 1
    await redis.delete(name)
    await get(client, f"/conversations/{kept}")
    assert [row["id"] for row in (await get(client, "/conversations"))["conversations"]] == [kept]
    await redis.delete(f"chat:{{{gone.removeprefix('conv_')}}}:messages")


async def test_a_first_message_that_is_repeated_moves_nothing_in_the_list_and_adds_nothing_to_it(
    client: Client, redis: Any
) -> None:
    key = {"Idempotency-Key": "k"}
    older = (await ask(client, "Hi", headers=key))["conversation"]
    newer = (await ask(client, "Hi"))["conversation"]
    assert (await ask(client, "Hi", headers=key))["conversation"] == older
    assert [row["id"] for row in (await get(client, "/conversations"))["conversations"]] == [newer, older]
    async with client.delete(f"/conversations/{older}") as response:
        assert response.status == 204
    await ask(client, "Hi", headers=key, status=404)
    assert [row["id"] for row in (await get(client, "/conversations"))["conversations"]] == [newer]
    (name,) = await redis.keys("owner:*")
    assert await redis.zcard(name) == 1


async def test_a_deleted_conversation_is_gone_with_all_its_keys(client: Client, redis: Any) -> None:
    conversation = (await ask(client, "Hi"))["conversation"]
    path = f"/conversations/{conversation}"
    async with client.delete(path) as response:
        assert response.status == 204
        assert await response.read() == b""
    assert await problem(client, "GET", path) == (404, "not_found")
    assert await problem(client, "DELETE", path) == (404, "not_found")
    assert [key for key in await redis.keys("*") if not key.startswith("limit:")] == []
    assert (await get(client, "/conversations"))["conversations"] == []


async def test_deleting_stops_a_running_answer_first(client: Client, redis: Any, upstream: ScriptedUpstream) -> None:
    upstream.reply(["one"], unfinished=True)
    async with asyncio.timeout(10), client.post("/messages", json={"content": "Hi"}) as response:
        frames = frames_of(response)
        path = f"/conversations/{(await anext(frames)).json['conversation']}"
        await anext(frames)
        async with client.delete(path) as deleted:
            assert deleted.status == 204
        end = await anext(frames)
        assert (end.event, end.json["status"]) == ("end", "stopped")
    await upstream.wait_for_open_streams(0)
    assert await redis.keys("chat:*") == []


async def test_deleting_stops_an_answer_that_began_behind_the_one_that_was_stopped(
    client: Client, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, delete, tries = asyncio.Event(), ConversationStore.delete, []

    async def late(self: ConversationStore, *args: Any, **options: Any) -> None:
        tries.append(args)
        if len(tries) == 2:
            await begun.wait()
        await delete(self, *args, **options)

    monkeypatch.setattr(ConversationStore, "delete", late)
    for text in ("one", "two"):
        upstream.reply([text], unfinished=True)
    first, second = Reader(), Reader()
    async with asyncio.timeout(10), client.post("/messages", json={"content": "Hi"}) as response:
        await first.read(response, until=4)
        deleting = asyncio.create_task(client.delete(f"/conversations/{first.conversation}"))
        await first.read(response)
        body = {"content": "and?", "conversation": first.conversation}
        async with client.post("/messages", json=body) as response_of_second:
            await second.read(response_of_second, until=4)
            begun.set()
            await second.read(response_of_second)
        assert (await deleting).status == 204
    assert [reader.end and reader.end["status"] for reader in (first, second)] == ["stopped", "stopped"]
    assert await problem(client, "GET", f"/conversations/{first.conversation}") == (404, "not_found")


async def test_an_edit_replies_after_the_message_that_it_names(client: Client, upstream: ScriptedUpstream) -> None:
    first = await ask(client, "one")
    conversation = first["conversation"]
    second = await ask(client, "two", conversation=conversation)
    edited = await ask(client, "other two", parent=first["message"]["id"])
    assert edited["conversation"] == conversation
    assert [m["content"] for m in upstream.requests[-1]["messages"]] == ["one", "Echo: one", "other two"]
    body = await get(client, f"/conversations/{conversation}")
    parents = {m["id"]: m["parent"] for m in body["messages"]}
    assert parents[edited["message"]["parent"]] == parents[second["message"]["parent"]] == first["message"]["id"]
    afresh = await ask(client, "anew", conversation=conversation, parent=None)
    assert [m["content"] for m in upstream.requests[-1]["messages"]] == ["anew"]
    assert (await get(client, f"/messages/{afresh['message']['parent']}"))["parent"] is None


async def test_regenerate_makes_a_sibling_that_replies_to_the_same_message(
    client: Client, upstream: ScriptedUpstream
) -> None:
    first = await ask(client, "one")
    upstream.reply(["another"])
    async with client.post(f"/messages/{first['message']['id']}/regenerate") as response:
        assert response.content_type == "text/event-stream"
        frames = await read_all(response)
    ids = frames[0].json
    assert ids["reply_to"] == first["message"]["parent"]
    assert ids["message"].endswith("_3")
    sibling = await get(client, f"/messages/{ids['message']}")
    assert (sibling["parent"], sibling["content"]) == (first["message"]["parent"], "another")
    assert upstream.requests[0]["messages"] == upstream.requests[1]["messages"]
    headers = {"Accept": "application/json"}
    path = f"/messages/{ids['message']}/regenerate"
    async with client.post(path, json={"model": "model-b"}, headers=headers) as response:
        body = await response.json()
    assert (body["message"]["parent"], body["message"]["model"]) == (first["message"]["parent"], "model-b")


async def test_a_browser_gets_a_secret_cookie_of_which_the_store_knows_the_hash_only(
    client: Client, redis: Any
) -> None:
    async with client.get("/conversations") as response:
        header = response.headers["Set-Cookie"]
    secret = re.match(r"parley_owner=([A-Za-z0-9_-]{43});", header)
    assert secret is not None
    assert {part.strip() for part in header.split(";")[1:]} == {
        "HttpOnly",
        "Max-Age=31536000",
        "Path=/",
        "SameSite=Lax",
    }
    async with client.get("/conversations") as response:
        assert "Set-Cookie" not in response.headers
    await ask(client, "Hi")
    for key in await redis.keys("*"):
        kind = await redis.type(key)
        value = await (
            redis.hgetall(key) if kind == "hash" else redis.dump(key) if kind != "string" else redis.get(key)
        )
        assert secret[1] not in key
        assert secret[1] not in str(value)


async def test_the_cookie_is_secure_behind_https(client: Client) -> None:
    async with client.get("/conversations", headers={"X-Forwarded-Proto": "https"}) as response:
        assert "Secure" in response.headers["Set-Cookie"].split("; ")


async def test_what_is_another_owners_is_not_found_in_any_way(start: Start, upstream: ScriptedUpstream) -> None:
    client = await start()
    upstream.reply(["one"], unfinished=True)
    await get(client, "/conversations")
    keyed = {"Idempotency-Key": "k"}
    async with asyncio.timeout(10), client.post("/messages", json={"content": "Hi"}, headers=keyed) as response:
        frames = frames_of(response)
        ids = (await anext(frames)).json
        stranger = await start()
        await get(stranger, "/conversations")
        conversation, answer, user = ids["conversation"], ids["message"], ids["reply_to"]
        asked = {"json": {"content": "x", "conversation": conversation}}
        for method, path, options in [
            ("GET", f"/conversations/{conversation}", {}),
            ("PATCH", f"/conversations/{conversation}", {"json": {"title": "mine"}}),
            ("DELETE", f"/conversations/{conversation}", {}),
            ("GET", f"/messages/{answer}", {}),
            ("GET", f"/messages/{user}", {}),
            ("GET", f"/messages/{answer}/events", {}),
            ("POST", f"/messages/{answer}/stop", {}),
            ("POST", f"/messages/{answer}/regenerate", {}),
            ("POST", "/messages", asked),
            ("POST", "/messages", asked | {"headers": {"Last-Event-ID": "1"}}),
            ("POST", "/messages", asked | {"headers": {"Last-Event-ID": "1"} | keyed}),
            ("POST", "/messages", asked | {"headers": keyed}),
            ("POST", "/messages", {"json": {"content": "x", "parent": user}}),
        ]:
            assert await problem(stranger, method, path, **options) == (404, "not_found"), path
            stranger.session.cookie_jar.clear()
            if path != "/messages":
                assert await problem(stranger, method, path, **options) == (404, "not_found"), path
            await get(stranger, "/conversations")
        assert (await get(stranger, "/conversations"))["conversations"] == []
        body = await get(client, f"/conversations/{conversation}")
        assert (body["title"], len(body["messages"]), body["active"]) == ("Hi", 2, answer)
        async with client.post(f"/messages/{answer}/stop") as stopped:
            assert (await stopped.json())["status"] == "stopped"
