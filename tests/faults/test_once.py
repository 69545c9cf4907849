"""One POST, one answer; answers that outlive their readers; stop from anywhere."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession

from tests.faults.conftest import SETTINGS, Replicas, browser
from tests.support.reader import Reader
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.service import ServiceProcess
from tests.support.store import StoreProcess

# One loop for all tests here, as they share a model server.
pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDED = {"finish_reason": None, "model": None, "usage": None, "error": None}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model() -> AsyncIterator[ScriptedUpstream]:
    """The model server of all tests here."""
    async with ScriptedUpstream() as scripted:
        yield scripted


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(model: ScriptedUpstream) -> AsyncIterator[list[ServiceProcess]]:
    """Two services on one store: nobody kills them here, and each test's browser is an owner of its own."""
    folder = Path(tempfile.mkdtemp(prefix="parley-fault-"))
    store = StoreProcess(folder)
    services: list[ServiceProcess] = []
    try:
        await store.start()
        addresses = {"redis_url": store.url, "openai_base_url": model.base_url}
        services += [ServiceProcess(folder, **SETTINGS | addresses) for _ in range(2)]
        await asyncio.gather(*(service.start() for service in services))
        yield services
    finally:
        for service in services:
            service.close()
        store.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(model: ScriptedUpstream) -> AsyncIterator[ScriptedUpstream]:
    """The model server without what the last test has told it."""
    model.forget()
    yield model
    await asyncio.wait_for(model.wait_for_open_streams(0), 10)


@pytest_asyncio.fixture(loop_scope="module")
async def session() -> AsyncIterator[ClientSession]:
    """A browser."""
    async with browser() as client:
        yield client


async def _owner(session: ClientSession, service: ServiceProcess) -> None:
    """Get the cookie first, as the page does: else each POST is a new owner's."""
    async with session.get(f"{service.url}/conversations") as response:
        assert response.status == 200


async def _post(session: ClientSession, url: str, body: dict[str, Any], **headers: str) -> Reader:
    reader = Reader()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.post(f"{url}/messages", json=body, headers=names) as response:
        reader.cursor = int(headers.get("Last_Event_ID", 0))
        await reader.read(response)
    return reader


