"""Who is compared: the model server itself, the byte pipe, Parley and the FastAPI stack, all asked by the same readers."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.bench.dialects import DIALECTS
from tests.bench.load import Job, argument
from tests.bench.processes import OTHER_CORE, pinned
from tests.bench.script import Script
from tests.bench.servers import Server, byte_pipe, fastapi_stack, model_server, parley, stack_installed
from tests.bench.wire import once
from tests.support.service import ROOT

log = logging.getLogger("bench")

#: The slowest of them takes its time.
RUN_SECONDS = 300
#: So many answers at once warm new processes up where each round has its own.
WARM_UP = 50


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who is asked: at which URL, in which dialect, which process tree does the work (0: nobody's), and its store's URL."""

    name: str
    url: str
    dialect: str
    pid: int
    store: str

    @classmethod
    def of(cls, name: str, dialect: str, server: Server) -> "Contestant":
        """Return one that has the service's path."""
        return cls(name, f"{server.url}/messages", dialect, server.pid, server.store)


@dataclass(frozen=True, slots=True)
class Arena:
    """What runs: `contestants` by name, and the model server's URL."""

    contestants: dict[str, Contestant]
    upstream: str

    async def run(self, name: str, script: Script, streams: int, spread: float = 0) -> dict[str, Any]:
        """Let the readers run once against a contestant, and return what they saw."""
        who = self.contestants[name]
        job = Job(who.dialect, who.url, who.pid, streams, script.model, spread)
        command = pinned(OTHER_CORE, [sys.executable, "-m", "tests.bench.load", argument(job)])
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=ROOT)
        async with asyncio.timeout(RUN_SECONDS):
            output, _ = await process.communicate()
        assert process.returncode == 0
        seen: dict[str, Any] = json.loads(output)
        seen["late_p99_ms"] = (await self.seen())["late_p99_ms"]
        if seen["wrong"]:
            log.warning("%s: %d answers are wrong, for example: %s", name, seen["wrong"], seen["wrong_for_example"])
        return seen

    async def seen(self) -> dict[str, float]:
        """Return what the model server was last asked, and how late its tokens were since the last look."""
        seen: dict[str, float] = json.loads((await once("GET", f"{self.upstream}/seen")).body)
        return seen


@asynccontextmanager
async def arena(
    scripts: Sequence[Script], *, stack: bool = False, warm_up: int = 5, **settings: Any
) -> AsyncIterator[Arena]:
    """Start all, warm them up with so many answers at once, and end them with the block.

    `stack`: the FastAPI stack too, where it is installed.
    """
    warm = Script(20, 100)
    models = ",".join(script.model for script in (warm, *scripts))
    async with AsyncExitStack() as servers:
        upstream = await servers.enter_async_context(model_server())
        found = [
            Contestant("upstream", f"{upstream.url}/v1/chat/completions", "openai", 0, ""),
            Contestant.of("pipe", "openai", await servers.enter_async_context(byte_pipe(upstream.url))),
        ]
        server = await servers.enter_async_context(parley(upstream.url, models, **settings))
        found.append(Contestant.of("parley", "parley", server))
        if stack and stack_installed():  # the last, as it takes so long, and the two before it are to be neighbours
            server = await servers.enter_async_context(fastapi_stack(upstream.url))
            found.append(Contestant.of("stack", "stack", server))
        running = Arena({who.name: who for who in found}, upstream.url)
        for who in found:
            question = DIALECTS[who.dialect].question(warm)
            await asyncio.gather(*(once("POST", who.url, question) for _ in range(warm_up)))
        await running.seen()
        yield running
