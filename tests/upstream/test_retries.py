"""Which failures are asked again, before the first token; after it, nothing is, so nothing is shown twice."""

import asyncio
import socket
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tenacity import wait_none

from app.domain.errors import (
    UpstreamAnswerTimeout,
    UpstreamBadResponse,
    UpstreamConnectTimeout,
    UpstreamCut,
    UpstreamError,
    UpstreamRefused,
    UpstreamTokenTimeout,
    UpstreamUnreachable,
)
from app.upstream.client import Upstream
from app.upstream.deltas import Delta, Finish, Notice, ToolCall
from app.upstream.retries import Retrying
from tests.support.scripted_upstream import JSON, Script, ScriptedUpstream, chunk, event, reply
from tests.upstream.asking import HELLO, Time, ask, changed, models, relay, retrying
from tests.upstream.streams import said_in, says, text, thinks

REFUSED = (400, 401, 403, 404, 422)
OVERLOADED = event({"error": {"message": "overloaded"}})


async def test_an_answer_without_failures_has_no_notice_and_is_asked_for_once(upstream: ScriptedUpstream) -> None:
    asked = await ask(upstream.base_url, "a", "b")
    assert asked.notices == []
    assert asked.said == [says("Echo:"), says(" Hello"), Finish("stop", "a", asked.said[-1].usage)]  # type: ignore[union-attr]
    [request] = upstream.requests
    assert (request["model"], request["temperature"]) == ("a", 0.5)
    assert request["messages"] == HELLO.messages


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
async def test_a_status_that_passes_is_asked_again(upstream: ScriptedUpstream, status: int) -> None:
    upstream.error(status)
    upstream.error(status)
    upstream.reply(["well"])
    asked = await ask(upstream.base_url, "a", "b")
    assert asked.notices == [retrying(2, 0.5), retrying(3, 1.0)]
    assert asked.said[0] == says("well")
    assert models(upstream) == ["a", "a", "a"]


@pytest.mark.parametrize(
    "script",
    [
        Script([b"<html>"], headers={"Content-Type": "text/html"}),
        Script([b'{"hello":1}'], headers=JSON),
        Script([b"data: <html>\n\n"]),
        Script([chunk({"role": "assistant", "content": ""}), OVERLOADED]),
        Script([b": processing\n\n"], cut_at=5),
        Script([]),
        reply(tool_calls=[("c", "f", "{}")], finish_reason=None, no_done=True),  # collected, and not yet shown
    ],
    ids=["html", "other json", "no json in an event", "error in the stream", "cut", "empty", "half a tool call"],
)
async def test_a_200_that_fails_before_it_has_shown_anything_is_asked_again(
    upstream: ScriptedUpstream, script: Script
) -> None:
    upstream.add(script)
    upstream.reply(["well"])
    asked = await ask(upstream.base_url, "a", "b")
    assert asked.notices == [retrying(2, 0.5)]
    assert asked.said[0] == says("well")
    assert models(upstream) == ["a", "a"]


@pytest.mark.parametrize("script", [Script(mute=True), Script(hold=True)])
async def test_a_first_token_that_does_not_come_is_waited_for_again_on_a_new_connection(
    upstream: ScriptedUpstream, script: Script
) -> None:
    time = Time()
    time.on_sleep = lambda: upstream.wait_for_open_streams(0)  # the attempt that failed is over before the next one
    upstream.add(script)
    upstream.reply(["well"])
    asked = await ask(upstream.base_url, time=time, first_token_timeout=0.1)
    assert (asked.notices, asked.said[0]) == ([retrying(2, 0.5)], says("well"))
    assert len(upstream.requests) == 2


async def test_a_refused_connection_is_tried_again_until_the_server_is_up(upstream: ScriptedUpstream) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening yet
        time = Time()
        async with relay(upstream.base_url) as listen:
            time.on_sleep = lambda: listen(taken) if len(time.slept) == 2 else None
            asked = await ask(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "a", "b", time=time)
    assert asked.notices == [retrying(2, 0.5), retrying(3, 1.0)]
    assert asked.said[:2] == [says("Echo:"), says(" Hello")]
    assert models(upstream) == ["a"]


@pytest.mark.parametrize("base_url", ["http://parley.invalid/v1", "https://{}/v1"], ids=["no such host", "no TLS"])
async def test_a_host_that_is_not_found_and_a_failed_handshake_are_tried_again(
    upstream: ScriptedUpstream, base_url: str
) -> None:
    host = upstream.base_url.removeprefix("http://").removesuffix("/v1")
    asked = await ask(base_url.format(host), retry_seconds=2)
    assert asked.notices == [retrying(2, 0.5), retrying(3, 1.0)]
    assert type(asked.failure) is UpstreamUnreachable
    assert upstream.requests == []


