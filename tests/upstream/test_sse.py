"""Events out of bytes: what is framed at a glance is framed as line by line."""

from hypothesis import example, given
from hypothesis import strategies as st

from app.upstream.sse import EventFramer

LINES = st.sampled_from(["data: a", "data: b", "data:c", "data: ", "data", "id: 1", ": comment", ""])


@given(st.lists(LINES, max_size=12))
@example(["", "data: "])
def test_whole_events_mean_the_same_as_their_bytes_one_by_one(lines: list[str]) -> None:
    stream = "\n".join(["data: a", *lines, "", ""]).encode()
    at_once, one_by_one = EventFramer(), EventFramer()
    for framer in (at_once, one_by_one):
        framer.feed(b": begun\n\n")
    events = [event for at in range(len(stream)) for event in one_by_one.feed(stream[at : at + 1])]
    assert at_once.feed(stream) == events
    assert at_once.feed(b"data: next\n\n") == one_by_one.feed(b"data: next\n\n") == [b"next"]
