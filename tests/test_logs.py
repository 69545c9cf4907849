"""The log: one line for each request, with ids; never what people say or what opens doors."""

import asyncio
import io
import json
import logging
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, CookieJar

from app.domain.log_context import about_request, known
from app.logs import BUNDLE_LINES, Bundles, JsonLines, Lines
from tests.conftest import Client
from tests.support.reader import Reader
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.service import ServiceProcess

KEY = "marker-of-the-key-0123456789"  # not of the form that is starred out wherever it stands


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, as a unix socket's has a limit."""
    with tempfile.TemporaryDirectory(prefix="parley-") as path:
        yield Path(path)


def _lines(service: ServiceProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.log.splitlines()]


async def _access(service: ServiceProcess, count: int) -> list[dict[str, Any]]:
    """Return the requests' lines, once there are so many."""
    async with asyncio.timeout(10):
        while True:
            lines = [line for line in _lines(service) if line["logger"] == "parley.access"]
            if len(lines) >= count:
                return lines
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_nothing_that_people_say_and_nothing_that_opens_a_door_is_ever_logged(
    folder: Path, upstream: ScriptedUpstream, log_format: str
) -> None:
    service = await ServiceProcess(
        folder,
        log_level="DEBUG",
        log_format=log_format,
        openai_api_key=KEY,
        openai_base_url=upstream.base_url,
        openai_extra_headers='{"X-Extra": "marker-of-the-header"}',
        metrics_token="marker-of-the-metrics",
        upstream_retry_seconds=0,
    ).start()
    cookie = f"marker-of-the-cookie-{'x' * 22}"
    headers = {
        "Cookie": f"parley_owner={cookie}; other=marker-of-another-cookie",
        "Authorization": "Bearer marker-of-the-authorization",
        "X-Whatever": "marker-of-a-header",
    }
    try:
        async with asyncio.timeout(60), ClientSession() as session:
            upstream.reply(["marker-of-", "the-answer"])
            body = {"content": "marker-of-the-question", "system": "marker-of-the-system"}
            reader = Reader()
            async with session.post(
                f"{service.url}/messages?marker-of-the-query=1", json=body, headers=headers
            ) as response:
                await reader.read(response)
            assert reader.text == "marker-of-the-answer"
            upstream.error(500, {"error": {"message": f"no such key {KEY}"}})
            async with session.post(f"{service.url}/messages", json=body, headers=headers) as response:
                await Reader().read(response)
            upstream.raw([b"data: {marker of what is no JSON\n\n"])
            async with session.post(f"{service.url}/messages", json=body, headers=headers) as response:
                await Reader().read(response)
            for path in (f"/conversations/{reader.conversation}", "/marker-of-the-path", "/metrics"):
                async with session.get(f"{service.url}{path}?marker-of-the-query", headers=headers) as response:
                    await response.read()
            async with session.post(
                f"{service.url}/messages", data=b'{"content": "marker-of-bad', headers=headers
            ) as response:
                assert response.status in (400, 415)
            host, _, port = service.url.removeprefix("http://").partition(":")
            received, writer = await asyncio.open_connection(host, int(port))
            writer.write(
                b"GET /marker-of-no-http HTTP/1.1\r\nCookie: parley_owner=marker-of-no-http\r\nbad\x00\r\n\r\n"
            )
            await received.readline()
            writer.close()
            await writer.wait_closed()
        service.signal(signal.SIGTERM)
        assert await service.ended() == 0
        found = re.findall(r"marker-[a-z-]+|marker of [a-z ]+", service.log)
        # What the model server itself says wrong is quoted, shortened and without secrets: the operator has to see it.
        assert set(found) <= {"marker of what is no "}
        assert cookie not in service.log
        assert KEY not in service.log
        assert len(re.findall(r"parley\.access", service.log)) == 7
    finally:
        service.close()


async def test_a_request_is_one_object_on_one_line_with_its_ids(folder: Path, upstream: ScriptedUpstream) -> None:
    service = await ServiceProcess(
        folder, log_format="json", openai_api_key=KEY, openai_base_url=upstream.base_url, upstream_retry_seconds=0
    ).start()
    try:
        async with asyncio.timeout(60), ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
            upstream.error(500)
            reader = Reader()
            given = {"X-Request-ID": "from-the-proxy-1"}
            async with session.post(f"{service.url}/messages", json={"content": "Hi"}, headers=given) as response:
                assert response.headers["X-Request-ID"] == "from-the-proxy-1"
                await reader.read(response)
            insane = {"X-Request-ID": 'x" injected="1'}
            async with session.get(f"{service.url}/messages/{reader.answer}", headers=insane) as response:
                made = response.headers["X-Request-ID"]
                assert re.fullmatch(r"req_[0-9a-f]{24}", made)
            async with session.get(f"{service.url}/nothing/here") as response:
                assert response.status == 404
            async with session.get(f"{service.url}/health/live") as response:
                assert response.status == 200
            post, get, nothing = await _access(service, 3)
        times = [post.pop("time"), get.pop("time"), nothing.pop("time")]
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time) for time in times)
        assert all(line.pop("milliseconds") >= 0 for line in (post, get, nothing))
        assert all(
            line.pop("message").startswith(f"{line['method']} {line['route']} ") for line in (post, get, nothing)
        )
        owner = post["owner"]
        assert re.fullmatch(r"[0-9a-f]{12}", owner)
        common = {"level": "info", "logger": "parley.access", "process": service.pid}
        assert post == common | {
            "request_id": "from-the-proxy-1",
            "answer": reader.answer,
            "owner": owner,
            "method": "POST",
            "route": "/messages",
            "status": 200,
        }
        assert get == common | {
            "request_id": made,
            "answer": reader.answer,
            "owner": owner,
            "method": "GET",
            "route": "/messages/{id}",
            "status": 200,
        }
        assert nothing.pop("request_id") not in (made, "from-the-proxy-1")
        assert nothing == common | {"method": "GET", "route": "none", "status": 404, "code": "not_found"}
        # What goes wrong while the answer is written has the ids of the request that began it.
        (warning,) = [line for line in _lines(service) if line["level"] == "warning"]
        assert (warning["request_id"], warning["answer"], warning["owner"]) == (
            "from-the-proxy-1",
            reader.answer,
            owner,
        )
    finally:
        service.close()


