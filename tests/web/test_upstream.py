"""What a reader gets when the upstream has a bad day; what goes upstream, and what never comes back from it."""

import asyncio
import json
import logging
from typing import Any

import pytest

from app.web import schemas
from tests.conftest import Client, Start
from tests.support.browser import ask, get, problem
from tests.support.scripted_upstream import DONE, ScriptedUpstream, chunk, event
from tests.support.sse import Frame, read_all, text_of

KEY = "sk-test-0123456789"


async def post(client: Client, **body: Any) -> list[Frame]:
    """POST a message and read the whole stream."""
    async with client.post("/messages", json={"content": "Hi"} | body) as response:
        assert response.status == 200, await response.text()
        return await read_all(response)


def notices(frames: list[Frame]) -> list[dict[str, Any]]:
    """Return what was noticed, waits left out as they are random."""
    found: list[dict[str, Any]] = [frame.json for frame in frames if frame.event == "notice"]
    for notice in found:
        schemas.NoticeEvent.model_validate(notice)
    return [{name: value for name, value in notice.items() if name != "delay_seconds"} for notice in found]


async def test_an_upstream_that_refuses_for_a_moment_is_asked_again_and_readers_are_told(
    client: Client, upstream: ScriptedUpstream
) -> None:
    upstream.error(429)
    upstream.error(503)
    frames = await post(client)
    assert notices(frames) == [{"code": "retrying", "attempt": 2}, {"code": "retrying", "attempt": 3}]
    assert text_of(frames) == "Echo: Hi"
    assert [frame.event for frame in frames[:3]] == ["start", "notice", "notice"]
    # Read again, it is the same, from any cursor.
    async with client.get(f"/messages/{frames[0].json['message']}/events") as response:
        again = await read_all(response)
    assert (notices(again), text_of(again), again[-1]) == (notices(frames), text_of(frames), frames[-1])


async def test_the_next_model_answers_where_the_first_one_does_not(start: Start, upstream: ScriptedUpstream) -> None:
    client = await start(upstream_retry_seconds=0)
    upstream.error(500)
    frames = await post(client)
    assert notices(frames) == [{"code": "model_changed", "model": "model-b"}]
    assert [request["model"] for request in upstream.requests] == ["model-a", "model-b"]
    assert frames[0].json["model"] == "model-a"
    assert frames[-1].json["model"] == "model-b"
    assert (await get(client, f"/messages/{frames[0].json['message']}"))["model"] == "model-b"


async def test_a_model_that_was_chosen_falls_back_only_to_those_behind_it(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = await start(upstream_retry_seconds=0)
    upstream.error(500)
    frames = await post(client, model="model-b")
    assert [request["model"] for request in upstream.requests] == ["model-b"]
    assert (frames[-1].json["status"], frames[-1].json["error"]["code"]) == ("failed", "upstream_error")


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "upstream_refused"), (401, "upstream_refused"), (403, "upstream_refused"), (404, "upstream_refused")],
)
async def test_what_the_upstream_refuses_is_not_asked_again(
    client: Client, upstream: ScriptedUpstream, status: int, code: str
) -> None:
    upstream.error(status, {"error": {"message": f"bad key {KEY}"}})
    frames = await post(client)
    assert [frame.event for frame in frames] == ["start", "end"]
    assert frames[-1].json["status"] == "failed"
    assert frames[-1].json["error"] == {
        "code": code,
        "message": f"The model server answered with status {status}.",
        "retryable": False,
    }
    assert len(upstream.requests) == 1


