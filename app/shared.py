"""What all processes of a service have in common, started once: the store and the upstream."""

import logging
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from app.settings import Settings
from app.store.embedded import embedded_store
from app.upstream.demo import DEMO_MODEL, run_demo

log = logging.getLogger("parley")

DEFAULT_BASE_URL = "https://api.openai.com/v1"
DEFAULT_MODEL = "gpt-4o-mini"


class Target(NamedTuple):
    """Which model server is asked, and for what."""

    base_url: str
    #: The models that may be asked for, the default one first.
    models: tuple[str, ...]
    #: What `GET /models` says of who has them.
    owner: str


class Shared(NamedTuple):
    """Where the store and the upstream are."""

    store_url: str
    upstream: Target


@asynccontextmanager
async def shared(settings: Settings) -> AsyncIterator[Shared]:
    """Start the embedded store and the demo model, unless the settings name others, and end them. Raises StartupError."""
    async with AsyncExitStack() as stack:
        store_url = await start_store(settings, stack)
        yield Shared(store_url, await start_upstream(settings, stack))


async def start_store(settings: Settings, stack: AsyncExitStack) -> str:
    """Return the store's URL; the embedded one is started, and ends with the stack. Raises StartupError."""
    if settings.redis_url is not None:
        log.info("Store: the Redis at %s.", without_secrets(settings.redis_url.get_secret_value()))
        return settings.redis_url.get_secret_value()
    url = await stack.enter_async_context(
        embedded_store(settings.data_dir, fsync_always=settings.durability == "fsync")
    )
    log.info("Store: the embedded Valkey; its files are in %s.", settings.data_dir.resolve())
    return url


async def start_upstream(settings: Settings, stack: AsyncExitStack) -> Target:
    """Return the upstream; the demo model is started, and ends with the stack."""
    if settings.demo:
        log.info(
            "Upstream: the built-in demo model. It is no AI: set OPENAI_API_KEY or OPENAI_BASE_URL for a real one."
        )
        return Target(await stack.enter_async_context(run_demo()), (DEMO_MODEL,), "parley (built-in demo)")
    base_url = settings.openai_base_url or DEFAULT_BASE_URL
    models = settings.openai_model or (DEFAULT_MODEL,)
    log.info("Upstream: %s with %s.", without_secrets(base_url), ", ".join(models))
    return Target(base_url, models, "upstream")


def without_secrets(url: str) -> str:
    """Return an address without its user, password and query."""
    scheme, _, rest = url.partition("://")
    rest = re.split("[?#]", rest, maxsplit=1)[0]  # first: what follows may hold an `@` as well
    return f"{scheme}://{rest.rpartition('@')[2]}"
