"""How events stand in an event log: the entries of its stream.

An entry `<p>-0` covers the positions from p on; its fields are its events in order, kind -> data, several of one kind too.
So what comes next has one possible id, and an entry says by itself where it ends.
"""

from collections.abc import Iterable, Sequence
from typing import cast

from app.domain.events import Event, Kind, events_after, numbered, span

Entry = tuple[str, Sequence[str]]


def entry_id(after: int) -> str:
    """Return the id of the entry that begins right behind the position `after`."""
    return f"{after + 1}-0"


def position_of(entry: Entry) -> int:
    """Return the position right before an entry."""
    return int(entry[0].partition("-")[0]) - 1


def entry_events(entry: Entry) -> list[Event]:
    """Return the events of an entry with their positions."""
    fields = entry[1]
    kinds = cast("Sequence[Kind]", fields[::2])
    return list(numbered(zip(kinds, fields[1::2], strict=True), position_of(entry)))


def log_events(entries: Iterable[Entry]) -> list[Event]:
    """Return the events of a log's entries, in order."""
    return [event for entry in entries for event in entry_events(entry)]


def new_events(entries: Iterable[Entry], position: int) -> list[Event]:
    """Return what entries hold behind a position: what is known already, or again, is left out."""
    events = log_events(entries)
    if events and events[0].end - span(events[0].kind, events[0].data) < position:
        return events_after(events, position)
    return events
