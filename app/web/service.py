"""The routes about the service itself: health."""

from aiohttp import web

from app.answers.conversations import Conversations
from app.answers.service import Answers
from app.domain.errors import ShuttingDown


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
