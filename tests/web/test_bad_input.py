"""Bad input: a problem that says what to do, and nothing is stored."""

import asyncio
import json
from typing import Any

import pytest

from tests.conftest import Client, Start
from tests.support.browser import ask, get, problem
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.sse import frames_of

JSON = {"Content-Type": "application/json"}
T = "0" * 32

BODIES: list[tuple[str, bytes, tuple[int, str]]] = [
    ("nothing", b"", (400, "invalid_json")),
    ("no JSON", b"hello", (400, "invalid_json")),
    ("half of it", b'{"content": "x"', (400, "invalid_json")),
    ("no UTF-8", b'{"content": "\xff"}', (400, "invalid_json")),
    ("a lone surrogate", b'{"content": "\\ud83d"}', (400, "invalid_json")),
    ("deep nesting", b'{"content":' + b"[" * 100_000 + b"]" * 100_000 + b"}", (400, "invalid_json")),
    ("a list", b"[]", (422, "invalid_request")),
    ("no content", b"{}", (422, "invalid_request")),
    ("empty content", b'{"content": ""}', (422, "invalid_request")),
    ("blank content", b'{"content": " \\n "}', (422, "invalid_request")),
    ("a number", b'{"content": 5}', (422, "invalid_request")),
    ("NUL", b'{"content": "a\\u0000b"}', (422, "invalid_request")),
    ("an unknown field", b'{"content": "x", "colour": "red"}', (422, "invalid_request")),
    ("a malformed conversation", b'{"content": "x", "conversation": "conv_1"}', (422, "invalid_request")),
    ("a malformed parent", b'{"content": "x", "parent": "msg_1"}', (422, "invalid_request")),
    ("an unknown model", b'{"content": "x", "model": "gpt-9"}', (422, "unknown_model")),
    ("an unknown conversation", f'{{"content": "x", "conversation": "conv_{T}"}}'.encode(), (404, "not_found")),
    ("an unknown parent", f'{{"content": "x", "parent": "msg_{T}_1"}}'.encode(), (404, "not_found")),
    ("a line that is too long", b'{"content": "' + b"x" * 1_000_000 + b'"}', (413, "too_large")),
]


@pytest.mark.parametrize(("body", "expected"), [b[1:] for b in BODIES], ids=[b[0] for b in BODIES])
async def test_a_bad_message_is_refused_and_nothing_is_stored(
    client: Client, redis: Any, upstream: ScriptedUpstream, body: bytes, expected: tuple[int, str]
) -> None:
    assert await problem(client, "POST", "/messages", data=body, headers=JSON) == expected
    assert await redis.keys("*") == []
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"content": 5, "colour": "red"}, "content colour"),
        ({"top-p": 1, "": 2}, "top-p "),
        ({"stop": ["a", 5]}, "stop.1 stop"),
        (
            {"tool_results": [{"tool_call_id": 5, "x": 1}]},
            "tool_results.0.tool_call_id tool_results.0.content tool_results.0.x",
        ),
        ({"content": [{"type": "text", "text": 5, "x-y": 1}]}, "content content.0.text content.0.x-y"),
        ({"content": [{"type": "text", "text": "x"}, {"type": "text"}]}, "content content.1.text"),
        (
            {"content": [{"type": "image_url", "image_url": {"url": "x", "text": 1}}]},
            "content content.0.image_url.url content.0.image_url.text",
        ),
        ({"content": [{"type": "image_url", "image_url": {}}]}, "content content.0.image_url.url"),
        ({"content": [{"type": "video"}, {}]}, "content content.0 content.1"),
    ],
)
async def test_refused_fields_are_named_as_they_were_sent(client: Client, fields: dict[str, Any], named: str) -> None:
    async with client.post("/messages", json={"content": "x"} | fields) as response:
        errors = (await response.json())["errors"]
    assert " ".join(error["field"] for error in errors) == named


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"]
)
async def test_another_content_type_is_refused(client: Client, kind: str) -> None:
    options = {"data": b'{"content": "x"}', "headers": {"Content-Type": kind}}
    assert await problem(client, "POST", "/messages", **options) == (415, "unsupported_media_type")


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_body_that_is_not_coded_as_it_says_is_refused(
    client: Client, coding: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"data": b'{"content": "x"}', "headers": JSON | {"Content-Encoding": coding}}
    assert await problem(client, "POST", "/messages", **options) == (400, "bad_request")
    # aiohttp's own line, which it writes as well, is not shown (`app/logs.py`).
    assert [record for record in caplog.records if record.name.startswith("parley") and record.exc_info] == []


