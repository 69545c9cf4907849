"""The routes about the service itself: health."""

import asyncio

from aiohttp import web
from aiohttp_sse import EventSourceResponse

from app.answers.conversations import Conversations
from app.answers.service import Answers
from app.domain.errors import ShuttingDown
from app.web.streams import tell_end

#: Enough to tell a stream that flows from one which is held back; short enough that no shutdown waits for it.
TICKS = 5
TICK_SECONDS = 0.2


class ServiceRoutes:
    """Handlers for probes. Anybody may ask them."""

    def __init__(self, answers: Answers, conversations: Conversations) -> None:
        self._answers = answers
        self._conversations = conversations

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/health/live", self.live),
            web.get("/health/ready", self.ready),
            web.get("/health/stream", self.stream, allow_head=False),
        ]

    async def live(self, _: web.Request) -> web.Response:
        """`GET /health/live`: the process answers."""
        return web.json_response({"status": "live"})

    async def ready(self, _: web.Request) -> web.Response:
        """`GET /health/ready`: the store answers, and the service is not shutting down."""
        if self._answers.draining:
            raise ShuttingDown("This process is shutting down.")
        await self._conversations.check_store()
        return web.json_response({"status": "ready"})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """`GET /health/stream`: timed ticks. A client that gets them all at once is behind a proxy that buffers."""
        response = EventSourceResponse(sep="\n")
        tell_end(request, response)
        await response.prepare(request)
        async with response:
            for tick in range(1, TICKS + 1):
                if tick > 1:
                    await asyncio.sleep(TICK_SECONDS)
                data = f'{{"tick":{tick},"of":{TICKS},"every_ms":{TICK_SECONDS * 1000:.0f}}}'
                await response.send(data, event="tick", id=str(tick))
        return response
