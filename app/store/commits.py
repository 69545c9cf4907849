"""What a commit is made of: calls, the answers' appends, and the beats; and what waits for the next one."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from app.domain.events import START_POSITION
from app.store.log_writer import LogWriter

log = logging.getLogger("parley.journal")


class Call(msgspec.Struct):
    """A command that a request waits for, or that was posted."""

    packed: bytes
    #: None: it was posted.
    reply: asyncio.Future[Any] | None
    #: Until when it is waited for, by the loop's clock.
    until: float
    #: See `Journal.ask`.
    overdue: Callable[[], None] | None = None
    #: May it have been done? Known where a connection was lost, or the reply is overdue.
    sent: bool = False

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


class Command(msgspec.Struct):
    """A command whose reply goes to a callback."""

    packed: bytes
    done: Callable[[Any], None]


class Commit(msgspec.Struct):
    """What is in flight, in the order of its replies."""

    calls: list[Call]
    writers: list[LogWriter]
    beats: list[Command]
    #: By the system's clock, as it is measured: uvloop's counts milliseconds.
    since: float


class Waiting:
    """Calls, and answers that have words to commit."""

    def __init__(self) -> None:
        self.calls: deque[Call] = deque()
        #: Is there anything that should not wait for its turn?
        self.hurry = False
        self._first: dict[LogWriter, None] = {}  # those whose first words these are: somebody has waited for them
        self._others: dict[LogWriter, None] = {}

    def __bool__(self) -> bool:
        """Is there anything?"""
        return bool(self._others or self.calls or self._first)

    def call(self, call: Call, *, hurry: bool = False) -> None:
        """Add a call."""
        self.calls.append(call)
        self.hurry = self.hurry or hurry

    def repeat(self, calls: Sequence[Call]) -> None:
        """Put the calls of a commit that was lost before all others."""
        wanted = [call for call in calls if call.wanted]
        for call in wanted:
            call.sent = True
        self.calls.extendleft(reversed(wanted))

    def words(self, writer: LogWriter) -> None:
        """Add an answer."""
        if writer.stored == START_POSITION:
            self._first[writer] = None
            self.hurry = True
        else:
            self._others[writer] = None

    def forget(self, writer: LogWriter) -> None:
        """Undo `words`."""
        self._first.pop(writer, None)
        self._others.pop(writer, None)

    def take(self, *, all_words: bool) -> tuple[list[Call], list[LogWriter], list[bytes]]:
        """Return all calls, the answers with first words, or with any, and the commands of both, packed, in that order."""
        self.hurry = False
        calls = [call for call in self.calls if call.wanted]
        self.calls.clear()
        packed = [call.packed for call in calls]
        writers: list[LogWriter] = []
        for waiting in (self._first, self._others) if all_words else (self._first,):
            for writer in waiting:
                append = writer.take()
                if append is not None:
                    writers.append(writer)
                    packed.append(append)
            waiting.clear()
        return calls, writers, packed
