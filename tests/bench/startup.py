"""From the command to the first answer: with a data folder that is new, and with one that has conversations in it."""

import logging
import shutil
import signal
import statistics
import tempfile
import time
from asyncio import sleep, timeout
from dataclasses import dataclass
from pathlib import Path

from tests.bench.browser import Browser
from tests.bench.processes import everywhere
from tests.bench.script import Script
from tests.bench.servers import NO_LIMITS, model_server
from tests.bench.table import Result, Row, number
from tests.support.ports import free_port
from tests.support.service import ServiceProcess

log = logging.getLogger("bench")


@dataclass(frozen=True, slots=True)
class Startup:
    """As many starts as there are rounds of each kind; before those of the second kind, `conversations` are made."""

    name: str = "start"
    conversations: int = 200

    async def run(self, rounds: int) -> Result:
        """Start, ask, end, and so on."""
        script = Script(20, 0, 20)
        seconds: dict[str, list[float]] = {"new": [], "used": []}
        async with model_server() as upstream:
            settings = {"openai_base_url": f"{upstream.url}/v1", "openai_model": script.model} | NO_LIMITS
            with everywhere():
                for _ in range(rounds):
                    folder = Path(tempfile.mkdtemp(prefix="parley-bench-"))
                    try:
                        port = free_port()
                        service = ServiceProcess(folder, port=port, **settings)
                        seconds["new"].append(await self._started(service, port, script, self.conversations))
                        seconds["used"].append(await self._started(service, port, script, 0))
                    finally:
                        shutil.rmtree(folder, ignore_errors=True)
        medians = {name: statistics.median(many) * 1e3 for name, many in seconds.items()}
        told = " / ".join(f"{number(medians[name])} ({max(many) * 1e3:.0f} at most)" for name, many in seconds.items())
        row = Row(
            f"**Start to the first answer**, embedded store, new / with {self.conversations} conversations: ms",
            told,
            goal="1,000",
        )
        return Result([row], {f"{name}_ms": round(value, 1) for name, value in medians.items()})

    async def _started(self, service: ServiceProcess, port: int, script: Script, more: int) -> float:
        """Start a service, and return after how many seconds a POST was answered; ask `more`, and end it."""
        url = f"http://127.0.0.1:{port}"
        body = {"content": "Hi", "model": script.model}
        began = time.perf_counter()
        service.spawn()
        try:
            async with timeout(20):
                while True:
                    try:
                        browser = await Browser.at(url)
                    except OSError:
                        await sleep(0.002)
                    else:
                        break
            answer = await browser.json("POST", "/messages", body)
            seconds = time.perf_counter() - began
            assert answer["message"]["content"] == script.text
            for _ in range(more):
                await browser.json("POST", "/messages", body)
            browser.close()
            service.signal(signal.SIGTERM)
            await service.ended()
        finally:
            service.close()
        return seconds