async def test_a_body_of_just_the_largest_size_is_taken(start: Start) -> None:
    client = await start(max_message_bytes=1000)
    body = json.dumps({"content": "x" * (1000 - len('{"content": ""}'))})
    assert len(body) == 1000
    async with client.post("/messages", data=body, headers=JSON) as response:
        assert response.status == 200
        await response.read()
    body = body.replace("x", "xx", 1)
    assert await problem(client, "POST", "/messages", data=body, headers=JSON) == (413, "too_large")


async def test_a_body_that_comes_too_slowly_is_cut_off(start: Start) -> None:
    client = await start(body_timeout_seconds=0.05)

    async def slow() -> Any:
        yield b'{"content":'
        await asyncio.sleep(5)
        yield b'"x"}'

    async with asyncio.timeout(4):
        assert await problem(client, "POST", "/messages", data=slow(), headers=JSON) == (408, "body_timeout")


@pytest.mark.parametrize(
    "path",
    [
        *(f"/conversations/{bad}" for bad in (T, "conv_1", f"conv_{T}", f"conv_{T}%00", "conv_%F0%9F%98%80")),
        *(f"/messages/{bad}" for bad in ("1", f"msg_{T}_0", f"msg_{T}_1", f"msg_{T}_1/events")),
        *(f"/conversations/before/{bad}" for bad in ("1", "x-y", f"1-{T[:-1]}")),
        "/nowhere",
    ],
)
async def test_a_malformed_or_unknown_id_in_a_path_is_not_found(client: Client, path: str) -> None:
    await get(client, "/conversations")
    assert await problem(client, "GET", path) == (404, "not_found")


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "1-0", "99", "1" * 16, "١"])
async def test_a_cursor_that_is_none_of_the_answers_is_refused(client: Client, cursor: str) -> None:
    answer = (await ask(client, "Hi"))["message"]["id"]
    options = {"headers": {"Last-Event-ID": cursor}}
    assert await problem(client, "GET", f"/messages/{answer}/events", **options) == (400, "bad_cursor")


async def test_a_cursor_beyond_an_answer_that_is_wanted_in_one_piece_is_refused(client: Client) -> None:
    first = await ask(client, "Hi", headers={"Idempotency-Key": "k"})
    for headers in ({"Idempotency-Key": "k"}, {}):
        options: dict[str, Any] = {"json": {"content": "Hi"}}
        if not headers:
            options["json"] |= {"conversation": first["conversation"]}
        options["headers"] = headers | {"Accept": "application/json", "Last-Event-ID": "99"}
        assert await problem(client, "POST", "/messages", **options) == (400, "bad_cursor")
        options["headers"] |= {"Last-Event-ID": "3"}
        async with client.post("/messages", **options) as response:
            assert await response.json() == first


async def test_a_cursor_beyond_a_running_answer_is_refused(client: Client, upstream: ScriptedUpstream) -> None:
    upstream.reply(["one"], unfinished=True)
    async with asyncio.timeout(10), client.post("/messages", json={"content": "Hi"}) as response:
        frames = frames_of(response)
        answer = (await anext(frames)).json["message"]
        await anext(frames)
        options = {"headers": {"Last-Event-ID": "5"}}
        assert await problem(client, "GET", f"/messages/{answer}/events", **options) == (400, "bad_cursor")
        async with client.post(f"/messages/{answer}/stop") as stopped:
            assert stopped.status == 200


async def test_a_message_that_is_no_answer_has_no_events_and_no_stop(client: Client) -> None:
    user = (await ask(client, "Hi"))["message"]["parent"]
    for method, path in [("GET", "events"), ("POST", "stop"), ("POST", "regenerate")]:
        assert await problem(client, method, f"/messages/{user}/{path}") == (404, "not_an_answer")


async def test_a_busy_conversation_names_the_answer_that_runs(client: Client, upstream: ScriptedUpstream) -> None:
    upstream.reply(["one"], unfinished=True)
    async with asyncio.timeout(10), client.post("/messages", json={"content": "Hi"}) as response:
        ids = (await anext(frames_of(response))).json
        body = {"content": "me too", "conversation": ids["conversation"]}
        async with client.post("/messages", json=body) as busy:
            assert (busy.status, busy.headers["x-should-retry"]) == (409, "false")
            told = await busy.json()
        assert (told["code"], told["message"]) == ("conversation_busy", ids["message"])
        async with client.post(f"/messages/{ids['message']}/stop") as stopped:
            assert stopped.status == 200
    conversation = await get(client, f"/conversations/{ids['conversation']}")
    assert [message["content"] for message in conversation["messages"] if message["role"] == "user"] == ["Hi"]


