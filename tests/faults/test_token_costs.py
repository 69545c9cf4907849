"""What a token costs, counted instead of timed: round trips, tasks and system calls, so that a regression shows."""

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.conftest import Client
from tests.faults.conftest import Replicas
from tests.support.browser import ask
from tests.support.scripted_upstream import Gate, ScriptedUpstream
from tests.support.sse import Frame, frames_of
from tests.support.store import reads_of

TOKENS = 100


@asynccontextmanager
async def streaming(
    session: ClientSession | Client, url: str, upstream: ScriptedUpstream
) -> AsyncIterator[tuple[AsyncIterator[Frame], Gate]]:
    """Lend an answer behind its first tokens, each next one behind the gate; it is read to its end."""
    gate = upstream.gate()
    upstream.reply(["x"] * (TOKENS + 2), gate=gate)
    async with asyncio.timeout(30), session.post(url, json={"content": "Hi"}) as response:
        frames = frames_of(response)
        await anext(frames)
        for _ in range(2):  # what is made once has been made
            gate.release()
            await anext(frames)
        yield frames, gate
        gate.open()
        async for _ in frames:
            pass


async def test_a_token_makes_no_task(client: Client, upstream: ScriptedUpstream) -> None:
    loop = asyncio.get_running_loop()
    made: list[str] = []

    def count(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        made.append(repr(work))
        return asyncio.Task(work, loop=loop, **options)

    async with streaming(client, "/messages", upstream) as (frames, gate):
        loop.set_task_factory(count)  # type: ignore[arg-type]  # mypy's stub has another form of it
        try:
            for _ in range(TOKENS):
                gate.release()
                assert (await anext(frames)).data == "x"
        finally:
            loop.set_task_factory(None)
    assert made == []


async def test_an_open_stream_is_a_connection_a_request_and_a_runner_and_no_further_task(
    client: Client, upstream: ScriptedUpstream
) -> None:
    await ask(client, "Hi")  # what is made once has been made
    before = asyncio.all_tasks()
    async with AsyncExitStack() as open_streams:
        for _ in range(5):
            await open_streams.enter_async_context(streaming(client, "/messages", upstream))
        made = [task.get_coro().__qualname__ for task in asyncio.all_tasks() - before]  # type: ignore[union-attr]
    # The model server runs here, too: of it are five connections and five requests, unless the first had its connection.
    runners = [name for name in made if name.startswith("Answers.")]
    connections = [name for name in made if name == "RequestHandler.start"]
    requests = [name for name in made if name == "RequestHandler._handle_request"]
    assert (len(runners), len(requests)) == (5, 10)
    assert len(made) == len(runners) + len(requests) + len(connections)
    assert len(connections) <= 10


async def test_a_token_that_comes_alone_is_one_round_trip_to_the_store(
    client: Client, redis: Any, upstream: ScriptedUpstream
) -> None:
    async with streaming(client, "/messages", upstream) as (frames, gate):
        before = await reads_of(redis)
        for _ in range(TOKENS):
            gate.release()
            await anext(frames)
        # The second INFO, and what comes by the clock: stop marks and leases.
        assert TOKENS <= await reads_of(redis) - before <= TOKENS + 15


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux counts the system calls of a process.")
async def test_a_token_is_two_reads_and_two_writes_of_the_process(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream
) -> None:
    (service,) = await replicas(1)

    def calls() -> dict[str, int]:
        lines = Path(f"/proc/{service.pid}/io").read_text().splitlines()
        return {name: int(value) for name, _, value in (line.partition(": ") for line in lines)}

    async with streaming(session, f"{service.url}/messages", upstream) as (frames, gate):
        before = calls()
        for _ in range(TOKENS):
            gate.release()
            await anext(frames)
        after = calls()
    # From the upstream and from the store; to the store and to the reader. The rest comes by the clock.
    assert 2 * TOKENS <= after["syscw"] - before["syscw"] <= 2 * TOKENS + 20
    assert 2 * TOKENS <= after["syscr"] - before["syscr"] <= 2 * TOKENS + 20
