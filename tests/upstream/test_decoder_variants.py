"""The decoder: what servers do differently, what they do wrong, and the bounds."""

import json

import pytest

from app.domain.errors import UpstreamBadResponse, UpstreamError
from app.upstream.decoder import MOST_OTHERS, Decoder
from app.upstream.deltas import Delta, Finish, ToolCall, Usage
from app.upstream.sse import MAX_EVENT_BYTES
from tests.support.scripted_upstream import DONE, chunk, event
from tests.upstream.streams import END, STOP, call, decode, joined, said_in, says, text, think, thinks


def test_reasoning_has_two_names_and_is_taken_once_where_both_are_sent() -> None:
    assert decode(think("a"), think("b", "reasoning")) == [thinks("a"), thinks("b")]
    both = chunk({"reasoning_content": "r", "reasoning": "r", "content": "t"})
    assert decode(both) == [thinks("r"), says("t")]


def test_the_last_usage_and_model_count_also_behind_the_finish_reason() -> None:
    first = event({"choices": [], "model": "", "usage": {"prompt_tokens": 1, "completion_tokens": 0}})
    last = event(
        {"choices": [], "model": "n", "usage": {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}}
    )
    assert decode(first, STOP, last, DONE) == [Finish("stop", "n", Usage(4, 5, 9))]
    assert decode(first, STOP, DONE) == [Finish("stop", "m", Usage(1, 0, 1))]


def _more(delta: dict[str, object], beside: dict[str, object] | None = None, **fields: object) -> bytes:
    """Return a chunk that says something beside its text."""
    choice = {"index": 0, "delta": {"content": "t"} | delta, "finish_reason": None} | (beside or {})
    return event({"model": "m", "choices": [choice]} | fields)


@pytest.mark.parametrize("times", [1, MOST_OTHERS, 3 * MOST_OTHERS])
@pytest.mark.parametrize(
    ("odd", "meaning"),
    [
        (_more({}), [says("t")]),
        (_more({"reasoning_content": "r"}), [thinks("r"), says("t")]),
        (_more({"reasoning": "r"}), [thinks("r"), says("t")]),
        (_more({"reasoning": "", "tool_calls": [], "refusal": None}, error=None), [says("t")]),
        (_more({"content": ""}), []),
        (_more({"content": None}), []),
        (_more({"content": [{"type": "text", "text": "x"}]}), [says("x")]),
        (_more({}, {"index": 1}), []),
        (event({"model": "m", "choices": [{"delta": {"content": "t"}}, {"index": 1, "delta": {"content": "u"}}]}), [says("t")]),
        (event({"model": "m", "choices": []}), []),
        (b": nothing\n\n", []),
    ],
)  # fmt: skip
def test_what_says_more_or_less_than_text_is_understood_among_what_says_text_alone(
    odd: bytes, meaning: list[Delta], times: int
) -> None:
    plain, alone = text("a"), says("a")
    expected = joined([alone, alone, *[*meaning, alone] * times, END])
    assert joined(decode(plain, plain, *[odd, plain] * times, STOP)) == expected
    assert joined(decode(plain * 2 + (odd + plain) * times + STOP)) == expected


def test_usage_a_reason_and_an_error_beside_text_are_not_overlooked() -> None:
    counted = _more({}, usage={"prompt_tokens": 1, "completion_tokens": 2})
    assert decode(text("a"), counted, DONE)[1:] == [says("t"), Finish(None, "m", Usage(1, 2, 3))]
    assert decode(text("a"), _more({}, {"finish_reason": "length"}), DONE)[1:] == [
        says("t"),
        Finish("length", "m", None),
    ]
    called = _more({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]})
    assert decode(text("a"), called, STOP)[1:] == [says("t"), ToolCall("c", "f", "{}"), END]
    decoder = Decoder()
    assert decoder.feed(text("a") + _more({}, error={"message": "no"})) == [says("a")]
    assert type(decoder.failure) is UpstreamError


def test_usage_of_another_type_is_taken_where_it_makes_sense() -> None:
    usage = {"prompt_tokens": 3.0, "completion_tokens": None, "total_tokens": "?"}
    assert decode(event({"choices": [], "usage": usage}), DONE) == [Finish(None, None, Usage(3, 0, 3))]
    assert decode(event({"choices": [], "usage": {}}), DONE) == [Finish(None, None, None)]
    negative = {"prompt_tokens": -3, "completion_tokens": 2}
    assert decode(event({"choices": [], "usage": negative}), DONE) == [Finish(None, None, Usage(0, 2, 2))]


