"""A user who does one thing after another, on one connection that is kept, with a cookie."""

import json
from typing import Any, Self
from urllib.parse import urlsplit

from tests.bench.wire import Connection, Response, connect, request


class Browser:
    """Asks the server of a URL; only the path of what is asked changes."""

    def __init__(self, base: str, connection: Connection) -> None:
        self._base = base
        self._connection = connection
        self._cookie = ""

    @classmethod
    async def at(cls, url: str) -> Self:
        """Connect to the server of a URL."""
        parts = urlsplit(url)
        base = f"{parts.scheme}://{parts.netloc}"
        return cls(base, await connect(base))

    async def ask(self, method: str, path: str, body: Any = None, *, accept: str = "application/json") -> Response:
        """Send a request and return what came, whatever its status."""
        headers = {"Accept": accept} | ({"Cookie": self._cookie} if self._cookie else {})
        response = await self._connection.ask(request(method, self._base + path, body, headers))
        if cookie := response.header("Set-Cookie"):
            self._cookie = cookie.partition(";")[0]
        return response

    async def json(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request that is to succeed, and return its JSON."""
        response = await self.ask(method, path, body)
        assert response.status == 200, response.head + response.body
        return json.loads(response.body)

    def forget(self) -> None:
        """Be somebody else from now on."""
        self._cookie = ""

    def close(self) -> None:
        """Leave."""
        self._connection.close()
