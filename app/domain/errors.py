"""Every error that a client can be told: its code, HTTP status, and whether trying again can help.

An exception carries its own wire form; one place (`app.web.problems`) renders it. `RequestError`s answer a request;
an `UpstreamError` ends an answer, and becomes a response only where an answer was awaited in one piece.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from app.domain.limits import Allowance


class ParleyError(Exception):
    """What went wrong, in words for the client (`detail`), under a code for programs."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False
    #: Seconds for the `Retry-After` header; None for no header.
    retry_after: int | None = None
    #: Does the exception answer a request (True), or end an answer (False)?
    answers_request: ClassVar[bool] = True

    def __init__(self, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        """`extra` holds further members of the problem document, ready for JSON; `headers` go with the response."""
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra


class InternalError(ParleyError):
    """A defect of the service: what went wrong is in its log, under the request's id."""


class InvalidJson(ParleyError):
    """The body is not JSON."""

    code, status, title = "invalid_json", 400, "Not JSON"


class BadRequest(ParleyError):
    """The request's line or headers are not usable."""

    code, status, title = "bad_request", 400, "Bad request"


class BadCursor(ParleyError):
    """The cursor is not one of this answer's."""

    code, status, title = "bad_cursor", 400, "Bad cursor"


class Unauthorized(ParleyError):
    """The request brings no bearer token, or one that is not taken."""

    code, status, title = "unauthorized", 401, "Unauthorized"


class ForbiddenOrigin(ParleyError):
    """A page of another origin has sent a request that changes something; `CORS_ORIGINS` lists those that may."""

    code, status, title = "forbidden_origin", 403, "Forbidden origin"


class NotFound(ParleyError):
    """There is no such thing, or it is somebody else's."""

    code, status, title = "not_found", 404, "Not found"


class NotAnAnswer(ParleyError):
    """The message exists, but a user wrote it."""

    code, status, title = "not_an_answer", 404, "Not an answer"


class MethodNotAllowed(ParleyError):
    """The path exists, not for this method."""

    code, status, title = "method_not_allowed", 405, "Method not allowed"


class NotAcceptable(ParleyError):
    """None of the media types that the client accepts can be made."""

    code, status, title = "not_acceptable", 406, "Not acceptable"


class BodyTimeout(ParleyError):
    """The body came too slowly."""

    code, status, title, retryable = "body_timeout", 408, "Body too slow", True


class ConversationBusy(ParleyError):
    """An answer is being written in this conversation; `message` is its id."""

    code, status, title = "conversation_busy", 409, "An answer is being written"


class TooLarge(ParleyError):
    """The body is larger than `MAX_MESSAGE_BYTES`."""

    code, status, title = "too_large", 413, "Too large"


class UnsupportedMediaType(ParleyError):
    """The body is not declared as JSON."""

    code, status, title = "unsupported_media_type", 415, "Unsupported media type"


class InvalidRequest(ParleyError):
    """The body is JSON, but not what is asked for; `errors` names the fields."""

    code, status, title = "invalid_request", 422, "Invalid request"


class UnknownModel(ParleyError):
    """The model is none of those that `GET /models` lists."""

    code, status, title = "unknown_model", 422, "Unknown model"


class IdempotencyKeyReused(ParleyError):
    """The key was used with another body."""

    code, status, title = "idempotency_key_reused", 422, "Idempotency key reused"


class RateLimited(ParleyError):
    """Too many messages within a minute, of the owner or from the address."""

    code, status, title, retryable, retry_after = "rate_limited", 429, "Too many messages", True, 5

    def __init__(self, detail: str, *, allowances: Sequence[Allowance] = (), **options: Any) -> None:
        """`allowances` is what is left of each limit; `Retry-After` is when all of them have more."""
        super().__init__(detail, **options)
        self.allowances = tuple(allowances)
        waits = [left.reset_seconds for left in allowances if left.remaining <= 0 and left.reset_seconds is not None]
        if waits:
            self.retry_after = max(1, *waits)


class TokenLimit(RateLimited):
    """The owner has used up the tokens of the day (UTC)."""

    code, title = "token_limit", "No tokens left today"


class TooManyAnswers(RateLimited):
    """As many answers are being written for the owner as may be at the same time."""

    code, title = "too_many_answers", "Too many answers at once"


class TooManyReaders(RateLimited):
    """As many streams are open for the owner as may be at the same time."""

    code, title = "too_many_readers", "Too many streams at once"


class ConversationFull(ParleyError):
    """The conversation is as large as one may become; go on in a new one."""

    code, status, title = "conversation_full", 409, "Conversation full"


class TooBusy(ParleyError):
    """This process writes as many answers as it may (`MAX_ACTIVE_ANSWERS`). Nothing was stored."""

    code, status, title, retryable, retry_after = "too_busy", 503, "Too busy", True, 3


class StoreUnavailable(ParleyError):
    """Redis does not answer."""

    code, status, title, retryable, retry_after = "store_unavailable", 503, "Store unavailable", True, 2


class ShuttingDown(ParleyError):
    """This process is ending and starts no new answers."""

    code, status, title, retryable, retry_after = "shutting_down", 503, "Shutting down", True, 1


class KeysUnavailable(ParleyError):
    """The keys that tokens are checked with (`JWT_JWKS_URL`) could not be fetched yet."""

    code, status, title, retryable, retry_after = "keys_unavailable", 503, "Keys unavailable", True, 5


class StoreFull(ParleyError):
    """Redis has reached its `maxmemory` and takes nothing more."""

    code, status, title, retryable = "store_full", 507, "Store full", True


class UpstreamError(ParleyError):
    """The model server failed. The detail is a sentence of ours: never its body, a header or a key."""

    code, status, title, retryable = "upstream_error", 502, "Upstream error", True
    answers_request = False
    #: May the same request succeed within seconds? `retryable` is for clients, who may come back much later.
    transient: bool = True

    def __init__(
        self, detail: str, *, transient: bool | None = None, retry_after_seconds: float | None = None, **extra: Any
    ) -> None:
        """`retry_after_seconds` is how long the upstream asks to be left alone, None where it says nothing.

        `transient` where it is another than the class's. Neither is told to clients.
        """
        super().__init__(detail, **extra)
        self.retry_after_seconds = retry_after_seconds
        if transient is not None:
            self.transient = transient


class UpstreamUnreachable(UpstreamError):
    """No connection: refused, no such host, TLS."""

    code, title = "upstream_unreachable", "Upstream unreachable"


class UpstreamRefused(UpstreamError):
    """The upstream will not take this request, however often it is asked (400, 401, 403, 404, 422 and the like)."""

    code, title, retryable = "upstream_refused", "Upstream refused", False
    transient = False
    #: The HTTP status, where there was one.
    answered: int | None = None


class UpstreamContextTooLong(UpstreamRefused):
    """The prompt, with room for the answer, is more than the model can take."""

    code, title = "upstream_context_too_long", "Upstream context too long"

    def __init__(self, detail: str, *, limit_tokens: int | None = None, **options: Any) -> None:
        """`limit_tokens` is the model's context in tokens as the upstream names it; None where it names none."""
        super().__init__(detail, **options)
        self.limit_tokens = limit_tokens


class UpstreamRateLimited(UpstreamError):
    """The upstream answered 429."""

    code, title = "upstream_rate_limited", "Upstream rate limit"


class UpstreamBadResponse(UpstreamError):
    """What came is not an event stream of chat completions."""

    code, title = "upstream_bad_response", "Upstream sent something else"


class UpstreamCut(UpstreamError):
    """The connection ended in the middle of the answer."""

    code, title = "upstream_cut", "Upstream broke off"


class UpstreamConnectTimeout(UpstreamError):
    """No connection within `CONNECT_TIMEOUT_SECONDS`."""

    code, status, title = "upstream_connect_timeout", 504, "Upstream connect timeout"


class UpstreamFirstTokenTimeout(UpstreamError):
    """No token within `FIRST_TOKEN_TIMEOUT_SECONDS`."""

    code, status, title = "upstream_first_token_timeout", 504, "Upstream first token timeout"


class UpstreamTokenTimeout(UpstreamError):
    """No further token within `TOKEN_TIMEOUT_SECONDS`."""

    code, status, title = "upstream_token_timeout", 504, "Upstream token timeout"


class UpstreamAnswerTimeout(UpstreamError):
    """The answer was not complete within `ANSWER_TIMEOUT_SECONDS`."""

    code, status, title = "upstream_answer_timeout", 504, "Upstream answer timeout"
    transient = False  # the time that the whole answer has is over, however it would have gone on


def all_errors() -> Iterator[type[ParleyError]]:
    """Yield every error class, the base class first: the documentation's source of `code` values."""
    stack: list[type[ParleyError]] = [ParleyError]
    while stack:
        error = stack.pop(0)
        yield error
        stack.extend(error.__subclasses__())
