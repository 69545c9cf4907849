"""A client as the page is one: it repeats a POST under the same key, resumes where it was, and remembers what that took."""

import asyncio
import copy
import secrets
import time
from typing import Any

from aiohttp import ClientError, ClientSession

from tests.deploy.upstream import pieces
from tests.support.reader import Reader


class Talk:
    """One message and its answer."""

    def __init__(self, session: ClientSession, url: str, content: str) -> None:
        """`content` says what is answered; see `upstream.py`. Made unique here, so that askings can be counted."""
        self._session = session
        self._url = url
        self.content = f"{content} {secrets.token_hex(8)}"
        self.expected = "".join(pieces(self.content))
        self.reader = Reader()
        #: How often it was told to come again, how often a stream broke, and the seconds until its first event.
        self.refused = 0
        self.broken = 0
        self.waited = 0.0

    async def begin(self, until: int | None = None) -> None:
        """POST until an answer begins, then read to its end, to a position, or until the stream breaks."""
        started = time.monotonic()
        key = secrets.token_hex(16)
        while not self.reader.cursor:
            sending = self._session.post(
                f"{self._url}/messages", json={"content": self.content}, headers={"Idempotency-Key": key}
            )
            try:
                async with sending as response:
                    if await self._told_to_come_again(response.status):
                        continue
                    await self.reader.read(response, until=1)
                    self.waited = time.monotonic() - started
                    await self.reader.read(response, until=until)
            except (ClientError, ConnectionError):
                await asyncio.sleep(0.1)
        self.broken += self.reader.end is None and until is None

    async def finish(self) -> None:
        """Resume until the end has come."""
        while self.reader.end is None:
            headers = {"Last-Event-ID": str(self.reader.cursor)} if self.reader.cursor else {}
            sending = self._session.get(f"{self._url}/messages/{self.reader.answer}/events", headers=headers)
            try:
                async with sending as response:
                    if await self._told_to_come_again(response.status):
                        continue
                    await self.reader.read(response)
            except (ClientError, ConnectionError):
                await asyncio.sleep(0.1)
            self.broken += self.reader.end is None

    def another(self) -> "Talk":
        """Return another reader of the same answer, who has seen nothing yet."""
        other = copy.copy(self)
        other.reader = self.reader.again()
        return other

    @property
    def status(self) -> str:
        """Return how it has ended."""
        assert self.reader.end is not None
        status: str = self.reader.end["status"]
        return status

    async def check(self) -> None:
        """What was shown is what is stored; all of the answer where it is complete, else its beginning."""
        async with self._session.get(f"{self._url}/messages/{self.reader.answer}") as response:
            message: dict[str, Any] = await response.json()
        assert (message["content"], message["status"]) == (self.reader.text, self.status)
        if self.status == "completed":
            assert self.reader.text == self.expected
        else:
            assert self.status == "interrupted"
            assert self.expected.startswith(self.reader.text)

    async def _told_to_come_again(self, status: int) -> bool:
        if status != 503:
            return False
        self.refused += 1
        await asyncio.sleep(0.2)
        return True
