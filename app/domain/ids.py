"""The ids of conversations and messages, and how one is read out of the other.

A conversation is `conv_<32 hex>`, a message `msg_<the same 32 hex>_<number>`, so that one id is all that a GET needs.
Inside the service a conversation is named by its 32 hex digits alone, which are also the hash tag of its Redis keys.
"""

import hashlib
import re
import secrets
from typing import NamedTuple

_CONVERSATION = re.compile(r"conv_([0-9a-f]{32})")
# Numbers have no leading zero, so that a message has one spelling only.
_MESSAGE = re.compile(r"msg_([0-9a-f]{32})_([1-9][0-9]{0,8})")

#: The number of a conversation's first message.
FIRST_NUMBER = 1


class MessageRef(NamedTuple):
    """A message: the 32 hex digits of its conversation, and its number there."""

    conversation: str
    number: int


def new_conversation() -> str:
    """Return 32 random hex digits for a new conversation."""
    return secrets.token_hex(16)


def derived_conversation(owner: str, idempotency_key: str) -> str:
    """Return the 32 hex digits that an owner's key always leads to, so that a repeated POST finds the first one's conversation."""
    return hashlib.sha256(f"{owner}\n{idempotency_key}".encode()).hexdigest()[:32]


def conversation_id(conversation: str) -> str:
    """Spell the id of a conversation as clients see it."""
    return f"conv_{conversation}"


def message_id(conversation: str, number: int) -> str:
    """Spell the id of a message as clients see it."""
    return f"msg_{conversation}_{number}"


def parse_conversation_id(text: str) -> str | None:
    """Return the 32 hex digits of `conv_…`, or None where the text is no such id."""
    match = _CONVERSATION.fullmatch(text)
    return match[1] if match else None


def parse_message_id(text: str) -> MessageRef | None:
    """Return what `msg_…_<number>` names, or None where the text is no such id."""
    match = _MESSAGE.fullmatch(text)
    return MessageRef(match[1], int(match[2])) if match else None


def ref_of(text: str) -> MessageRef:
    """Return the same of an id that was checked before, or is our own."""
    ref = parse_message_id(text)
    assert ref is not None
    return ref
