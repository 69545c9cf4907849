"""`python -m app` as an operator meets it: what it says, what it refuses, how it ends."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, CookieJar

from tests.support.reader import Reader
from tests.support.service import ROOT, ServiceProcess


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


def test_the_start_loads_nothing_that_only_some_requests_or_settings_need() -> None:
    late = {"app.web.openapi", "app.web.schemas", "app.web.auth.jwks", "app.web.auth.jwts"}
    started = "import sys, app.__main__; from app.web.docs import DocsRoutes; DocsRoutes().routes()"
    loaded = subprocess.run(
        [sys.executable, "-c", f"{started}; print(*sys.modules)"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "app.web.docs" in loaded
    assert late.isdisjoint(loaded)


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


#: Settings that cannot be used, and what is said of them.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a store that is not there": ({"redis_url": "unix:///nowhere/at/all"}, "The store cannot be reached"),
    "the same with workers": ({"redis_url": "unix:///nowhere/at/all", "workers": 2}, "The store cannot be reached"),
    "no url of a store": ({"redis_url": "http://localhost"}, "REDIS_URL: .*must begin with redis://"),
    "a port": ({"port": "70000"}, "PORT: "),
    "no url of an upstream": ({"openai_base_url": "localhost:1"}, "OPENAI_BASE_URL: .*http://"),
    "a file": ({"openai_api_key_file": "/nowhere/at/all"}, "OPENAI_API_KEY_FILE: No such file"),
    "no number": ({"lease_seconds": "soon"}, "LEASE_SECONDS: "),
    "no such choice": ({"durability": "maybe"}, "DURABILITY: "),
}


#: Those that wait for the store for some five seconds before they give up.
PATIENT = [what for what, (settings, _) in REFUSED.items() if settings.get("redis_url", "").startswith("unix:")]


@contextmanager
def _spawned(names: Iterable[str]) -> Iterator[dict[str, ServiceProcess]]:
    """Begin a service for each of these settings, all at once."""
    with tempfile.TemporaryDirectory(prefix="parley-") as path:
        services = {name: ServiceProcess(Path(path), **REFUSED[name][0]) for name in names}
        try:
            for service in services.values():
                service.spawn()
            yield services
        finally:
            for service in services.values():
                service.close()


@pytest.fixture(scope="module", autouse=True)
def patient() -> Iterator[dict[str, ServiceProcess]]:
    """Services that are begun before the first test, as they do nothing but wait while others run."""
    with _spawned(PATIENT) as services:
        yield services


@pytest.fixture(scope="module")
def refused(patient: dict[str, ServiceProcess]) -> Iterator[dict[str, ServiceProcess]]:
    """A service for each of the settings that cannot be used."""
    with _spawned(REFUSED.keys() - set(PATIENT)) as services:
        yield patient | services


@pytest.mark.parametrize("what", list(REFUSED))
async def test_a_setting_that_cannot_be_used_is_one_sentence_and_a_code(
    refused: dict[str, ServiceProcess], what: str
) -> None:
    service, (settings, sentence) = refused[what], REFUSED[what]
    assert await service.ended() == 1
    assert len(re.findall(sentence, service.log)) == 1
    assert "Traceback" not in service.log
    # Which store, which upstream, and what is wrong; of workers also that none could start.
    assert len(service.log.splitlines()) <= (4 if "workers" in settings else 3)


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
        folder,
        openai_api_key_file=folder / "key",
        openai_base_url="http://bob:bobs-password@127.0.0.1:9?key=of-azure",
        log_level="DEBUG",
    ).start()
    try:
        assert "Upstream: http://127.0.0.1:9 with gpt-4o-mini." in service.log
        for secret in ("sk-from-a-file", "bobs-password", "of-azure"):
            assert secret not in service.log
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
