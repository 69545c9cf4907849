"""Starts what is compared: the model server, and before it, on the servers' core, the pipe, Parley and the FastAPI stack."""

import asyncio
import json
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.load import Job, argument
from tests.bench.processes import OTHER_CORE, SERVER_CORE, pin, pinned
from tests.bench.script import Script
from tests.bench.wire import Response, connect, request
from tests.support.ports import free_port
from tests.support.service import ROOT, ServiceProcess
from tests.support.store import StoreProcess

log = logging.getLogger("bench")

#: The venv that has the FastAPI stack, where `make bench` could install it.
STACK = ROOT / ".venv" / "bench"
RUN_SECONDS = 300
#: No limit is reached, and each one is counted: what it costs belongs to the service.
NO_LIMITS = {
    "limit_messages_per_minute": 1_000_000,
    "limit_address_messages_per_minute": 1_000_000,
    "limit_active_answers": 100_000,
    "limit_readers": 100_000,
    "max_active_answers": 100_000,
}


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who is asked: at which URL, in which dialect, and which process tree does the work (0: nobody's)."""

    name: str
    url: str
    dialect: str
    pid: int


@dataclass(frozen=True, slots=True)
class Arena:
    """What runs: `contestants` by name, the model server's URL, and Parley's process."""

    contestants: dict[str, Contestant]
    upstream: str
    service: ServiceProcess

    async def run(self, name: str, script: Script, streams: int, spread: float = 0) -> dict[str, Any]:
        """Let the readers run once against a contestant, and return what they saw."""
        who = self.contestants[name]
        job = Job(who.dialect, who.url, who.pid, streams, script.model, spread)
        command = pinned(OTHER_CORE, [sys.executable, "-m", "tests.bench.load", argument(job)])
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=ROOT)
        async with asyncio.timeout(RUN_SECONDS):
            output, _ = await process.communicate()
        assert process.returncode == 0
        seen: dict[str, Any] = json.loads(output)
        seen["late_p99_ms"] = (await self.seen())["late_p99_ms"]
        if seen["wrong"]:
            log.warning("%s: %d answers are wrong, for example: %s", name, seen["wrong"], seen["wrong_for_example"])
        return seen

    async def seen(self) -> dict[str, float]:
        """Return what the model server was last asked, and how late its tokens were since the last look."""
        seen: dict[str, float] = json.loads((await once("GET", f"{self.upstream}/seen")).body)
        return seen


def stack_installed() -> bool:
    """Can the FastAPI stack be measured?"""
    return (STACK / "installed").exists()


@asynccontextmanager
async def arena(scripts: Sequence[Script], *, stack: bool = False, **settings: Any) -> AsyncIterator[Arena]:
    """Start all, warm them up, and end them with the block. `stack`: the FastAPI stack too, where it is installed."""
    up, pipe = free_port(), free_port()
    upstream = f"http://127.0.0.1:{up}"
    folder = Path(tempfile.mkdtemp(prefix="parley-bench-"))
    warm_up = Script(20, 100)
    models = ",".join(script.model for script in (warm_up, *scripts))
    service = ServiceProcess(folder, openai_base_url=f"{upstream}/v1", openai_model=models, **NO_LIMITS | settings)
    try:
        with (
            _running(OTHER_CORE, [sys.executable, "-m", "tests.bench.upstream", str(up)]),
            _running(SERVER_CORE, [sys.executable, "-m", "tests.bench.pipe", str(pipe), f"{upstream}/v1"]) as pipe_pid,
            _stack(folder, f"{upstream}/v1") if stack and stack_installed() else nullcontext() as stack_found,
        ):
            await _listening(up)
            await _listening(pipe)
            await service.start()
            pin(service.pid, {SERVER_CORE})
            found = [
                Contestant("upstream", f"{upstream}/v1/chat/completions", "openai", 0),
                Contestant("pipe", f"http://127.0.0.1:{pipe}/messages", "openai", pipe_pid),
                Contestant("parley", f"{service.url}/messages", "parley", service.pid),
            ]
            if stack_found is not None:
                await _listening(int(stack_found.url.split(":")[2].split("/")[0]))
                found.append(stack_found)
            running = Arena({who.name: who for who in found}, upstream, service)
            await asyncio.gather(*(running.run(who.name, warm_up, 5) for who in found))
            yield running
    finally:
        service.close()
        shutil.rmtree(folder, ignore_errors=True)


async def once(method: str, url: str, body: Any = None) -> Response:
    """Ask on a connection of its own."""
    connection = await connect(url)
    try:
        return await connection.ask(request(method, url, body))
    finally:
        connection.close()


@contextmanager
def _running(core: int, command: list[str]) -> Iterator[int]:
    """Run a server of ours until the block ends; give its pid."""
    process = subprocess.Popen(pinned(core, command), cwd=ROOT)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:  # it still has streams to drain
            process.kill()
            process.wait()


@contextmanager
def _stack(folder: Path, base: str) -> Iterator[Contestant]:
    """Run the FastAPI stack with a Redis of its own."""
    port = free_port()
    redis = folder / "stack"
    redis.mkdir()
    store = StoreProcess(redis)
    store.spawn()
    try:
        program = Path(__file__).with_name("fastapi_stack.py")
        command = [str(STACK / "bin" / "python"), str(program), str(port), base, store.url]
        with _running(SERVER_CORE, command) as pid:
            yield Contestant("stack", f"http://127.0.0.1:{port}/messages", "stack", pid)
    finally:
        store.close()


async def _listening(port: int) -> None:
    """Wait until somebody listens at a port."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
