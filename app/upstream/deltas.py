"""What an upstream says, piece by piece: the typed items that its async generator yields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

TextKind = Literal["message", "reasoning"]
#: A piece of the answer's text or of the model's reasoning, never empty. Nearly all deltas are pieces, so it is a plain
#: tuple, the only delta that is one: to make and to tell apart a class of its own would cost each token a microsecond.
Piece = tuple[TextKind, str]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One complete call of a tool; `arguments` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


class Usage(NamedTuple):
    """What the upstream says that the answer cost, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Always the last item of an answer that came to its end.

    `reason` is the upstream's `finish_reason`; `model` the one that answered; None where the upstream said nothing of it.
    """

    reason: str | None
    model: str | None
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Notice:
    """What goes on before the first token; never comes after one.

    `data` is `{"code": "retrying", "attempt": n, "delay_seconds": x}` before a wait: `attempt` is the number of the
    attempt that comes after it, counted for each model, so from 2; x has two decimals. Or it is
    `{"code": "model_changed", "model": "..."}` before that model is asked instead of the one before. Whoever composes the
    prompt adds `{"code": "context_trimmed", "left_out": n}`.
    """

    data: Mapping[str, Any]


Delta = Piece | ToolCall | Finish | Notice


class Sink(Protocol):
    """Takes an answer's deltas at once, from the callback that brought their bytes: a task for each token costs more."""

    def say(self, text: str, now: float) -> bool:
        """Take a token of the answer's text that came `now` (of the monotonic clock), not the first one; as `take`."""

    def take(self, deltas: Sequence[Delta], tokens: int) -> bool:
        """Take deltas, made of so many tokens; return False where no more should come until `room` returns."""

    async def room(self) -> None:
        """Wait until there is room again."""
