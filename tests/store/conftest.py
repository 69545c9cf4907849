"""What tests of the journal and of what goes through it stand on."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.domain.measures import Measures
from app.store.connection import Connector
from app.store.journal import Journal
from tests.support.store import StoreProcess


@pytest.fixture
async def journal(redis: Any, store_process: StoreProcess) -> AsyncIterator[Journal]:
    """A journal of a real store."""
    connector = Connector(store_process.url)
    made = Journal(connector, durability="acknowledged", lease_seconds=3, outage_seconds=3, measures=Measures(on=False))
    await made.start()
    yield made
    await made.close()
    await connector.redis.aclose()
    await redis.flushall()
