"""The client's failures: each has a class of its own, and no secret in it or in the log."""

import asyncio
import logging
import socket
from collections.abc import Sequence

import pytest

from app.domain.errors import (
    UpstreamAnswerTimeout,
    UpstreamBadResponse,
    UpstreamConnectTimeout,
    UpstreamCut,
    UpstreamError,
    UpstreamFirstTokenTimeout,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTokenTimeout,
    UpstreamUnreachable,
)
from app.upstream.client import ChatRequest, Upstream
from app.upstream.deltas import Delta
from tests.support.scripted_upstream import EVENT_STREAM, JSON, Script, ScriptedUpstream, chunk, event, reply
from tests.upstream.streams import said_in, says

pytestmark = pytest.mark.usefixtures("both_ways")

KEY = "secret-key-0123456789"
HELLO = ChatRequest("m", [{"role": "user", "content": "Hello"}])


async def fail(client: Upstream) -> tuple[list[Delta], UpstreamError]:
    """Return what came before the failure, and the failure."""
    deltas: list[Delta] = []
    with pytest.raises(UpstreamError) as caught:
        async for delta in client.stream(HELLO):  # one by one: what came before the failure counts
            deltas.append(delta)  # noqa: PERF401
    return deltas, caught.value


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, UpstreamRefused) for status in (400, 401, 403, 404, 422)),
        (429, UpstreamRateLimited),
        *((status, UpstreamRefused) for status in (308, 402, 413)),
        *((status, UpstreamError) for status in (408, 409, 500, 502, 503, 529)),
    ],
)
async def test_each_status_has_its_error_and_no_more_than_the_status_is_told(
    upstream: ScriptedUpstream, status: int, error: type[UpstreamError]
) -> None:
    upstream.error(status, {"error": {"message": "body"}}, {"Location": upstream.base_url, "X-Header": "value"})
    async with Upstream(base_url=upstream.base_url, api_key=KEY) as client:
        _, failure = await fail(client)
    assert type(failure) is error
    assert failure.detail == f"The model server answered with status {status}."
    await upstream.wait_for_open_streams(0)
    assert len(upstream.requests) == 1


