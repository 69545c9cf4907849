"""`openapi.json` is true: every documented request, in every way that it allows and in some that it does not."""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, settings

from app.main import create_app
from app.settings import Settings
from app.web.auth import token_file
from app.web.openapi import document
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.service import NO_LIMITS
from tests.support.store import StoreProcess

SCHEMA = schemathesis.openapi.from_dict(document("0"))
EXAMPLES = 10
#: What was met: method, path and status.
ANSWERED: set[tuple[str, str, int]] = set()
#: That rules between fields are broken, or that an id names nothing, no schema says.
LEFT_OUT = [schemathesis.checks.CHECKS.get_one("positive_data_acceptance")]


class Background:
    """The service with a model that answers at once, in a thread of its own: schemathesis' client blocks."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.url = ""
        self._folder = folder
        self._changes = changes
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(20)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        store = StoreProcess(self._folder, "--appendonly", "no")
        await store.start()
        try:
            async with ScriptedUpstream() as upstream:
                options: dict[str, Any] = {
                    "redis_url": store.url,
                    "openai_base_url": upstream.base_url,
                    "openai_model": "model-a,model-b",
                    "shutdown_grace_seconds": 0,
                }
                app = create_app(Settings(**options | NO_LIMITS | self._changes))
                runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.5)
                await runner.setup()
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                host, port = runner.addresses[0][:2]
                self.url = f"http://{host}:{port}"
                self._ready.set()
                await self._stop.wait()
                await runner.cleanup()
        finally:
            store.close()


@pytest.fixture(scope="module", params=["anonymous", "token"])
def service(request: pytest.FixtureRequest) -> Iterator[tuple[str, dict[str, str]]]:
    """The service's address, and the headers of somebody who may use it."""
    folder = Path(tempfile.mkdtemp(prefix="parley-"))
    headers = {"Cookie": f"parley_owner={'x' * 43}"}
    changes: dict[str, Any] = {}
    if request.param == "token":
        headers = {"Authorization": f"Bearer {token_file.add(folder / 'tokens', 'ada')}"}
        changes = {"auth": "token", "tokens_file": folder / "tokens"}
    background = Background(folder, **changes)
    background.start()
    yield background.url, headers
    background.close()
    shutil.rmtree(folder, ignore_errors=True)


@SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_documented(case: Any, service: tuple[str, dict[str, str]]) -> None:
    url, headers = service
    for real in (False, True):
        if real:
            if not isinstance((case.path_parameters or {}).get("id"), str) or case.path.startswith(
                "/conversations/before"
            ):
                return
            # An id that names something: what is made up is hardly ever found.
            name = {"Content-Type": "application/json", "Accept": "application/json", **headers}
            made = requests.post(f"{url}/messages", json={"content": "Hi"}, headers=name, timeout=10).json()
            case.path_parameters["id"] = made["conversation"] if "conv" in case.path else made["message"]["id"]
        response = case.call(base_url=url, headers=headers, timeout=10)
        case.validate_response(response, excluded_checks=LEFT_OUT)
        ANSWERED.add((case.method.lower(), case.path, response.status_code))


def test_every_documented_request_was_answered_with_what_it_is_for() -> None:
    """Runs after the others: a walk that met refusals only would show little."""
    if not ANSWERED:
        pytest.skip("run with the rest of this file")
    met = {(method, path) for method, path, status in ANSWERED if status < 300}
    documented = {(method, path) for path, item in document("0")["paths"].items() for method in item}
    assert documented - met - {("get", "/metrics")} == set()
