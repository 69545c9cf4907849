"""Events out of bytes: what is framed at a glance is framed as line by line."""

from hypothesis import example, given
from hypothesis import strategies as st

from app.upstream.sse import MAX_EVENT_BYTES, EventFramer

BEFORE = st.sampled_from([b"", b": begun\n\n", b"data: half", b"data: one\n", b"data: one\r"])
LINES = st.sampled_from(
    [
        "data: a",
        "data: b",
        "data:c",
        "data: ",
        "data: d\re",
        "data",
        "id: 1",
        ": comment",
        "event: error",
        "error: e",
        "",
    ]
)


@given(BEFORE, st.lists(LINES, max_size=12), st.sampled_from(["\n", "\r\n"]))
@example(b": begun\n\n", ["data: a", "", "data: "], "\n")
@example(b": begun\n\n", ["data: "], "\n")
@example(b": begun\n\n", ["data: d\re"], "\n")
@example(b"data: one\n", ["data: a"], "\n")
def test_whole_events_mean_the_same_as_their_bytes_one_by_one(before: bytes, lines: list[str], end: str) -> None:
    stream = end.join([*lines, "", ""]).encode()
    at_once, one_by_one = EventFramer(), EventFramer()
    if before:
        assert at_once.feed(before) == one_by_one.feed(before)
    events = [event for at in range(len(stream)) for event in one_by_one.feed(stream[at : at + 1])]
    assert at_once.feed(stream) == events
    assert at_once.feed(b"data: next\n\n") == one_by_one.feed(b"data: next\n\n")


def test_a_byte_order_mark_counts_as_none_at_the_beginning_only() -> None:
    marked = b"\xef\xbb\xbfdata: a\n\n"
    assert EventFramer().feed(marked) == [b"a"]
    for first, events in ((b"data: b\n\n", []), (b"data: b\n", [b"b"]), (b"\n", [])):
        framer = EventFramer()
        framer.feed(first)
        assert framer.feed(marked) == events  # the mark makes it a field of another name, which counts as none


def test_an_event_that_comes_at_once_may_be_as_large_as_one_in_parts() -> None:
    for size, events in ((MAX_EVENT_BYTES - 8, 1), (MAX_EVENT_BYTES, 0)):
        framer = EventFramer()
        framer.feed(b": begun\n\n")
        assert len(framer.feed(b"data: " + b"x" * size + b"\n\n")) == events
        assert framer.overflow == (events == 0)
