"""Whose work a log line is about: the request, the answer, the owner. Tasks inherit it from those that start them."""

from contextvars import ContextVar

_REQUEST: ContextVar[str | None] = ContextVar("request_id", default=None)
_ANSWER: ContextVar[str | None] = ContextVar("answer", default=None)
_OWNER: ContextVar[str | None] = ContextVar("owner", default=None)

#: Of an owner's id, which is a hash itself: enough to find it in the store.
OWNER_DIGITS = 12


def about_request(request_id: str) -> None:
    """Say which request this task works for; about the owner and the answer nothing is known yet."""
    _REQUEST.set(request_id)
    _ANSWER.set(None)
    _OWNER.set(None)


def about_owner(owner: str) -> None:
    """Say whose request it is, by the id in the store."""
    _OWNER.set(owner[:OWNER_DIGITS])


def about_answer(answer: str) -> None:
    """Say which answer it is about, by its message's id."""
    _ANSWER.set(answer)


def known() -> dict[str, str]:
    """Return what is known: `request_id`, `answer`, `owner`."""
    found = (("request_id", _REQUEST.get()), ("answer", _ANSWER.get()), ("owner", _OWNER.get()))
    return {name: value for name, value in found if value is not None}
