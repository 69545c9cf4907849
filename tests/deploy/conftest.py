"""Only `make test-deploy` runs these tests: they want a Docker engine, and build an image.

One deployment serves most of them, in the order in which they stand: each leaves it as it found it.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, CookieJar, TCPConnector

from tests.deploy.deployment import Deployment

collect_ignore_glob = [] if "PARLEY_DEPLOY" in os.environ else ["test_*.py"]


@pytest.fixture(scope="session")
def plain() -> Iterator[Deployment]:
    """The deployment as a clone has it: no `.env`, no further file."""
    with tempfile.TemporaryDirectory(prefix="parley-deploy-") as folder, Deployment(Path(folder)) as deployment:
        yield deployment


@pytest.fixture(scope="session")
def deployment() -> Iterator[Deployment]:
    """The deployment on a model server that does what a message says, with its key in a file."""
    with (
        tempfile.TemporaryDirectory(prefix="parley-deploy-") as folder,
        Deployment(Path(folder), "tests/deploy/compose.yml") as deployment,
    ):
        deployment.settings(
            OPENAI_BASE_URL="http://upstream:9000/v1",
            OPENAI_MODEL="scripted-model",
            SHUTDOWN_GRACE_SECONDS=6,
            LIMIT_MESSAGES_PER_MINUTE=0,
            LIMIT_ADDRESS_MESSAGES_PER_MINUTE=0,
            LIMIT_ACTIVE_ANSWERS=0,
            LIMIT_READERS=0,
            LOG_FORMAT="json",
            METRICS_PORT=9100,
        )
        deployment.up()
        yield deployment


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    """A browser."""
    async with ClientSession(cookie_jar=CookieJar(unsafe=True), connector=TCPConnector(limit=0)) as browser:
        yield browser
