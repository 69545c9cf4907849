"""Ids, times, titles and prompts."""

import json

import pytest

from app.domain.context import compose, prompt_tokens, window_of
from app.domain.ids import (
    MessageRef,
    conversation_id,
    derived_conversation,
    message_id,
    parse_conversation_id,
    parse_message_id,
)
from app.domain.messages import derived_title
from app.domain.times import rfc3339

T = "0123456789abcdef" * 2


def test_ids_are_read_as_they_are_written() -> None:
    assert parse_conversation_id(conversation_id(T)) == T
    assert parse_message_id(message_id(T, 12)) == MessageRef(T, 12)


@pytest.mark.parametrize(
    "text",
    ["", T, f"conv_{T[:-1]}", f"conv_{T}0", f"conv_{T.upper()}", f"conv_{T}\n", f"conv_{T[:-1]}é", f"msg_{T}_1"],
)
def test_what_is_no_conversation_id_is_refused(text: str) -> None:
    assert parse_conversation_id(text) is None


@pytest.mark.parametrize(
    "text", ["", f"msg_{T}", f"msg_{T}_0", f"msg_{T}_01", f"msg_{T}_-1", f"msg_{T}_1\n", f"msg_{T}_١"]
)
def test_what_is_no_message_id_is_refused(text: str) -> None:
    assert parse_message_id(text) is None


def test_a_key_leads_each_owner_to_a_conversation_of_its_own() -> None:
    assert derived_conversation("a", "k") == derived_conversation("a", "k")
    assert len({derived_conversation("a", "k"), derived_conversation("b", "k"), derived_conversation("a", "l")}) == 3


def test_times_are_rfc_3339_in_utc() -> None:
    assert rfc3339(1_767_225_600_007) == "2026-01-01T00:00:00.007Z"


def test_a_title_is_the_first_words_on_one_line() -> None:
    assert derived_title("  Hello,\n\tworld ") == "Hello, world"
    assert derived_title("word " * 40) == "word " * 14 + "word…"
    assert derived_title("x" * 100) == "x" * 79 + "…"


def _record(role: str, content: str) -> str:
    return json.dumps({"parent": 0, "depth": 1, "role": role, "content": content})


