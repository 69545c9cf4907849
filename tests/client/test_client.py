"""The browser client: Node's own test runner over its parser, and against the real service behind a proxy that fails."""

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from tests.conftest import Start
from tests.support.needs import needs
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.scripted_upstream import Gate, ScriptedUpstream
from tests.support.service import NO_LIMITS, ServiceProcess
from tests.support.store import StoreProcess

FOLDER = Path(__file__).parent


class Faults:
    """What the tests in Node command over HTTP: the model server's next answers, and the proxy's next failures."""

    def __init__(self, upstream: ScriptedUpstream, proxy: Proxy, service: ServiceProcess) -> None:
        self._upstream = upstream
        self._proxy = proxy
        self._service = service
        self._gate: Gate | None = None
        self._before = 0
        self._cuts = 0

    async def handle(self, request: web.Request) -> web.Response:
        """Do one command."""
        command: Callable[..., Awaitable[Any]] = getattr(self, f"_do_{request.match_info['what']}")
        return web.json_response(await command(**await request.json()))

    def connected(self) -> None:
        """Break as many connections as was asked for, and no more."""
        self._cuts -= 1
        if self._cuts < 0:
            self._proxy.cut_after = None
        self._proxy.flowing.set()

    async def _do_reset(self) -> None:
        self._before = len(self._upstream.requests)
        self._proxy.cut_after = None
        self._proxy.flowing.set()

    async def _do_asked(self) -> int:
        return len(self._upstream.requests) - self._before

    async def _do_reply(self, pieces: list[str], *, gate: bool = False, **options: Any) -> None:
        self._gate = self._upstream.gate() if gate else None
        self._upstream.reply(pieces, gate=self._gate, **options)

    async def _do_release(self, steps: int) -> None:
        assert self._gate is not None
        self._gate.release(steps)

    async def _do_open(self) -> None:
        assert self._gate is not None
        self._gate.open()

    async def _do_proxy(self, cut_after: int, cuts: float) -> None:
        self._proxy.cut()  # a connection that is kept open would not be a new one
        self._proxy.cut_after, self._cuts = cut_after, int(cuts)

    async def _do_cut(self) -> None:
        self._proxy.cut()

    async def _do_stall(self) -> None:
        self._proxy.flowing.clear()

    async def _do_restart(self) -> None:
        self._service.kill()
        await self._service.start()


class FailingProxy(Proxy):
    """A proxy which tells of each connection before it serves it."""

    faults: Faults | None = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.faults is not None:
            self.faults.connected()
        await super()._connected(reader, writer)


@pytest.fixture
async def world(
    redis: Any, store_process: StoreProcess, upstream: ScriptedUpstream, tmp_path: Path
) -> AsyncIterator[dict[str, str]]:
    """The service, a proxy that fails as it is told, one that holds back, and what commands them: their addresses."""
    settings = {
        **NO_LIMITS,
        "port": free_port(),  # the same one when it is started again
        "redis_url": store_process.url,
        "openai_base_url": upstream.base_url,
        "openai_api_key": "sk-test-0123456789",
        "openai_model": "model-a",
        "lease_seconds": 0.5,  # a killed service's answer is ended after two of them
        "heartbeat_seconds": 0.1,
    }
    service = ServiceProcess(tmp_path, **settings)
    try:
        await service.start()
        async with FailingProxy(service.url.removeprefix("http://")) as proxy, ClientSession() as session:
            proxy.faults = Faults(upstream, proxy, service)

            async def hold_back(request: web.Request) -> web.Response:
                async with session.get(f"{service.url}/{request.match_info['path']}") as response:
                    return web.Response(body=await response.read(), content_type=response.content_type)

            app = web.Application()
            app.router.add_post("/control/{what}", proxy.faults.handle)
            app.router.add_get("/held/{path:.*}", hold_back)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            try:
                here = f"http://{host}:{port}"
                yield {
                    "SERVICE": service.url,
                    "PROXY": f"http://{proxy.address}",
                    "BUFFERING": f"{here}/held",
                    "CONTROL": f"{here}/control",
                }
            finally:
                await runner.cleanup()
    finally:
        service.close()


async def _node(script: str, **environment: str) -> int:
    """Run a file of tests, and return how many have passed. Fails with Node's output where one has not."""
    node = needs("node", "run the tests of the browser client")
    process = await asyncio.create_subprocess_exec(
        *(node, "--test", "--test-reporter=tap", str(FOLDER / script)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | environment,
    )
    try:
        async with asyncio.timeout(100):
            output = (await process.communicate())[0].decode()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0, output
    return int(re.findall(r"^# pass (\d+)$", output, re.MULTILINE)[-1])


def _written(script: str) -> int:
    return len(re.findall(r"^test\(", (FOLDER / script).read_text("utf-8"), re.MULTILINE))


async def test_the_parser_reads_bytes_that_are_cut_anywhere_as_the_standard_says() -> None:
    assert await _node("parser.test.js") == 46


async def test_the_client_loses_and_repeats_nothing_and_asks_once(world: dict[str, str]) -> None:
    assert await _node("service.test.js", **world) == _written("service.test.js")


def test_the_types_agree_with_the_client_and_with_a_front_ends_use_of_it() -> None:
    compiler = FOLDER / "node_modules" / ".bin" / "tsc"
    if not compiler.exists():
        sentence = "there is no TypeScript here to check the client's types: make client-tools"
        assert "CI" not in os.environ, sentence
        pytest.skip(sentence)
    projects = ("tsconfig.json", "tsconfig.source.json")
    checks = [subprocess.Popen([compiler, "-p", FOLDER / project], stdout=subprocess.PIPE) for project in projects]
    told = [check.communicate()[0].decode() for check in checks]  # of each, so that none is left behind
    for check, said in zip(checks, told, strict=True):
        assert check.returncode == 0, said


async def test_the_ticks_by_which_a_proxy_is_found_out_want_no_owner_and_are_not_to_be_held_back(start: Start) -> None:
    client = await start()
    async with client.get("/health/stream") as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert "Set-Cookie" not in response.headers
        assert await response.text() == "".join(
            f'id: {tick}\nevent: tick\ndata: {{"tick":{tick},"of":5,"every_ms":200}}\n\n' for tick in range(1, 6)
        )
