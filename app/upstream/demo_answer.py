"""What the demo model says: a function of the conversation, the same each time."""

import re
from collections.abc import Sequence
from typing import NamedTuple

#: How much of an earlier message is quoted, in characters.
QUOTED_CHARACTERS = 80
#: How far the demo model counts when it is asked for a long answer, so that there is time to stop it or to reload.
LONG_LINES = 60

_GREETING = re.compile(r"\b(hi|hello|hey|hallo|good (morning|evening|day))\b", re.IGNORECASE)
_LONG = re.compile(r"\blong\b", re.IGNORECASE)


class Message(NamedTuple):
    """A message of the conversation, as text."""

    role: str
    content: str


def compose(messages: Sequence[Message]) -> str:
    """Return the answer to the last user message, in Markdown; it quotes what the user said before."""
    said = [message.content for message in messages if message.role == "user"]
    last = said[-1] if said else ""
    parts = [
        (
            "I am Parley's built-in demo model: no language model, only a program that reads what you write and "
            "answers in the same way each time."
        ),
        f"{_opening(last)}\n\n> {shortened(last)}",
        _history(said[:-1]),
        (
            f"Of your message I can tell this much:\n\n```text\nwords:      {len(last.split())}\n"
            f"characters: {len(last)}\n```"
        ),
    ]
    if _LONG.search(last):
        parts.append("You asked for something long, so I count:\n\n" + "\n".join(_count(LONG_LINES)))
    parts.append("For a real model, set `OPENAI_API_KEY` or `OPENAI_BASE_URL` and start the service again.")
    return "\n\n".join(parts)


def pieces(text: str) -> list[str]:
    """Split a text into words with the space before them; joined, they are the text."""
    return re.findall(r"\s*\S+|\s+$", text)


def count_tokens(text: str) -> int:
    """Return how many words and marks a text has, the demo model's idea of a token."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def shortened(text: str) -> str:
    """Return a text on one line, cut to `QUOTED_CHARACTERS`."""
    line = " ".join(text.split())
    return line if len(line) <= QUOTED_CHARACTERS else line[: QUOTED_CHARACTERS - 1].rstrip() + "…"


def _opening(last: str) -> str:
    if not last.strip():
        return "You wrote nothing that I can read:"
    if _GREETING.search(last):
        return "Hello, and welcome! You wrote:"
    if last.rstrip().endswith("?"):
        return "A good question, though one for a real model. You asked:"
    return "Thank you for your message. You wrote:"


def _history(earlier: Sequence[str]) -> str:
    if not earlier:
        return "This is the first thing you said in this conversation."
    lines = [f"- The first thing you said was: “{shortened(earlier[0])}”"]
    if len(earlier) > 1:
        lines.append(f"- Just before this you said: “{shortened(earlier[-1])}”")
    lines.append(f"- This is message number **{len(earlier) + 1}** from you.")
    return "I remember what you said before:\n\n" + "\n".join(lines)


def _count(to: int) -> list[str]:
    return [f"{number}. This is line {number} of {to}, and I write it a word at a time." for number in range(1, to + 1)]
