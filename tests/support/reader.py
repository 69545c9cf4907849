"""A reader that verifies: every event once, in order, whatever connection it came by."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession

from tests.support.sse import Frame, frames_of

TEXT = ("message", "reasoning")


class Reader:
    """Follows one answer over any number of connections, and fails on a repeat, a gap or anything after `end`."""

    def __init__(self) -> None:
        self.cursor = 0
        self.ids: dict[str, str] = {}
        self._pieces: dict[str, list[str]] = {kind: [] for kind in TEXT}
        self.others: list[Frame] = []
        self.end: dict[str, Any] | None = None
        self._frames: dict[ClientResponse, AsyncIterator[Frame]] = {}

    @property
    def text(self) -> str:
        """Return the text that was shown."""
        return "".join(self._pieces["message"])

    @property
    def reasoning(self) -> str:
        """Return the reasoning that was shown."""
        return "".join(self._pieces["reasoning"])

    @property
    def answer(self) -> str:
        """Return the answer's id, known from `start`."""
        return self.ids["message"]

    @property
    def conversation(self) -> str:
        """Return the conversation's id, known from `start`."""
        return self.ids["conversation"]

    def take(self, frame: Frame) -> None:
        """Check an event against what came before it."""
        assert self.end is None, "an event after the end"
        position = int(frame.id)
        length = len(frame.data) if frame.event in TEXT else 1
        assert position - length == self.cursor, f"{frame} does not follow {self.cursor}"
        self.cursor = position
        if frame.event in TEXT:
            self._pieces[frame.event].append(frame.data)
        elif frame.event == "start":
            assert position == 1
            self.ids = frame.json
        elif frame.event == "end":
            self.end = frame.json
        else:
            self.others.append(frame)

    async def read(self, response: ClientResponse, *, until: int | None = None) -> None:
        """Take events until the connection ends, or the cursor has reached a position."""
        if response.status == 204:
            return
        assert response.status == 200, await response.text()
        # Kept for a second call, which goes on where the first one has left the response.
        frames = self._frames.setdefault(response, frames_of(response))
        try:
            async for frame in frames:
                self.take(frame)
                if until is not None and self.cursor >= until:
                    return
        except (ClientError, ConnectionError):
            return  # cut: what came before it counts

    def again(self) -> "Reader":
        """Return a second reader of the same answer, which has seen nothing yet."""
        other = Reader()
        other.ids = self.ids
        return other

    async def begun(self) -> None:
        """Wait until the first event has come."""
        while not self.cursor:
            await asyncio.sleep(0.01)

    async def resume(self, session: ClientSession, url: str, *, until: int | None = None) -> None:
        """Take up the answer where it was left, at any replica."""
        headers = {"Last-Event-ID": str(self.cursor)} if self.cursor else {}
        async with session.get(f"{url}/messages/{self.answer}/events", headers=headers) as response:
            await self.read(response, until=until)

    async def finish(self, session: ClientSession, *urls: str) -> None:
        """Resume, again and again, at one replica after the other, until `end` has come."""
        turn = 0
        while self.end is None:
            try:
                await self.resume(session, urls[turn % len(urls)])
            except (ClientError, ConnectionError):
                pass
            except AssertionError as error:
                if "store_unavailable" not in str(error):
                    raise
            if self.end is None:
                await asyncio.sleep(0.05)
            turn += 1
