"""What tests of the journal and of what goes through it stand on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.domain.measures import Measures
from app.store.connection import Connector
from app.store.journal import Durability, Journal
from tests.support.store import StoreProcess


@asynccontextmanager
async def journal_of(store: StoreProcess, *, durability: Durability) -> AsyncIterator[Journal]:
    """Lend a journal of a real store."""
    connector = Connector(store.url)
    made = Journal(connector, durability=durability, lease_seconds=3, outage_seconds=3, measures=Measures(on=False))
    await made.start()
    yield made
    await made.close()
    await connector.redis.aclose()


@pytest.fixture
async def journal(redis: Any, store_process: StoreProcess) -> AsyncIterator[Journal]:
    """A journal as it is by default."""
    async with journal_of(store_process, durability="acknowledged") as made:
        yield made
    await redis.flushall()