def test_a_tool_call_is_one_item_at_the_end() -> None:
    decoder = Decoder()
    assert decoder.feed(call(index=0, id="c0", function={"name": "f", "arguments": ""})) == []
    assert decoder.feed(call(index=1, id="c1", function={"name": "g", "arguments": "{}"})) == []
    assert decoder.feed(call(index=0, id=None, function={"name": None, "arguments": '{"x":"\\ud83d'})) == []
    assert decoder.feed(call(index=0, function={"arguments": '\\ude00"}'})) == []
    assert decoder.tokens == 4
    assert decoder.feed(chunk({}, "tool_calls", "m")) == []
    assert decoder.feed(DONE) == [
        ToolCall("c0", "f", '{"x":"\\ud83d\\ude00"}'),
        ToolCall("c1", "g", "{}"),
        Finish("tool_calls", "m", None),
    ]


def test_tool_calls_without_an_index_or_all_with_the_same_are_told_apart_by_their_ids() -> None:
    two = [
        {"id": "a", "function": {"name": "f", "arguments": "1"}},
        {"id": "b", "function": {"name": "f", "arguments": "2"}},
    ]
    expected = [ToolCall("a", "f", "1"), ToolCall("b", "f", "2"), Finish(None, None, None)]
    assert decode(event({"choices": [{"delta": {"tool_calls": two}}]}), DONE) == expected
    same = [{"index": 0, **piece} for piece in two]
    assert decode(event({"choices": [{"delta": {"tool_calls": same}}]}), DONE) == expected


@pytest.mark.parametrize("more", [{}, {"index": 0}, {"id": ""}, {"index": 0, "id": None}])
def test_calls_without_ids_are_told_apart_by_names_behind_whole_arguments(more: dict[str, object]) -> None:
    two = [
        {"function": {"name": "f", "arguments": '{"x":'}},
        {"function": {"name": "f", "arguments": "1}"}},  # a name that is repeated begins nothing
        {"function": {"name": "f", "arguments": '{"y":2}'}},
        {"function": {"name": "f", "arguments": ""}},
    ]
    deltas = decode(*(call(**piece, **more) for piece in two), DONE)
    assert deltas[:-1] == [ToolCall("call_0", "f", '{"x":1}'), ToolCall("call_1", "f", '{"y":2}')]


def test_a_piece_of_a_call_may_repeat_its_id_or_bring_a_new_one_without_a_name() -> None:
    first = call(index=0, id="a", function={"name": "f", "arguments": "1"})
    for again in ("a", "z", ""):
        deltas = decode(first, call(index=0, id=again, function={"arguments": "2"}), STOP, DONE)
        assert deltas == [ToolCall("a", "f", "12"), END]


def test_a_call_without_an_id_gets_one_and_arguments_as_an_object_become_json() -> None:
    assert decode(call(function={"name": "f", "arguments": {"a": "ä"}}), STOP) == [
        ToolCall("call_0", "f", '{"a": "ä"}'),
        END,
    ]


def test_calls_of_a_cut_answer_are_not_handed_out() -> None:
    assert decode(call(index=0, id="a", function={"name": "f", "arguments": "{"})) == []


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_the_last_event_may_lack_its_line_ends(lost: int) -> None:
    assert decode(text("x") + DONE[: len(DONE) - lost]) == [says("x"), Finish(None, "m", None)]
    usage = event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    assert decode(STOP, usage[: len(usage) - lost]) == [Finish("stop", "m", Usage(1, 1, 2))]


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "secret", "code": 500}},
        {"error": "secret"},
        {"object": "error", "message": "secret", "code": 400},
        {"error": {"message": "secret"}, "choices": [{"delta": {"content": "x"}, "finish_reason": "error"}]},
        [{"error": {"message": "secret", "code": 503}}],
        b'error: {"code":500,"message":"secret"}\n\n',
        b'error: {"code":500,\nerror: "message":"secret"}\r\n\r\n',
        b'event: error\ndata: {"message":"secret","code":500}\n\n',
        b'data: {"message":"secret"}\nevent:error\n\n',
        b'event: error\ndata: {"error":{"message":"secret"}}\n\n',
    ],
)
@pytest.mark.parametrize("before", [b"", text("w")])
def test_an_error_in_the_stream_ends_it_with_a_sentence_of_ours(before: bytes, error: object) -> None:
    decoder = Decoder()
    decoder.feed(before)
    found = error if isinstance(error, bytes) else event(error)
    assert decoder.feed(text("x\r") + found + text("y")) == [says("x\r")]
    assert type(decoder.failure) is UpstreamError
    assert "secret" not in decoder.failure.detail
    assert b"secret" in decoder.evidence
    assert (decoder.complete, decoder.ended) == (False, True)
    assert decoder.feed(DONE) + decoder.close() == []


