"""A receiver of traces, as a collector is one: OTLP over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Receiver:
    """What has come, and where it listens."""

    def __init__(self) -> None:
        """Begin with nothing; see `receiving`."""
        self.url = ""
        self.spans: list[Any] = []
        self.service = ""
        self.raw = b""

    async def take(self, request: web.Request) -> web.Response:
        """Take spans."""
        self.raw += (body := await request.read())
        message = ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            self.service = {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"]
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return web.Response()

    async def named(self, *names: str) -> list[Any]:
        """Wait until spans of these names are there, and return one of each."""
        async with asyncio.timeout(15):
            while not set(names) <= {span.name for span in self.spans}:
                await asyncio.sleep(0.01)
        return [next(span for span in self.spans if span.name == name) for name in names]


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Lend one that listens at a free port."""
    taker = Receiver()
    app = web.Application()
    app.router.add_post("/v1/traces", taker.take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        taker.url = f"http://{host}:{port}"
        yield taker
    finally:
        await runner.cleanup()
