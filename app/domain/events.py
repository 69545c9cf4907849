"""Events, positions and cursors: the arithmetic of an answer's event log.

An answer is a sequence of events. Each character (code point) of text or reasoning counts one position, every other
event counts one; `start` ends at 1. A cursor is a position, so every character is a place to resume from.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, cast

import msgspec

Kind = Literal["start", "message", "reasoning", "tool_call", "notice", "end"]

#: The kinds whose data is text itself; the data of all others is one JSON object.
TEXT_KINDS: frozenset[Kind] = frozenset(("message", "reasoning"))

#: Where `start`, the first event of every answer, ends.
START_POSITION = 1


#: The standard library's encoder takes six times as long; what it writes of a character is the same.
_encode = msgspec.json.Encoder().encode


class Event(msgspec.Struct, frozen=True, gc=False):
    """One thing that a reader is told. `end` is the position at which it ends, which is also its id on the wire.

    A struct, as there is one for each token: a named tuple takes twice as long to make, and the collector counts it.
    """

    kind: Kind
    data: str
    end: int


def span(kind: Kind, data: str) -> int:
    """Return how many positions an event covers."""
    return len(data) if kind in TEXT_KINDS else 1


def numbered(pieces: Iterable[tuple[Kind, str]], after: int) -> Iterator[Event]:
    """Give pieces (kind, data) their positions, the first one beginning behind the position `after`."""
    for kind, data in pieces:
        after += span(kind, data)
        yield Event(kind, data, after)


def events_after(events: Sequence[Event], cursor: int, limit: int | None = None) -> list[Event]:
    """Return what follows a cursor, neighbouring text joined; of a text event that the cursor stands in, the rest.

    With a `limit`, no further event is begun once so many characters are taken.
    """
    joined: list[Event] = []
    run: list[str] = []  # the texts of the last one
    taken = 0
    for index in range(bisect_right(events, cursor, key=_end), len(events)):
        event = events[index]
        data = event.data
        is_text = event.kind in TEXT_KINDS
        if is_text and event.end - len(data) < cursor:
            data = data[cursor - event.end :]
            event = Event(event.kind, data, event.end)
        if is_text and joined and joined[-1].kind == event.kind:
            joined[-1] = event
        else:
            _close(joined, run)
            joined.append(event)
        run.append(data)
        taken += len(data)
        if limit is not None and taken >= limit:
            break
    _close(joined, run)
    return joined


def events_between(events: Sequence[Event], after: int, until: int) -> list[Event]:
    """Return what stands between two positions, as `events_after` does, the last text cut at the second one."""
    between = events_after(events, after)
    while between and between[-1].end > until:
        event = between.pop()
        begin = event.end - span(event.kind, event.data)
        if begin < until:
            between.append(Event(event.kind, event.data[: until - begin], until))
    return between


def _close(joined: list[Event], run: list[str]) -> None:
    """Put the texts of the last event together."""
    if len(run) > 1:
        last = joined[-1]
        joined[-1] = Event(last.kind, "".join(run), last.end)
    run.clear()


def _end(event: Event) -> int:
    return event.end


def parts_of(events: Iterable[Event]) -> list[list[Any]]:
    """Return the order and lengths of an answer's parts, as the stored message keeps them.

    `["message", 12]` and `["reasoning", 40]` are lengths in characters, neighbours added up; `["tool_call", {…}]` and
    `["notice", {…}]` are the events' objects. `start` and `end` are left out: they are made from the message itself.
    """
    parts: list[list[Any]] = []
    for event in events:
        kind, data = event.kind, event.data
        if kind in TEXT_KINDS:
            if parts and parts[-1][0] == kind:
                parts[-1][1] += len(data)
            else:
                parts.append([kind, len(data)])
        elif kind in ("tool_call", "notice"):
            parts.append([kind, json.loads(data)])
    return parts


def pieces_of(parts: Iterable[Sequence[Any]], content: str, reasoning: str) -> Iterator[tuple[Kind, str]]:
    """Undo `parts_of`: yield the pieces (kind, data) of a stored message, its texts cut at the parts' lengths."""
    texts: dict[Kind, tuple[str, int]] = {"message": (content, 0), "reasoning": (reasoning, 0)}
    for name, value in parts:
        kind = cast("Kind", name)
        if kind in TEXT_KINDS:
            text, at = texts[kind]
            texts[kind] = (text, at + value)
            yield kind, text[at : at + value]
        else:
            yield kind, dump(value)


def text_of(events: Iterable[Event], kind: Kind) -> str:
    """Join the text of all events of a kind."""
    return "".join(event.data for event in events if event.kind == kind)


def dump(value: object) -> str:
    """Write JSON as it stands in events: one line, no spaces, characters as themselves. NaN is null."""
    return _encode(value).decode()
