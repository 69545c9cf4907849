"""The demo model: OpenAI's wire protocol on loopback, with answers that are the same each time."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from app.domain.errors import UpstreamCut, UpstreamRefused
from app.upstream.client import ChatRequest, Upstream
from app.upstream.deltas import Delta, Finish, Usage
from app.upstream.demo import DEMO_MODEL, run_demo
from app.upstream.demo_answer import Message, compose, count_tokens, pieces, shortened
from tests.upstream.streams import joined, said_in, says

HELLO = [{"role": "user", "content": "Hello there"}]
HELLO_ANSWER = """\
I am Parley's built-in demo model: no language model, only a program that reads what you write and answers in the same \
way each time.

Hello, and welcome! You wrote:

> Hello there

This is the first thing you said in this conversation.

Of your message I can tell this much:

```text
words:      2
characters: 11
```

For a real model, set `OPENAI_API_KEY` or `OPENAI_BASE_URL` and start the service again."""


@pytest.fixture
async def demo() -> AsyncIterator[str]:
    async with run_demo(delay=0) as url:
        yield url


async def ask(url: str, messages: list[dict[str, Any]]) -> list[Delta]:
    async with Upstream(base_url=url) as client:
        return [delta async for delta in client.stream(ChatRequest(DEMO_MODEL, messages))]


async def post(url: str, body: object) -> tuple[int, Any]:
    """Return the status and the JSON (or, of a stream, the events' data) of a request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with aiohttp.ClientSession() as session, session.post(f"{url}/chat/completions", data=data) as response:
        if response.content_type == "application/json":
            return response.status, await response.json()
        text = await response.text()
        return response.status, [part.removeprefix("data: ") for part in text.split("\n\n") if part]


async def test_it_says_that_it_is_a_demo_and_streams_markdown_word_by_word(demo: str) -> None:
    deltas = await ask(demo, HELLO)
    assert said_in(deltas) == HELLO_ANSWER
    count = count_tokens(HELLO_ANSWER)
    assert deltas[-1] == Finish("stop", DEMO_MODEL, Usage(2, count, 2 + count))
    _, events = await post(demo, {"model": DEMO_MODEL, "messages": HELLO, "stream": True})
    words = [json.loads(event)["choices"][0]["delta"].get("content") for event in events[:4]]
    assert [word for word in words if word] == ["I", " am", " Parley's"]


async def test_the_same_conversation_has_the_same_answer(demo: str) -> None:
    assert joined(await ask(demo, HELLO)) == joined(await ask(demo, HELLO))
    first = await post(demo, {"model": DEMO_MODEL, "messages": HELLO, "stream": True})
    assert first == await post(demo, {"model": DEMO_MODEL, "messages": HELLO, "stream": True})


async def test_it_quotes_the_first_and_the_previous_user_message(demo: str) -> None:
    conversation: list[dict[str, Any]] = [
        {"role": "system", "content": "You are somebody else."},
        {"role": "user", "content": "My name is Ada. " + "x" * 100},
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "content": [{"type": "text", "text": "I like\ntea"}, {"type": "image_url"}]},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": "What did I say?"},
    ]
    answer = said_in(await ask(demo, conversation))
    assert "> What did I say?" in answer
    assert f"- The first thing you said was: “My name is Ada. {'x' * 63}…”\n" in answer
    assert "- Just before this you said: “I like tea”\n" in answer
    assert "- This is message number **3** from you." in answer
    assert "somebody else" not in answer


async def test_with_two_messages_the_first_is_quoted_once(demo: str) -> None:
    answer = said_in(await ask(demo, [*HELLO, {"role": "user", "content": "Bye"}]))
    assert answer.count("Hello there") == 1
    assert "Just before" not in answer


async def test_asked_for_something_long_it_counts(demo: str) -> None:
    answer = said_in(await ask(demo, [{"role": "user", "content": "Write a long text"}]))
    assert "\n1. This is line 1 of 60," in answer
    assert "\n60. This is line 60 of 60," in answer