async def test_a_client_that_goes_before_the_end_is_noted_as_gone(folder: Path, upstream: ScriptedUpstream) -> None:
    service = await ServiceProcess(
        folder, log_format="json", openai_api_key=KEY, openai_base_url=upstream.base_url
    ).start()
    try:
        async with asyncio.timeout(60), ClientSession() as session:
            upstream.reply(["so far"], unfinished=True)
            async with session.post(f"{service.url}/messages", json={"content": "Hi"}) as response:
                await Reader().read(response, until=7)
            (line,) = await _access(service, 1)
        assert (line["status"], line["gone"]) == (200, True)
    finally:
        service.close()


def _fail() -> None:
    raise ValueError("first line\nsecond line")


def test_a_traceback_and_half_of_a_character_are_one_line() -> None:
    try:
        _fail()
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "half \ud83d of %s", ("it",), sys.exc_info())
    text = JsonLines().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert line["message"] == "half \ud83d of it"
    assert line["error"].startswith("Traceback ")
    assert line["error"].endswith("ValueError: first line\nsecond line")


def test_warnings_and_what_nobody_caught_are_objects_too(folder: Path) -> None:
    script = (
        "import warnings; from app.logs import configure_logs; from app.settings import Settings\n"
        "configure_logs(Settings(log_format='json'))\n"
        "warnings.warn('beware')\n"
        "raise RuntimeError('nobody caught it')\n"
    )
    found = _run(script)
    assert [(line["level"], line["logger"]) for line in found] == [("warning", "py.warnings"), ("critical", "parley")]
    assert "beware" in found[0]["message"]
    assert "nobody caught it" in found[1]["error"]


async def test_settings_that_cannot_be_used_are_an_object_too(folder: Path) -> None:
    service = ServiceProcess(folder, log_format="json", lease_seconds="soon")
    service.spawn()
    assert await service.ended() == 1
    (line,) = _lines(service)
    assert line["level"] == "error"
    assert "LEASE_SECONDS: " in line["message"]


def _run(script: str) -> list[dict[str, Any]]:
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    return [json.loads(line) for line in done.stderr.splitlines()]


async def test_what_is_about_one_request_is_not_said_of_the_next() -> None:
    about_request("one")

    async def other() -> str:
        about_request("two")
        return JsonLines().format(logging.LogRecord("x", logging.INFO, "", 0, "m", (), None))

    assert json.loads(await asyncio.create_task(other()))["request_id"] == "two"
    line = json.loads(JsonLines().format(logging.LogRecord("x", logging.INFO, "", 0, "m", (), None)))
    assert line["request_id"] == "one"


async def test_the_line_of_a_request_may_wait_as_it_has_noted_its_ids(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "parley.access")
    async with client.get("/models", headers={"X-Request-ID": "from-the-proxy-1"}) as response:
        assert response.status == 200
    (record,) = [record for record in caplog.records if record.name == "parley.access"]
    noted = vars(record)["about"]
    assert noted.keys() == {"request_id", "owner"}
    assert noted["request_id"] == "from-the-proxy-1"


async def test_the_lines_of_requests_are_written_together_in_order_each_with_its_own_ids() -> None:
    written = io.StringIO()
    target = logging.StreamHandler(written)
    target.setFormatter(Lines(several=False))
    logger = logging.Logger("x")  # noqa: LOG001 - this test's alone
    logger.addHandler(bundles := Bundles(target))

    def said() -> list[str]:
        return re.findall(r": (\w+)", written.getvalue())

    for name in ("one", "two"):
        about_request(name)
        logger.info(name, extra={"about": known()})
    about_request("three")
    assert said() == []
    logger.warning("three")  # what is no request's line waits for nothing
    assert said() == ["one", "two", "three"]
    logger.info("four", extra={"about": {}})
    assert said() == ["one", "two", "three"]
    async with asyncio.timeout(10):
        while len(said()) < 4:
            await asyncio.sleep(0.01)
    assert re.findall(r"request_id=(\w+)", written.getvalue()) == ["one", "two", "three"]
    for number in range(BUNDLE_LINES):
        logger.info("n%d", number, extra={"about": {}})
    assert said()[4:] == [f"n{number}" for number in range(BUNDLE_LINES)]
    logger.info("last", extra={"about": {}})
    bundles.close()
    assert said()[-1] == "last"
