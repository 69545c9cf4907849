"""The main job against a model server that is not ours: `make test-local-model`."""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import ClientSession, CookieJar

from tests.local_model.server import CONTEXT_TOKENS, MODEL, READY_SECONDS
from tests.support.ports import free_port
from tests.support.reader import Reader
from tests.support.service import ROOT, ServiceProcess


class Running(NamedTuple):
    """The service, the model's server, and a browser."""

    url: str
    model: str
    session: ClientSession

    async def post(self, until: int | None = None, **body: Any) -> Reader:
        """POST a message and read its answer, to the end or to a position."""
        reader = Reader()
        async with self.session.post(f"{self.url}/messages", json=body) as response:
            await reader.read(response, until=until)
        return reader

    async def message(self, reader: Reader) -> dict[str, Any]:
        """Read the answer back from the store."""
        async with self.session.get(f"{self.url}/messages/{reader.answer}") as response:
            body: dict[str, Any] = await response.json()
            return body

    async def generating(self) -> int:
        """Return in how many of its slots the model is generating."""
        async with self.session.get(f"{self.model}/slots") as response:
            return sum(slot["is_processing"] for slot in await response.json())


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """Start the real model and the service on it."""
    port = free_port()
    model = subprocess.Popen([sys.executable, "-m", "tests.local_model.server", str(port)], cwd=ROOT)
    try:
        with tempfile.TemporaryDirectory(prefix="parley-") as folder:
            base = f"http://127.0.0.1:{port}"
            settings = {"openai_base_url": f"{base}/v1", "openai_model": MODEL, "context_tokens": CONTEXT_TOKENS}
            service = ServiceProcess(Path(folder), **settings)
            async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session, asyncio.timeout(120):
                await _ready(session, base)
                await service.start()
                try:
                    yield Running(service.url, base, session)
                finally:
                    service.close()
    finally:
        model.kill()
        model.wait(10)


async def _ready(session: ClientSession, base: str) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while True:
            try:
                async with session.get(f"{base}/health") as response:
                    if response.status == 200:
                        return
            except OSError:
                pass
            await asyncio.sleep(0.05)


async def test_the_main_job_twice_in_one_conversation_with_a_stop_in_the_middle(running: Running) -> None:
    first = await running.post(content="Name three colours.", max_tokens=60, temperature=0)
    assert first.end is not None
    assert first.end["status"] == "completed"
    assert first.text
    usage = first.end["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] > 3
    message = await running.message(first)
    assert (message["content"], message["model"], message["usage"]) == (first.text, MODEL, usage)

    second = await running.post(
        content="Tell me a very long story about the sea.", conversation=first.conversation, until=200, temperature=0
    )
    assert await running.generating() == 1
    async with running.session.post(f"{running.url}/messages/{second.answer}/stop") as response:
        stopped = await response.json()
    assert stopped["status"] == "stopped"
    assert stopped["content"].startswith(second.text)
    while await running.generating():  # bounded by the fixture: the model's own generation has to end as ours did
        await asyncio.sleep(0.02)
    rest = second.again()
    await rest.finish(running.session, running.url)
    assert rest.text == stopped["content"]

    third = await running.post(content="Go on.", conversation=first.conversation, max_tokens=20)
    assert third.end is not None
    assert third.end["status"] == "completed"
    # The second question and its answer were sent again: the prompt has grown by more than the new message.
    assert third.end["usage"]["prompt_tokens"] > usage["total_tokens"] + 20
