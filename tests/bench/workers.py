"""One process and two: what a token costs, when the first one comes, and how many go through at most."""

import logging
import statistics
from dataclasses import dataclass
from typing import Any

from app.settings import Settings
from tests.bench.contestants import arena
from tests.bench.processes import CORES, pin
from tests.bench.script import Script
from tests.bench.table import Result, Row, number

log = logging.getLogger("bench")

#: The fast one many tokens to a write, so that the upstream and the readers, on the same cores, are not what is measured.
PACED, FAST = Script(150, 30), Script(2000, 0, 8)


@dataclass(frozen=True, slots=True)
class Workers:
    """`streams` at a pace, and `fast` ones as fast as possible, with `WORKERS` 1 and 2, which may use every core."""

    name: str = "workers"
    streams: int = 500
    script: Script = PACED
    spread: float = 2.5
    fast: int = 100
    fast_script: Script = FAST

    async def run(self, rounds: int) -> Result:
        """Measure one, then two."""
        if "workers" not in Settings.model_fields:
            log.info("%s: left out, as there is no such setting", self.name)
            return Result([], {})
        paced: dict[int, list[dict[str, Any]]] = {}
        fast: dict[int, list[dict[str, Any]]] = {}
        for workers in (1, 2):
            async with arena([self.script, self.fast_script], workers=workers) as running:
                pin(running.contestants["parley"].pid, set(CORES))
                for _ in range(rounds):
                    paced.setdefault(workers, []).append(
                        await running.run("parley", self.script, self.streams, self.spread)
                    )
                    fast.setdefault(workers, []).append(await running.run("parley", self.fast_script, self.fast))
            log.info("%s: %d measured", self.name, workers)
        tokens = self.fast * self.fast_script.tokens
        figures: dict[str, float] = {}
        for workers in (1, 2):
            figures |= {
                f"us_per_token_{workers}": _median(paced[workers], "us_per_token"),
                f"first_p50_ms_{workers}": _median(paced[workers], "first_p50_ms"),
                f"first_p99_ms_{workers}": _median(paced[workers], "first_p99_ms"),
                f"tokens_per_second_{workers}": tokens / _median(fast[workers], "seconds"),
            }
        wrong = sum(run["wrong"] for many in (paced, fast) for runs in many.values() for run in runs)

        def both(key: str) -> str:
            return " / ".join(number(figures[f"{key}_{workers}"]) for workers in (1, 2))

        rows = [
            Row(
                f"**`WORKERS` 1 / 2**, {self.streams} streams of {self.script.rate:g} tokens/s: CPU for each token, us",
                both("us_per_token"),
            ),
            Row("first token, p50 ms", both("first_p50_ms")),
            Row("first token, p99 ms", both("first_p99_ms")),
            Row(
                f"tokens a second, {self.fast} streams as fast as possible, {self.fast_script.burst} in each write",
                " / ".join(f"{figures[f'tokens_per_second_{workers}']:,.0f}" for workers in (1, 2)),
            ),
            Row("wrong answers", str(wrong), goal="0"),
        ]
        return Result(rows, {name: round(value, 2) for name, value in figures.items()}, wrong)


def _median(runs: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(run[key] for run in runs))