async def test_without_stream_the_answer_is_one_object(demo: str) -> None:
    status, answer = await post(demo, {"model": DEMO_MODEL, "messages": HELLO})
    count = count_tokens(HELLO_ANSWER)
    message = {"role": "assistant", "content": HELLO_ANSWER}
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["model"] == DEMO_MODEL
    assert answer["choices"] == [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": count, "total_tokens": 2 + count}


@pytest.mark.parametrize("asked", [True, False])
async def test_usage_is_streamed_only_where_it_is_asked_for(demo: str, asked: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if asked else {}
    status, events = await post(demo, {"model": DEMO_MODEL, "messages": HELLO, "stream": True, **options})
    assert status == 200
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [chunk["choices"] for chunk in chunks if "usage" in chunk] == ([[]] if asked else [])
    finish = chunks[-2 if asked else -1]["choices"][0]
    assert (finish["delta"], finish["finish_reason"]) == ({}, "stop")


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        (b"{", 400, None, None),
        (b"[" * 100_000, 400, None, None),
        ([], 400, None, None),
        ({"messages": HELLO}, 400, "model", None),
        ({"model": "gpt-x", "messages": HELLO}, 404, "model", "model_not_found"),
        ({"model": DEMO_MODEL}, 400, "messages", None),
        ({"model": DEMO_MODEL, "messages": []}, 400, "messages", None),
        ({"model": DEMO_MODEL, "messages": ["x"]}, 400, "messages[0]", None),
        ({"model": DEMO_MODEL, "messages": [*HELLO, {"content": "x"}]}, 400, "messages[1]", None),
        ({"model": DEMO_MODEL, "messages": [{"role": "user", "content": 5}]}, 400, "messages[0].content", None),
    ],
)
async def test_a_bad_request_is_refused_in_openais_words(
    demo: str, body: object, status: int, param: str | None, code: str | None
) -> None:
    got, answer = await post(demo, body)
    assert got == status
    assert list(answer) == ["error"]
    assert isinstance(answer["error"].pop("message"), str)
    assert answer["error"] == {"type": "invalid_request_error", "param": param, "code": code}


async def test_our_own_client_is_refused_another_model_and_lists_this_one(demo: str) -> None:
    async with Upstream(base_url=demo) as client:
        assert await client.models() == [DEMO_MODEL]
        with pytest.raises(UpstreamRefused):
            await anext(client.stream(ChatRequest("other", HELLO)))


async def test_half_a_character_is_answered_too(demo: str) -> None:
    assert "> \ufffd" in said_in(await ask(demo, [{"role": "user", "content": "\ud83d"}]))


async def test_it_ends_at_once_with_an_open_stream() -> None:
    async with AsyncExitStack() as stack:
        running = AsyncExitStack()
        url = await running.enter_async_context(run_demo(delay=0.01))
        client = await stack.enter_async_context(Upstream(base_url=url))
        stream = client.stream(ChatRequest(DEMO_MODEL, [{"role": "user", "content": "long"}]))
        assert await anext(stream) == says("I")
        async with asyncio.timeout(5):
            await running.aclose()
        with pytest.raises(UpstreamCut):
            async for _ in stream:
                pass


def test_pieces_are_words_that_join_to_the_text() -> None:
    for text in ("", " ", "a", " a  b\n\n- c \n", HELLO_ANSWER):
        assert "".join(pieces(text)) == text
    assert pieces("a  b\n") == ["a", "  b", "\n"]


def test_words_and_marks_are_tokens() -> None:
    assert [count_tokens(text) for text in ("", "Hello, world!", "ä€ 日本")] == [0, 4, 3]


def test_a_quotation_is_one_line_of_80_characters_at_most() -> None:
    assert shortened(" a\n\n b ") == "a b"
    assert shortened("x" * 80) == "x" * 80
    assert shortened("x" * 81) == "x" * 79 + "…"


@pytest.mark.parametrize(
    ("last", "opening"),
    [
        ("Hi!", "Hello, and welcome! You wrote:"),
        ("Why?", "A good question, though one for a real model. You asked:"),
        ("I see.", "Thank you for your message. You wrote:"),
        ("", "You wrote nothing that I can read:"),
    ],
)
def test_the_opening_suits_the_message(last: str, opening: str) -> None:
    assert compose([Message("user", last)]).split("\n\n")[1] == opening


def test_a_conversation_without_a_user_is_answered_too() -> None:
    assert "You wrote nothing" in compose([Message("system", "x")])