@pytest.mark.parametrize("data", [b"<html>", b"{'a': 1}", b'{"choices":', b"[" * 100_000])
def test_what_is_not_json_is_a_bad_response(data: bytes) -> None:
    decoder = Decoder()
    assert decoder.feed(text("x") + b"data: " + data + b"\n\n" + DONE) == [says("x")]
    assert type(decoder.failure) is UpstreamBadResponse
    assert not decoder.complete


def test_bytes_that_are_no_utf8_and_numbers_that_are_no_json_are_survived() -> None:
    assert decode(b'data: {"choices":[{"delta":{"content":"a\xffb"}}]}\n\n') == [says("a\ufffdb")]
    assert decode(b'data: {"choices":[{"delta":{"content":"x"},"logprobs":-Infinity}]}\n\n') == [says("x")]


def test_an_event_named_error_ends_with_its_blank_line() -> None:
    assert decode(b"event: error\n\n" + text("x") + b"event: message\n" + text("y"), STOP) == [says("xy"), END]


def test_content_in_parts_is_its_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]
    assert decode(chunk({"content": parts})) == [says("ab")]


def test_parts_that_are_thinking_are_reasoning() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}, {"type": "text", "text": "."}]}
    assert decode(chunk({"content": [thinking]}), chunk({"content": [thinking, {"type": "text", "text": "a"}]})) == [
        thinks("Hm."),
        thinks("Hm."),
        says("a"),
    ]
    assert decode(chunk({"content": [{"type": "thinking", "thinking": 7}, {"thinking": None}]})) == []


def test_a_refusal_is_said_as_text() -> None:
    assert decode(text("a"), chunk({"content": None, "refusal": "I can"}), chunk({"refusal": "not."}), STOP)[:-1] == [
        says("a"),
        says("I can"),
        says("not."),
    ]


def filler(size: int) -> bytes:
    """Return an event whose line has so many bytes, without its line ends."""
    frame = b'data: {"choices":[{"delta":{"content":"%s"}}]}'
    return frame % (b"x" * (size - len(frame) + 2))


@pytest.mark.parametrize("step", [MAX_EVENT_BYTES * 2, 65536])
def test_an_event_may_have_a_mebibyte_and_no_byte_more(step: int) -> None:
    for size, fits in ((MAX_EVENT_BYTES, True), (MAX_EVENT_BYTES + 1, False)):
        data = text("a") + filler(size) + b"\n\n" + DONE
        decoder = Decoder()
        deltas = [delta for at in range(0, len(data), step) for delta in decoder.feed(data[at : at + step])]
        held = said_in(deltas)
        assert held == "a" + "x" * (len(held) - 1)
        assert len(held) == (1 + size - len(filler(0)) if fits else 1)
        assert (decoder.failure is None) is fits
        assert fits or type(decoder.failure) is UpstreamBadResponse


def test_a_line_that_never_ends_and_an_event_that_never_ends_are_bounded() -> None:
    for endless in (b"x" * 65536, b": comment" * 8192, b"data: x\n" * 8192):
        decoder = Decoder()
        feeds = 0
        while not decoder.ended and feeds < 100:
            feeds += 1
            assert decoder.feed(endless) == []
        assert type(decoder.failure) is UpstreamBadResponse
        assert feeds <= MAX_EVENT_BYTES // len(endless) + 1


@pytest.mark.parametrize("arguments", ["", "x" * 65536])
def test_tool_calls_that_never_end_are_bounded(arguments: str) -> None:
    decoder = Decoder()
    for index in range(5000):
        decoder.feed(call(index=0 if arguments else index, function={"name": "f", "arguments": arguments}))
    assert type(decoder.failure) is UpstreamBadResponse


def test_an_answer_in_one_piece_is_decoded_as_a_whole() -> None:
    message = {
        "role": "assistant",
        "content": "hi\r",
        "reasoning_content": "hm",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    whole = {
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage,
    }
    decoder = Decoder()
    assert joined(decoder.whole(json.dumps(whole).encode())) == [
        thinks("hm"),
        says("hi\r"),
        ToolCall("c", "f", "{}"),
        Finish("stop", "m", Usage(1, 2, 3)),
    ]
    assert decoder.complete


def test_each_entry_of_an_answer_in_one_piece_is_a_call_of_its_own() -> None:
    calls = [{"function": {"name": name, "arguments": ""}} for name in "ff"]
    whole = {"choices": [{"message": {"tool_calls": calls}}]}
    assert Decoder().whole(json.dumps(whole).encode())[:-1] == [
        ToolCall("call_0", "f", ""),
        ToolCall("call_1", "f", ""),
    ]


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"[]", b"[1]", b'{"choices":[]}'])
def test_another_body_is_no_answer(body: bytes) -> None:
    decoder = Decoder()
    assert decoder.whole(body) == []
    assert type(decoder.failure) is UpstreamBadResponse
