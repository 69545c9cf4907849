"""What the upstream's tests share: a bound on every wait, and a scripted upstream."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """Yield a scripted upstream; it ends with the test."""
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture(params=["direct", "general"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test once for each way to the upstream."""
    if request.param == "general":
        monkeypatch.setattr("app.upstream.client._is_plain", lambda _: False)


@pytest.fixture(autouse=True)
async def bounded() -> AsyncIterator[None]:
    """Cancel all tasks of a test that waits for more than 20 seconds."""
    timer = asyncio.get_running_loop().call_later(20, _cancel_all)
    yield
    timer.cancel()


def _cancel_all() -> None:
    for task in asyncio.all_tasks():
        task.cancel()
