"""The readers, in a process of their own: `python -m tests.bench.load JOB`, JSON in and JSON out.

They ask for many answers, keep what comes, and only afterwards look at it: every text is compared with what the upstream sent.
"""

import asyncio
import gc
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import uvloop

from tests.bench.dialects import DIALECTS
from tests.bench.processes import Use, cpu
from tests.bench.script import Script
from tests.bench.wire import Response, once

#: What a server still does when all has arrived counts too.
SETTLE_SECONDS = 0.2
#: The slowest answer of the slowest contestant takes less.
STREAM_SECONDS = 120
HEADERS = {"Accept": "text/event-stream"}


@dataclass(frozen=True, slots=True)
class Job:
    """`streams` answers of a model, asked for at `url` in a dialect; the requests are spread evenly over `spread` seconds.

    `pid` is the process whose tree is measured, 0 for none.
    """

    dialect: str
    url: str
    pid: int
    streams: int
    model: str
    spread: float = 0


class Stream:
    """One answer, as it was read: None where nothing could be asked."""

    def __init__(self, job: Job) -> None:
        self._dialect = DIALECTS[job.dialect]
        self._script = Script.of(job.model)
        self._url = job.url
        self.response: Response | None = None
        self.error = ""

    async def read(self, begin: float) -> None:
        """Ask when it is time, and read to the end."""
        await asyncio.sleep(max(0.0, begin - time.perf_counter()))
        try:
            async with asyncio.timeout(STREAM_SECONDS):
                self.response = await once("POST", self._url, self._dialect.question(self._script), HEADERS)
        except (OSError, ValueError) as error:
            self.error = repr(error)

    def seen(self) -> dict[str, Any]:
        """Return what came: times in seconds, and counts from the first token on."""
        response = self.response
        if response is None or response.status != 200:
            return {"wrong": self.error or str(response and response.head)}
        try:
            told = self._dialect.told(response.body.decode())
        except (ValueError, LookupError) as error:
            return {"wrong": repr(error)}
        if told.wrong or told.text != self._script.text:
            return {"wrong": told.wrong or f"not the upstream's {len(self._script.text)} characters: {told.text[:200]}"}
        before, start = response.place(response.body.index(b"w0"))
        times = [moment for moment, come in response.reads if come > start]
        return {
            "first": times[0] - response.asked,
            "gaps": [later - earlier for earlier, later in pairwise(times)],
            "reads": len(times),
            "writes": len(response.chunks) - before,
            "events": told.events,
        }


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile of seconds, in milliseconds: the least that so many are not above (nearest rank); 0 of nothing."""
    ordered = sorted(values)
    return round(ordered[math.ceil(len(ordered) * share) - 1] * 1000, 2) if ordered else 0.0


async def load(job: Job) -> dict[str, Any]:
    """Read all streams of a job, and return what was seen."""
    streams = [Stream(job) for _ in range(job.streams)]
    before, began, own = cpu(job.pid), time.perf_counter(), time.process_time()
    begins = [began + job.spread * number / job.streams for number in range(job.streams)]
    await asyncio.gather(*(stream.read(begin) for stream, begin in zip(streams, begins, strict=True)))
    seconds, busy = time.perf_counter() - began, time.process_time() - own
    await asyncio.sleep(SETTLE_SECONDS)
    used = cpu(job.pid).since(before)
    return summary(job, [stream.seen() for stream in streams], used) | {
        "seconds": round(seconds, 2),
        "readers_busy": round(busy / seconds, 2),
    }


def summary(job: Job, seen: Sequence[dict[str, Any]], used: Use) -> dict[str, Any]:
    """Return the figures of all streams together."""
    right = [stream for stream in seen if "wrong" not in stream]
    wrong = [stream["wrong"] for stream in seen if "wrong" in stream]
    tokens = Script.of(job.model).tokens
    delivered = max(1, len(right) * tokens)
    firsts = [stream["first"] for stream in right]
    return {
        "wrong": len(wrong),
        "wrong_for_example": wrong[:1],
        "us_per_token": used.own / (job.streams * tokens) * 1e6,
        "store_us_per_token": used.store / (job.streams * tokens) * 1e6,
        "first_p50_ms": percentile(firsts, 0.5),
        "first_p99_ms": percentile(firsts, 0.99),
        "gap_p99_ms": percentile([gap for stream in right for gap in stream["gaps"]], 0.99),
        **{f"{what}_per_token": sum(s[what] for s in right) / delivered for what in ("reads", "writes", "events")},
    }


def argument(job: Job) -> str:
    """Return a job as the command's argument."""
    return json.dumps(asdict(job))


if __name__ == "__main__":
    gc.disable()  # a pause of ours would look like one of the server's
    print(json.dumps(uvloop.run(load(Job(**json.loads(sys.argv[1]))))))
