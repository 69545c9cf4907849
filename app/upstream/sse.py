"""Server-sent events read from bytes: the data of each event, wherever the bytes were cut.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream. Lines are split before
anything is decoded, so a cut inside a multi-byte character needs no care. Of the fields only `data` counts here, and what
tells of an error: an event of that type, and a field `error`, which llama.cpp has sent instead of `data`. The data of such
an event is wrapped: `{"error":data}`.
"""

#: The largest line, and the largest event (its data lines together), in bytes. A delta has some hundred bytes and the
#: largest that real servers send (a long tool call or log probabilities in one piece) some ten thousand; 1 MiB leaves
#: room for any of them, and 2,000 upstreams that never end a line still cannot take more than 2 GB between them.
MAX_EVENT_BYTES = 1024 * 1024

#: How nearly every event begins and ends, and what stands in none of one line.
FIELD = b"data: "
BLANK_LINE = b"\n\n"
LF = 10
CR = 13

_BOM = b"\xef\xbb\xbf"
_LINE_COST = 48


class EventFramer:
    """Turns bytes into the data of events; once `overflow` is True it takes nothing more."""

    __slots__ = ("_after_cr", "_at_start", "_data", "_is_error", "_line", "_size", "between_events", "overflow")

    def __init__(self) -> None:
        """Begin before the first byte of a stream."""
        #: Has a line or an event been larger than `MAX_EVENT_BYTES`?
        self.overflow = False
        self._line = bytearray()  # the start of a line whose end has not come; a bytearray, as appending is linear
        self._data: list[bytes] = []  # the data lines of the event whose end has not come
        self._is_error = False
        self._size = 0
        self._after_cr = False  # a "\n" that comes next belongs to the "\r" that was taken as the end of a line
        self._at_start = True
        #: Would the next byte begin an event?
        self.between_events = True

    def feed(self, data: bytes) -> list[bytes]:
        """Return the data of every event that is now complete; an event without data is none."""
        # The common case, whole events of one line each: a few searches instead of lists of lines.
        if self.between_events and data[:6] == FIELD and data[-2:] == BLANK_LINE and len(data) <= MAX_EVENT_BYTES:
            inner = data[6:-2]
            self._at_start = False  # that is no byte order mark
            if CR not in inner:
                events = inner.split(b"\n\ndata: ")
                # Joined and searched: to count line ends takes ten times as long, 0.4 us for an event.
                if LF not in b"".join(events) and all(events):
                    return events
        return self._feed_lines(data)

    def close(self) -> list[bytes]:
        """Return the event that the end of the stream left without its blank line, where there is one.

        The standard drops it. Some servers omit the last line end, though, and a decoder of JSON tells what is whole.
        """
        return self._feed_lines(b"\n\n")

    def _feed_lines(self, data: bytes) -> list[bytes]:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        if len(lines) > 1:
            lines[0] = bytes(self._line) + lines[0]
            self._line.clear()
        self._line += lines.pop()
        events = self._events_in(lines)
        if len(self._line) > MAX_EVENT_BYTES:
            self.overflow = True
        open_event = self._line or self._data or self._is_error
        self.between_events = not (open_event or self._after_cr or self._at_start or self.overflow)
        return events

    def _events_in(self, lines: list[bytes]) -> list[bytes]:
        events: list[bytes] = []
        for line in lines:
            if self.overflow or len(line) > MAX_EVENT_BYTES:
                self.overflow = True
                break
            if self._at_start:
                self._at_start = False
                line = line.removeprefix(_BOM)  # noqa: PLW2901 - the line itself is meant
            if line:
                self._take_field(*line.partition(b":")[::2])
            else:
                event = b"\n".join(self._data)
                if event:
                    events.append(b'{"error":%b}' % event if self._is_error else event)
                self._data.clear()
                self._is_error = False
                self._size = 0
        return events

    def _take_field(self, name: bytes, value: bytes) -> None:
        value = value.removeprefix(b" ")
        if name == b"error" or (name == b"event" and value == b"error"):
            self._is_error = True
        if name in (b"data", b"error"):
            # A further line also costs its object: without that, short lines would take ten times what is counted.
            self._size += len(name) + 1 + len(value) + (_LINE_COST if self._data else 0)
            self._data.append(value)
            self.overflow = self._size > MAX_EVENT_BYTES