async def test_a_parent_of_another_conversation_is_refused(client: Client) -> None:
    one, two = await ask(client, "one"), await ask(client, "two")
    body = {"content": "x", "conversation": one["conversation"], "parent": two["message"]["id"]}
    assert await problem(client, "POST", "/messages", json=body) == (422, "invalid_request")


async def test_a_parent_that_the_conversation_does_not_have_is_not_found(client: Client) -> None:
    one = await ask(client, "one")
    body = {"content": "x", "parent": one["message"]["id"][:-1] + "9"}
    for more in ({}, {"conversation": one["conversation"]}):
        assert await problem(client, "POST", "/messages", json=body | more) == (404, "not_found")
        async with client.post("/messages", json=body | more) as response:
            (error,) = (await response.json())["errors"]
        assert error == {"field": "parent", "message": "no such message in this conversation"}
    assert len((await get(client, f"/conversations/{one['conversation']}"))["messages"]) == 2


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é"])
async def test_an_idempotency_key_that_is_none_is_refused(client: Client, key: str) -> None:
    options = {"json": {"content": "x"}, "headers": {"Idempotency-Key": key}}
    assert await problem(client, "POST", "/messages", **options) == (400, "bad_request")


@pytest.mark.parametrize(
    "fields",
    [
        {"title": 5},
        {"title": "x" * 201},
        {"colour": "red"},
        {"metadata": []},
        {"model": "a\tb"},
        {"model": "x" * 201},
        {"title": "\0"},
    ],
)
async def test_bad_fields_of_a_conversation_are_refused(client: Client, redis: Any, fields: dict[str, Any]) -> None:
    assert await problem(client, "POST", "/conversations", json=fields) == (422, "invalid_request")
    assert await redis.keys("*") == []
    async with client.post("/conversations", json={}) as response:
        path = response.headers["Location"]
        before = await response.json()
    assert await problem(client, "PATCH", path, json=fields) == (422, "invalid_request")
    assert await get(client, path) == before


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1" * 5000])
async def test_metadata_that_no_json_can_hold_is_refused(client: Client, number: str) -> None:
    data = f'{{"metadata": {{"a": {number}}}}}'
    status, _ = await problem(client, "POST", "/conversations", data=data, headers=JSON)
    assert status in (400, 422)


async def test_another_method_is_refused_with_those_that_are_possible(client: Client) -> None:
    assert await problem(client, "PUT", "/conversations") == (405, "method_not_allowed")


@pytest.mark.parametrize(
    "accepted", ["text/html", "text/event-stream;q=0", "*/*;q=0", "application/json; q=0.0, text/html"]
)
async def test_a_form_of_answer_that_there_is_not_is_refused(client: Client, accepted: str) -> None:
    options = {"json": {"content": "x"}, "headers": {"Accept": accepted}}
    assert await problem(client, "POST", "/messages", **options) == (406, "not_acceptable")


STREAM, WHOLE = "text/event-stream", "application/json"


@pytest.mark.parametrize(
    ("accepted", "kind"),
    [
        *(
            ("", STREAM),
            (",", STREAM),
            ("*/*", STREAM),
            ("text/*", STREAM),
            ("Text/Event-Stream; charset=utf-8", STREAM),
        ),
        *(("application/json", WHOLE), ("application/*", WHOLE), ("application/json, */*", WHOLE)),
        ("application/json, text/plain, */*", WHOLE),
        ("application/json, text/event-stream", STREAM),
        ("application/json;q=0.5, text/event-stream", STREAM),
        ("application/json, text/event-stream;q=0.5", WHOLE),
        ("text/event-stream;q=0, */*", WHOLE),
        ("text/event-stream; charset=utf-8; q=0, application/json;q=0.1", WHOLE),
        ("application/json;q=0, */*", STREAM),
        ("application/json;q=x", WHOLE),
    ],
)
async def test_the_form_of_answer_is_the_one_that_is_wanted_most(client: Client, accepted: str, kind: str) -> None:
    async with client.post("/messages", json={"content": "x"}, headers={"Accept": accepted}) as response:
        assert (response.status, response.content_type) == (200, kind)
        await response.read()


async def test_a_sane_request_id_comes_back_and_another_is_replaced(client: Client) -> None:
    for given, kept in [("abc-123_x.Y", True), ("short", False), ("x" * 200, False), ("a b c d e f", False)]:
        async with client.get("/health/live", headers={"X-Request-ID": given}) as response:
            assert (response.headers["X-Request-ID"] == given) is kept
