"""The main job: POST a message, read the answer as it is written, GET the conversation by its id."""

import asyncio
import json
from typing import Any

from app.web.schemas import Answer, Conversation
from tests.conftest import Client, Start
from tests.support.browser import ask, get
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.sse import frames_of, parse_all, read_all, text_of


async def test_an_answer_streams_as_events_with_ids_to_resume_with(client: Client, upstream: ScriptedUpstream) -> None:
    upstream.reply(["Hel", "lo", " 😀"], usage=(3, 2, 5), model="model-a-2026")
    async with client.post("/messages", json={"content": "Hi"}) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        frames = await read_all(response)
    start = frames[0].json
    conversation = start["conversation"].removeprefix("conv_")
    assert start == {
        "conversation": f"conv_{conversation}",
        "message": f"msg_{conversation}_2",
        "reply_to": f"msg_{conversation}_1",
        "model": "model-a",
    }
    assert (frames[0].event, frames[0].id) == ("start", "1")
    assert text_of(frames) == "Hello 😀"
    assert frames[-2].id == "8"
    assert (frames[-1].event, frames[-1].id) == ("end", "9")
    assert frames[-1].json == {
        "status": "completed",
        "finish_reason": "stop",
        "model": "model-a-2026",
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        "error": None,
    }


async def test_the_conversation_is_read_by_its_id_with_all_its_messages(
    client: Client, upstream: ScriptedUpstream
) -> None:
    upstream.reply(["Hello"], usage=(3, 2, 5), model="model-a-2026")
    answer = await ask(client, "Hi there")
    async with client.get(f"/conversations/{answer['conversation']}") as response:
        assert response.status == 200
        body = await response.json()
    assert Conversation.model_validate(body)
    user, assistant = body.pop("messages")
    assert body == {
        "id": answer["conversation"],
        "title": "Hi there",
        "system": None,
        "model": None,
        "metadata": {},
        "created_at": user["created_at"],
        "updated_at": assistant["completed_at"],
        "active": None,
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
    assert user == {
        "id": assistant["parent"],
        "conversation": answer["conversation"],
        "parent": None,
        "role": "user",
        "content": "Hi there",
        "status": "completed",
        "created_at": user["created_at"],
    }
    assert assistant == answer["message"]
    assert assistant == {
        "id": user["id"][:-1] + "2",
        "conversation": answer["conversation"],
        "parent": user["id"],
        "role": "assistant",
        "content": "Hello",
        "status": "completed",
        "created_at": user["created_at"],
        "completed_at": assistant["completed_at"],
        "model": "model-a-2026",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        "error": None,
    }


async def test_a_long_conversation_is_posted_message_by_message_and_the_server_keeps_the_history(
    client: Client, upstream: ScriptedUpstream
) -> None:
    first = await ask(client, "My name is Ada.", system="Be brief.")
    conversation = first["conversation"]
    await ask(client, "I like trains.", conversation=conversation)
    await ask(client, "Who am I?", conversation=conversation)
    assert upstream.requests[-1]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Echo: My name is Ada."},
        {"role": "user", "content": "I like trains."},
        {"role": "assistant", "content": "Echo: I like trains."},
        {"role": "user", "content": "Who am I?"},
    ]
    body = await get(client, f"/conversations/{conversation}")
    assert [message["id"].rpartition("_")[2] for message in body["messages"]] == ["1", "2", "3", "4", "5", "6"]
    assert [message["parent"] for message in body["messages"]] == [None, *(m["id"] for m in body["messages"][:-1])]


