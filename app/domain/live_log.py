"""The committed events of one answer in memory, and who waits for the next.

Readers of this process share one such list, whoever feeds it: the journal (the answer is written here) or a follower
(it is written elsewhere). A reader has a cursor into it, never a queue of its own.
"""

import logging
from collections.abc import Callable, Sequence
from operator import attrgetter

from app.domain.events import TEXT_KINDS, Event

log = logging.getLogger("parley.log")

#: So many events at the end are as they came. Those before them are joined by so many, up to so many characters: a
#: token that stands alone takes thirty times the memory of its text.
LOOSE_EVENTS = 6
JOINED_CHARACTERS = 4096

_kind = attrgetter("kind")
_data = attrgetter("data")

#: What is called with the events by which a log has grown; with none, where it is gone.
Listener = Callable[[Sequence[Event]], None]


class LiveLog:
    """One answer's events, which only ever grow: listeners are called after each growth, in the order in which they came.

    Only positions stay: neighbouring text may be joined, but never the last event with those before it.
    """

    __slots__ = ("_listeners", "_settled", "_told", "before", "events", "gone", "over", "position", "readers")

    def __init__(self, events: list[Event] | None = None) -> None:
        self.events: list[Event] = events if events is not None else []
        #: Where the last event ends; 0 before the first.
        self.position = self.events[-1].end if self.events else 0
        #: What `position` was before the last growth.
        self.before = 0
        #: The log was deleted or lost before an `end`: there is nothing to wait for.
        self.gone = False
        #: Will nothing more come, as the last event is `end` or the log is gone?
        self.over = bool(self.events) and self.events[-1].kind == "end"
        #: How many read it, those included who are too slow to listen now. Whoever reads counts themselves.
        self.readers = 0
        self._settled = len(self.events)  # so many events stay as they are
        self._listeners: dict[Listener, None] = {}  # a dict, as a thousand may leave at once
        self._told: tuple[Listener, ...] | None = ()  # the same, as they are called; None: they have changed

    def extend(self, events: list[Event]) -> None:
        """Add committed events, which begin right behind `position`, if any, and tell the listeners."""
        if len(self.events) - self._settled >= LOOSE_EVENTS:
            self._join()
        if events:
            self.events += events
            last = events[-1]
            self.before, self.position = self.position, last.end
            if last.kind == "end":
                self.over = True
        if self._told is None:
            self._told = tuple(self._listeners)
        for listener in self._told:
            try:
                listener(events)
            except Exception:  # one reader's defect must not stop the others, nor the journal
                log.exception("a reader failed")
                self.unlisten(listener)

    def lose(self) -> None:
        """Say that the log is gone, and tell the listeners."""
        self.gone = self.over = True
        self.extend([])

    def listen(self, listener: Listener) -> None:
        """Call `listener` after each growth, with what was added, until `unlisten`."""
        self._listeners[listener] = None
        self._told = None

    def unlisten(self, listener: Listener) -> None:
        """Undo `listen`; what does not listen is ignored."""
        self._listeners.pop(listener, None)
        self._told = None

    def _join(self) -> None:
        """Put the text of the events that are loose together, where it is of one kind."""
        loose = self.events[self._settled :]
        first, last = loose[0], loose[-1]
        small = len(first.data) + last.end - first.end <= JOINED_CHARACTERS
        if small and first.kind in TEXT_KINDS and len({*map(_kind, loose)}) == 1:
            self.events[self._settled :] = [Event(first.kind, "".join(map(_data, loose)), last.end)]
        self._settled = len(self.events)
