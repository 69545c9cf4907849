"""What a commit is made of: calls, the answers' appends, and the beats."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from app.store.log_writer import LogWriter

log = logging.getLogger("parley.journal")


class Call(NamedTuple):
    """A command that a request waits for, or that was posted."""

    packed: bytes
    #: None: it was posted.
    reply: asyncio.Future[Any] | None
    #: Until when it is waited for, by the loop's clock.
    until: float

    @property
    def wanted(self) -> bool:
        """Is it still to be done? Not where whoever waited for it has left."""
        return self.reply is None or not self.reply.done()

    def fail(self, error: Exception) -> None:
        """Say that there is no reply to come; of what was posted, in the log."""
        if self.reply is None:
            log.warning("A write that nobody waits for failed: %s", error)
        elif not self.reply.done():
            self.reply.set_exception(error)

    def deliver(self, reply: Any) -> None:
        """Hand over the reply, an error reply as an exception."""
        if isinstance(reply, Exception):
            self.fail(reply)
        elif self.reply is not None and not self.reply.done():
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
