"""Asking with retries, for their tests: a clock of our own, what came of it, and a server that comes up later."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tenacity import wait_exponential

from app.domain.errors import UpstreamError
from app.upstream.client import ChatRequest, Upstream
from app.upstream.deltas import Delta, Notice
from app.upstream.retries import FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, Retrying
from tests.support.scripted_upstream import ScriptedUpstream

HELLO = ChatRequest("ignored", [{"role": "user", "content": "Hello"}], {"temperature": 0.5})
#: The upper end of the jitter, so that waits are known: 0.5, 1, 2, 4, 8, 8 and so on.
LONGEST = wait_exponential(multiplier=FIRST_DELAY_SECONDS, max=LONGEST_DELAY_SECONDS)


class Time:
    """A clock that only sleeping moves, and whoever sets `now`. `on_sleep` runs in each sleep."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.on_sleep: Callable[[], Any] = lambda: None

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        if (work := self.on_sleep()) is not None:
            await work

    def clock(self) -> float:
        return self.now


class Asked:
    """What came of asking: all deltas, and the failure, if any. It is the sink as well."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.failure: UpstreamError | None = None

    def say(self, text: str, now: float) -> bool:  # noqa: ARG002 - as `Sink` has it
        return self.take([("message", text)], 1)

    def take(self, deltas: Sequence[Delta], tokens: int) -> bool:  # noqa: ARG002 - as `Sink` has it
        self.deltas += deltas
        return True

    async def room(self) -> None:
        """There always is."""

    @property
    def notices(self) -> list[dict[str, Any]]:
        return [dict(delta.data) for delta in self.deltas if isinstance(delta, Notice)]

    @property
    def said(self) -> list[Delta]:
        return [delta for delta in self.deltas if not isinstance(delta, Notice)]


async def ask(
    base_url: str, *models: str, retry_seconds: float = 30, time: Time | None = None, **options: Any
) -> Asked:
    """Ask with a clock of our own, and read to the end or the failure."""
    time = time or Time()
    asked = Asked()
    async with Upstream(base_url=base_url, **options) as client:
        retrying = Retrying(client, retry_seconds, jitter=LONGEST, sleep=time.sleep, clock=time.clock)
        try:
            async for delta in retrying.stream(HELLO, models or ("a",), asked):
                asked.deltas.append(delta)
        except UpstreamError as error:
            asked.failure = error
    return asked


def retrying(attempt: int, delay: float) -> dict[str, Any]:
    """Return the data of the notice before a wait."""
    return {"code": "retrying", "attempt": attempt, "delay_seconds": delay}


def changed(model: str) -> dict[str, Any]:
    """Return the data of the notice before another model."""
    return {"code": "model_changed", "model": model}


def models(upstream: ScriptedUpstream) -> list[str]:
    """Return the models that were asked, in order."""
    return [request["model"] for request in upstream.requests]


@asynccontextmanager
async def relay(base_url: str) -> AsyncIterator[Callable[[socket.socket], Any]]:
    """Lend a function that listens on a bound socket, and hands on to a scripted upstream what comes there."""
    host, port = base_url.removeprefix("http://").removesuffix("/v1").split(":")
    servers: list[asyncio.Server] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, sink = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pump(reader, sink), _pump(there, writer))

    async def listen(bound: socket.socket) -> None:
        servers.append(await asyncio.start_server(connected, sock=bound))

    yield listen
    for server in servers:
        server.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
    sink.close()
