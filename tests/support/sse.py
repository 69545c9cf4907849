"""Reads a stream of server-sent events as a browser does, for tests."""

import codecs
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from aiohttp import ClientResponse


class Frame(NamedTuple):
    """One event: its type, its id, its data."""

    event: str
    id: str
    data: str

    @property
    def json(self) -> Any:
        """Return the data of an event that isn't text."""
        return json.loads(self.data)


def parse(block: str) -> Frame | None:
    """Return the event of one block of lines; None where it has no data (a comment)."""
    event, number, data = "message", "", []
    for line in block.split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "id":
            number = value
        elif name == "data":
            data.append(value)
    return Frame(event, number, "\n".join(data)) if data else None


def parse_all(body: str) -> list[Frame]:
    """Return the events of a whole body; what is not ended by a blank line is no event."""
    return [frame for block in body.split("\n\n")[:-1] if (frame := parse(block)) is not None]


async def frames_of(response: ClientResponse) -> AsyncIterator[Frame]:
    """Yield events as they come, until the body ends or is cut."""
    rest = ""
    decoder = codecs.getincrementaldecoder("utf-8")()
    async for chunk in response.content.iter_any():
        rest += decoder.decode(chunk)
        *blocks, rest = rest.split("\n\n")
        for block in blocks:
            if (frame := parse(block)) is not None:
                yield frame


async def read_all(response: ClientResponse) -> list[Frame]:
    """Return all events of a response."""
    return [frame async for frame in frames_of(response)]


def text_of(frames: list[Frame]) -> str:
    """Return the text that a reader has put together."""
    return "".join(frame.data for frame in frames if frame.event == "message")
