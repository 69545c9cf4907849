"""What a trace is made of: spans with names, ids and codes, never content. Here they go nowhere; `app.tracing` sends them."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext


class Span:
    """A piece of work that takes time."""

    def note(self, name: str, value: str | int) -> None:
        """Set an attribute."""

    def event(self, name: str) -> None:
        """Say that something happens now."""

    def end(self, error: str | None = None) -> None:
        """End it; `error` is the code of what went wrong. Called once."""


class Spans:
    """Makes spans, each the child of the one that its task, or the task that began that, is in."""

    def begin(self, name: str, **attributes: str | int) -> Span:  # noqa: ARG002 - nobody listens
        """Begin one, to be ended by the caller; nothing is its child."""
        return _NOWHERE

    def within(
        self,
        name: str,  # noqa: ARG002
        headers: Mapping[str, str] | None = None,  # noqa: ARG002
        **attributes: str | int,  # noqa: ARG002
    ) -> AbstractContextManager[Span]:
        """Be in one, for as long as the context lasts; `headers` may name another service's span as its parent."""
        return _IN_NOTHING

    def close(self) -> None:
        """Send what is left. Blocks."""


_NOWHERE = Span()
_IN_NOTHING = nullcontext(_NOWHERE)
#: For a service that is not traced.
NO_SPANS = Spans()