async def test_a_connection_that_is_not_made_in_time_is_tried_again() -> None:
    connections = 0

    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read()
        writer.close()

    async with await asyncio.start_server(ignore, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        asked = await ask(f"https://127.0.0.1:{port}/v1", retry_seconds=1, connect_timeout=0.1)
    assert asked.notices == [retrying(2, 0.5)]
    assert (type(asked.failure), connections) == (UpstreamConnectTimeout, 2)


# --- what is not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [*REFUSED, 308, 402, 413])
async def test_what_is_refused_is_asked_of_no_model_again(upstream: ScriptedUpstream, status: int) -> None:
    upstream.error(status, headers={"Retry-After": "1"})
    asked = await ask(upstream.base_url, "a", "b")
    assert asked.deltas == []
    assert asked.failure is not None
    assert asked.failure.detail == f"The model server answered with status {status}."
    assert type(asked.failure) is UpstreamRefused
    assert models(upstream) == ["a"]


@pytest.mark.parametrize("status", REFUSED)
async def test_what_another_model_refuses_ends_it(upstream: ScriptedUpstream, status: int) -> None:
    upstream.error(503)
    upstream.error(status)
    asked = await ask(upstream.base_url, "a", "b", "c", retry_seconds=0)
    assert (asked.deltas, type(asked.failure)) == ([Notice(changed("b"))], UpstreamRefused)
    assert models(upstream) == ["a", "b"]


async def test_the_whole_answers_time_is_not_given_twice(upstream: ScriptedUpstream) -> None:
    upstream.add(Script(hold=True))
    asked = await ask(upstream.base_url, "a", "b", answer_timeout=0.1)
    assert (asked.deltas, type(asked.failure)) == ([], UpstreamAnswerTimeout)
    assert models(upstream) == ["a"]


@pytest.mark.parametrize("base_url", ["nonsense", "ftp://127.0.0.1/v1"])
async def test_an_address_that_is_none_is_not_tried_again(base_url: str) -> None:
    asked = await ask(base_url, "a", "b")
    assert (asked.deltas, type(asked.failure)) == ([], UpstreamUnreachable)


SHOWN = [({"content": "x"}, says("x")), ({"reasoning_content": "x"}, thinks("x"))]


@pytest.mark.parametrize(("delta", "shown"), SHOWN, ids=["text", "reasoning"])
@pytest.mark.parametrize(
    ("rest", "failure"),
    [
        (Script([OVERLOADED]), UpstreamError),
        (Script([b"data: <html>\n\n"]), UpstreamBadResponse),
        (Script([]), UpstreamCut),
        (Script([], hold=True), UpstreamTokenTimeout),
        (Script([event({"error": {"code": "context_length_exceeded"}})]), UpstreamError),
    ],
    ids=["error", "no json", "cut", "silence", "context"],
)
async def test_after_the_first_token_a_failure_passes_unchanged(
    upstream: ScriptedUpstream, delta: dict[str, str], shown: Delta, rest: Script, failure: type[UpstreamError]
) -> None:
    upstream.add(Script([chunk(delta), *rest.steps], hold=rest.hold))
    asked = await ask(upstream.base_url, "a", "b", token_timeout=0.1)
    assert (asked.deltas, type(asked.failure)) == ([shown], failure)
    assert models(upstream) == ["a"]


@pytest.mark.parametrize(
    "held",
    [
        [
            text("\ud83d"),
            text("\ude00!"),
        ],
        [chunk({"content": "\r"}), chunk({"content": "x"})],
        [chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}), chunk({"content": "x"})],
    ],
    ids=["half of a character", "carriage return", "tool call"],
)
async def test_text_behind_a_first_token_that_was_held_back_is_not_asked_for_again(
    upstream: ScriptedUpstream, held: Sequence[bytes]
) -> None:
    upstream.raw([*held, chunk({"content": " shown"}), OVERLOADED], delay=0.01)
    upstream.reply(["again"])
    asked = await ask(upstream.base_url, "a", "b")
    assert said_in(asked.said).endswith(" shown")
    assert (asked.notices, type(asked.failure)) == ([], UpstreamError)
    assert models(upstream) == ["a"]


async def test_a_tool_call_that_was_shown_is_not_asked_for_again(upstream: ScriptedUpstream) -> None:
    upstream.reply(tool_calls=[("c", "f", "{}")], finish_reason="tool_calls")
    async with Upstream(base_url=upstream.base_url) as client:
        stream = Retrying(client, 30, jitter=wait_none()).stream(HELLO, ["a", "b"])
        assert await anext(stream) == ToolCall("c", "f", "{}")
        with pytest.raises(UpstreamCut, match="thrown in"):  # nothing that fails from here on asks anew
            await stream.athrow(UpstreamCut("thrown in"))
    assert models(upstream) == ["a"]


# --- nothing twice ----------------------------------------------------------------------------------------------------

PIECES = ["p0 ", "p1 ", "p2 "]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(("status", "cut", "error", "well")), st.integers(0, 3)), max_size=6))
def test_nothing_is_shown_twice_whatever_fails_when(fates: Sequence[tuple[str, int]]) -> None:
    asyncio.run(_nothing_twice(fates))


async def _nothing_twice(fates: Sequence[tuple[str, int]]) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.default = reply(PIECES)
        for fate, shown in fates:
            pieces = [chunk({"content": piece}) for piece in PIECES[:shown]]
            match fate:
                case "status":
                    upstream.error(503)
                case "cut":
                    upstream.raw(pieces)
                case "error":
                    upstream.raw([*pieces, OVERLOADED])
                case "well":
                    upstream.reply(PIECES)
        asked = await ask(upstream.base_url, "a", "b", retry_seconds=4)
    # The first attempt that shows anything decides; before it come notices only, and after it nothing is asked.
    attempts = [*fates, *[("well", 0)] * 9][:6]  # 4 of one model and 2 of the other fit into 4 s
    deciding = next(
        (n for n, (fate, shown) in enumerate(attempts) if fate == "well" or (shown and fate != "status")), 6
    )
    said = said_in(asked.said)
    if deciding == 6:
        assert (said, len(upstream.requests)) == ("", 6)
        return
    fate, shown = attempts[deciding]
    assert said == "".join(PIECES if fate == "well" else PIECES[:shown])
    assert (asked.failure is None) == (fate == "well")
    assert len(upstream.requests) == len(asked.notices) + 1 == deciding + 1
    assert all(isinstance(delta, Notice) for delta in asked.deltas[: len(asked.notices)])
