"""Very many streams that are open at once, and say little: what each takes in memory, and how other requests fare meanwhile."""

import asyncio
import logging
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from tests.bench.browser import Browser
from tests.bench.contestants import Arena, arena
from tests.bench.load import percentile
from tests.bench.processes import Use, memory
from tests.bench.script import Script
from tests.bench.table import Result, Row, number

log = logging.getLogger("bench")

#: Between two other requests, in seconds.
PROBE_SECONDS = 0.01
#: What each stream says, and what is said at once.
TALK, SHORT = Script(40, 2), Script(5, 0, 5)
OTHERS = ("health", "conversation")


@dataclass(frozen=True, slots=True)
class OpenStreams:
    """`streams` of `script`, opened one after another over `spread` seconds.

    `settle` seconds after the last one, memory and other requests are looked at, for `look` seconds.
    """

    name: str = "open"
    streams: int = 2000
    script: Script = TALK
    spread: float = 6
    look: float = 8
    settle: float = 2

    async def run(self, rounds: int) -> Result:  # noqa: ARG002 - once is long enough
        """Measure the pipe, then Parley."""
        async with arena([self.script, SHORT]) as running:
            pipe, pipe_memory, _ = await self._measured(running, "pipe")
            ours, our_memory, latencies = await self._measured(running, "parley")
        kilobytes = {"pipe": pipe_memory.own / 1024, "parley": our_memory.own / 1024}
        p99 = {name: percentile(latencies[name], 0.99) for name in OTHERS}
        p50 = {name: percentile(latencies[name], 0.5) for name in OTHERS}
        wrong = pipe["wrong"] + ours["wrong"]
        rows = [
            Row(
                f"**{self.streams:,} open streams of {self.script.rate:g} tokens/s**: memory of each, KB",
                **{name: number(value) for name, value in kilobytes.items()},
                ratio=f"{kilobytes['parley'] / kilobytes['pipe']:.2f}",
                goal="30",
            ),
            Row("its store's, KB", number(our_memory.store / 1024)),
            Row("CPU for each token, us", number(ours["us_per_token"]), number(pipe["us_per_token"])),
            Row(
                "other requests meanwhile, `/health/live` / a conversation: p99 ms",
                " / ".join(number(p99[name]) for name in OTHERS),
                goal="50",
            ),
            Row("wrong answers", str(ours["wrong"]), str(pipe["wrong"]), goal="0"),
        ]
        figures = {f"{name}_kb": round(value, 1) for name, value in kilobytes.items()}
        figures |= {"store_kb": round(our_memory.store / 1024, 1), "us_per_token": round(ours["us_per_token"], 1)}
        figures |= {f"{name}_p99_ms": p99[name] for name in OTHERS} | {f"{name}_p50_ms": p50[name] for name in OTHERS}
        return Result(rows, figures, wrong)

    async def _measured(self, running: Arena, name: str) -> tuple[dict[str, Any], Use, dict[str, list[float]]]:
        """Return what the readers saw, the memory that each stream took, and how long other requests did."""
        who = running.contestants[name]
        before = memory(who.pid)
        reading = asyncio.create_task(running.run(name, self.script, self.streams, self.spread))
        await asyncio.sleep(self.spread + self.settle)
        log.info("%s: all streams of %s are open", self.name, name)
        latencies: dict[str, list[float]] = {other: [] for other in OTHERS}
        if name == "parley":
            latencies = await self._probe(who.url)
        else:
            await asyncio.sleep(self.look)
        grown = memory(who.pid).since(before)
        assert not reading.done(), "the streams ended before they were looked at"
        seen = await reading
        return seen, Use(grown.own / self.streams, grown.store / self.streams), latencies

    async def _probe(self, url: str) -> dict[str, list[float]]:
        """Ask for other things, one after another, for a while."""
        browser = await Browser.at(url)
        answer = await browser.json("POST", "/messages", {"content": "Hi", "model": SHORT.model})
        paths = {"health": "/health/live", "conversation": f"/conversations/{answer['conversation']}"}
        latencies: dict[str, list[float]] = {name: [] for name in paths}
        until = perf_counter() + self.look
        while perf_counter() < until:
            for name, path in paths.items():
                response = await browser.ask("GET", path)
                assert response.status == 200
                latencies[name].append(response.seconds)
                await asyncio.sleep(PROBE_SECONDS)
        browser.close()
        return latencies
