"""The routes about the service itself: health and models."""

from aiohttp import web

from app.answers.conversations import Conversations
from app.answers.service import Answers
from app.domain.errors import ShuttingDown


class ServiceRoutes:
    """Handlers for probes and for what may be asked for."""

    def __init__(self, answers: Answers, conversations: Conversations, model_owner: str) -> None:
        """`model_owner` is what `GET /models` says of where the models are: the demo is named as one."""
        self._answers = answers
        self._conversations = conversations
        self._model_owner = model_owner

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/health/live", self.live),
            web.get("/health/ready", self.ready),
            web.get("/models", self.models),
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

    async def models(self, _: web.Request) -> web.Response:
        """`GET /models`, in OpenAI's form; the default comes first."""
        models = [
            {"id": model, "object": "model", "created": 0, "owned_by": self._model_owner}
            for model in self._answers.models
        ]
        return web.json_response({"object": "list", "data": models})
