"""A prompt that is too long for the model: how upstreams say so, and that it is their limit which is taken from it."""

import json
import logging
from typing import Any

import pytest

from app.domain.errors import UpstreamContextTooLong, UpstreamCut, UpstreamError, UpstreamRateLimited, UpstreamRefused
from app.upstream.deltas import Notice
from tests.support.scripted_upstream import DONE, Script, ScriptedUpstream, event
from tests.upstream.asking import ask, changed, models, retrying

OPENAI = {
    "message": "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens. "
    "Please reduce the length of the messages.",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "context_length_exceeded",
}
LLAMA_CPP = {
    "code": 400,
    "message": "the request exceeds the available context size, try increasing it",
    "type": "exceed_context_size_error",
    "n_prompt_tokens": 9001,
    "n_ctx": 4096,
}
VLLM = (
    "You passed 1015 input tokens and requested 10 output tokens. However, the model's context length is only 1024 tokens, "
    "resulting in a maximum input length of 1014 tokens. Please reduce the length of the input prompt."
)


def said(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "BadRequestError", "code": 400}}


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ({"error": OPENAI}, 8192),
        ({"error": {"code": "context_length_exceeded", "message": "Please reduce the length."}}, None),
        ({"error": {"code": "context_length_exceeded"}}, None),
        ({"error": LLAMA_CPP}, 4096),
        ({"error": LLAMA_CPP | {"n_ctx": 0}}, None),
        ({"error": LLAMA_CPP | {"n_ctx": True}}, None),
        (said("request (9001 tokens) exceeds the available context size (8,192 tokens), try increasing it"), 8192),
        (said(VLLM), 1024),
        (
            {"object": "error", **said("This model's maximum context length is 4096 tokens. However, ...")["error"]},
            4096,
        ),
        (said("The decoder prompt (length 6016) is longer than the maximum model length of 4096."), 4096),
        (said("Requested tokens (9001) exceed context window of 512"), 512),
        (said("Prompt contains 40000 tokens, too large for model with 32768 maximum context length"), 32768),
        (said("prompt is too long: 200001 tokens > 200000 maximum"), 200000),
        (said("The input token count (9001) exceeds the maximum number of tokens allowed (8000)."), 8000),
        (said("context length exceeded: 9001 tokens"), None),
        (said("Too many tokens."), None),
        (said("context length, 99999999999999999999 or not"), None),
        ({"error": "input is longer than the context length"}, None),
        ([said("The input token count (9001) exceeds the maximum number of tokens allowed (8000).")], 8000),
    ],
)
@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_upstreams_say_of_a_prompt_that_is_too_long_is_one_error_with_their_limit(
    upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture, status: int, body: object, limit: int | None
) -> None:
    upstream.error(status, body)
    asked = await ask(upstream.base_url, "a", "b")
    assert asked.deltas == []
    assert isinstance(asked.failure, UpstreamContextTooLong)
    assert asked.failure.limit_tokens == limit
    assert asked.failure.detail == "The conversation is longer than what the model can take."
    told = (asked.failure.code, asked.failure.status, asked.failure.retryable, asked.failure.extra)
    assert told == ("upstream_context_too_long", 502, False, {})
    assert models(upstream) == ["a"]  # not asked again, and no other model either
    [record] = [record for record in caplog.records if record.name == "parley.upstream"]
    assert record.levelno == logging.WARNING  # what the upstream said itself is in the log
    assert f"status {status}" in record.getMessage()


@pytest.mark.parametrize(
    "body",
    [
        said("Invalid value for 'temperature'."),
        said("No such model."),
        {"error": None},
        {"error": {"message": 7, "code": ["context_length_exceeded"], "type": None}},
        b"maximum context length is 8192 tokens",
        b'{"error": {"code": "context_length_exceeded"',
        b"[1]",
        b"null",
        b"\xff",
        b"[" * 2000,
    ],
)
async def test_other_refusals_stay_refusals(upstream: ScriptedUpstream, body: object) -> None:
    upstream.error(400, body)
    asked = await ask(upstream.base_url)
    assert (asked.deltas, type(asked.failure)) == ([], UpstreamRefused)


async def test_a_mark_counts_with_any_status_and_words_only_where_the_request_is_refused(
    upstream: ScriptedUpstream,
) -> None:
    upstream.error(500, {"error": LLAMA_CPP})
    asked = await ask(upstream.base_url)
    assert isinstance(asked.failure, UpstreamContextTooLong)
    assert asked.failure.limit_tokens == 4096
    for status, error in ((429, UpstreamRateLimited), (500, UpstreamError), (401, UpstreamRefused)):
        upstream.error(status, said("Too many tokens a minute: the context length is 9 tokens"))
        asked = await ask(upstream.base_url, retry_seconds=0)
        assert type(asked.failure) is error


async def test_a_200_that_says_so_before_the_first_token_counts_too(upstream: ScriptedUpstream) -> None:
    for error, limit in (
        (event({"error": OPENAI}), 8192),
        (b"error: " + json.dumps(LLAMA_CPP).encode() + b"\n\n" + DONE, 4096),
        (b"event: error\n" + event({"error": OPENAI}) + DONE, 8192),
    ):
        upstream.raw([error])
        asked = await ask(upstream.base_url, "a", "b")
        assert asked.deltas == []
        assert isinstance(asked.failure, UpstreamContextTooLong)
        assert asked.failure.limit_tokens == limit


async def test_a_fallback_may_be_the_one_that_cannot_take_it(upstream: ScriptedUpstream) -> None:
    upstream.error(503)
    upstream.error(400, {"error": OPENAI})
    asked = await ask(upstream.base_url, "a", "b", retry_seconds=0)
    assert (asked.notices, type(asked.failure)) == ([changed("b")], UpstreamContextTooLong)


async def test_an_empty_200_does_not_say_why_and_stays_a_cut(upstream: ScriptedUpstream) -> None:
    upstream.default = Script([])
    asked = await ask(upstream.base_url, retry_seconds=1)
    assert (asked.deltas, type(asked.failure)) == ([Notice(retrying(2, 0.5))], UpstreamCut)
