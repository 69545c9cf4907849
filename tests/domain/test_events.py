"""Positions, cursors, and the way from events to a stored message and back."""

import json

from hypothesis import given
from hypothesis import strategies as st

from app.domain.events import TEXT_KINDS, Event, Kind, dump, events_after, numbered, parts_of, pieces_of, text_of
from app.domain.ids import MessageRef
from app.domain.messages import AnswerHead, Ending, ended_record, replayed, wire_message

PIECES: list[tuple[Kind, str]] = [
    ("start", "{}"),
    ("reasoning", "hm"),
    ("message", "Hel"),
    ("message", "lo"),
    ("tool_call", '{"id":"a"}'),
    ("message", "😀!"),
    ("end", '{"status":"completed"}'),
]

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
pieces = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["message", "reasoning"]), text),
        st.tuples(st.just("notice"), st.sampled_from(['{"code":"a"}', '{"code":"b"}'])),
        st.tuples(st.just("tool_call"), st.just('{"id":"1","name":"n","arguments":"{}"}')),
    ),
    max_size=12,
)


def test_each_character_counts_one_and_each_other_event_counts_one() -> None:
    assert [event.end for event in numbered(PIECES, 0)] == [1, 3, 6, 8, 9, 11, 12]


def test_what_follows_a_cursor_is_joined_where_text_meets_text() -> None:
    events = list(numbered(PIECES, 0))
    assert events_after(events, 1) == [
        Event("reasoning", "hm", 3),
        Event("message", "Hello", 8),
        Event("tool_call", '{"id":"a"}', 9),
        Event("message", "😀!", 11),
        Event("end", '{"status":"completed"}', 12),
    ]


def test_a_cursor_within_a_text_gets_the_rest_of_it() -> None:
    events = list(numbered(PIECES, 0))
    assert events_after(events, 4)[0] == Event("message", "ello", 8)
    assert events_after(events, 10)[0] == Event("message", "!", 11)


def test_a_cursor_at_the_end_or_beyond_gets_nothing() -> None:
    events = list(numbered(PIECES, 0))
    assert events_after(events, 12) == []
    assert events_after(events, 13) == []


@given(pieces, st.data())
def test_from_any_cursor_the_rest_completes_what_was_read(what: list[tuple[Kind, str]], data: st.DataObject) -> None:
    events = list(numbered(what, 0))
    end = events[-1].end if events else 0
    cursor = data.draw(st.integers(0, end))
    for kind in TEXT_KINDS:
        whole = text_of(events, kind)
        rest = text_of(events_after(events, cursor), kind)
        assert whole.endswith(rest)
    assert sum(len(e.data) if e.kind in ("message", "reasoning") else 1 for e in events_after(events, cursor)) == (
        end - cursor
    )


@given(pieces)
def test_parts_and_texts_make_the_same_events_again(what: list[tuple[Kind, str]]) -> None:
    events = list(numbered(what, 0))
    again = numbered(pieces_of(parts_of(events), text_of(events, "message"), text_of(events, "reasoning")), 0)
    assert list(again) == events_after(events, 0)


@given(pieces)
def test_a_stored_answer_replays_the_events_that_its_readers_saw(what: list[tuple[Kind, str]]) -> None:
    ref = MessageRef("0" * 32, 2)
    start = '{"conversation":"conv_%s","message":"msg_%s_2","reply_to":"msg_%s_1","model":"m"}' % (
        (ref.conversation,) * 3
    )
    events = list(numbered([("start", start), *what], 0))
    ending = Ending("completed", "stop", "m-1", {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3})
    record = json.loads(dump(ended_record(AnswerHead(ref, 1, 2, "m", 1000), events, ending, 2000)))
    end = Event(
        "end",
        '{"status":"completed","finish_reason":"stop","model":"m-1",'
        '"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3},"error":null}',
        events[-1].end + 1,
    )
    assert replayed(ref, record) == [*events_after(events, 0), end]
    assert wire_message(ref, record)["content"] == text_of(events, "message")
