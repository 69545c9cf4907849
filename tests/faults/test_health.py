"""`/health/ready` says whether requests should come, whatever the store does; `/health/live` whether the process answers."""

import asyncio
import signal

from aiohttp import ClientSession

from tests.faults.conftest import Replicas
from tests.support.reader import Reader
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.service import ServiceProcess
from tests.support.store import StoreProcess


async def _health(session: ClientSession, service: ServiceProcess, kind: str) -> tuple[int, str]:
    async with session.get(f"{service.url}/health/{kind}") as response:
        body = await response.json(content_type=None)
        return response.status, body.get("code") or body["status"]


async def _until_ready(session: ClientSession, service: ServiceProcess) -> None:
    async with asyncio.timeout(10):
        while await _health(session, service, "ready") != (200, "ready"):
            await asyncio.sleep(0.01)


async def test_a_store_that_is_gone_or_hangs_makes_it_unready_and_leaves_it_alive(
    session: ClientSession, replicas: Replicas, own_store: StoreProcess
) -> None:
    (service,) = await replicas(1)
    assert await _health(session, service, "ready") == (200, "ready")
    own_store.freeze()
    async with asyncio.timeout(4.5):  # a reply's own limit is 5 s
        assert await _health(session, service, "ready") == (503, "store_unavailable")
        assert await _health(session, service, "live") == (200, "live")
    own_store.thaw()
    await _until_ready(session, service)
    own_store.kill()
    assert await _health(session, service, "ready") == (503, "store_unavailable")
    assert await _health(session, service, "live") == (200, "live")
    await own_store.start()
    await _until_ready(session, service)


async def test_a_service_that_drains_is_unready_and_alive(
    session: ClientSession, replicas: Replicas, upstream: ScriptedUpstream
) -> None:
    (service,) = await replicas(1)
    gate = upstream.gate()
    upstream.reply(["one ", "two"], gate=gate)
    gate.release()
    reader = Reader()
    async with asyncio.timeout(30), session.post(f"{service.url}/messages", json={"content": "Hi"}) as response:
        await reader.read(response, until=5)
        service.signal(signal.SIGTERM)
        while await _health(session, service, "ready") != (503, "shutting_down"):
            await asyncio.sleep(0.01)
        assert await _health(session, service, "live") == (200, "live")
        gate.open()
        await reader.read(response)
    assert reader.text == "one two"