def test_a_prompt_is_the_system_message_and_the_turns_in_order() -> None:
    records = [_record("user", "c"), _record("assistant", "b"), _record("user", "a")]
    prompt = compose("S", records, 3, 1000)
    assert [(m["role"], m["content"]) for m in prompt.messages] == [
        ("system", "S"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
    ]
    assert prompt.left_out == 0


def test_whole_turns_are_left_out_the_oldest_first() -> None:
    size = prompt_tokens(1000) * 3 // 4  # bytes: four of these fill the prompt
    records = [
        _record("user", "new"),
        *(_record("assistant", "2" * size), _record("user", "b")),
        *(_record("assistant", "1" * size * 4), _record("user", "a")),
    ]
    prompt = compose(None, records, 5, 1000)
    assert [m["content"][:3] for m in prompt.messages] == ["b", "222", "new"]
    assert prompt.left_out == 2


def test_the_newest_message_goes_upstream_whatever_its_size() -> None:
    prompt = compose(None, [_record("user", "x" * 100_000)], 9, 1000)
    assert [len(m["content"]) for m in prompt.messages] == [100_000]
    assert prompt.left_out == 8


def test_a_turn_that_was_only_half_read_is_left_out() -> None:
    prompt = compose(None, [_record("user", "c"), _record("assistant", "b")], 3, 1000)
    assert [m["content"] for m in prompt.messages] == ["c"]
    assert prompt.left_out == 2


def test_an_answer_without_a_word_is_not_sent() -> None:
    prompt = compose(None, [_record("user", "c"), _record("assistant", ""), _record("user", "a")], 3, 1000)
    assert [m["content"] for m in prompt.messages] == ["a", "c"]
    assert prompt.left_out == 0


def _called(*ids: str) -> str:
    calls = [{"id": name, "name": "look", "arguments": "{}"} for name in ids]
    return json.dumps({"role": "assistant", "content": "", "tool_calls": calls})


def test_calls_that_were_never_answered_are_sent_with_a_result_that_says_so() -> None:
    results = {"role": "tool", "tool_results": [{"tool_call_id": "c", "content": "7"}]}
    records = [
        *(_record("user", "never mind"), _called("a", "b"), _record("user", "hi")),
        *(_record("assistant", "seven"), json.dumps(results), _called("c"), _record("user", "first")),
    ]
    messages = compose(None, records, 7, 1000).messages
    assert [(m["role"], m.get("tool_call_id"), m["content"]) for m in messages] == [
        ("user", None, "first"),
        ("assistant", None, ""),
        ("tool", "c", "7"),
        ("assistant", None, "seven"),
        ("user", None, "hi"),
        ("assistant", None, ""),
        ("tool", "a", "There is no result: the tool was not run."),
        ("tool", "b", "There is no result: the tool was not run."),
        ("user", None, "never mind"),
    ]


def _counted(prompt: int, completion: int, **more: object) -> str:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return json.dumps({"role": "assistant", "content": "y" * 3000, "asked": "m", "usage": usage, **more})


def test_what_the_upstream_counted_decides_not_the_bytes() -> None:
    """By their bytes no second turn would fit into 750 tokens; counted, all do."""
    user, answer = _record("user", "x" * 3000), _record("assistant", "y" * 3000)
    records = [_record("user", "new"), answer, user, answer, user]
    assert [m["content"][:3] for m in compose(None, records, 5, 1000).messages] == ["new"]
    records = [_record("user", "new"), _counted(320, 100), user, _counted(20, 100), user]
    assert len(compose(None, records, 5, 1000).messages) == 5
    small = _record("user", "x" * 60)
    records = [_record("user", "new"), _counted(320, 100), small, _counted(20, 100), small]
    prompt = compose(None, records, 5, 1000)
    assert (len(prompt.messages), prompt.left_out) == (5, 0)
    # The same with a window that is one turn too small: 5 + 104 + 24 fit into 150, 300 more do not.
    prompt = compose(None, records, 5, 200)
    assert (len(prompt.messages), prompt.left_out) == (3, 2)


def test_an_upstream_that_counts_zeros_has_counted_nothing() -> None:
    user, zeros = _record("user", "x" * 3000), _counted(0, 0)
    assert [m["content"][:3] for m in compose(None, [_record("user", "new"), zeros, user], 3, 1000).messages] == ["new"]


def test_counts_of_answers_that_were_asked_with_another_beginning_are_not_compared() -> None:
    small = _record("user", "x" * 60)
    # Trimmed in between: the newer prompt is smaller than the older one.
    records = [_record("user", "new"), _counted(100, 10, left_out=2), small, _counted(400, 20), small]
    assert len(compose(None, records, 7, 1000).messages) == 5


@pytest.mark.parametrize(
    ("model", "window"),
    [
        ("gpt-4o-mini-2024-07-18", 128_000),
        ("gpt-4", 8_192),
        ("gpt-4-turbo", 128_000),
        ("openai/gpt-4.1", 1_047_576),
        ("somebodys-own", 8_192),
    ],
)
def test_the_windows_of_known_models_are_known(model: str, window: int) -> None:
    assert window_of(model) == window


def test_results_of_tools_and_calls_go_upstream_in_openais_form() -> None:
    call = {"id": "c1", "name": "look", "arguments": "{}"}
    records = [
        json.dumps({"role": "tool", "tool_results": [{"tool_call_id": "c1", "content": "7"}]}),
        json.dumps({"role": "assistant", "content": "", "asked": "m", "tool_calls": [call]}),
        _record("user", "a"),
    ]
    assert compose(None, records, 3, 1000).messages == [
        {"role": "user", "content": "a"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "7"},
    ]
