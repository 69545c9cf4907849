"""SIGTERM: running answers may finish, with their readers; then each is ended with its text."""

import asyncio
import contextlib
import signal

import pytest
from aiohttp import ClientSession

from tests.faults.conftest import Replicas
from tests.support.reader import Reader
from tests.support.scripted_upstream import ScriptedUpstream


async def test_running_answers_finish_within_the_grace_while_their_readers_stay_and_no_new_ones_begin(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(30):
        (service,) = await replicas(1)
        gate = upstream.gate()
        upstream.reply(["one ", "two"], gate=gate)
        gate.release()
        reader = Reader()
        async with session.post(f"{service.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=5)
            service.signal(signal.SIGTERM)
            while True:
                async with session.get(f"{service.url}/health/ready") as ready:
                    if ready.status == 503:
                        break
            assert (await _post(session, service.url)) == (503, "shutting_down")
            # One whose connection broke just now is served as before.
            late = reader.again()
            resumed = asyncio.create_task(late.resume(session, service.url))
            gate.open()
            await reader.read(response)
            await resumed
        assert reader.end is not None
        assert (reader.text, reader.end["status"]) == ("one two", "completed")
        assert (late.text, late.end) == (reader.text, reader.end)
        assert await service.ended(5) == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_behind_a_proxy_nobody_new_is_let_in_while_those_inside_are_served(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream, workers: int
) -> None:
    async with asyncio.timeout(30):
        (service,) = await replicas(1, close_on_shutdown=True, workers=workers)
        gate = upstream.gate()
        upstream.reply(["one ", "two"], gate=gate)
        gate.release()
        reader = Reader()
        async with session.post(f"{service.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=5)
            service.signal(signal.SIGTERM)
            host, port = service.url.removeprefix("http://").split(":")
            with pytest.raises(ConnectionRefusedError):
                while True:  # until the signal has arrived; who waits at the door when it shuts is turned away
                    with contextlib.suppress(ConnectionResetError):
                        _, writer = await asyncio.open_connection(host, int(port))
                        writer.close()
            gate.open()
            await reader.read(response)
        assert reader.end is not None
        assert (reader.text, reader.end["status"]) == ("one two", "completed")
        assert await service.ended(5) == 0


async def test_answers_that_are_not_done_within_the_grace_end_as_interrupted_with_their_text(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(30):
        one, two = await replicas(2, shutdown_grace_seconds=0.3)
        upstream.reply(["one "], unfinished=True)
        reader = Reader()
        async with session.post(f"{one.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=5)
            one.signal(signal.SIGTERM)
            await reader.read(response)
        assert reader.end is not None
        assert (reader.text, reader.end["status"]) == ("one ", "interrupted")
        assert await one.ended(3) == 0
        await upstream.wait_for_open_streams(0)
        body = {"content": "go on", "conversation": reader.conversation}
        async with session.post(f"{two.url}/messages", json=body) as response:
            after = Reader()
            await after.read(response)
    assert after.text == "Echo: go on"


async def test_idle_readers_of_answers_elsewhere_cost_no_waiting(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(30):
        one, two = await replicas(2)
        gate = upstream.gate()
        upstream.reply(["one ", "two"], gate=gate)
        gate.release()
        reader = Reader()
        async with session.post(f"{one.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=5)
        elsewhere = [reader.again() for _ in range(20)]
        reading = [asyncio.create_task(other.resume(session, two.url)) for other in elsewhere]
        while not all(other.cursor for other in elsewhere):
            await asyncio.sleep(0.01)
        two.signal(signal.SIGTERM)
        assert await two.ended(3) == 0  # the grace of 20 s is for answers, and this process writes none
        await asyncio.gather(*reading)
        gate.open()
        for other in elsewhere:
            await other.finish(session, one.url)
            assert (other.text, other.end and other.end["status"]) == ("one two", "completed")


async def test_a_second_signal_ends_at_once_and_still_keeps_the_text(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(30):
        (service,) = await replicas(1)
        upstream.reply(["one "], unfinished=True)
        reader = Reader()
        async with session.post(f"{service.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=5)
            service.signal(signal.SIGINT)
            while (await _post(session, service.url))[0] != 503:
                pass
            service.signal(signal.SIGINT)
            await reader.read(response)
        assert reader.end is not None
        assert reader.end["status"] == "interrupted"
        assert await service.ended(3) == 0


async def _post(session: ClientSession, url: str) -> tuple[int, str]:
    async with session.post(f"{url}/messages", json={"content": "me too"}) as response:
        body = await response.json() if response.status >= 400 else {"code": ""}
        return response.status, body["code"]