async def test_the_body_of_an_error_is_logged_up_to_2_kb_without_secrets(
    upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    body = f"{KEY}\nteam-password sk-abc***def ".encode()
    body += b"x" * (2048 - len(body) - 5) + KEY.encode() + b"tail"
    upstream.error(500, body)
    extra = {"X-Password": "team-password"}
    async with Upstream(base_url=upstream.base_url, api_key=KEY, extra_headers=extra) as client:
        await fail(client)
    [record] = [record for record in caplog.records if record.name == "parley.upstream"]
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert message.startswith(
        "the upstream answered with status 500 ('application/json'): '*********************\\n****"
    )
    assert message.endswith("xxxx*****'")
    for hidden in ("secret", "team-password", "sk-abc", "tail", "\n"):
        assert hidden not in message


async def test_a_password_and_a_query_of_the_address_are_no_more_logged_than_the_proxys_password(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.error(404, "no /v1/chat/completions?key=query%20secret for bob:address-secret (query secret)")
    base_url = upstream.base_url.replace("http://", "http://bob:address-secret@") + "?key=query%20secret"
    async with Upstream(base_url=base_url) as client:
        await fail(client)
    monkeypatch.setenv("https_proxy", upstream.base_url.replace("http://", "http://joe:proxy-secret@"))
    async with Upstream(base_url="https://llm.example/v1?key=query%20secret") as client:
        await fail(client)  # the proxy knows no CONNECT: aiohttp's error names it
    logged = [record.getMessage() for record in caplog.records if record.name == "parley.upstream"]
    assert len(logged) == 2
    assert not [message for message in logged if "secret" in message]


@pytest.mark.parametrize("host", ["foo..bar", "a" * 64 + ".example"])
async def test_a_host_that_no_name_can_be_is_a_defect_of_the_settings(host: str) -> None:
    async with Upstream(base_url=f"http://{host}/v1") as client:
        _, failure = await fail(client)
    assert (type(failure), failure.transient) == (UpstreamUnreachable, False)


async def test_a_body_of_an_error_that_does_not_end_is_not_waited_for(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.upstream.client.ERROR_BODY_SECONDS", 0.05)
    upstream.add(Script([b"x"], status=503, hold=True))
    async with Upstream(base_url=upstream.base_url) as client:
        assert type((await fail(client))[1]) is UpstreamError
        await upstream.wait_for_open_streams(0)


@pytest.mark.parametrize("content_type", ["text/html", "application/json", "application/x-ndjson"])
async def test_a_200_that_is_something_else_is_a_bad_response(upstream: ScriptedUpstream, content_type: str) -> None:
    upstream.raw([b'{"hello":"<html>"}'], headers={"Content-Type": content_type})
    async with Upstream(base_url=upstream.base_url) as client:
        deltas, failure = await fail(client)
    assert (deltas, type(failure)) == ([], UpstreamBadResponse)


async def test_an_event_that_is_no_json_is_a_bad_response_behind_what_came_before(upstream: ScriptedUpstream) -> None:
    upstream.raw([chunk({"content": "x"}) + b"data: <html>\n\n"], hold=True)
    async with Upstream(base_url=upstream.base_url) as client:
        deltas, failure = await fail(client)
        assert (deltas, type(failure)) == ([says("x")], UpstreamBadResponse)
        await upstream.wait_for_open_streams(0)


async def test_an_error_within_the_stream_is_logged_and_told_in_our_words(
    upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.raw([chunk({"content": "x"}), event({"error": {"message": f"overloaded {KEY}"}})], hold=True)
    async with Upstream(base_url=upstream.base_url, api_key=KEY) as client:
        deltas, failure = await fail(client)
        await upstream.wait_for_open_streams(0)
    assert (deltas, type(failure)) == ([says("x")], UpstreamError)
    assert "overloaded" not in failure.detail
    assert "overloaded" in caplog.text
    assert KEY not in caplog.text


async def test_a_refused_connection_and_an_address_that_is_none_are_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        port = taken.getsockname()[1]
        for url in (f"http://127.0.0.1:{port}/v1", "nonsense", "ftp://127.0.0.1/v1"):
            async with Upstream(base_url=url) as client:
                assert type((await fail(client))[1]) is UpstreamUnreachable


async def test_a_server_without_tls_is_unreachable_by_https(upstream: ScriptedUpstream) -> None:
    async with Upstream(base_url=upstream.base_url.replace("http:", "https:")) as client:
        assert type((await fail(client))[1]) is UpstreamUnreachable


async def test_a_key_that_no_header_can_hold_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    async with Upstream(base_url="http://127.0.0.1:1/v1", api_key=f"{KEY}\r\nX: y") as client:
        _, failure = await fail(client)
    assert type(failure) is UpstreamUnreachable
    assert KEY not in failure.detail + caplog.text


async def test_a_connection_that_is_not_made_in_time_is_a_connect_timeout() -> None:
    # A TLS handshake that nobody answers; a full backlog, the other way, differs between systems.
    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(ignore, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"https://127.0.0.1:{port}/v1"
        async with Upstream(base_url=url, connect_timeout=0.1) as client:
            assert type((await fail(client))[1]) is UpstreamConnectTimeout
        async with Upstream(base_url=url, connect_timeout=0, first_token_timeout=0.1) as client:
            assert type((await fail(client))[1]) is UpstreamFirstTokenTimeout


COMMENTS = [b": processing\n\n" + chunk({"role": "assistant", "content": ""})] * 1000


@pytest.mark.parametrize("script", [Script(mute=True), Script(hold=True), Script(COMMENTS, delay=0.01)])
async def test_no_first_token_in_time_is_its_own_error_and_comments_are_no_tokens(
    upstream: ScriptedUpstream, script: Script
) -> None:
    upstream.add(script)
    async with Upstream(base_url=upstream.base_url, first_token_timeout=0.1) as client:
        deltas, failure = await fail(client)
        assert (deltas, type(failure)) == ([], UpstreamFirstTokenTimeout)
        await upstream.wait_for_open_streams(0)


async def test_the_limit_of_the_first_token_holds_for_a_connection_that_has_served_before(
    upstream: ScriptedUpstream,
) -> None:
    upstream.reply(["x"])
    upstream.add(Script(mute=True))
    async with Upstream(base_url=upstream.base_url, first_token_timeout=0.1) as client:
        assert len([delta async for delta in client.stream(HELLO)]) == 2
        assert type((await fail(client))[1]) is UpstreamFirstTokenTimeout
        await upstream.wait_for_open_streams(0)


async def test_a_refusal_counts_as_one_however_long_its_words_take(upstream: ScriptedUpstream) -> None:
    upstream.add(Script([b"too many"], status=429, hold=True))
    async with Upstream(base_url=upstream.base_url, first_token_timeout=0.1) as client:
        assert type((await fail(client))[1]) is UpstreamRateLimited


@pytest.mark.parametrize("first_token_timeout", [0, 20])
@pytest.mark.parametrize("silence", [Script(hold=True), Script(COMMENTS, delay=0.01)])
async def test_no_next_token_in_time_is_its_own_error(
    upstream: ScriptedUpstream, silence: Script, first_token_timeout: float
) -> None:
    steps = [chunk({"content": "x"}), *silence.steps]
    upstream.add(Script(steps, hold=True, delay=silence.delay))
    limits = {"first_token_timeout": first_token_timeout, "token_timeout": 0.1}
    async with Upstream(base_url=upstream.base_url, **limits) as client:  # type: ignore[arg-type] # both are numbers
        deltas, failure = await fail(client)
        assert (deltas, type(failure)) == ([says("x")], UpstreamTokenTimeout)
        await upstream.wait_for_open_streams(0)


async def test_an_answer_may_take_longer_than_the_limit_of_a_token(upstream: ScriptedUpstream) -> None:
    upstream.reply(["x"] * 20, delay=0.02)
    async with Upstream(base_url=upstream.base_url, first_token_timeout=0.2, token_timeout=0.2) as client:
        assert len([delta async for delta in client.stream(HELLO)]) == 21


class Taker:
    """A sink that takes everything."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []

    def say(self, text: str, _now: float) -> bool:
        return self.take([says(text)], 1)

    def take(self, deltas: Sequence[Delta], _tokens: int) -> bool:
        self.deltas += deltas
        return True

    async def room(self) -> None:
        """There always is."""


async def test_the_limit_of_a_token_holds_for_what_flows_into_a_sink_and_each_token_puts_it_off(
    upstream: ScriptedUpstream,
) -> None:
    upstream.reply(["x"] * 20, delay=0.02)
    upstream.reply(["x"] * 5, unfinished=True)
    async with Upstream(base_url=upstream.base_url, first_token_timeout=0.2, token_timeout=0.2) as client:
        sink = Taker()
        first = [delta async for delta in client.stream(HELLO, sink)]
        assert said_in(first + sink.deltas) == "x" * 20
        sink, first = Taker(), []
        with pytest.raises(UpstreamTokenTimeout):
            async for delta in client.stream(HELLO, sink):
                first.append(delta)
        assert said_in(first + sink.deltas) == "x" * 5


async def test_a_long_tool_call_is_made_of_tokens(upstream: ScriptedUpstream) -> None:
    upstream.reply(tool_calls=[("c", "f", "{}")] * 20, delay=0.02)
    async with Upstream(base_url=upstream.base_url, token_timeout=0.2, first_token_timeout=0.2) as client:
        assert len([delta async for delta in client.stream(HELLO)]) == 21


@pytest.mark.parametrize("script", [Script(mute=True), Script(hold=True), reply(["x"] * 10_000, delay=0.01)])
async def test_an_answer_that_takes_too_long_is_its_own_error(upstream: ScriptedUpstream, script: Script) -> None:
    upstream.add(script)
    async with Upstream(base_url=upstream.base_url, answer_timeout=0.1) as client:
        assert type((await fail(client))[1]) is UpstreamAnswerTimeout
        await upstream.wait_for_open_streams(0)


async def test_a_slow_consumer_is_not_the_upstreams_fault(upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    gate.release()
    upstream.reply(["x", "y"], gate=gate)
    async with Upstream(base_url=upstream.base_url, first_token_timeout=0.1, token_timeout=0.1) as client:
        stream = client.stream(HELLO)
        assert await anext(stream) == says("x")
        await asyncio.sleep(0.3)  # what is tested is that this is too long for the upstream alone
        gate.open()
        assert await anext(stream) == says("y")
        assert len([delta async for delta in stream]) == 1


async def test_a_connection_cut_at_any_byte_keeps_what_came_and_is_a_cut(upstream: ScriptedUpstream) -> None:
    first, second = chunk({"content": "Hel"}), chunk({"content": "lo\r"})
    async with Upstream(base_url=upstream.base_url) as client:
        for cut_at in (1, 5, len(first) - 1, len(first), len(first) + 9, len(first + second) - 1, len(first + second)):
            upstream.raw([first + second], cut_at=cut_at)
            deltas, failure = await fail(client)
            # An event is whole without its blank line, too, as its JSON is.
            said = said_in(deltas)
            whole = (cut_at >= len(first) - 2) * "Hel" + (cut_at >= len(first + second) - 2) * "lo\r"
            assert (said, type(failure)) == (whole, UpstreamCut), cut_at


async def test_an_end_without_any_mark_is_a_cut(upstream: ScriptedUpstream) -> None:
    async with Upstream(base_url=upstream.base_url) as client:
        upstream.raw([])
        assert type((await fail(client))[1]) is UpstreamCut
        upstream.reply(["x"], no_done=True, finish_reason=None)
        deltas, failure = await fail(client)
        assert (deltas, type(failure)) == ([says("x")], UpstreamCut)
        upstream.raw([b'{"choices":[]}'], headers={**JSON, "Content-Length": "99"}, cut_at=10)
        assert type((await fail(client))[1]) is UpstreamCut


async def test_a_server_that_closes_before_it_answers_is_a_cut_and_one_without_http_a_bad_response(
    caplog: pytest.LogCaptureFixture,
) -> None:
    words = b""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"Hello")
        await reader.readuntil(b"}}")
        writer.write(words)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with Upstream(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY) as client:
            assert type((await fail(client))[1]) is UpstreamCut
            words += b"220 mail.example ESMTP %s\r\n\r\n" % KEY.encode()
            assert type((await fail(client))[1]) is UpstreamBadResponse
    assert caplog.text.count("could not be asked") == 2
    assert KEY not in caplog.text


async def test_models_fail_with_the_same_errors(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.upstream.client.MODELS_SECONDS", 0.1)
    async with Upstream(base_url=upstream.base_url, api_key=KEY) as client:
        for script, error in (
            (Script([b"no"], status=401), UpstreamRefused),
            (Script([b"no"], status=500), UpstreamError),
            (Script(hold=True, headers=JSON), UpstreamAnswerTimeout),
            (Script(headers=EVENT_STREAM), UpstreamBadResponse),
        ):
            upstream.models = script
            with pytest.raises(UpstreamError) as caught:
                await client.models()
            assert type(caught.value) is error
