"""Short forms of what a front end does."""

from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient

Client = TestClient[web.Request, web.Application]


async def ask(client: Client, content: str, *, status: int = 200, **fields: Any) -> dict[str, Any]:
    """POST a message and return the whole answer, in one piece."""
    headers = {"Accept": "application/json"} | fields.pop("headers", {})
    async with client.post("/messages", json={"content": content, **fields}, headers=headers) as response:
        body: dict[str, Any] = await response.json()
        assert response.status == status, body
        return body


async def get(client: Client, path: str, *, status: int = 200) -> dict[str, Any]:
    """GET JSON."""
    async with client.get(path) as response:
        body: dict[str, Any] = await response.json()
        assert response.status == status, body
        return body


async def problem(client: Client, method: str, path: str, **options: Any) -> tuple[int, str]:
    """Send what is to fail, check the form of the problem, and return its status and code."""
    async with client.request(method, path, **options) as response:
        assert response.content_type == "application/problem+json", await response.text()
        body = await response.json()
        assert body["status"] == response.status
        assert body["request_id"] == response.headers["X-Request-ID"]
        assert body["detail"]
        assert body["title"]
        return response.status, body["code"]
