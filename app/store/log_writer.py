"""What one runner has to write into its answer's event log: pending, in flight, committed.

The journal drives it: it takes the next entry, and says what became of it. All positions are checked here, so that a
retry after a lost reply is exact and a log that somebody else has ended is never written to.
"""

import asyncio
from collections.abc import Callable
from enum import Enum
from itertools import starmap
from typing import get_args

from redis.exceptions import OutOfMemoryError, ResponseError

from app.domain.events import TEXT_KINDS, Event, Kind, events_after, events_between, numbered, span
from app.domain.ids import MessageRef
from app.domain.live_log import LiveLog
from app.store import keys
from app.store.entries import Entry, entry_events, entry_id, position_of

#: Text is joined to events of so many characters at most: a reader that takes nothing has one of them in its buffer.
LARGEST_JOINED = 65_536
#: The end takes along so many pieces at most: a script unpacks no more than some thousands.
LONGEST_TAIL = 1000

_PACKED_KINDS: dict[Kind, str] = {kind: f"${len(kind)}\r\n{kind}\r\n" for kind in get_args(Kind)}


class Interrupt(Enum):
    """Why a runner is to stop."""

    STOP = "a stop mark was found"
    FENCED = "somebody else has written what comes next"
    GONE = "the log is no longer there"
    FULL = "the store takes nothing more"
    OUTAGE = "the store was away for too long"


