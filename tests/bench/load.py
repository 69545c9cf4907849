"""The readers, in a process of their own: asks many times at once, checks every text, prints what it saw as JSON.

`python -m tests.bench.load KIND URL PIDS STREAMS MODEL`: KIND is `parley` or `openai` (the form of the stream), PIDS
those (separated by commas) whose CPU time is counted.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path

import aiohttp
import uvloop

from tests.bench.upstream import text


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU time that processes have used so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Stream:
    """One answer: its text, and when its pieces came."""

    def __init__(self, kind: str) -> None:
        self._native = kind == "parley"
        self.text = ""
        self.first = 0.0
        self.gaps: list[float] = []

    async def read(self, session: aiohttp.ClientSession, url: str, model: str) -> None:
        """Ask and read to the end."""
        body = {"content": "Hi"} if self._native else {"model": model, "messages": []}
        began = last = time.perf_counter()
        pieces: list[bytes] = []
        async with session.post(url, json=body) as response:
            response.raise_for_status()
            async for chunk in response.content.iter_any():
                now = time.perf_counter()
                if self.first == 0.0 and self._has_text(chunk):
                    self.first = now - began
                elif self.first:
                    self.gaps.append(now - last)
                last = now
                pieces.append(chunk)
        self.text = self._text(b"".join(pieces).decode())

    def _has_text(self, chunk: bytes) -> bool:
        return b"data: w0" in chunk if self._native else b'"w0' in chunk

    def _text(self, body: str) -> str:
        frames = body.split("\n\n")
        if self._native:
            plain = [frame for frame in frames if frame.startswith("id: ")]
            return "".join(frame.partition("\ndata: ")[2] for frame in plain)
        chunks = [json.loads(frame[6:]) for frame in frames if frame.startswith("data: {")]
        return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def percentile(values: list[float], share: float) -> float:
    """Return a percentile in milliseconds."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 1) if ordered else 0.0


async def load(kind: str, url: str, pids: list[int], count: int, model: str) -> dict[str, float]:
    """Run all streams at once and return what was seen."""
    tokens = int(model.split("-")[2])
    streams = [Stream(kind) for _ in range(count)]
    timeout = aiohttp.ClientTimeout(total=None)
    connector, jar = aiohttp.TCPConnector(limit=0), aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar) as session:
        before = cpu_seconds(pids)
        await asyncio.gather(*(stream.read(session, url, model) for stream in streams))
        used = cpu_seconds(pids) - before
    gaps = [gap for stream in streams for gap in stream.gaps]
    return {
        "us_per_token": round(used / count / tokens * 1e6, 1),
        "wrong": sum(stream.text != text(tokens) for stream in streams),
        "first_p50_ms": percentile([stream.first for stream in streams], 0.5),
        "first_p99_ms": percentile([stream.first for stream in streams], 0.99),
        "gap_p99_ms": percentile(gaps, 0.99),
        "reads_per_token": round(statistics.fmean(len(stream.gaps) for stream in streams) / tokens, 2),
    }


def main() -> None:
    """Run as a command."""
    kind, url, pids, count, model = sys.argv[1:6]
    counted = [int(pid) for pid in pids.split(",") if pid]
    print(json.dumps(uvloop.run(load(kind, url, counted, int(count), model))))


if __name__ == "__main__":
    main()
