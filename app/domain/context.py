"""Which messages go upstream: the system message, then as many of the latest turns as the context window holds.

A turn is a user message with what was said until the next one. Turns stay whole, and the oldest are dropped first.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

#: Text that is English comes to about four bytes a token, other scripts to more tokens for their bytes: three is safe for most.
BYTES_PER_TOKEN = 3
#: What a message costs beside its text: its role and separators.
MESSAGE_TOKENS = 4
#: The part of the window that is kept free for the answer.
ANSWER_SHARE = 4


class Prompt(NamedTuple):
    """What the model is asked with: messages in OpenAI's form, and how many older ones of the branch were left out."""

    messages: list[dict[str, Any]]
    left_out: int


def prompt_tokens(context_tokens: int) -> int:
    """Return how much of a context window the prompt may fill."""
    return context_tokens - context_tokens // ANSWER_SHARE


def window_bytes(context_tokens: int) -> int:
    """Return how many bytes of stored messages are worth reading for a window: no more could fit."""
    return prompt_tokens(context_tokens) * BYTES_PER_TOKEN


def compose(system: str | None, records: Sequence[str], depth: int, context_tokens: int) -> Prompt:
    """Choose the prompt from a branch's latest messages.

    `records` are stored messages (JSON), the newest first: the last user message and those before it, as many as were
    read; `depth` is how many messages the whole branch has. The newest turn always goes, whatever its size.
    """
    budget = prompt_tokens(context_tokens) - (_tokens(system) if system else 0)
    chosen: list[dict[str, Any]] = []
    turn: list[dict[str, Any]] = []
    for text in records:
        record = json.loads(text)
        content = record.get("content", "")
        budget -= _tokens(content)
        if record["role"] == "user" or content:
            turn.append({"role": record["role"], "content": content})
        else:
            turn.append({})  # an answer without a word: counted as part of its turn, not sent
        if record["role"] == "user":
            if budget < 0 and chosen:
                break
            chosen += turn
            turn = []
    messages = [message for message in reversed(chosen) if message]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return Prompt(messages, depth - len(chosen))


def _tokens(text: str) -> int:
    return len(text.encode()) // BYTES_PER_TOKEN + MESSAGE_TOKENS
