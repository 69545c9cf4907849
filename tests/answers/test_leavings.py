"""What an answer that is over leaves in memory: nothing, however it ended."""

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest

from app.answers.runner import Runner
from app.domain.live_log import LiveLog
from app.store.log_writer import LogWriter
from app.upstream.deadlines import Deadlines
from app.upstream.decoder import Decoder
from app.upstream.direct_reply import DirectReply
from tests.conftest import Client, Start
from tests.support.browser import ask
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.sse import frames_of, read_all


async def completed(client: Client, upstream: ScriptedUpstream) -> None:
    upstream.reply(["x"] * 20)
    async with client.post("/messages", json={"content": "Hi"}) as response:
        assert (await read_all(response))[-1].json["status"] == "completed"


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
    start: Start, upstream: ScriptedUpstream, way: Callable[[Client, ScriptedUpstream], Awaitable[None]]
) -> None:
    """A collection is a pause of all streams: with two hundred answers' leavings 17 ms, and all their text is kept until then."""

    def all_of_ours() -> list[object]:
        ours = (Runner, LiveLog, LogWriter, DirectReply, Decoder, Deadlines)
        return [found for found in gc.get_objects() if isinstance(found, ours)]

    def kept() -> list[str]:
        return sorted(type(found).__name__ for found in all_of_ours() if id(found) not in known)

    client = await start(heartbeat_seconds=0.05)  # so often that each answer meets some
    await way(client, upstream)
    gc.collect()
    others = all_of_ours()  # other tests' own; held here, so that no new one gets the id of one of them
    known = set(map(id, others))
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