class LogWriter:
    """The writing end of one answer's log. `live` holds what is committed; readers see nothing else."""

    __slots__ = (
        "_append",
        "_closing",
        "_pending",
        "_sent",
        "_sent_bytes",
        "_sent_id",
        "_waiter",
        "_wake",
        "broken",
        "buffered",
        "interrupt",
        "key",
        "last_id",
        "live",
        "reconciled",
        "ref",
        "runner",
        "stored",
    )

    def __init__(
        self,
        ref: MessageRef,
        runner: str,
        live: LiveLog,
        *,
        interrupt: Callable[[Interrupt], None],
        wake: Callable[["LogWriter"], None],
    ) -> None:
        """`interrupt` is called, perhaps more than once, when the runner is to stop; `wake` when there is work."""
        self.ref = ref
        self.runner = runner
        self.live = live
        self.key = keys.events(*ref)
        self._append = f"$4\r\nXADD\r\n${len(self.key)}\r\n{self.key}\r\n$10\r\nNOMKSTREAM\r\n"
        self.interrupt = interrupt
        #: Where the log in the store ends, and the id of its last entry.
        self.stored = live.position
        self.last_id = entry_id(0)
        #: How often it was compared with the log anew: `last_id` may then be another entry, also one of the same id.
        self.reconciled = 0
        #: How many bytes (UTF-8) are not acknowledged.
        self.buffered = 0
        #: Nothing more can be written: the log is somebody else's, gone, or full.
        self.broken: Interrupt | None = None
        self._wake = wake
        self._pending: list[tuple[Kind, str]] = []
        self._sent: list[Event] = []
        self._sent_bytes = 0  # of `buffered`, those that the entry in flight has
        self._sent_id = ""
        self._closing = False
        self._waiter: asyncio.Future[None] | None = None

    def append(self, piece: tuple[Kind, str]) -> None:
        """Hand over an event, its kind and data; it is committed with the journal's next pipeline."""
        if self.broken is None:
            data = piece[1]
            self._pending.append(piece)
            self.buffered += len(data) if data.isascii() else len(data.encode())
            if not self._sent:
                self._wake(self)

    async def room(self, limit: int) -> None:
        """Wait until fewer than `limit` bytes are unacknowledged, or nothing more can be written."""
        while self.buffered >= limit and self.broken is None:
            await self._change()

    async def tail(self) -> list[Event]:
        """Return what is left to append, neighbouring text joined: the end will take it along. Nothing may come after it.

        Waits until all before it is committed; returns nothing where nothing more can be written.
        """
        self._closing = True
        while not self._pending_is_tail and self.broken is None:
            await self._change()
        return list(numbered(_joined(self._pending), self.stored))

    @property
    def _pending_is_tail(self) -> bool:
        """Is what is pending left to the end? Only what the end's script can take, and what stands right before it."""
        return (
            self._closing
            and not self._sent
            and self.stored >= self.live.position
            and len(self._pending) <= LONGEST_TAIL
        )

    def take(self) -> bytes | None:
        """Return the command, packed, that appends all that the log has not, as one entry, neighbouring text joined.

        None where there is nothing, or all is left to the end. While an entry is in flight there is nothing: one append at
        a time.
        """
        if self._sent or self.broken is not None or (self._closing and self._pending_is_tail):
            return None
        pieces, position = self._pending, self.stored
        if position < self.live.position:
            pieces = [*((event.kind, event.data) for event in events_after(self.live.events, position)), *pieces]
        if not pieces:
            return None
        self._pending, self._sent_bytes = [], self.buffered
        self._sent_id = name = entry_id(position)
        if len(pieces) == 1:  # nearly always
            kind, data = pieces[0]
            self._sent = [Event(kind, data, position + span(kind, data))]
            return f"*6\r\n{self._append}${len(name)}\r\n{name}\r\n{_packed(kind, data)}".encode()
        pieces = _joined(pieces)
        self._sent = list(numbered(pieces, position))
        fields = "".join(starmap(_packed, pieces))
        return f"*{4 + 2 * len(self._sent)}\r\n{self._append}${len(name)}\r\n{name}\r\n{fields}".encode()

    def acknowledged(self, reply: object) -> None:
        """Take the reply to `take`'s command: the entry's id, None (no such log), or an error reply.

        Raises one that says nothing of the log: the connection is made anew, and the log compared.
        """
        if self.broken is not None:
            return
        if reply == self._sent_id:
            fresh, self._sent = self._sent, []
            self.buffered -= self._sent_bytes
            self.last_id = reply
            shown = self.live.position
            behind, self.stored = self.stored < shown, fresh[-1].end
            self._show(events_after(fresh, shown) if behind else fresh)
        elif reply is None:
            self._break(Interrupt.GONE)
        elif isinstance(reply, OutOfMemoryError):
            self._break(Interrupt.FULL)
        elif isinstance(reply, ResponseError) and "equal or smaller" not in str(reply):
            raise reply
        else:
            self._break(Interrupt.FENCED)

    def reconcile(self, top: Entry | None) -> None:
        """After a reconnect, compare the log's last entry with what was written, and go on from there.

        An entry that was in flight is committed, or sent again; acknowledged entries that a failover lost are sent
        again from memory, in order; a log that somebody else has written to is left alone.
        """
        if self.broken is not None:
            return
        self.reconciled += 1
        if top is None:
            self._break(Interrupt.GONE)
            return
        found = entry_events(top)
        begin, end = position_of(top), found[-1].end
        ours = [*self.live.events, *events_after(self._sent, self.live.position)]
        if events_after(found, begin) != events_between(ours, begin, end):
            self._break(Interrupt.FENCED)
            return
        unsent = events_after(self._sent, max(end, self.live.position))
        self._pending[:0] = [(event.kind, event.data) for event in unsent]
        if self._sent and not unsent:
            self.buffered -= self._sent_bytes
        self._sent = []
        self.stored, self.last_id = end, top[0]
        self._show(events_between(ours, self.live.position, end))

    def _show(self, fresh: list[Event]) -> None:
        """Hand what is committed to the readers, and see what comes next."""
        if self._pending or self.stored < self.live.position:
            self._wake(self)
        if self._waiter is not None:
            self._notify()
        if fresh:
            self.live.extend(fresh)

    def _break(self, reason: Interrupt) -> None:
        self.broken = reason
        self._pending.clear()
        self._sent = []
        self.buffered = 0
        self._notify()
        self.interrupt(reason)

    async def _change(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _notify(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _packed(kind: Kind, data: str) -> str:
    """Return a field of an entry, by hand: hiredis takes three times as long for these few words."""
    return f"{_PACKED_KINDS[kind]}${len(data) if data.isascii() else len(data.encode())}\r\n{data}\r\n"


def _joined(pieces: list[tuple[Kind, str]]) -> list[tuple[Kind, str]]:
    """Join neighbouring text of one kind."""
    joined: list[tuple[Kind, list[str]]] = []
    size = 0
    for kind, data in pieces:
        size += len(data)
        if joined and kind in TEXT_KINDS and joined[-1][0] == kind and size <= LARGEST_JOINED:
            joined[-1][1].append(data)
        else:
            joined.append((kind, [data]))
            size = len(data)
    return [(kind, "".join(parts)) for kind, parts in joined]
