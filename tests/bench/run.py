"""`make bench`: what a delivered token costs, beside yardsticks that are measured in the same run, in turn.

Prints one table in the README's form, and how it differs from the last saved run; saves it to `tests/output/bench.json`.
Says on standard error how far it is. Ends with 1 where a single answer was not, byte for byte, what the upstream had sent.
"""

import argparse
import asyncio
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.machine import description
from tests.bench.processes import CORES, keep_apart, raise_limits
from tests.bench.scenarios import scenarios
from tests.bench.servers import stack_installed
from tests.bench.table import Row, Scenario, changes, table
from tests.support.service import ROOT

OUTPUT = ROOT / "tests" / "output"

log = logging.getLogger("bench")


async def bench(chosen: Sequence[Scenario], rounds: int, saved: Path) -> int:
    """Run scenarios, print the table, save the figures; return how many answers were wrong."""
    last: dict[str, Any] = json.loads(saved.read_text("utf-8")) if saved.exists() else {}
    rows: list[Row] = []
    figures: dict[str, dict[str, float]] = {}
    wrong = 0
    began = time.monotonic()
    try:
        for number, scenario in enumerate(chosen, 1):
            log.info("%s (%d of %d, %.0f s so far)", scenario.name, number, len(chosen), time.monotonic() - began)
            result = await scenario.run(rounds)
            rows += result.rows
            figures[scenario.name] = result.figures
            wrong += result.wrong
    finally:  # what was measured before something failed is worth seeing
        print(table(rows))
    print(f"\nMeasured on {description()}. Rounds: {rounds}; {time.monotonic() - began:.0f} s in all.")
    for line in changes(figures, last.get("figures", {})):
        log.info("%s", line)
    saved.parent.mkdir(exist_ok=True)
    kept = last.get("figures", {}) | figures  # a run of some scenarios leaves the others' figures as they were
    saved.write_text(json.dumps({"machine": description(), "rounds": rounds, "figures": kept}, indent=1), "utf-8")
    log.info("Saved to %s.", saved)
    if wrong:
        log.error("%d answers were not what the upstream had sent.", wrong)
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; figures are medians")
    parser.add_argument("--only", default="", help="some of " + ", ".join(s.name for s in scenarios()))
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one round of shorter answers, in which the POST weighs more; without the FastAPI stack",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    chosen: list[Scenario] = list(scenarios(quick=options.quick))
    if options.only:
        names = {name.strip().lower() for name in options.only.split(",")}
        unknown = names - {scenario.name.lower() for scenario in chosen}
        if unknown:
            parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(s.name for s in chosen)}")
        chosen = [scenario for scenario in chosen if scenario.name.lower() in names]
    if len(CORES) < 2:
        log.warning("There is one core only: servers and readers share it, and times say little.")
    if not stack_installed() and not options.quick:
        log.warning("Without the FastAPI stack, which is not installed: `make bench` installs it.")
    raise_limits()
    keep_apart()
    # Apart, as a POST weighs more in shorter answers.
    saved = OUTPUT / ("bench-quick.json" if options.quick else "bench.json")
    return 1 if asyncio.run(bench(chosen, 1 if options.quick else options.rounds, saved)) else 0


if __name__ == "__main__":
    sys.exit(main())
