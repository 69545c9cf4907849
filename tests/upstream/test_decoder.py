"""The decoder: what an upstream's bytes mean, wherever they are cut."""

import json
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.upstream.decoder import Decoder
from app.upstream.deltas import Delta, Finish, ToolCall, Usage
from app.upstream.sse import MAX_EVENT_BYTES
from tests.support.scripted_upstream import DONE, chunk, event
from tests.upstream.streams import END, STOP, call, decode, joined, says, text, think, thinks


def test_text_of_a_kind_that_comes_together_is_one_piece_and_the_finish_is_the_last() -> None:
    decoder = Decoder()
    assert decoder.feed(text("Hel")) == [says("Hel")]
    assert decoder.feed(text("lo") + text("!")) == [says("lo!")]
    assert decoder.feed(text(".") + think("h") + think("m") + text("?")) == [says("."), thinks("hm"), says("?")]
    assert decoder.tokens == 7
    assert decoder.feed(STOP) == []
    assert (decoder.complete, decoder.ended) == (True, False)
    assert decoder.feed(DONE) == [END]
    assert (decoder.complete, decoder.ended) == (True, True)
    assert decoder.feed(text("more")) == []
    assert decoder.close() == []


# One stream with everything that can be cut: multi-byte characters, line ends of each kind, a BOM, comments, several
# data lines, half characters, reasoning, tool calls, usage.
RICH = (
    b"\xef\xbb\xbf: a comment\n\n"
    b'event: x\r\nid: 7\r\ndata: {"model":"m","choices":\r\ndata:[{"delta":{"content":"a\\r"}}]}\r\n\r\n'
    + chunk({"content": "\nä€😀"}, model="m").replace(b"\n", b"\r")
    + text("\ud83d")
    + b":keep-alive\n"
    + text("\ude00\r")
    + think("hm\r")
    + think("\n", "reasoning")
    + text("\n")
    + call(index=0, id="c0", function={"name": "f", "arguments": '{"a":'})
    + call(index=0, function={"arguments": "1}"})
    + STOP
    + event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}})
    + DONE.replace(b"\n", b"\r\n")
)
RICH_MEANS: list[Delta] = [
    says("a"),
    says("\r\nä€😀"),
    says("😀"),
    says("\r"),
    thinks("hm"),
    thinks("\r\n"),
    says("\n"),
    ToolCall("c0", "f", '{"a":1}'),
    Finish("stop", "m", Usage(1, 2, 3)),
]


def test_one_event_that_is_text_alone_is_told_at_a_glance() -> None:
    decoder = Decoder()
    assert decoder.text(text("a")) is None  # who says nothing of the model yet is looked at closely
    assert decoder.feed(text("a")) == [says("a")]
    assert [decoder.text(text(piece)) for piece in ("b", " ", "ä\n", "😀")] == ["b", " ", "ä\n", "😀"]
    assert decoder.tokens == 5
    assert decoder.feed(STOP + DONE) == [END]
    assert decoder.text(text("b")) is None


LONG = text("x" * MAX_EVENT_BYTES)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        text("b")[:-1],
        text("b")[1:],
        text("b") + text("c"),
        text("b").replace(b"\n", b"\r\n"),
        text("b").replace(b", ", b",\n"),
        text("b").replace(b", ", b",\r"),
        b": comment\n\n" + text("b"),
        text("b\r"),
        text("\ud83d"),
        text(""),
        think("b"),
        STOP,
        DONE,
        call(index=0, id="c", function={"name": "f", "arguments": ""}),
        b"data: <html>\n\n",
        LONG,
    ],
)
def test_anything_else_is_not_and_changes_nothing(data: bytes) -> None:
    decoder, untouched = Decoder(), Decoder()
    assert decoder.feed(text("a")) == untouched.feed(text("a"))
    assert decoder.text(data) is None
    assert decoder.feed(data) + decoder.close() == untouched.feed(data) + untouched.close()
    assert (decoder.tokens, type(decoder.failure)) == (untouched.tokens, type(untouched.failure))


@pytest.mark.parametrize("before", [text("a\r"), text("\ud83d"), text("b")[:-1], text("b")[:9], b"data: x\n", DONE])
def test_text_behind_what_is_not_over_is_not(before: bytes) -> None:
    decoder = Decoder()
    decoder.feed(text("a"))
    decoder.feed(before)
    assert decoder.text(text("c")) is None


def test_a_stream_means_the_same_wherever_it_is_cut_in_two() -> None:
    for cut in range(len(RICH) + 1):
        assert joined(decode(RICH[:cut], RICH[cut:])) == joined(RICH_MEANS), cut


def test_a_stream_means_the_same_byte_by_byte() -> None:
    assert decode(*(RICH[i : i + 1] for i in range(len(RICH)))) == RICH_MEANS


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_a_small_stream_means_the_same_wherever_it_is_cut_in_three(newline: bytes) -> None:
    small = (b'data:{"choices":[{"delta":{"content":"\xc3\xa4"}}]}\n\n:\ndata: [DONE]\n\n').replace(b"\n", newline)
    for one, two in combinations(range(len(small) + 1), 2):
        assert decode(small[:one], small[one:two], small[two:]) == [says("ä"), Finish(None, None, None)]


