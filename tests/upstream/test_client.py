"""The client: what is asked, what an answer becomes, and that its connection is always closed."""

import asyncio
import json
from contextlib import aclosing
from types import MappingProxyType
from urllib.parse import urlsplit

import pytest

from app.domain.errors import UpstreamBadResponse
from app.upstream.client import ChatRequest, Upstream, environment_proxy
from app.upstream.deltas import Delta, Finish, ToolCall, Usage
from tests.support.scripted_upstream import DONE, EVENT_STREAM, JSON, MODEL, Script, ScriptedUpstream, reply
from tests.upstream.streams import said_in, says, thinks

pytestmark = pytest.mark.usefixtures("both_ways")

HELLO = ChatRequest("m", [{"role": "user", "content": "Hello"}])
STOP = Finish("stop", MODEL, None)


async def collect(client: Upstream, request: ChatRequest = HELLO) -> list[Delta]:
    return [delta async for delta in client.stream(request)]


async def test_an_answer_comes_piece_by_piece_as_it_is_written(upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    upstream.reply(["Hel", "lo"], reasoning=["hm"], tool_calls=[("c", "f", "{}")], usage=(1, 2, 3), gate=gate)
    async with Upstream(base_url=upstream.base_url) as client:
        stream = client.stream(HELLO)
        for expected in (thinks("hm"), says("Hel"), says("lo")):
            gate.release()
            assert await anext(stream) == expected
        gate.open()
        assert [delta async for delta in stream] == [
            ToolCall("c", "f", "{}"),
            Finish("stop", MODEL, Usage(1, 2, 3)),
        ]


async def test_the_request_is_openais_with_usage_asked_for(upstream: ScriptedUpstream) -> None:
    message = MappingProxyType({"role": "user", "content": "ä😀"})
    request = ChatRequest("m", (message,), {"temperature": 0.5, "stream": False, "model": "x"})
    async with Upstream(base_url=upstream.base_url + "/", api_key="key-123456") as client:
        await collect(client, request)
    assert upstream.requests == [
        {
            "temperature": 0.5,
            "model": "m",
            "messages": [{"role": "user", "content": "ä😀"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]
    headers = upstream.headers[0]
    assert headers["Authorization"] == "Bearer key-123456"
    assert headers["Content-Type"] == "application/json"
    assert headers["Accept"] == "text/event-stream"
    assert headers["Accept-Encoding"] == "identity"


async def test_half_a_character_in_a_message_is_sent_as_an_escape(upstream: ScriptedUpstream) -> None:
    async with Upstream(base_url=upstream.base_url) as client:
        upstream.reply(["x"])
        await collect(client, ChatRequest("m", (MappingProxyType({"role": "user", "content": "\ud83d"}),)))
    assert upstream.requests[0]["messages"] == [{"role": "user", "content": "\ud83d"}]


async def test_extra_headers_win_whatever_their_case(upstream: ScriptedUpstream) -> None:
    extra = {"authorization": "Basic abcdefgh", "X-Team": "t"}
    async with Upstream(base_url=upstream.base_url, api_key="key-123456", extra_headers=extra) as client:
        await collect(client)
    assert upstream.headers[0].getall("Authorization") == ["Basic abcdefgh"]  # type: ignore[attr-defined] # a multidict
    assert upstream.headers[0]["X-Team"] == "t"


async def test_without_a_key_no_authorization_is_sent(upstream: ScriptedUpstream) -> None:
    async with Upstream(base_url=upstream.base_url) as client:
        await collect(client)
    assert "Authorization" not in upstream.headers[0]


async def test_an_address_with_a_query_as_azure_has_it_keeps_it_behind_the_path(upstream: ScriptedUpstream) -> None:
    base_url = f"{upstream.base_url}/?api-version=2024-06-01"
    async with Upstream(base_url=base_url, extra_headers={"api-key": "azure-key-0123"}) as client:
        assert (await collect(client))[-1] == Finish("stop", "m", Usage(1, 2, 3))
    assert upstream.paths == ["/v1/chat/completions?api-version=2024-06-01"]
    assert upstream.headers[0]["api-key"] == "azure-key-0123"
    assert "Authorization" not in upstream.headers[0]


async def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    async with Upstream(base_url=upstream.base_url) as client:
        assert (await collect(client))[-1] == Finish("stop", "m", Usage(1, 2, 3))


async def test_a_proxy_of_the_environment_is_used_for_others(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A proxy is asked for the whole URL, of which the scripted upstream looks at the path alone.
    monkeypatch.setenv("http_proxy", upstream.base_url.removesuffix("/v1"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with Upstream(base_url="http://model.invalid/v1") as client:
        assert (await collect(client))[-1] == Finish("stop", "m", Usage(1, 2, 3))
    assert upstream.headers[0]["Host"] == "model.invalid"


@pytest.mark.parametrize(
    ("proxy", "without", "used"),
    [
        ("proxy.corp:3128", "", "http://proxy.corp:3128"),
        ("http://proxy.corp:3128", "other.example", "http://proxy.corp:3128"),
        ("http://proxy.corp:3128", "llm.example:8000", None),
        ("http://proxy.corp:3128", "llm.example:8001", "http://proxy.corp:3128"),
        ("http://proxy.corp:3128", ".example", None),
    ],
)
def test_a_proxy_is_named_with_or_without_its_scheme_and_exceptions_with_or_without_a_port(
    monkeypatch: pytest.MonkeyPatch, proxy: str, without: str, used: str | None
) -> None:
    for name, value in (("https_proxy", proxy), ("no_proxy", without)):
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.setenv(name, value)
    assert environment_proxy(urlsplit("https://key@llm.example:8000/v1")) == used


async def test_a_finish_reason_or_done_alone_completes_an_answer(upstream: ScriptedUpstream) -> None:
    async with Upstream(base_url=upstream.base_url) as client:
        upstream.reply(["x"], no_done=True)
        assert await collect(client) == [says("x"), STOP]
        upstream.reply(["x"], finish_reason=None)
        assert await collect(client) == [says("x"), Finish(None, MODEL, None)]


async def test_a_server_that_completes_its_answer_but_not_its_body_is_not_waited_for(
    upstream: ScriptedUpstream,
) -> None:
    async with Upstream(base_url=upstream.base_url) as client:
        upstream.reply(["x"], hold=True)
        assert await collect(client) == [says("x"), STOP]
        await upstream.wait_for_open_streams(0)


async def test_a_server_that_only_forgets_the_end_mark_completes_its_answer(upstream: ScriptedUpstream) -> None:
    async with Upstream(base_url=upstream.base_url, token_timeout=0.1) as client:
        upstream.reply(["x"], hold=True, no_done=True)
        assert await collect(client) == [says("x"), STOP]
        await upstream.wait_for_open_streams(0)


async def test_an_answer_in_one_piece_of_json_is_an_answer(upstream: ScriptedUpstream) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    body = json.dumps({"object": "chat.completion", "model": MODEL, "choices": [choice]}).encode()
    upstream.raw([body[:20], body[20:]], headers=JSON)
    async with Upstream(base_url=upstream.base_url) as client:
        assert await collect(client) == [says("hi"), STOP]


async def test_the_connection_of_an_answer_that_was_read_to_its_end_is_used_again(upstream: ScriptedUpstream) -> None:
    async with Upstream(base_url=upstream.base_url) as client:
        await collect(client)
        await collect(client)
    assert len(upstream.requests) == 2
    assert upstream.connections == 1


async def test_closing_the_generator_in_the_middle_closes_the_connection(upstream: ScriptedUpstream) -> None:
    upstream.reply(["x"], hold=True, no_done=True)
    async with Upstream(base_url=upstream.base_url) as client:
        async with aclosing(client.stream(HELLO)) as stream:
            assert await anext(stream) == says("x")
            assert upstream.open_streams == 1
        await upstream.wait_for_open_streams(0)


@pytest.mark.parametrize(
    "script",
    [Script(mute=True), Script(hold=True), reply(["x"], hold=True, no_done=True)],
    ids=["headers", "first", "next"],
)
async def test_cancellation_closes_the_connection_whatever_is_waited_for(
    upstream: ScriptedUpstream, script: Script
) -> None:
    upstream.add(script)
    async with Upstream(base_url=upstream.base_url) as client:
        task = asyncio.create_task(collect(client))
        await upstream.wait_for_open_streams(1)
        if script.steps:
            await upstream.wait_for_sent(script, len(script.steps))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upstream.wait_for_open_streams(0)


async def test_a_consumer_that_does_not_read_stops_the_upstream(upstream: ScriptedUpstream) -> None:
    pieces = 4000
    script = upstream.reply(["x" * 16384] * pieces)
    async with Upstream(base_url=upstream.base_url) as client, aclosing(client.stream(HELLO)) as stream:
        deltas = [await anext(stream)]
        sent = -1
        while sent != script.sent:  # until it stands still
            sent = script.sent
            for _ in range(200):
                await asyncio.sleep(0)
        assert sent < pieces
        deltas += [delta async for delta in stream]
        assert said_in(deltas) == "x" * 16384 * pieces


async def test_an_upstream_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="not open"):
        await collect(Upstream(base_url="http://127.0.0.1:1/v1"))


async def test_models_are_listed_by_id(upstream: ScriptedUpstream) -> None:
    async with Upstream(base_url=upstream.base_url) as client:
        assert await client.models() == [MODEL]
        upstream.models = Script([b'{"data":[{"id":"b","x":1},{"id":"a"}]}'], headers=JSON)
        assert await client.models() == ["b", "a"]
        upstream.models = Script([DONE], headers=EVENT_STREAM)
        with pytest.raises(UpstreamBadResponse):
            await client.models()
        upstream.models = Script([b'{"data":[{}]}'], headers=JSON)
        with pytest.raises(UpstreamBadResponse):
            await client.models()
