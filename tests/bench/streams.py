"""Many answers at once, as they are written: CPU for each token, time to the first one, gaps between them."""

import logging
import statistics
from dataclasses import dataclass
from typing import Any

from tests.bench.contestants import WARM_UP, arena
from tests.bench.script import Script
from tests.bench.table import Result, Row, number

log = logging.getLogger("bench")

Runs = dict[str, list[dict[str, Any]]]
#: So dear that it is measured once, where it is.
SLOW = "stack"


@dataclass(frozen=True, slots=True)
class Streams:
    """`streams` answers of a script; their requests are spread evenly over `spread` seconds, for every contestant alike.

    `repeat`: how many of its rounds make one, where they are short.

    `herd`: how many tokens the answers of an extra run have, in which all are asked for at the same moment; 0: no such run.
    """

    name: str
    title: str
    streams: int
    script: Script
    spread: float = 0
    herd: int = 0
    repeat: int = 1
    stack: bool = True
    cpu_goal: str = ""
    first_goal: str = ""
    gap_goal: str = ""

    async def run(self, rounds: int) -> Result:
        """Measure everybody in turn, some rounds, each with new processes."""
        herd = Script(self.herd or 1, self.script.rate)
        runs: Runs = {}
        herds: Runs = {}
        for turn in range(rounds * self.repeat):
            # Each start has its own luck with memory, which is worth some per cent: more rounds of one start hide that.
            async with arena([self.script, herd], stack=self.stack and turn == 0, warm_up=WARM_UP) as running:
                names = list(running.contestants)
                # Forwards and backwards, so that nobody always comes after the same one.
                for name in reversed(names) if turn % 2 else names:
                    runs.setdefault(name, []).append(await running.run(name, self.script, self.streams, self.spread))
                if self.herd and turn == 0:
                    for name in names:
                        if name != SLOW:
                            herds[name] = [await running.run(name, herd, self.streams)]
            self._tell(runs, turn + 1, rounds * self.repeat)
        return self._result(runs, herds)

    def _tell(self, runs: Runs, turn: int, turns: int) -> None:
        pipe, parley = (runs[name][-1]["us_per_token"] for name in ("pipe", "parley"))
        log.info(
            "%s, round %d of %d: pipe %s us, Parley %s us a token (%.2f); readers %.0f %% busy, upstream %s ms late (p99)",
            *(self.name, turn, turns, number(pipe), number(parley), parley / pipe),
            max(many[-1]["readers_busy"] for many in runs.values()) * 100,
            max(many[-1]["late_p99_ms"] for many in runs.values()),
        )

    def _result(self, runs: Runs, herds: Runs) -> Result:
        ratios = _ratios(runs, "us_per_token")
        wrong = {name: sum(run["wrong"] for run in [*many, *herds.get(name, [])]) for name, many in runs.items()}
        figures = {f"{name}_{key}": _median(runs, name, key) for name in runs for key in KEPT}
        figures |= {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
        figures |= {
            f"herd_{name}_{key}": many[0][key] for name, many in herds.items() for key in KEPT if "first" in key
        }
        cpu = {name: number(_median(runs, name, "us_per_token")) for name in runs if name != "upstream"}
        if SLOW in runs:
            times = _median(runs, SLOW, "us_per_token") / _median(runs, "parley", "us_per_token")
            cpu[SLOW] += f" ({times:.1f} x Parley)"
        spread = f"**{figures['ratio']:.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
        rows = [
            Row(f"**{self.title}**: CPU for each token, us", **cpu, ratio=spread, goal=self.cpu_goal),
            Row("its store's, us", number(figures["parley_store_us_per_token"])),
            Row(
                "reads / writes / events for each token",
                **{
                    name: " / ".join(f"{_median(runs, name, f'{what}_per_token'):.2f}" for what in COUNTED)
                    for name in runs
                },
            ),
        ]
        if self.first_goal:
            rows.append(Row("first token, p50 / p99 ms", **_later(runs, "first"), goal=self.first_goal))
            if herds:
                rows.append(Row("where all are asked for at once (in all)", **_times(herds, "first")))
        if self.gap_goal:
            rows.append(Row("gap between tokens, p99 ms", **_later(runs, "gap"), goal=self.gap_goal))
        if self.script.rate:
            rows.append(Row("how late the upstream was, p99 ms", **_times(runs, "late")))
        rows.append(Row("wrong answers", **{name: str(count) for name, count in wrong.items()}, goal="0"))
        wrong.pop(SLOW, None)  # shown, and nothing that we could mend
        return Result(rows, {name: round(value, 3) for name, value in figures.items()}, sum(wrong.values()))


COUNTED = ("reads", "writes", "events")
KEPT = (
    *("us_per_token", "store_us_per_token", "first_p50_ms", "first_p99_ms", "gap_p99_ms"),
    *("reads_per_token", "writes_per_token", "late_p99_ms", "readers_busy"),
)


def _median(runs: Runs, name: str, key: str) -> float:
    return float(statistics.median(run[key] for run in runs[name]))


def _ratios(runs: Runs, key: str) -> list[float]:
    return [ours[key] / pipe[key] for ours, pipe in zip(runs["parley"], runs["pipe"], strict=True)]


def _times(runs: Runs, what: str) -> dict[str, str]:
    return {name: " / ".join(number(_median(runs, name, key)) for key in _keys(what)) for name in runs}


def _keys(what: str) -> list[str]:
    return [key for key in KEPT if key.startswith(f"{what}_")]


def _later(runs: Runs, what: str) -> dict[str, str]:
    """Return a time of the upstream's, and how much later everybody else was; the median of the rounds."""
    keys = _keys(what)
    cells = {"upstream": _times(runs, what)["upstream"]}
    for name in runs:
        if name != "upstream":
            added = [
                statistics.median(a[key] - b[key] for a, b in zip(runs[name], runs["upstream"], strict=False))
                for key in keys
            ]
            cells[name] = " / ".join(f"{value:+.1f}" for value in added)
    return cells
