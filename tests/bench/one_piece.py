"""A short answer in one piece: a request, 20 tokens that the upstream sends at once, a response."""

import asyncio
import json
import logging
import statistics
from dataclasses import dataclass

from tests.bench.browser import Browser
from tests.bench.contestants import WARM_UP, Contestant, arena
from tests.bench.dialects import DIALECTS
from tests.bench.processes import Use, cpu
from tests.bench.script import Script
from tests.bench.table import Result, Row, number

log = logging.getLogger("bench")


@dataclass(frozen=True, slots=True)
class OnePiece:
    """`requests` of them on one connection, and as many on `many` connections at once."""

    name: str = "one-piece"
    requests: int = 400
    many: int = 16
    stack: bool = True

    async def run(self, rounds: int) -> Result:
        """Measure everybody in turn, some rounds."""
        script = Script(20, 0, 20)
        wrong: dict[str, int] = {}
        costs: dict[tuple[str, int], list[Use]] = {}
        names: list[str] = []
        for turn in range(rounds):
            # New processes, as each start has its own luck.
            async with arena([script], stack=self.stack, warm_up=WARM_UP) as running:
                names = [name for name in ("pipe", "stack", "parley") if name in running.contestants]
                for at_once in (1, self.many):
                    for name in reversed(names) if turn % 2 else names:
                        used, bad = await self._measured(running.contestants[name], script, at_once)
                        costs.setdefault((name, at_once), []).append(used)
                        wrong[name] = wrong.get(name, 0) + bad
            log.info("%s, round %d of %d", self.name, turn + 1, rounds)
        rows: list[Row] = []
        figures: dict[str, float] = {}
        for at_once, what in ((1, "one after another"), (self.many, f"{self.many} at once")):
            cells = {name: statistics.median(use.own for use in costs[name, at_once]) * 1e3 for name in names}
            ratios = [
                ours.own / pipe.own for ours, pipe in zip(costs["parley", at_once], costs["pipe", at_once], strict=True)
            ]
            shown = {name: number(value) for name, value in cells.items()}
            if "stack" in cells:
                shown["stack"] += f" ({cells['stack'] / cells['parley']:.1f} x Parley)"
            figures |= {f"{name}_{at_once}_ms": round(value, 3) for name, value in cells.items()}
            rows.append(
                Row(
                    f"**20 tokens in one piece**, {what}: CPU for each request, ms",
                    **shown,
                    ratio=f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                    goal="1.0 ms",
                )
            )
        rows.append(Row("wrong answers", **{name: str(count) for name, count in wrong.items()}, goal="0"))
        wrong.pop("stack", None)  # shown, and nothing that we could mend
        return Result(rows, figures, sum(wrong.values()))

    async def _measured(self, who: Contestant, script: Script, at_once: int) -> tuple[Use, int]:
        """Return what a request took, and how many answers were wrong."""
        browsers = [await Browser.at(who.url) for _ in range(at_once)]
        each = self.requests // at_once
        before = cpu(who.pid)
        wrong = sum(await asyncio.gather(*(_ask(browser, who, script, each) for browser in browsers)))
        used = cpu(who.pid).since(before)
        for browser in browsers:
            browser.close()
        return Use(used.own / each / at_once, used.store / each / at_once), wrong


async def _ask(browser: Browser, who: Contestant, script: Script, times: int) -> int:
    """Ask so often, every time as somebody new who has said nothing yet; return how many answers were wrong."""
    wrong = 0
    dialect = DIALECTS[who.dialect]
    for _ in range(times):
        browser.forget()
        response = await browser.ask("POST", "/messages", dialect.question(script))
        if (response.header("Content-Type") or "").startswith("application/json"):
            text = dialect.whole(json.loads(response.body)) if response.status == 200 else ""
        else:
            text = dialect.told(response.body.decode()).text
        wrong += text != script.text
    return wrong