async def test_in_one_piece_a_failed_answer_is_502_and_a_timeout_504_with_the_answer(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = await start(upstream_retry_seconds=0, openai_model="model-a", first_token_timeout_seconds=0.2)
    upstream.error(500)
    body = await ask(client, "Hi", status=502)
    assert (body["code"], body["message"]["status"]) == ("upstream_error", "failed")
    schemas.Answer.model_validate(body["message"])
    upstream.silent()
    body = await ask(client, "Hi", status=504)
    assert (body["code"], body["message"]["error"]["code"]) == (
        "upstream_first_token_timeout",
        "upstream_first_token_timeout",
    )
    await upstream.wait_for_open_streams(0)


MIDDLE: list[tuple[str, dict[str, Any], tuple[str, str | None, str | None]]] = [
    ("a cut connection", {"cut_at": 400}, ("failed", None, "upstream_cut")),
    ("no end at all", {"finish_reason": None, "no_done": True}, ("failed", None, "upstream_cut")),
    ("no [DONE] but a reason", {"no_done": True}, ("completed", "stop", None)),
    ("too long", {"finish_reason": "length"}, ("completed", "length", None)),
    ("filtered", {"finish_reason": "content_filter"}, ("completed", "content_filter", None)),
]


@pytest.mark.parametrize(("options", "expected"), [row[1:] for row in MIDDLE], ids=[row[0] for row in MIDDLE])
async def test_a_failure_in_the_middle_keeps_the_text_and_says_the_true_reason(
    client: Client,
    upstream: ScriptedUpstream,
    options: dict[str, Any],
    expected: tuple[str, str | None, str | None],
) -> None:
    upstream.reply(["one ", "two ", "three"], **options)
    frames = await post(client)
    end = frames[-1].json
    assert (end["status"], end["finish_reason"], (end["error"] or {}).get("code")) == expected
    text = text_of(frames)
    assert text
    assert "one two three".startswith(text)
    message = await get(client, f"/messages/{frames[0].json['message']}")
    assert (message["content"], message["status"]) == (text, end["status"])
    assert len(upstream.requests) == 1


async def test_an_error_inside_the_stream_keeps_the_text_and_none_of_its_words(
    client: Client, upstream: ScriptedUpstream
) -> None:
    upstream.raw([chunk({"content": "one "}), event({"error": {"message": f"secret {KEY}"}}), DONE])
    frames = await post(client)
    assert text_of(frames) == "one "
    assert frames[-1].json["status"] == "failed"
    assert "secret" not in str(frames)


async def test_tokens_that_stop_coming_are_a_timeout_of_their_own(start: Start, upstream: ScriptedUpstream) -> None:
    client = await start(token_timeout_seconds=0.2)
    upstream.reply(["one "], unfinished=True)
    async with asyncio.timeout(10):
        frames = await post(client)
    assert (text_of(frames), frames[-1].json["error"]["code"]) == ("one ", "upstream_token_timeout")
    await upstream.wait_for_open_streams(0)


async def test_an_answer_that_takes_too_long_is_a_timeout_of_its_own(start: Start, upstream: ScriptedUpstream) -> None:
    client = await start(answer_timeout_seconds=0.3)
    upstream.reply(["x"] * 100_000, delay=0.01)
    async with asyncio.timeout(10):
        frames = await post(client)
    assert frames[-1].json["error"]["code"] == "upstream_answer_timeout"
    await upstream.wait_for_open_streams(0)


async def test_a_prompt_that_is_too_long_is_trimmed_to_what_the_upstream_names_and_asked_again(
    client: Client, upstream: ScriptedUpstream
) -> None:
    where: dict[str, Any] = {}
    for number in range(4):
        upstream.reply(["ok"])
        where = {"conversation": (await ask(client, f"{number} " + "x" * 300, **where))["conversation"]}
    refusal = {"error": {"code": "context_length_exceeded", "message": "maximum context length is 400 tokens"}}
    upstream.error(400, refusal)
    frames = await post(client, content="last", **where)
    assert text_of(frames) == "Echo: last"
    first, second = (request["messages"] for request in upstream.requests[-2:])
    assert len(first) == 9
    # 300 of 400 tokens for the prompt: two turns of 110 and the last.
    assert [message["content"][:2] for message in second] == ["2 ", "ok", "3 ", "ok", "la"]
    assert notices(frames) == [{"code": "context_trimmed", "left_out": 4}]


async def test_where_the_upstream_names_no_size_the_prompt_is_halved_until_it_fits(
    client: Client, upstream: ScriptedUpstream
) -> None:
    upstream.reply(["ok"])
    conversation = (await ask(client, "x" * 3000))["conversation"]
    upstream.reply(["ok"])
    await ask(client, "y" * 3000, conversation=conversation)
    refusal = {"error": {"code": "context_length_exceeded", "message": "too long"}}
    upstream.error(400, refusal)
    upstream.error(400, refusal)
    frames = await post(client, content="last", conversation=conversation)
    assert [len(request["messages"]) for request in upstream.requests[-3:]] == [5, 3, 1]
    assert notices(frames)[-1] == {"code": "context_trimmed", "left_out": 4}
    # What can't be made shorter is an error, told once.
    upstream.error(400, refusal)
    frames = await post(client, content="alone")
    assert frames[-1].json["error"]["code"] == "upstream_context_too_long"


async def test_fields_of_the_settings_and_of_the_post_go_upstream(start: Start, upstream: ScriptedUpstream) -> None:
    client = await start(
        openai_extra_body={"temperature": 0.1, "max_tokens": 50}, openai_extra_headers={"X-Team": "blue"}
    )
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    await post(client, temperature=0.9, seed=7, tools=tools, response_format={"type": "json_object"})
    sent = upstream.requests[-1]
    assert (sent["temperature"], sent["max_tokens"], sent["seed"]) == (0.9, 50, 7)
    assert (sent["tools"], sent["response_format"]) == (tools, {"type": "json_object"})
    assert upstream.headers[-1]["X-Team"] == "blue"
    assert upstream.headers[-1]["Authorization"] == f"Bearer {KEY}"
    assert await problem(client, "POST", "/messages", json={"content": "x", "temperature": 9}) == (
        422,
        "invalid_request",
    )
    assert await problem(client, "POST", "/messages", json={"content": "x", "n": 2}) == (422, "invalid_request")


async def test_results_of_tools_continue_the_answer_that_called(client: Client, upstream: ScriptedUpstream) -> None:
    upstream.reply([], tool_calls=[("c1", "look", "{}"), ("c2", "hear", "{}")], finish_reason="tool_calls")
    frames = await post(client)
    assert frames[-1].json["finish_reason"] == "tool_calls"
    ids = frames[0].json
    incomplete = {"role": "tool", "tool_call_id": "c1", "content": "7", "conversation": ids["conversation"]}
    assert await problem(client, "POST", "/messages", json=incomplete) == (422, "invalid_request")
    results = [{"tool_call_id": "c1", "content": "7"}, {"tool_call_id": "c2", "content": "8"}]
    body = {"role": "tool", "tool_results": results, "conversation": ids["conversation"]}
    answers = []
    for headers in ({"Idempotency-Key": "k"}, {"Idempotency-Key": "k"}, {"Last-Event-ID": "1"}):
        async with client.post("/messages", json=body, headers=headers) as response:
            answer = await read_all(response)
            answers.append(text_of(answer))
    assert len(set(answers)) == 1
    assert len(upstream.requests) == 2
    assert answer[-1].json["status"] == "completed"
    assert upstream.requests[-1]["messages"] == [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": call, "type": "function", "function": {"name": name, "arguments": "{}"}}
                for call, name in (("c1", "look"), ("c2", "hear"))
            ],
        },
        *({"role": "tool", **result} for result in results),
    ]
    conversation = await get(client, f"/conversations/{ids['conversation']}")
    schemas.Conversation.model_validate(conversation)
    assert [message["role"] for message in conversation["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert conversation["messages"][2]["tool_results"] == results


async def test_the_latest_turn_is_sent_whole_however_large_a_result_in_it_is(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = await start(context_tokens=256)
    await ask(client, "before")
    upstream.reply([], tool_calls=[("c1", "look", "{}")], finish_reason="tool_calls")
    before = (await get(client, "/conversations"))["conversations"][0]["id"]
    frames = await post(client, content="What is in the file?", conversation=before)
    await post(client, content="x" * 60_000, role="tool", tool_call_id="c1", parent=frames[0].json["message"])
    sent = upstream.requests[-1]["messages"]
    assert [(m["role"], len(m["content"])) for m in sent] == [("user", 20), ("assistant", 0), ("tool", 60_000)]


async def test_one_result_of_a_tool_is_sent_as_content(client: Client, upstream: ScriptedUpstream) -> None:
    upstream.reply([], tool_calls=[("c1", "look", "{}")], finish_reason="tool_calls")
    ids = (await post(client))[0].json
    await ask(client, "7", role="tool", tool_call_id="c1", parent=ids["message"])
    assert upstream.requests[-1]["messages"][-1] == {"role": "tool", "tool_call_id": "c1", "content": "7"}
    for bad in (
        {"content": "7", "role": "tool", "parent": ids["message"]},
        {"content": "7", "role": "tool", "tool_call_id": "c9", "parent": ids["message"]},
        {"content": "7", "role": "tool", "tool_call_id": "c1"},
        {"content": "7", "tool_call_id": "c1"},
    ):
        assert await problem(client, "POST", "/messages", json=bad) == (422, "invalid_request")


async def test_content_may_be_parts_of_text_and_images(client: Client, upstream: ScriptedUpstream) -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
    ]
    frames = await post(client, content=parts)
    assert upstream.requests[-1]["messages"] == [{"role": "user", "content": parts}]
    conversation = await get(client, f"/conversations/{frames[0].json['conversation']}")
    schemas.Conversation.model_validate(conversation)
    assert (conversation["title"], conversation["messages"][0]["content"]) == ("What is this?", parts)
    for bad in (
        [],
        [{"type": "text", "text": ""}],
        [{"type": "audio"}],
        [{"type": "image_url", "image_url": {"url": "http://example.com/a.png"}}],
        [{"type": "image_url", "image_url": {"url": "javascript:alert(1)"}}],
        [{"type": "image_url", "image_url": {"url": "data:text/html;base64,AAAA"}}],
    ):
        assert await problem(client, "POST", "/messages", json={"content": bad}) == (422, "invalid_request")


async def test_where_the_upstream_counts_nothing_no_usage_is_claimed(
    client: Client, upstream: ScriptedUpstream
) -> None:
    upstream.reply(["one"])
    frames = await post(client)
    assert frames[-1].json["usage"] is None
    conversation = frames[0].json["conversation"]
    upstream.reply(["one"], usage=(5, 1, 6))
    await post(client, conversation=conversation)
    upstream.reply(["one"], usage=(9, 2, 11))
    await post(client, conversation=conversation)
    totals = {"prompt_tokens": 14, "completion_tokens": 3, "total_tokens": 17}
    assert (await get(client, f"/conversations/{conversation}"))["usage"] == totals
    assert (await get(client, "/conversations"))["conversations"][0]["usage"] == totals


async def test_the_key_a_header_or_the_upstreams_words_are_in_no_output_and_no_log(
    start: Start, upstream: ScriptedUpstream, redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = await start(upstream_retry_seconds=0, openai_extra_headers={"X-Secret": "tops3cret-header"})
    upstream.error(401, {"error": {"message": f"Incorrect API key provided: {KEY}; tops3cret-header"}})
    upstream.error(500, f"<html>{KEY} tops3cret-header".encode())
    upstream.raw([event({"error": {"message": f"{KEY} tops3cret-header"}})])
    upstream.raw([f"data: not json {KEY} tops3cret-header\n\n".encode()])
    outputs = [str(await post(client, model="model-b")) for _ in range(4)]
    outputs.append(json.dumps(await get(client, "/conversations")))
    for key in await redis.keys("*"):
        kind = await redis.type(key)
        outputs.append(
            str(
                await (
                    redis.hgetall(key) if kind == "hash" else redis.xrange(key) if kind == "stream" else redis.type(key)
                )
            )
        )
    outputs.append(caplog.text)
    assert "the upstream answered with status 401" in caplog.text
    for output in outputs:
        assert KEY not in output
        assert "tops3cret" not in output
    assert all("html" not in output and "Incorrect" not in output for output in outputs[:-1])


async def test_a_fallback_that_refuses_the_length_is_asked_again_and_not_those_before_it(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = await start(upstream_retry_seconds=0, openai_model="model-a,model-b")
    upstream.reply(["ok"])
    conversation = (await ask(client, "x" * 3000))["conversation"]
    upstream.error(500)
    upstream.error(400, {"error": {"code": "context_length_exceeded", "message": "too long"}})
    frames = await post(client, content="last", conversation=conversation)
    assert [request["model"] for request in upstream.requests[1:]] == ["model-a", "model-b", "model-b"]
    assert [notice["code"] for notice in notices(frames)] == ["model_changed", "context_trimmed"]
    assert text_of(frames) == "Echo: last"
