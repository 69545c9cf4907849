"""What a store says of itself: for an operator who wants to know whether it fits."""

import asyncio
from typing import Any, NamedTuple

from redis.exceptions import AuthenticationError, NoPermissionError

from app.domain.errors import StoreUnavailable
from app.domain.startup import StartupError
from app.store.connection import Connector, store_errors

#: For a person who waits.
PATIENCE_SECONDS = 3.0


class StoreFacts(NamedTuple):
    """What matters of `INFO`."""

    #: Such as `Valkey 9.1.2`.
    name: str
    #: Is it written to a file, each command (`appendonly yes`)?
    append_only: bool
    #: `maxmemory-policy`; it counts where `maxmemory` is set.
    policy: str
    #: Bytes; 0: no limit.
    max_memory: int
    #: How many replicas are connected.
    replicas: int
    #: It takes no writes.
    is_replica: bool


async def store_facts(connector: Connector) -> StoreFacts:
    """Ask. Raises StartupError with a sentence where it does not answer, or not to us."""
    try:
        with store_errors():
            async with asyncio.timeout(PATIENCE_SECONDS):
                info: dict[str, Any] = await connector.redis.info()
    except StoreUnavailable as error:
        if isinstance(error.__cause__, AuthenticationError):
            raise StartupError("The store refuses the user or the password of REDIS_URL, or wants one.") from None
        reason = str(error.__cause__).strip() or "no answer"
        raise StartupError(f"The store cannot be reached ({reason}). Is REDIS_URL right, and does Redis run?") from None
    except NoPermissionError:
        raise StartupError("The user of REDIS_URL may not ask the store for INFO, nor perhaps for more.") from None
    valkey = info.get("valkey_version")
    return StoreFacts(
        name=f"Valkey {valkey}" if valkey else f"Redis {info.get('redis_version', 'of an unknown version')}",
        append_only=bool(info.get("aof_enabled")),
        policy=str(info.get("maxmemory_policy", "noeviction")),
        max_memory=int(info.get("maxmemory", 0)),
        replicas=int(info.get("connected_slaves", 0)),
        is_replica=info.get("role") == "slave",
    )
