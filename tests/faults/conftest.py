"""Two or more services on one store, all of them real processes, and a scripted upstream."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, CookieJar, TCPConnector
from redis.asyncio import Redis

from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.service import ServiceProcess
from tests.support.store import StoreProcess

Replicas = Callable[..., Awaitable[list[ServiceProcess]]]

#: What each service is started with, besides the addresses of its store and its upstream, unless a test says otherwise.
SETTINGS: dict[str, Any] = {
    "openai_api_key": "sk-test-0123456789",
    "openai_model": "model-a",
    "lease_seconds": 1,
    "limit_readers": 0,  # crowds of readers, all of one owner
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a unix socket."""
    path = Path(tempfile.mkdtemp(prefix="parley-fault-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def own_store(folder: Path) -> AsyncIterator[StoreProcess]:
    """A store of the test's own, to be killed; each write is on the disk before it is acknowledged to anybody."""
    process = StoreProcess(folder, "--appendfsync", "always")
    await process.start()
    yield process
    process.close()


@pytest.fixture
async def own_redis(own_store: StoreProcess) -> AsyncIterator[Any]:
    """A client of that store."""
    async with Redis.from_url(own_store.url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def replicas(folder: Path, own_store: StoreProcess, upstream: ScriptedUpstream) -> AsyncIterator[Replicas]:
    """Start so many services on the test's store."""
    started: list[ServiceProcess] = []

    async def starter(count: int, **settings: Any) -> list[ServiceProcess]:
        addresses = {"redis_url": own_store.url, "openai_base_url": upstream.base_url}
        fresh = [ServiceProcess(folder, **SETTINGS | addresses | settings) for _ in range(count)]
        started.extend(fresh)
        return await asyncio.gather(*(service.start() for service in fresh))  # starting is most of what many tests take

    yield starter
    for service in started:
        service.close()


@asynccontextmanager
async def browser() -> AsyncIterator[ClientSession]:
    """Lend a browser: one cookie jar for all replicas."""
    jar = CookieJar(unsafe=True)
    timeout = ClientTimeout(total=None, connect=5)
    async with ClientSession(cookie_jar=jar, timeout=timeout, connector=TCPConnector(limit=0)) as client:
        yield client


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    """A browser."""
    async with browser() as client:
        yield client
