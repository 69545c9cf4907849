"""`python -m app` as an operator meets it: what it says, what it refuses, how it ends."""

import asyncio
import re
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, CookieJar

from tests.support.reader import Reader
from tests.support.service import ServiceProcess


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, as a unix socket's has a limit."""
    with tempfile.TemporaryDirectory(prefix="parley-") as path:
        yield Path(path)


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    """A browser."""
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as client:
        yield client


async def test_with_no_setting_at_all_it_says_where_it_listens_and_answers_as_a_demo(
    folder: Path, session: ClientSession
) -> None:
    service = await ServiceProcess(folder).start()
    try:
        assert re.search(r"Listening at http://127\.0\.0\.1:\d+/", service.log)
        assert f"Store: the embedded Valkey; its files are in {folder}/data." in service.log
        assert "Upstream: the built-in demo model." in service.log
        async with session.get(f"{service.url}/models") as response:
            (model,) = (await response.json())["data"]
        assert (model["id"], "demo" in model["owned_by"]) == ("parley-demo", True)
        reader = Reader()
        async with (
            asyncio.timeout(30),
            session.post(f"{service.url}/messages", json={"content": "I am Ada."}) as answer,
        ):
            await reader.read(answer)
        assert "demo" in reader.text
        body = {"content": "Who am I?", "conversation": reader.conversation}
        again = Reader()
        async with asyncio.timeout(30), session.post(f"{service.url}/messages", json=body) as answer:
            await again.read(answer)
        assert "I am Ada." in again.text
        service.signal(signal.SIGTERM)
        assert await service.ended(5) == 0
        await service.start()
        async with session.get(f"{service.url}/conversations/{reader.conversation}") as response:
            contents = [message["content"] for message in (await response.json())["messages"]]
        assert contents == ["I am Ada.", reader.text, "Who am I?", again.text]
        service.kill()
        await service.start()
        async with session.get(f"{service.url}/conversations/{reader.conversation}") as response:
            assert len((await response.json())["messages"]) == 4
    finally:
        service.close()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"redis_url": "http://localhost"}, "REDIS_URL: .*must begin with redis://"),
        ({"redis_url": "unix:///nowhere/at/all"}, "The store cannot be reached"),
        ({"port": "70000"}, "PORT: "),
        ({"openai_base_url": "localhost:1"}, "OPENAI_BASE_URL: .*http://"),
        ({"openai_api_key_file": "/nowhere/at/all"}, "OPENAI_API_KEY_FILE: No such file"),
        ({"lease_seconds": "soon"}, "LEASE_SECONDS: "),
        ({"durability": "maybe"}, "DURABILITY: "),
    ],
)
async def test_a_setting_that_cannot_be_used_is_one_sentence_and_a_code(
    folder: Path, settings: dict[str, str], sentence: str
) -> None:
    service = ServiceProcess(folder, **settings)
    service.spawn()
    try:
        assert await service.ended() == 1
        assert re.search(sentence, service.log)
        assert "Traceback" not in service.log
        assert len(service.log.splitlines()) <= 3  # which store, which upstream, and what is wrong
    finally:
        service.close()


async def test_a_port_in_use_is_one_sentence_and_a_code_and_harms_nothing(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        service = ServiceProcess(folder, port=taken.getsockname()[1])
        service.spawn()
        try:
            assert await service.ended() == 1
            assert "Can't listen at 127.0.0.1" in service.log
            assert "PORT" in service.log
            assert "Traceback" not in service.log
        finally:
            service.close()
    again = await ServiceProcess(folder).start()
    again.close()


async def test_a_second_service_on_one_data_folder_is_refused_and_the_first_goes_on(
    folder: Path, session: ClientSession
) -> None:
    first = await ServiceProcess(folder).start()
    second = ServiceProcess(folder)
    try:
        second.spawn()
        assert await second.ended() == 1
        assert f"process {first.pid}" in second.log
        assert "DATA_DIR" in second.log
        async with session.get(f"{first.url}/health/ready") as response:
            assert response.status == 200
    finally:
        second.close()
        first.close()


async def test_a_secret_comes_from_a_file_and_is_in_no_log(folder: Path) -> None:
    (folder / "key").write_text("sk-from-a-file-123\n")
    service = await ServiceProcess(
        folder, openai_api_key_file=folder / "key", openai_base_url="http://127.0.0.1:9", log_level="DEBUG"
    ).start()
    try:
        assert "Upstream: http://127.0.0.1:9 with gpt-4o-mini." in service.log
        assert "sk-from-a-file" not in service.log
    finally:
        service.close()


async def test_a_request_that_is_no_http_leaves_no_cookie_in_the_log(folder: Path) -> None:
    service = await ServiceProcess(folder).start()
    try:
        host, _, port = service.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nCookie: parley_owner=secret\r\nbad header\x00\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.0 400")
        writer.close()
        await writer.wait_closed()
        assert "secret" not in service.log
    finally:
        service.close()
