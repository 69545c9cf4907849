"""Which messages go upstream: the system message, then as many of the latest turns as the context window holds.

A turn is a user message with what was said until the next one. Turns stay whole, and the oldest are dropped first. Sizes
come from the upstream's own counts: two answers of one branch that were asked with the same beginning tell by the
difference of their prompts how many tokens lie between them. Only where nothing was counted are bytes estimated.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

#: English comes to about four bytes a token, other scripts to fewer: three is safe for most.
BYTES_PER_TOKEN = 3
#: What a message costs beside its text: its role and separators.
MESSAGE_TOKENS = 4
#: What an image is taken for; models count from some 100 to some 1,500.
IMAGE_TOKENS = 1000
#: The part of the window that is kept free for the answer: a quarter, of large windows no more than this.
ANSWER_SHARE = 4
MOST_ANSWER_TOKENS = 16_384
#: How many bytes of stored messages are read for a token of the window: more than fits, as counts may be smaller than
#: estimates, and a stored message has more than its text.
READ_BYTES_PER_TOKEN = 8

#: What stands for the result of a tool call that has none.
NO_RESULT = "There is no result: the tool was not run."

DEFAULT_CONTEXT_TOKENS = 8192
#: Windows of models, by the beginning of their names, the longest one that fits. From their makers' documentation.
KNOWN_WINDOWS = {
    "gpt-3.5-turbo": 16_385,
    "gpt-4": 8_192,
    "gpt-4-turbo": 128_000,
    "gpt-4o": 128_000,
    "gpt-4.1": 1_047_576,
    "gpt-5": 400_000,
    "o1": 200_000,
    "o3": 200_000,
    "o4-mini": 200_000,
    "deepseek": 64_000,
    "mistral-large": 128_000,
    "mistral-small": 32_000,
    "claude": 200_000,
    "gemini": 1_000_000,
    "llama-3.1": 128_000,
    "llama-3.2": 128_000,
    "llama-3.3": 128_000,
    "qwen2.5": 32_768,
    "qwen3": 32_768,
}


class Prompt(NamedTuple):
    """What the model is asked with: messages in OpenAI's form, and how many older ones of the branch were left out."""

    messages: list[dict[str, Any]]
    left_out: int


@lru_cache(64)
def window_of(model: str) -> int:
    """Return a model's context window in tokens, as far as it is known."""
    name = model.rpartition("/")[2].lower()
    fitting = [prefix for prefix in KNOWN_WINDOWS if name.startswith(prefix)]
    return KNOWN_WINDOWS[max(fitting, key=len)] if fitting else DEFAULT_CONTEXT_TOKENS


def prompt_tokens(context_tokens: int) -> int:
    """Return how much of a context window the prompt may fill."""
    return context_tokens - min(context_tokens // ANSWER_SHARE, MOST_ANSWER_TOKENS)


def window_bytes(context_tokens: int) -> int:
    """Return how many bytes of stored messages are worth reading for a window: no more could fit."""
    return prompt_tokens(context_tokens) * READ_BYTES_PER_TOKEN


def estimate_tokens(size: int) -> int:
    """Return how many tokens so many bytes of text are about, rounded up."""
    return -(-size // BYTES_PER_TOKEN)


def compose(system: str | None, records: Sequence[str], depth: int, context_tokens: int) -> Prompt:
    """Choose the prompt from a branch's latest messages.

    `records` are stored messages (JSON), the newest first: the last user message and those before it, as many as were
    read; `depth` is how many messages the whole branch has. The newest turn always goes, whatever its size.
    """
    read = [msgspec.json.decode(record) for record in records]
    sizes = _sizes(read)
    budget = prompt_tokens(context_tokens) - (_estimate(system) if system else 0)
    kept = used = 0
    for index, record in enumerate(read):
        used += sizes[index]
        if record["role"] == "user":  # a turn begins here
            if used > budget and kept:
                break
            kept = index + 1
    messages: list[dict[str, Any]] = []
    unanswered: list[dict[str, Any]] = []
    for record in reversed(read[:kept]):
        if unanswered and record["role"] != "tool":
            # A model takes no calls without results: the user has gone on without them, or stopped the answer.
            messages += [{"role": "tool", "tool_call_id": call["id"], "content": NO_RESULT} for call in unanswered]
        messages += upstream_messages(record)
        unanswered = record.get("tool_calls") or []
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return Prompt(messages, depth - kept)


def upstream_messages(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a stored message in OpenAI's form; an answer without a word is none, the results of several tools are several."""
    if record["role"] == "tool":
        return [{"role": "tool", **result} for result in record["tool_results"]]
    message = {"role": record["role"], "content": record.get("content", "")}
    calls = record.get("tool_calls")
    if calls:
        message["tool_calls"] = [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
            for call in calls
        ]
    return [message] if calls or message["content"] else []


def _sizes(records: Sequence[dict[str, Any]]) -> list[int]:
    """Return the tokens of each message, the newest first."""
    sizes = [_size(record) for record in records]
    asked: int | None = None  # where the next newer answer that was counted stands
    for index, record in enumerate(records):
        if record["role"] != "assistant":
            continue
        if _counted(record):
            if asked is not None:
                newer = records[asked]
                between = newer["usage"]["prompt_tokens"] - record["usage"]["prompt_tokens"]
                if between > 0 and _comparable(newer, record):
                    # From this answer to the question of the newer one: their sum is counted, its parts are not.
                    for question in range(asked + 1, index):
                        sizes[question] = min(sizes[question], between)
                        between -= sizes[question]
                    sizes[index] = between
            if index + 1 < len(records):  # the question was part of the prompt
                sizes[index + 1] = min(sizes[index + 1], record["usage"]["prompt_tokens"])
            asked = index
    return sizes


def _counted(record: dict[str, Any]) -> bool:
    """Has the upstream counted the tokens of an answer's prompt? Some send zeros instead."""
    return bool((record.get("usage") or {}).get("prompt_tokens"))


def _comparable(newer: dict[str, Any], older: dict[str, Any]) -> bool:
    """Were two answers asked with the same beginning, and counted by the same model?"""
    return (newer.get("left_out", 0), newer["asked"]) == (older.get("left_out", 0), older["asked"])


def _size(record: dict[str, Any]) -> int:
    usage = record.get("usage")
    if usage and usage["completion_tokens"] and not record.get("reasoning"):  # reasoning is counted, and not sent again
        return int(usage["completion_tokens"]) + MESSAGE_TOKENS
    size = _estimate(record.get("content", ""))
    for call in record.get("tool_calls") or ():
        size += _estimate(call["name"] + call["arguments"])
    for result in record.get("tool_results") or ():
        size += _estimate(result["content"])
    return size


def _estimate(content: str | list[dict[str, Any]]) -> int:
    if isinstance(content, str):
        return len(content.encode()) // BYTES_PER_TOKEN + MESSAGE_TOKENS
    parts = (
        IMAGE_TOKENS if part["type"] == "image_url" else len(part["text"].encode()) // BYTES_PER_TOKEN
        for part in content
    )
    return sum(parts) + MESSAGE_TOKENS
