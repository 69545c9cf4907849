"""Messages: how the store keeps them, and how clients see them.

A stored message is a JSON object that begins with `"parent"` and `"depth"` (numbers; parent 0 = none; depth = messages on
the way from the first one, itself included), so that a script finds its way up a conversation without parsing a text.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypedDict

from app.domain.events import Event, dump, numbered, parts_of, pieces_of, text_of
from app.domain.ids import MessageRef, conversation_id, message_id
from app.domain.times import rfc3339

Status = Literal["streaming", "completed", "stopped", "interrupted", "failed"]


class AnswerError(TypedDict):
    """Why an answer failed, in the form that clients get."""

    code: str
    message: str
    retryable: bool


class UsageCount(TypedDict):
    """What an answer cost, as the upstream counted it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerHead(NamedTuple):
    """What is known of an answer from its begin."""

    ref: MessageRef
    #: Number of the user message that it replies to.
    parent: int
    depth: int
    #: The model that was asked for.
    model: str
    created_at: int
    #: About how many tokens the prompt has, for where the upstream counts none; 0 where that does not matter.
    prompt_estimate: int = 0
    #: The address whose limits it counts for; None: none.
    address: str | None = None


class Ending(NamedTuple):
    """How an answer ended. `model` is the one that answered; None where the upstream named none."""

    status: Status
    finish_reason: str | None = None
    model: str | None = None
    usage: UsageCount | None = None
    error: AnswerError | None = None


def user_record(content: str | list[dict[str, Any]], created_at: int) -> str:
    """Return a user message as the store keeps it, but for `parent` and `depth`, which the begin script puts before it."""
    return dump({"role": "user", "content": content, "created_at": created_at})[1:]


def tool_record(results: list[dict[str, str]], created_at: int) -> str:
    """Return the results of tools (`tool_call_id`, `content`) as the store keeps them; as `user_record`."""
    return dump({"role": "tool", "tool_results": results, "created_at": created_at})[1:]


def ended_record(head: AnswerHead, events: Sequence[Event], ending: Ending, completed_at: int) -> dict[str, Any]:
    """Return an answer that has ended as the store keeps it (as JSON), its texts taken from its events."""
    reasoning = text_of(events, "reasoning")
    tool_calls = [json.loads(event.data) for event in events if event.kind == "tool_call"]
    notices = [json.loads(event.data) for event in events if event.kind == "notice"]
    left_out = [notice["left_out"] for notice in notices if notice["code"] == "context_trimmed"]
    return {
        "parent": head.parent,
        "depth": head.depth,
        "role": "assistant",
        "status": ending.status,
        "asked": head.model,
        "model": ending.model,
        "created_at": head.created_at,
        "completed_at": completed_at,
        "finish_reason": ending.finish_reason,
        "usage": ending.usage,
        "error": ending.error,
        "content": text_of(events, "message"),
        **({"reasoning": reasoning} if reasoning else {}),
        **({"tool_calls": tool_calls} if tool_calls else {}),
        **({"left_out": left_out[-1]} if left_out else {}),
        "parts": parts_of(events),
    }


def head_of(ref: MessageRef, record: dict[str, Any]) -> AnswerHead:
    """Read the head of an answer back from its stored record."""
    return AnswerHead(ref, record["parent"], record["depth"], record["asked"], record["created_at"])


def start_data(conversation: str, number: int, reply_to: int, model: str) -> str:
    """Return the data of an answer's `start` event."""
    return dump(
        {
            "conversation": conversation_id(conversation),
            "message": message_id(conversation, number),
            "reply_to": message_id(conversation, reply_to),
            "model": model,
        }
    )


def end_data(ending: Ending) -> str:
    """Return the data of an answer's `end` event."""
    return dump(ending._asdict())


def ending_of(record: dict[str, Any]) -> Ending:
    """Read how an answer ended from its stored record."""
    return Ending(record["status"], record["finish_reason"], record["model"], record["usage"], record["error"])


def replayed(ref: MessageRef, record: dict[str, Any]) -> list[Event]:
    """Make an ended answer's events again from its stored record: the same positions, neighbouring text joined."""
    pieces = [
        ("start", start_data(ref.conversation, ref.number, record["parent"], record["asked"])),
        *pieces_of(record["parts"], record["content"], record.get("reasoning", "")),
        ("end", end_data(ending_of(record))),
    ]
    return list(numbered(pieces, 0))


def wire_message(ref: MessageRef, record: dict[str, Any], events: Sequence[Event] | None = None) -> dict[str, Any]:
    """Return a message as clients see it; `events` are those of an answer that runs, for its text so far."""
    conversation, number = ref
    message: dict[str, Any] = {
        "id": message_id(conversation, number),
        "conversation": conversation_id(conversation),
        "parent": message_id(conversation, record["parent"]) if record["parent"] else None,
        "role": record["role"],
        "content": record.get("content", ""),
        "status": record.get("status", "completed"),
        "created_at": rfc3339(record["created_at"]),
    }
    if record["role"] == "tool":
        results = record["tool_results"]
        message["tool_results"] = results
        if len(results) == 1:
            message |= results[0]
    if record["role"] != "assistant":
        return message
    completed_at = record.get("completed_at")
    message |= {
        "model": record.get("model") or record["asked"],
        "finish_reason": record.get("finish_reason"),
        "usage": record.get("usage"),
        "error": record.get("error"),
        "completed_at": rfc3339(completed_at) if completed_at is not None else None,
    }
    reasoning = record.get("reasoning")
    tool_calls = record.get("tool_calls")
    if message["status"] == "streaming" and events:
        message["content"] = text_of(events, "message")
        reasoning = text_of(events, "reasoning")
        tool_calls = [json.loads(event.data) for event in events if event.kind == "tool_call"]
    if reasoning:
        message["reasoning"] = reasoning
    if tool_calls:
        message["tool_calls"] = tool_calls
    if "left_out" in record:
        message["left_out"] = record["left_out"]
    return message


def derived_title(content: str, limit: int = 80) -> str:
    """Make a conversation's title from its first message: its first words, on one line, of at most `limit` characters."""
    line = " ".join(content.split())
    if len(line) <= limit:
        return line
    cut = line[: limit - 1]
    space = cut.rfind(" ")
    return (cut[:space] if space > limit // 2 else cut) + "…"
