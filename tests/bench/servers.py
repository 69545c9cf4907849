"""Starts each of the servers as a process of its own, waits until it listens, and ends it."""

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.processes import OTHER_CORE, SERVER_CORE, pin, pinned
from tests.support.ports import free_port
from tests.support.service import ROOT, ServiceProcess
from tests.support.store import StoreProcess

#: The venv that has the FastAPI stack, where `make bench` could install it.
STACK = ROOT / ".venv" / "bench"
#: The limits that are on by default are not reached, and counted all the same: what that costs belongs to the service.
NO_LIMITS = {
    "limit_messages_per_minute": 1_000_000,
    "limit_address_messages_per_minute": 1_000_000,
    "limit_active_answers": 100_000,
    "limit_readers": 100_000,
    "max_active_answers": 100_000,
}


class Server(NamedTuple):
    """A server that runs: its URL, the process that it began with, its store's URL (empty: it has none)."""

    url: str
    pid: int
    store: str = ""


def stack_installed() -> bool:
    """Can the FastAPI stack be measured?"""
    return (STACK / "installed").exists()


@asynccontextmanager
async def model_server() -> AsyncIterator[Server]:
    """Run the fake upstream, away from the servers that are measured."""
    port = free_port()
    async with _running(OTHER_CORE, [sys.executable, "-m", "tests.bench.upstream", str(port)], port) as server:
        yield server


@asynccontextmanager
async def byte_pipe(upstream: str) -> AsyncIterator[Server]:
    """Run the pipe."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.pipe", str(port), f"{upstream}/v1"]
    async with _running(SERVER_CORE, command, port) as server:
        yield server


@asynccontextmanager
async def parley(upstream: str, models: str, **settings: Any) -> AsyncIterator[Server]:
    """Run the service with its embedded store."""
    folder = Path(tempfile.mkdtemp(prefix="parley-bench-"))
    service = ServiceProcess(folder, openai_base_url=f"{upstream}/v1", openai_model=models, **NO_LIMITS | settings)
    try:
        await service.start()
        pin(service.pid, {SERVER_CORE})
        yield Server(service.url, service.pid, f"unix://{folder}/data/valkey.sock")
    finally:
        service.close()
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def fastapi_stack(upstream: str) -> AsyncIterator[Server]:
    """Run the FastAPI stack with a Redis of its own."""
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="parley-bench-"))
    store = StoreProcess(folder)
    try:
        await store.start()
        program = Path(__file__).with_name("fastapi_stack.py")
        command = [str(STACK / "bin" / "python"), str(program), str(port), f"{upstream}/v1", store.url]
        async with _running(SERVER_CORE, command, port) as server:
            yield server._replace(store=store.url)
    finally:
        store.close()
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def _running(core: int, command: list[str], port: int) -> AsyncIterator[Server]:
    process = subprocess.Popen(pinned(core, command), cwd=ROOT)
    try:
        await _listening(port)
        yield Server(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:  # it still has streams to drain
            process.kill()
            process.wait()


async def _listening(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