async def test_a_conversation_that_does_not_fit_the_window_goes_upstream_with_its_latest_turns_and_a_notice(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = await start(context_tokens=256)
    upstream.reply(["one"])  # without usage: bytes are estimated
    conversation = (await ask(client, "first " * 80))["conversation"]
    upstream.reply(["two"])
    await ask(client, "second " * 80, conversation=conversation)
    async with client.post("/messages", json={"content": "third", "conversation": conversation}) as response:
        frames = await read_all(response)
    assert upstream.requests[-1]["messages"] == [{"role": "user", "content": "third"}]
    assert [(frame.event, frame.id, frame.data) for frame in frames[1:2]] == [
        ("notice", "2", '{"code":"context_trimmed","left_out":4}')
    ]
    assert (await get(client, f"/messages/{frames[0].json['message']}"))["left_out"] == 4


async def test_the_answer_is_read_again_by_its_id_alone_as_an_event_source_does(
    client: Client, upstream: ScriptedUpstream
) -> None:
    answer = await ask(client, "one two three")
    async with client.get(f"/messages/{answer['message']['id']}/events") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["X-Accel-Buffering"] == "no"
        frames = await read_all(response)
    assert [frame.event for frame in frames] == ["start", "message", "end"]
    assert text_of(frames) == "Echo: one two three"
    async with client.get(
        f"/messages/{answer['message']['id']}/events", headers={"Last-Event-ID": frames[-1].id}
    ) as response:
        assert response.status == 204
        assert await response.read() == b""
    assert len(upstream.requests) == 1


async def test_the_text_is_shown_as_it_is_written(client: Client, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    upstream.reply(["one ", "two "], gate=gate)
    async with asyncio.timeout(10), client.post("/messages", json={"content": "Hi"}) as response:
        frames = frames_of(response)
        assert (await anext(frames)).event == "start"
        gate.release()
        assert await anext(frames) == ("message", "5", "one ")
        gate.release()
        assert await anext(frames) == ("message", "9", "two ")
        gate.open()
        assert (await anext(frames)).event == "end"


async def test_a_running_answer_is_seen_in_its_conversation_with_its_text_so_far(
    client: Client, upstream: ScriptedUpstream
) -> None:
    gate = upstream.gate()
    upstream.reply(["one ", "two "], gate=gate, reasoning=["hm"])
    async with asyncio.timeout(10), client.post("/messages", json={"content": "Hi"}) as response:
        frames = frames_of(response)
        ids = (await anext(frames)).json
        gate.release(2)
        assert await anext(frames) == ("reasoning", "3", "hm")
        assert await anext(frames) == ("message", "7", "one ")
        body = await get(client, f"/conversations/{ids['conversation']}")
        assert body["active"] == ids["message"]
        assert body["messages"][1] | {"created_at": ""} == {
            "id": ids["message"],
            "conversation": ids["conversation"],
            "parent": ids["reply_to"],
            "role": "assistant",
            "content": "one ",
            "reasoning": "hm",
            "status": "streaming",
            "created_at": "",
            "completed_at": None,
            "model": "model-a",
            "finish_reason": None,
            "usage": None,
            "error": None,
        }
        assert (await get(client, f"/messages/{ids['message']}"))["content"] == "one "
        gate.open()
        rest = [frame async for frame in frames]
    assert text_of(rest) == "two "
    assert (await get(client, f"/messages/{ids['message']}"))["content"] == "one two "


async def test_text_with_line_breaks_arrives_whole(client: Client, upstream: ScriptedUpstream) -> None:
    upstream.reply(["a\n", "\nb\r", "\nc\rd ", " e: f"])
    async with client.post("/messages", json={"content": "Hi"}) as response:
        frames = await read_all(response)
    assert text_of(frames) == "a\n\nb\nc\nd  e: f"
    message = await get(client, f"/messages/{frames[0].json['message']}")
    assert message["content"] == "a\n\nb\r\nc\rd  e: f"
    async with client.get(f"/messages/{message['id']}/events") as response:
        assert text_of(await read_all(response)) == "a\n\nb\nc\nd  e: f"


async def test_tool_calls_and_reasoning_are_events_and_fields_of_the_message(
    client: Client, upstream: ScriptedUpstream
) -> None:
    upstream.reply(["Let me see."], reasoning=["Hm. ", "Yes."], tool_calls=[("c1", "look", '{"at":1}')])
    async with client.post("/messages", json={"content": "Hi"}) as response:
        frames = await read_all(response)
    call = {"id": "c1", "name": "look", "arguments": '{"at":1}'}
    assert [frame.json for frame in frames if frame.event == "tool_call"] == [call]
    message = await get(client, f"/messages/{frames[0].json['message']}")
    assert Answer.model_validate(message)
    assert (message["reasoning"], message["content"], message["tool_calls"]) == ("Hm. Yes.", "Let me see.", [call])


async def test_nothing_is_shown_before_redis_has_it(client: Client, redis: Any, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    upstream.reply([f"{number} " for number in range(20)], gate=gate)
    async with asyncio.timeout(10), client.post("/messages", json={"content": "Hi"}) as response:
        frames = frames_of(response)
        ids = (await anext(frames)).json
        tag = ids["conversation"].removeprefix("conv_")
        for _ in range(20):
            gate.release()
            frame = await anext(frames)
            entries = await redis.execute_command("EVAL", LOG, 1, f"chat:{{{tag}}}:events:2")
            stored = "".join(value for _, fields in entries for value in fields[1::2][: len(fields)] if value[0] != "{")
            assert len(stored) + 1 >= int(frame.id)
        gate.open()
        async for _ in frames:
            pass


LOG = "return redis.call('XRANGE', KEYS[1], '-', '+')"


async def test_heartbeats_are_one_comment_line_between_frames(start: Start, upstream: ScriptedUpstream) -> None:
    client = await start(heartbeat_seconds=0.02)
    gate = upstream.gate()
    upstream.reply(["late"], gate=gate)
    body = b""
    async with asyncio.timeout(10), client.post("/messages", json={"content": "Hi"}) as response:
        while body.count(b"\n:\n:\n") < 1:
            body += await response.content.readany()
        gate.open()
        body += await response.content.read()
    assert b":\n:\nid: 5\ndata: late\n\n" in body
    assert b": ping" not in body
    assert [frame.event for frame in parse_all(body.decode())] == ["start", "message", "end"]


async def test_posting_to_a_long_conversation_costs_no_more_round_trips_than_to_a_short_one(
    client: Client, redis: Any
) -> None:
    conversation = (await ask(client, "one"))["conversation"]

    async def commands() -> dict[str, int]:
        await redis.config_resetstat()
        await ask(client, "again", conversation=conversation)
        stats = await redis.info("commandstats")
        wanted = ("evalsha", "xadd", "zadd", "get", "hget", "hgetall", "xrange", "hmget", "eval")
        return {name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in wanted}

    for _ in range(4):
        await ask(client, "more", conversation=conversation)
    few = await commands()
    tag = conversation.removeprefix("conv_")
    # A long history, as the service would have written it: numbers 13 to 1012, one after the other.
    next_number = int(await redis.hget(f"chat:{{{tag}}}", "next"))
    for number in range(next_number, next_number + 1000, 2):
        user = {"parent": number - 1, "depth": number, "role": "user", "content": "q" * 50, "created_at": 1}
        answer = {"parent": number, "depth": number + 1, "role": "assistant", "content": "a" * 50, "created_at": 1}
        await redis.hset(f"chat:{{{tag}}}:messages", number, dump(user))
        await redis.hset(f"chat:{{{tag}}}:messages", number + 1, dump(answer | {"asked": "model-a"}))
    await redis.hset(f"chat:{{{tag}}}", mapping={"next": next_number + 1000, "head": next_number + 999})
    many = await commands()
    assert few["evalsha"] == many["evalsha"]
    assert few["zadd"] == many["zadd"]
    # Inside `begin`, one HGET for each message that the context window can hold, however long the history is.
    assert many["hget"] < 400


def dump(value: object) -> str:
    """Write JSON as the store keeps it."""
    return json.dumps(value, separators=(",", ":"))
