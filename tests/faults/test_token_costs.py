"""What a token costs, counted instead of timed: round trips, tasks and system calls, so that a regression shows."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from app.answers.runner import Runner
from app.domain.live_log import LiveLog
from app.store.log_writer import LogWriter
from app.upstream.deadlines import Deadlines
from app.upstream.decoder import Decoder
from app.upstream.direct_reply import DirectReply
from tests.conftest import Client
from tests.faults.conftest import Replicas
from tests.support.browser import ask
from tests.support.scripted_upstream import Gate, ScriptedUpstream
from tests.support.sse import Frame, frames_of, read_all

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


async def completed(client: Client, upstream: ScriptedUpstream) -> None:
    async with streaming(client, "/messages", upstream):
        pass


async def in_one_piece(client: Client, _: ScriptedUpstream) -> None:
    await ask(client, "Hi")


async def stopped(client: Client, upstream: ScriptedUpstream) -> None:
    upstream.reply(["x"] * 2, gate=upstream.gate())
    async with client.post("/messages", json={"content": "Hi"}) as response:
        frames = frames_of(response)
        answer = (await anext(frames)).json["message"]
        async with client.post(f"/messages/{answer}/stop") as told:
            assert (await told.json())["status"] == "stopped"
        async for _ in frames:
            pass


async def failed(client: Client, upstream: ScriptedUpstream) -> None:
    upstream.error(400)
    async with client.post("/messages", json={"content": "Hi"}) as response:
        assert (await read_all(response))[-1].json["status"] == "failed"


async def left(client: Client, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    script = upstream.reply(["x"] * 5, gate=gate)
    async with client.post("/messages", json={"content": "Hi"}) as response:
        await anext(frames_of(response))
        response.close()
    gate.open()
    await upstream.wait_for_sent(script, 5)


@pytest.mark.parametrize("way", [completed, in_one_piece, stopped, failed, left])
async def test_nothing_of_an_answer_that_is_over_waits_for_the_collector(
    client: Client, upstream: ScriptedUpstream, way: Callable[[Client, ScriptedUpstream], Awaitable[None]]
) -> None:
    """A collection is a pause of all streams: with two hundred answers' leavings 17 ms, and all their text is kept until then."""

    def kept() -> list[str]:
        ours = (Runner, LiveLog, LogWriter, DirectReply, Decoder, Deadlines)
        return sorted(type(found).__name__ for found in gc.get_objects() if isinstance(found, ours))

    await way(client, upstream)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            await way(client, upstream)
        async with asyncio.timeout(10):
            while kept():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"kept: {kept()}")
    finally:
        gc.enable()


async def test_a_token_that_comes_alone_is_one_round_trip_to_the_store(
    client: Client, redis: Any, upstream: ScriptedUpstream
) -> None:
    async def reads() -> int:
        return int((await redis.info("stats"))["total_reads_processed"])

    async with streaming(client, "/messages", upstream) as (frames, gate):
        before = await reads()
        for _ in range(TOKENS):
            gate.release()
            await anext(frames)
        # The second INFO, and what comes by the clock: stop marks and leases.
        assert TOKENS <= await reads() - before <= TOKENS + 15


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
