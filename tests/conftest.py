"""What all tests share: a real store, a scripted upstream, the service on a socket, and a check for keys that stay behind."""

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import settings as hypothesis_settings
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.main import create_app
from app.settings import Settings
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.store import ClusterNode, StoreProcess

Client = TestClient[web.Request, web.Application]
Start = Callable[..., Awaitable[Client]]

# A slow machine is no failure: no example has a deadline.
hypothesis_settings.register_profile("unhurried", deadline=None)
hypothesis_settings.load_profile("unhurried")

#: Keys that may stay: a conversation is kept (`CONVERSATION_TTL_SECONDS` 0), its owner's list with it.
KEPT = re.compile(r"chat:\{[0-9a-f]{32}\}(:messages)?|owner:[0-9a-f]{40}:conversations")


@pytest.fixture(scope="session")
def store_process() -> Iterator[StoreProcess]:
    """One server for the whole run."""
    folder = Path(tempfile.mkdtemp(prefix="parley-test-"))
    process = StoreProcess(folder, "--appendonly", "no")
    process.spawn()
    yield process
    process.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[ClusterNode]:
    """A store whose scripts keep to one slot; for tests that say so."""
    folder = Path(tempfile.mkdtemp(prefix="parley-test-"))
    process = ClusterNode(folder)
    process.spawn()
    yield process
    process.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def redis(store_process: StoreProcess) -> AsyncIterator[Any]:
    """A client of an empty store; fails a test which leaves a key that has neither a lifetime nor a reason."""
    client: Any = Redis.from_url(store_process.url, decode_responses=True)
    async with client:
        await _until_up(client)
        await client.flushall()
        yield client
        running = set()
        for key in await client.keys("chat:{*}"):
            if re.fullmatch(r"chat:\{[0-9a-f]{32}\}", key) and (active := await client.hget(key, "active")):
                running.add(f"{key}:events:{active}")  # the only copy of an answer that nobody has ended yet
        left = [key for key in await client.keys("*") if await client.ttl(key) == -1]
        assert [key for key in left if not KEPT.fullmatch(key) and key not in running] == []


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """A model server that does what a test tells it to."""
    async with ScriptedUpstream() as scripted:
        yield scripted


@pytest.fixture
def settings(store_process: StoreProcess, upstream: ScriptedUpstream) -> dict[str, Any]:
    """What the service is started with, unless a test says otherwise."""
    return {
        "redis_url": store_process.url,
        "openai_base_url": upstream.base_url,
        "openai_api_key": "sk-test-0123456789",
        "openai_model": "model-a,model-b",
        "shutdown_grace_seconds": 0,
    }


@pytest.fixture
async def start(redis: Any, settings: dict[str, Any]) -> AsyncIterator[Start]:
    """Start the service, several times for several replicas, and return a client (a browser with a cookie jar)."""
    clients: list[Client] = []

    async def starter(**changes: Any) -> Client:
        app = create_app(Settings(**(settings | changes)))
        client: Client = TestClient(TestServer(app), timeout=None)
        await client.start_server()
        clients.append(client)
        return client

    yield starter
    for client in reversed(clients):
        await client.close()


@pytest.fixture
async def client(start: Start) -> Client:
    """The service, and a browser."""
    return await start()


async def _until_up(client: Any) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await client.ping()
            except (RedisError, OSError):
                await asyncio.sleep(0.01)
            else:
                return
