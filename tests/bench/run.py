"""`make bench`: what a delivered token costs, beside an aiohttp pipe that copies bytes and stores nothing.

All in one run, in turn, so that ratios hold where the machine is noisy: CPU time of the server's process (the embedded
store's own is told apart), each text compared with what the upstream sent. Prints a table, compares it with the last
saved run, and saves it to `tests/output/bench.json`.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.load import cpu_seconds
from tests.support.ports import free_port
from tests.support.service import ServiceProcess

SAVED = Path(__file__).parents[1] / "output" / "bench.json"
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


class Scenario(NamedTuple):
    """How many streams at once, and what each of them is."""

    name: str
    streams: int
    model: str


SCENARIOS = (
    Scenario("S2: 100 x 50 tokens/s", 100, "bench-50-250"),
    Scenario("S3: 500 x 30 tokens/s", 500, "bench-30-120"),
    Scenario("S4: 50 as fast as possible", 50, "bench-0-1000"),
    Scenario("S2 with every event cut in two", 100, "bench-50-100-cut"),
)


def pinned(core: int, command: list[str]) -> list[str]:
    """Return a command that runs on one core, where there are two and `taskset`."""
    if len(CORES) < 2 or shutil.which("taskset") is None:
        return command
    return ["taskset", "-c", str(CORES[core]), *command]


@contextmanager
def running(core: int, module: str, port: int, *arguments: str) -> Iterator[int]:
    """Run a server of ours until the block ends; give its pid."""
    process = subprocess.Popen(pinned(core, [sys.executable, "-m", module, str(port), *arguments]))
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


async def listening(port: int) -> None:
    """Wait until somebody listens at a port."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


async def measured(kind: str, url: str, pids: list[int], scenario: Scenario) -> dict[str, Any]:
    """Run the readers once, on the core that is not the server's."""
    command = [sys.executable, "-m", "tests.bench.load", kind, url, ",".join(map(str, pids))]
    command = pinned(-1, [*command, str(scenario.streams), scenario.model])
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    async with asyncio.timeout(180):
        output, _ = await process.communicate()
    assert process.returncode == 0
    seen: dict[str, Any] = json.loads(output)
    return seen


def store_pid(folder: Path) -> int:
    """Return the pid of the embedded store of a service."""
    return int((folder / "data" / "lock").read_text().split()[-1])


async def compare(scenario: Scenario, rounds: int) -> dict[str, Any]:
    """Measure upstream, pipe and Parley in turn, some rounds; return the medians."""
    up, pipe = free_port(), free_port()
    base = f"http://127.0.0.1:{up}/v1"
    folder = Path(tempfile.mkdtemp(prefix="parley-bench-"))
    service = ServiceProcess(folder, openai_base_url=base, openai_model=scenario.model)
    try:
        with running(-1, "tests.bench.upstream", up), running(0, "tests.bench.pipe", pipe, base) as pipe_pid:
            await listening(up)
            await listening(pipe)
            await service.start()
            if len(CORES) > 1:
                os.sched_setaffinity(service.pid, {CORES[0]})
            runs: dict[str, list[dict[str, Any]]] = {"upstream": [], "pipe": [], "parley": []}
            store, store_tokens = store_pid(folder), 0
            store_before = cpu_seconds([store])
            for _ in range(rounds):
                runs["upstream"].append(await measured("openai", f"{base}/chat/completions", [], scenario))
                runs["pipe"].append(await measured("openai", f"http://127.0.0.1:{pipe}/messages", [pipe_pid], scenario))
                runs["parley"].append(await measured("parley", f"{service.url}/messages", [service.pid], scenario))
                store_tokens += scenario.streams * int(scenario.model.split("-")[2])
            store_us = (cpu_seconds([store]) - store_before) / store_tokens * 1e6
    finally:
        service.close()
        shutil.rmtree(folder, ignore_errors=True)
    seen = {name: {key: statistics.median(run[key] for run in many) for key in many[0]} for name, many in runs.items()}
    seen["parley"]["wrong"] = sum(run["wrong"] for run in runs["parley"])
    ratios = [a["us_per_token"] / b["us_per_token"] for a, b in zip(runs["parley"], runs["pipe"], strict=True)]
    return seen | {"ratio": round(statistics.median(ratios), 2), "store_us_per_token": round(store_us, 1)}


def row(name: str, seen: dict[str, Any], before: dict[str, Any] | None) -> str:
    """Return a line of the table."""
    ours, pipe, upstream = seen["parley"], seen["pipe"], seen["upstream"]
    cells = [
        name,
        f"{pipe['us_per_token']:.0f}",
        f"{ours['us_per_token']:.0f}",
        f"{seen['ratio']:.2f}" + (f" (was {before['ratio']:.2f})" if before else ""),
        f"{seen['store_us_per_token']:.0f}",
        f"{ours['first_p50_ms'] - upstream['first_p50_ms']:+.0f} / {ours['first_p99_ms'] - upstream['first_p99_ms']:+.0f}",
        f"{ours['gap_p99_ms'] - upstream['gap_p99_ms']:+.0f}",
        f"{ours['wrong']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


async def bench(rounds: int) -> None:
    """Run every scenario, print the table and save it."""
    last: dict[str, Any] = json.loads(SAVED.read_text()) if SAVED.exists() else {}
    seen: dict[str, Any] = {}
    print(
        "| scenario | pipe us/token | Parley us/token | ratio | store us/token | first token p50 / p99 ms | gap p99 ms | wrong |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for scenario in SCENARIOS:
        seen[scenario.name] = await compare(scenario, rounds)
        print(row(scenario.name, seen[scenario.name], last.get(scenario.name)), flush=True)
    SAVED.parent.mkdir(exist_ok=True)
    SAVED.write_text(json.dumps(seen, indent=1))
    print(f"saved to {SAVED}")


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    asyncio.run(bench(parser.parse_args().rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