async def test_an_answer_completes_when_its_reader_leaves_after_the_first_token(
    session: ClientSession, pair: list[ServiceProcess], upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(30):
        service, _ = pair
        gate = upstream.gate()
        upstream.reply(["one ", "two"], gate=gate)
        gate.release()
        reader = Reader()
        async with session.post(f"{service.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=5)
            response.close()
        gate.open()
        await upstream.wait_for_open_streams(0)
        await reader.finish(session, service.url)
    assert (reader.text, reader.end and reader.end["status"]) == ("one two", "completed")


async def test_posts_with_one_key_at_once_and_later_on_two_replicas_are_one_answer(
    session: ClientSession, pair: list[ServiceProcess], upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(30):
        one, two = pair
        await _owner(session, one)
        gate = upstream.gate()
        upstream.reply(["one ", "two"], gate=gate)
        gate.release()
        posts = [
            asyncio.create_task(_post(session, url, {"content": "Hi"}, Idempotency_Key="k" * 255))
            for url in [one.url, two.url] * 5
        ]
        await upstream.wait_for_requests(1)
        gate.open()
        readers = await asyncio.gather(*posts)
        readers.append(await _post(session, two.url, {"content": "Hi"}, Idempotency_Key="k" * 255))
        assert {(reader.answer, reader.text, str(reader.end)) for reader in readers} == {
            (readers[0].answer, "one two", str(readers[0].end))
        }
        assert len(upstream.requests) == 1
        async with session.get(f"{one.url}/conversations/{readers[0].conversation}") as response:
            assert len((await response.json())["messages"]) == 2
        body = {"content": "Hi!"}
        headers = {"Idempotency-Key": "k" * 255}
        async with session.post(f"{two.url}/messages", json=body, headers=headers) as response:
            assert (response.status, (await response.json())["code"]) == (422, "idempotency_key_reused")
        assert len(upstream.requests) == 1


async def test_a_key_in_a_conversation_and_on_regenerate_asks_once(
    session: ClientSession, pair: list[ServiceProcess], upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(30):
        one, two = pair
        first = await _post(session, one.url, {"content": "Hi"})
        body = {"content": "more", "conversation": first.conversation}
        again = [await _post(session, service.url, body, Idempotency_Key="!~") for service in (one, two, one)]
        assert len({reader.answer for reader in again}) == 1
        assert len(upstream.requests) == 2
        siblings = []
        for service in (one, two):
            path = f"{service.url}/messages/{first.answer}/regenerate"
            async with session.post(path, headers={"Idempotency-Key": "r"}) as response:
                reader = Reader()
                await reader.read(response)
                siblings.append(reader.answer)
        assert len(set(siblings)) == 1
        assert len(upstream.requests) == 3
        # Another request under the same key is told so, whatever its kind.
        async with session.post(f"{one.url}/messages", json=body, headers={"Idempotency-Key": "r"}) as response:
            assert (response.status, (await response.json())["code"]) == (422, "idempotency_key_reused")


async def test_a_key_is_each_owners_own(
    session: ClientSession, pair: list[ServiceProcess], upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(30):
        service, _ = pair
        await _owner(session, service)
        mine = await _post(session, service.url, {"content": "Hi"}, Idempotency_Key="k")
        session.cookie_jar.clear()
        await _owner(session, service)
        theirs = await _post(session, service.url, {"content": "Hi"}, Idempotency_Key="k")
    assert mine.conversation != theirs.conversation
    assert len(upstream.requests) == 2


async def test_a_post_with_a_cursor_attaches_and_never_asks_again(
    session: ClientSession, pair: list[ServiceProcess], upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(30):
        one, two = pair
        await _owner(session, one)
        first = await _post(session, one.url, {"content": "Hi"}, Idempotency_Key="k")
        keyed = await _post(session, two.url, {"content": "Hi"}, Idempotency_Key="k", Last_Event_ID="3")
        assert keyed.text == first.text[2:]
        body = {"content": "Hi", "conversation": first.conversation}
        named = await _post(session, two.url, body, Last_Event_ID="1")
        assert (named.text, named.end) == (first.text, first.end)
        for refused in (
            {"content": "Hi"},
            {"content": "something else", "conversation": first.conversation},
        ):
            async with session.post(f"{two.url}/messages", json=refused, headers={"Last-Event-ID": "1"}) as response:
                assert (response.status, (await response.json())["code"]) == (400, "bad_cursor")
        async with session.post(
            f"{two.url}/messages", json=body, headers={"Last-Event-ID": str(first.cursor)}
        ) as response:
            assert response.status == 204
        assert len(upstream.requests) == 1


async def test_a_regenerate_with_a_cursor_attaches_and_never_asks_again(
    session: ClientSession, pair: list[ServiceProcess], upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(30):
        one, two = pair
        first = await _post(session, one.url, {"content": "Hi"})
        path = f"/messages/{first.answer}/regenerate"

        async def again(cursor: str, *, key: str | None = None, body: dict[str, Any] | None = None) -> Reader | str:
            """Send it as a client does whose stream was cut; return what it reads, or the code of the refusal."""
            headers = {"Last-Event-ID": cursor} | ({"Idempotency-Key": key} if key is not None else {})
            async with session.post(two.url + path, json=body or {}, headers=headers) as response:
                if response.status == 204:
                    return "nothing is left"
                if response.status != 200:
                    return str((await response.json())["code"])
                reader = Reader()
                reader.cursor = int(cursor)
                await reader.read(response)
                return reader

        assert await again("1") == "bad_cursor"  # nobody has asked for another answer
        gate = upstream.gate()
        upstream.reply(["one ", "two"], gate=gate)
        gate.release()
        sibling = Reader()
        async with session.post(one.url + path, headers={"Idempotency-Key": "k"}) as response:
            await sibling.read(response, until=5)
        resumed = [asyncio.create_task(again("3", key=key)) for key in ("k", None, "another")]
        gate.open()
        for reader in await asyncio.gather(*resumed):
            assert isinstance(reader, Reader)
            assert (reader.text, reader.end and reader.end["status"]) == ("e two", "completed")
        assert await again("9", key="k") == await again("9") == "nothing is left"
        assert await again("99", key="k") == "bad_cursor"
        assert await again("3", key="k", body={"model": "model-x"}) == "idempotency_key_reused"
        # What follows it is an answer to something else.
        await _post(session, one.url, {"content": "more", "conversation": first.conversation})
        assert await again("1") == "bad_cursor"
        assert isinstance(await again("3", key="k"), Reader)
        assert len(upstream.requests) == 3


@pytest.mark.parametrize("where", ["the same process", "another one"])
async def test_stop_in_the_middle_keeps_the_text_so_far_and_closes_the_upstream(
    session: ClientSession, pair: list[ServiceProcess], upstream: ScriptedUpstream, where: str
) -> None:
    async with asyncio.timeout(30):
        one, two = pair
        upstream.reply(["one ", "two "], unfinished=True)
        reader = Reader()
        async with session.post(f"{one.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=9)
            stopper = one if where == "the same process" else two
            async with session.post(f"{stopper.url}/messages/{reader.answer}/stop") as stopped:
                message = await stopped.json()
            await reader.read(response)
        await upstream.wait_for_open_streams(0)
        assert reader.end == {"status": "stopped"} | ENDED
        assert (stopped.status, message["status"], message["content"]) == (200, "stopped", "one two ")
        async with session.post(f"{two.url}/messages/{reader.answer}/stop") as again:
            assert await again.json() == message


@pytest.mark.parametrize("where", ["the same process", "another one"])
async def test_stop_before_the_first_token_takes_effect_as_well(
    session: ClientSession, pair: list[ServiceProcess], upstream: ScriptedUpstream, where: str
) -> None:
    async with asyncio.timeout(30):
        one, two = pair
        upstream.silent()
        reader = Reader()
        async with session.post(f"{one.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=1)
            await upstream.wait_for_open_streams(1)
            stopper = one if where == "the same process" else two
            async with session.post(f"{stopper.url}/messages/{reader.answer}/stop") as stopped:
                message = await stopped.json()
            await reader.read(response)
        await upstream.wait_for_open_streams(0)
    assert reader.end == {"status": "stopped"} | ENDED
    assert (message["status"], message["content"]) == ("stopped", "")


async def test_a_resumed_answer_can_be_stopped_by_its_reader_elsewhere(
    session: ClientSession, pair: list[ServiceProcess], upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(30):
        one, two = pair
        upstream.reply(["one "], unfinished=True)
        reader = Reader()
        async with session.post(f"{one.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=5)
        resumed = asyncio.create_task(reader.resume(session, two.url))
        async with session.post(f"{two.url}/messages/{reader.answer}/stop") as stopped:
            assert (await stopped.json())["status"] == "stopped"
        await resumed
    assert reader.end == {"status": "stopped"} | ENDED


async def test_an_answer_that_nobody_reads_is_stopped_when_that_is_wanted(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream
) -> None:
    async with asyncio.timeout(30):
        one, two = await replicas(2, abandoned_answer_seconds=0.5)
        upstream.reply(["one "], unfinished=True)
        reader = Reader()
        async with session.post(f"{one.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=5)
        # A reader in another process counts: the answer outlives several times the limit.
        reading = asyncio.create_task(reader.resume(session, two.url))
        done, _ = await asyncio.wait([reading], timeout=2)
        assert not done
        assert upstream.open_streams == 1
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await upstream.wait_for_open_streams(0)
        await reader.finish(session, two.url)
    assert (reader.text, reader.end) == ("one ", {"status": "stopped"} | ENDED)
