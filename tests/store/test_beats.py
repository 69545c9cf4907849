"""How often leases are renewed, and stop marks read."""

from typing import Any

import pytest

from app.store.beats import BEAT_SECONDS, Beats
from app.store.journal import Journal
from tests.store.conftest import writers_of


@pytest.mark.parametrize("lease_seconds", [0.1, 0.3, 0.5, 1, 3, 60])
async def test_a_lease_is_renewed_at_least_twice_while_it_holds(
    journal: Journal, redis: Any, lease_seconds: float
) -> None:
    writers = await writers_of(journal, redis, 1)
    beats = Beats(lease_seconds=lease_seconds, ttl_seconds=0, post=journal.post)
    assert beats.seconds <= BEAT_SECONDS
    within = int(lease_seconds / beats.seconds)
    renewals = [command for _ in range(within) for command in beats.commands(writers) if b"SET" in command.packed]
    assert len(renewals) >= 2
