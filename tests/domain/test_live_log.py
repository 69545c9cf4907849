"""The committed events in memory: whatever is joined, each cursor reads on exactly where it stood."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.domain.events import Event, Kind, events_after, numbered, text_of
from app.domain.live_log import JOINED_CHARACTERS, LOOSE_EVENTS, LiveLog

START = Event("start", "{}", 1)
KINDS: list[Kind] = ["message", "reasoning", "notice"]
growths = st.lists(st.lists(st.tuples(st.sampled_from(KINDS), st.text("ab", min_size=1, max_size=4)), min_size=1))


@given(growths)
def test_a_reader_gets_every_event_once_and_in_order_however_the_log_is_joined_meanwhile(
    grown: list[list[tuple[Kind, str]]],
) -> None:
    live, plain, read = LiveLog([START]), [START], [START]

    def reader(fresh: Sequence[Event]) -> None:
        assert list(fresh) == plain[-len(fresh) :]
        assert live.before == read[-1].end
        read.extend(events_after(live.events, read[-1].end))

    live.listen(reader)
    for pieces in grown:
        fresh = list(numbered(pieces, live.position))
        plain += fresh
        live.extend(fresh)
        assert live.events[-1] == plain[-1]
    for kind in KINDS:
        assert text_of(read, kind) == text_of(plain, kind)
    assert read[-1].end == live.position == plain[-1].end
    for cursor in range(live.position):
        assert events_after(live.events, cursor) == events_after(plain, cursor)


def test_tokens_that_came_alone_are_kept_together() -> None:
    live = LiveLog([START])
    for number in range(1000):
        live.extend([Event("message", "x", number + 2)])
    assert len(live.events) <= 1000 / LOOSE_EVENTS + LOOSE_EVENTS + 1
    assert live.events[-1].data == "x"
    assert text_of(live.events, "message") == "x" * 1000


def test_no_event_grows_beyond_what_a_reader_takes_at_once() -> None:
    live = LiveLog([START])
    for _ in range(100):
        live.extend([Event("message", "x" * 1000, live.position + 1000)])
    assert max(two.end - one.end for one, two in pairwise(live.events)) <= JOINED_CHARACTERS


class Leaver:
    """A listener that leaves as soon as it is told, and counts how often it is compared with another one."""

    compared = 0

    def __init__(self, live: LiveLog) -> None:
        self._live = live

    def __call__(self, _: Sequence[Event]) -> None:
        self._live.unlisten(self)

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        Leaver.compared += 1
        return self is other


def test_a_crowd_of_readers_leaves_without_a_look_at_each_other() -> None:
    live = LiveLog([START])
    for _ in range(1000):
        live.listen(Leaver(live))
    live.extend([Event("end", "{}", 2)])
    assert live.readers == 0
    assert Leaver.compared < 1000


def test_who_has_left_is_told_nothing_more_and_who_came_again_is() -> None:
    live, told = LiveLog([START]), list[int]()

    def reader(fresh: Sequence[Event]) -> None:
        told.append(fresh[-1].end)

    for position, change in enumerate((live.listen, live.unlisten, live.listen), 2):
        change(reader)
        live.extend([Event("message", "x", position)])
    assert told == [2, 4]
