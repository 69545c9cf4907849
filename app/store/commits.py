"""What a commit is made of: calls, the answers' appends, and the beats."""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from app.store.log_writer import LogWriter


class Call(NamedTuple):
    """A command that a request waits for, or that was posted."""

    packed: bytes
    reply: asyncio.Future[Any]
    #: Until when it is waited for, by the loop's clock.
    until: float

    def deliver(self, reply: Any) -> None:
        """Hand over the reply, an error reply as an exception."""
        if not self.reply.done():
            if isinstance(reply, Exception):
                self.reply.set_exception(reply)
            else:
                self.reply.set_result(reply)


class Command(NamedTuple):
    """A command whose reply goes to a callback."""

    packed: bytes
    done: Callable[[Any], None]


class Commit(NamedTuple):
    """What is in flight, in the order of its replies."""

    calls: list[Call]
    writers: list[LogWriter]
    beats: list[Command]
    since: float