@given(
    pieces=st.lists(st.tuples(st.booleans(), st.text(st.sampled_from("a\r\n\ud83d\ude00é😀"), min_size=1))),
    newline=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    cuts=st.lists(st.integers(min_value=0, max_value=4000)),
)
def test_any_text_arrives_whole_however_it_is_split_and_cut(
    pieces: list[tuple[bool, str]], newline: bytes, cuts: list[int]
) -> None:
    names = ["reasoning" if thought else "content" for thought, _ in pieces]
    bodies = [
        {"model": "m", "choices": [{"delta": {name: piece}}]} for name, (_, piece) in zip(names, pieces, strict=True)
    ]
    stream = b"".join(b"data: " + json.dumps(body).encode() + newline * 2 for body in bodies)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    deltas = decode(*(stream[a:b] for a, b in pairwise(edges)))
    assert joined(deltas) == joined(decode(stream))

    said = joined([(thinks if thought else says)(piece) for thought, piece in pieces])
    whole = [
        (item[0], item[1].encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
        for item in said
        if isinstance(item, tuple)
    ]
    assert joined(deltas) == whole
    for one, two in pairwise(deltas):
        assert isinstance(one, tuple)
        assert isinstance(two, tuple)
        assert not (one[0] == two[0] and one[1].endswith("\r") and two[1].startswith("\n"))


@pytest.mark.parametrize(
    "nothing",
    [
        b": comment\n\n",
        b"event: ping\nid: 1\nretry: 5\n\n",
        b"data:\n\n",
        b"data\n\n",
        b"data: {}\n\n",
        b'data: {"type":"ping"}\n\n',
        b"data: null\n\n",
        b"data: 5\n\n",
        chunk({"role": "assistant", "content": None}),
        chunk({"content": ""}),
        chunk({"reasoning": "", "reasoning_content": None}),
        event({"choices": [{"index": 0, "delta": None}]}),
        event({"choices": [{"index": 0}]}),
        event({"choices": None}),
        event({"choices": [], "error": None, "usage": None}),
        event({"choices": [{"index": 1, "delta": {"content": "another choice"}, "finish_reason": "length"}]}),
    ],
)
def test_what_says_nothing_yields_nothing(nothing: bytes) -> None:
    decoder = Decoder()
    assert decoder.feed(nothing) == []
    assert (decoder.tokens, decoder.complete, decoder.failure) == (0, False, None)
    assert decode(nothing, text("x"), STOP, DONE) == [says("x"), END]


def test_data_has_one_optional_space_and_several_lines_are_joined() -> None:
    assert decode(b'data:{"choices":[\ndata: {"delta":{"content":\ndata:  "x"}}]}\n\n') == [says("x")]


def test_done_ends_an_answer_that_gave_no_reason() -> None:
    assert decode(text("x"), DONE) == [says("x"), Finish(None, "m", None)]


def test_a_finish_reason_is_enough_where_done_is_missing() -> None:
    assert decode(text("x"), STOP) == [says("x"), END]


def test_an_answer_without_either_is_not_complete() -> None:
    decoder = Decoder()
    assert decoder.feed(text("x\r")) == [says("x")]
    assert decoder.close() == [says("\r")]
    assert (decoder.complete, decoder.failure) == (False, None)


def test_a_last_event_that_was_cut_is_dropped() -> None:
    for cut in range(1, len(text("x")) - 2):
        decoder = Decoder()
        assert decoder.feed(text("x")[:cut]) + decoder.close() == []
        assert (decoder.complete, decoder.failure) == (False, None)


def test_half_characters_are_joined_over_deltas() -> None:
    assert decode(text("a\ud83d"), text("\ude00b")) == [says("a"), says("😀b")]
    assert decode(text("\ud83d"), text("\ude00")) == [says("😀")]
    assert decode(text("a\ud83d"), chunk({"content": "b"})) == [says("a"), says("\ufffdb")]


@pytest.mark.parametrize("alone", ["\ud83d", "\ude00", "\ud83dx", "\ude00\ud83d", "x\ud83d\ud83d\ude00"])
def test_a_half_character_that_stays_alone_is_replaced(alone: str) -> None:
    expected = alone.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert joined(decode(text(alone))) == [says(expected)]
    assert joined(decode(text(alone), think("r"), text("\ude00"))) == [says(expected), thinks("r"), says("\ufffd")]


def test_a_carriage_return_waits_for_what_follows() -> None:
    decoder = Decoder()
    assert decoder.feed(text("a\r")) == [says("a")]
    assert decoder.feed(text("\r")) == [says("\r")]
    assert decoder.feed(chunk({"content": ""})) == []
    assert decoder.feed(text("\nb")) == [says("\r\nb")]
    assert decoder.feed(think("\r")) == []
    assert decoder.feed(text("\n")) == [thinks("\r"), says("\n")]
    assert decoder.feed(text("\r")) == []
    assert decoder.feed(DONE) == [says("\r"), Finish(None, "m", None)]
