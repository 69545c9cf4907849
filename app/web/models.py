"""`GET /models`: what may be asked for."""

from aiohttp import web

from app.answers.service import Answers


class ModelRoutes:
    """The handler over the models that `Answers` knows."""

    def __init__(self, answers: Answers, model_owner: str) -> None:
        """`model_owner` is what is said of where the models are: the demo is named as one."""
        self._answers = answers
        self._model_owner = model_owner

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.get("/models", self.models)]

    async def models(self, _: web.Request) -> web.Response:
        """`GET /models`, in OpenAI's form; the default comes first."""
        models = [
            {"id": model, "object": "model", "created": 0, "owned_by": self._model_owner}
            for model in self._answers.models
        ]
        return web.json_response({"object": "list", "data": models})
