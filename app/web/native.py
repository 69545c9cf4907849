"""The native dialect: how events stand on the wire, as server-sent events.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from collections.abc import Iterable

from app.domain.events import Event

#: A comment line, between frames only. Without the blank line behind it: some clients make an empty event of that.
HEARTBEAT = b":\n"


def frames(events: Iterable[Event]) -> bytes:
    """Return the frames of events, in order."""
    return b"".join(map(frame, events))


def frame(event: Event) -> bytes:
    """Return an event's frame: its id is the position where it ends. Text has the default type and no `event:` line."""
    kind, data = event.kind, event.data
    if "\n" in data or "\r" in data:  # a lone CR can't be told from a line break on the wire
        data = data.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\ndata: ")
    if kind == "message":
        return b"id: %d\ndata: %b\n\n" % (event.end, data.encode())
    return b"event: %b\nid: %d\ndata: %b\n\n" % (kind.encode(), event.end, data.encode())
