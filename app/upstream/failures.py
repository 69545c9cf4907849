"""What the upstream's failures are called: statuses as errors of ours, and logs without secrets.

Details are sentences of ours with the status at most; what the upstream said itself goes to the log.
"""

import json
import re
import time
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from app.domain.errors import (
    UpstreamContextTooLong,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRefused,
)

#: How much of what an upstream sent is logged, in bytes.
LOGGED_BYTES = 2048

_TOO_MANY_REQUESTS = 429
# Besides 5xx, what the same request may overcome by itself. A redirect, 402 or 413, say, it will meet again.
_TRANSIENT = frozenset((408, 409, _TOO_MANY_REQUESTS))
_SERVER_ERROR = 500
# With other statuses, a sentence about tokens may be about something else, such as a limit of them a minute.
_TOO_LONG = frozenset((400, 413, 422))
_CONTEXT: Final = "The conversation is longer than what the model can take."
# The codes and types of OpenAI and most others, and of llama.cpp.
_MARKS = frozenset(("context_length_exceeded", "exceed_context_size_error"))
# What the rest say in words: vLLM, old llama.cpp, llama-cpp-python, Mistral, Anthropic's and Google's compatible APIs.
_TOO_LONG_WORDS = re.compile(
    r"context (?:length|size|window)|maximum model length|too many tokens|prompt is too long"
    r"|input token count .{0,40}exceeds the maximum",
    re.IGNORECASE,
)
# A number of tokens behind its name ("context length is only 8192 tokens", "context size (8192 tokens)"), or before it.
# Between the two there is nothing but small words: in "context length exceeded: 9000" the number is another.
_LIMIT = re.compile(
    r"(?:(?:context|model) (?:length|size|window)|tokens allowed)(?: is| of)?(?: only)?[ :(]*(\d[\d,]{0,14})\b"
    r"|\b(\d[\d,]{0,14}) maximum",
    re.IGNORECASE,
)
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
# Shorter values would blacken ordinary words, and are no secrets.
_SHORTEST_SECRET = 6
# Keys of the usual form, also those of somebody else or with a part starred out, as some upstreams quote them.
_KEY = re.compile(rb"\bsk-[\w*-]+")


def of_status(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Return the error for an HTTP status that is not 200; `headers` is case-insensitive, `body` at least its begin."""
    if (too_long := context_too_long(body, words=status in _TOO_LONG)) is not None:
        return too_long
    detail = f"The model server answered with status {status}."
    if status not in _TRANSIENT and status < _SERVER_ERROR:
        refused = UpstreamRefused(detail)
        refused.answered = status
        return refused
    kind = UpstreamRateLimited if status == _TOO_MANY_REQUESTS else UpstreamError
    return kind(detail, retry_after_seconds=_retry_after(headers))


def context_too_long(body: bytes, *, words: bool = True) -> UpstreamContextTooLong | None:
    """Return the error where an upstream's JSON says that the prompt does not fit the model's context, else None.

    A code or type made for it says so anywhere; a sentence counts only with `words`.
    """
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(said, list) and said:
        said = said[0]  # Google's form
    while isinstance(said, dict) and isinstance(said.get("error"), dict | str):
        said = said["error"]  # without it, the older form: its members are at the top
    if isinstance(said, str):
        said = {"message": said}
    if not isinstance(said, dict):
        return None
    message = said.get("message")
    message = message if isinstance(message, str) else ""
    marked = any(mark in _MARKS for mark in (said.get("code"), said.get("type")) if isinstance(mark, str))
    if marked or (words and _TOO_LONG_WORDS.search(message)):
        return UpstreamContextTooLong(_CONTEXT, limit_tokens=_limit(said.get("n_ctx"), message))
    return None


def _limit(n_ctx: Any, message: str) -> int | None:
    """Return the size of the context that is named, in tokens; None where none is, or one that makes no sense."""
    if isinstance(n_ctx, int) and not isinstance(n_ctx, bool):
        return n_ctx if n_ctx > 0 else None
    match = _LIMIT.search(message)
    return (int((match[1] or match[2]).replace(",", "")) or None) if match else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the `Retry-After` in seconds, 0 for a time that is over; None where there is none that can be read.

    A date is compared with the response's own `Date`, so that two clocks which differ do no harm.
    """
    value = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    at = _timestamp(value)
    if at is None:
        return None
    now = _timestamp(headers.get("Date", ""))
    return max(0.0, at - (time.time() if now is None else now))


def _timestamp(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


class Redactor:
    """Makes bytes from the upstream fit for a log: short, on one line, and with every secret starred out."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """`secrets` are the values that must not be seen."""
        # The longest first, so that one which contains another goes as a whole.
        values = sorted((s.encode() for s in secrets if len(s) >= _SHORTEST_SECRET), key=len, reverse=True)
        self._secrets = values
        #: How many bytes `text` wants of what may be longer: a secret that is cut by the limit is still seen whole.
        self.wanted = LOGGED_BYTES + (len(values[0]) if values else 0)

    def text(self, data: bytes) -> str:
        """Return the first `LOGGED_BYTES` of the data, as text in quotes with escapes."""
        data = data[: self.wanted]
        # Stars keep the length, so nothing moves from behind the limit to before it.
        for secret in self._secrets:
            data = data.replace(secret, b"*" * len(secret))
        data = _KEY.sub(lambda match: b"*" * len(match[0]), data)
        return repr(data[:LOGGED_BYTES].decode("utf-8", "replace"))
