"""A short run of random faults; `make soak SECONDS=…` runs them for longer."""

import random

from tests.faults.soak import soak


async def test_readers_stay_exact_under_random_faults() -> None:
    run = await soak(8, random.SystemRandom().getrandbits(32))
    assert sum(run.faults.values()) >= 2
    assert sum(run.endings.values()) >= 3
