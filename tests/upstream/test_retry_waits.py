"""How long is waited before an upstream is asked again, for how long in all, and that every wait can be left."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest
from tenacity import wait_none

from app.domain.errors import UpstreamError, UpstreamRateLimited
from app.upstream.client import ChatRequest, Upstream
from app.upstream.deltas import Delta, Finish, Notice, Sink
from app.upstream.retries import Retrying
from tests.support.scripted_upstream import Script, ScriptedUpstream, reply
from tests.upstream.asking import HELLO, LONGEST, Time, ask, changed, models, retrying
from tests.upstream.streams import says


async def test_waits_double_up_to_a_longest_one_and_fit_the_budget(upstream: ScriptedUpstream) -> None:
    upstream.default = Script([b"no"], status=503)
    time = Time()
    asked = await ask(upstream.base_url, time=time)
    assert asked.notices == [retrying(n, x) for n, x in enumerate((0.5, 1, 2, 4, 8, 8), 2)]
    assert time.slept == [0.5, 1, 2, 4, 8, 8]  # the next 8 would make 31.5
    assert len(upstream.requests) == 7
    assert asked.failure is not None
    assert asked.failure.detail == "The model server answered with status 503."


async def test_all_models_share_the_budget_and_each_is_asked_once_at_least(upstream: ScriptedUpstream) -> None:
    upstream.default = Script([b"no"], status=503)
    asked = await ask(upstream.base_url, "a", "b", "a", "c", retry_seconds=4)
    expected = [retrying(2, 0.5), retrying(3, 1.0), retrying(4, 2.0), changed("b"), retrying(2, 0.5), changed("c")]
    assert asked.notices == expected
    assert models(upstream) == ["a"] * 4 + ["b"] * 2 + ["c"]


async def test_the_next_models_answer_is_an_answer(upstream: ScriptedUpstream) -> None:
    upstream.default = lambda body: Script([b"no"], status=500) if body["model"] == "a" else reply(["well"], model="b")
    asked = await ask(upstream.base_url, "a", "b", "c", retry_seconds=1)
    assert asked.deltas == [Notice(retrying(2, 0.5)), Notice(changed("b")), says("well"), Finish("stop", "b", None)]
    assert models(upstream) == ["a", "a", "b"]


async def test_attempts_count_in_the_budget_as_waits_do(upstream: ScriptedUpstream) -> None:
    time = Time()

    def slow(body: dict[str, Any]) -> Script:
        time.now += 12
        return Script([b"no"], status=503)

    upstream.default = slow
    asked = await ask(upstream.base_url, "a", "b", time=time)
    assert asked.notices == [retrying(2, 0.5), retrying(3, 1.0), changed("b")]
    assert models(upstream) == ["a", "a", "a", "b"]


async def test_no_budget_means_no_retry_and_each_model_once(upstream: ScriptedUpstream) -> None:
    upstream.default = Script([b"no"], status=429, headers={"Retry-After": "0"})
    asked = await ask(upstream.base_url, "a", "b", "c", retry_seconds=0)
    assert asked.notices == [changed("b"), changed("c")]
    assert (models(upstream), type(asked.failure)) == (["a", "b", "c"], UpstreamRateLimited)


async def test_the_jitter_is_full(upstream: ScriptedUpstream) -> None:
    upstream.default = Script([b"no"], status=503)
    time = Time()
    notices: list[Delta] = []
    random.seed(5)
    async with Upstream(base_url=upstream.base_url) as client:
        stream = Retrying(client, 30, sleep=time.sleep, clock=time.clock).stream(HELLO, ["a"])
        with pytest.raises(UpstreamError):
            async for delta in stream:
                notices.append(delta)  # noqa: PERF401 - what came before the failure counts
    random.seed(5)
    assert len(time.slept) > 6
    assert time.slept == [random.uniform(0, min(8, 0.5 * 2**n)) for n in range(len(time.slept))]
    assert notices == [Notice(retrying(n, round(slept, 2))) for n, slept in enumerate(time.slept, 2)]


# --- Retry-After ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "delay"),
    [
        ({"Retry-After": "20"}, 20.5),
        ({"Retry-After": " 1.25 "}, 1.75),
        ({"Retry-After": "0"}, 0.5),
        ({"Retry-After": "29.9"}, 30.0),  # it fits, the jitter does not quite
        ({"Retry-After": "Fri, 13 Feb 2026 23:31:30 GMT", "Date": "Fri, 13 Feb 2026 23:31:23 GMT"}, 7.5),
        ({"Retry-After": "Fri, 13 Feb 2026 23:31:30 GMT", "Date": "Fri, 13 Feb 2026 23:31:40 GMT"}, 0.5),
        ({"Retry-After": "Fri, 13 Feb 2015 23:31:30 GMT", "Date": "none"}, 0.5),
        ({"Retry-After": "-3"}, 0.5),
        ({"Retry-After": "soon"}, 0.5),
        ({"Retry-After": ""}, 0.5),
        ({"Retry-After": "inf"}, 0.5),
    ],
)
async def test_a_server_that_names_a_time_is_left_alone_until_then(
    upstream: ScriptedUpstream, status: int, headers: dict[str, str], delay: float
) -> None:
    upstream.error(status, headers=headers)
    upstream.reply(["well"])
    asked = await ask(upstream.base_url, "a", "b")
    assert asked.notices == [retrying(2, delay)]
    assert asked.said[0] == says("well")
    assert models(upstream) == ["a", "a"]


@pytest.mark.parametrize("value", ["31", "3600", "999999999", "Fri, 13 Feb 2099 23:31:30 GMT"])
async def test_a_time_beyond_the_budget_is_not_waited_for(upstream: ScriptedUpstream, value: str) -> None:
    upstream.error(429, headers={"Retry-After": value})
    asked = await ask(upstream.base_url, "a", "b")
    assert asked.notices == [changed("b")]
    assert models(upstream) == ["a", "b"]
    upstream.error(429, headers={"Retry-After": value})
    asked = await ask(upstream.base_url, "a")
    assert (asked.deltas, type(asked.failure)) == ([], UpstreamRateLimited)
    assert asked.failure is not None
    assert asked.failure.extra == {}


# --- leaving ----------------------------------------------------------------------------------------------------------


async def test_a_wait_can_be_cancelled(upstream: ScriptedUpstream) -> None:
    upstream.error(503)
    waiting = asyncio.Event()

    async def forever(seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    async with Upstream(base_url=upstream.base_url) as client:
        stream = Retrying(client, 30, jitter=LONGEST, sleep=forever).stream(HELLO, ["a", "b"])
        assert await anext(stream) == Notice(retrying(2, 0.5))
        task = asyncio.create_task(anext(stream))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert models(upstream) == ["a"]


async def test_an_attempt_can_be_cancelled_and_its_connection_closes(upstream: ScriptedUpstream) -> None:
    upstream.silent()
    async with Upstream(base_url=upstream.base_url) as client:
        stream = Retrying(client, 30).stream(HELLO, ["a", "b"])
        task = asyncio.create_task(anext(stream))
        await upstream.wait_for_open_streams(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upstream.wait_for_open_streams(0)
    assert models(upstream) == ["a"]


class Counted(Upstream):
    """Counts the attempts that are not closed yet."""

    attempts = 0

    async def stream(self, request: ChatRequest, sink: Sink | None = None) -> AsyncGenerator[Delta, None]:
        self.attempts += 1
        try:
            async with aclosing(super().stream(request, sink)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            self.attempts -= 1


async def test_a_consumer_that_leaves_closes_the_connection_at_once(upstream: ScriptedUpstream) -> None:
    upstream.error(503)
    upstream.reply(["x"], unfinished=True)
    async with Counted(base_url=upstream.base_url) as client:
        stream = Retrying(client, 30, jitter=wait_none()).stream(HELLO, ["a", "b"])
        assert [await anext(stream), await anext(stream)] == [Notice(retrying(2, 0.0)), says("x")]
        assert client.attempts == 1
        await stream.aclose()
        assert client.attempts == 0  # when it returns, not some time later
        await upstream.wait_for_open_streams(0)
    assert models(upstream) == ["a", "a"]


async def test_a_consumer_that_leaves_at_a_notice_asks_no_more(upstream: ScriptedUpstream) -> None:
    upstream.default = Script([b"no"], status=503)
    time = Time()
    async with Upstream(base_url=upstream.base_url) as client:
        stream = Retrying(client, 30, sleep=time.sleep, clock=time.clock).stream(HELLO, ["a", "b"])
        await anext(stream)
        await stream.aclose()
    assert (time.slept, models(upstream)) == ([], ["a"])
