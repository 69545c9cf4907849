"""`openapi.json`: every route, made from the pydantic models of requests and replies."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.domain.errors import (
    BadCursor,
    BadRequest,
    BodyTimeout,
    ConversationBusy,
    ConversationFull,
    ForbiddenOrigin,
    IdempotencyKeyReused,
    InternalError,
    InvalidJson,
    InvalidRequest,
    KeysUnavailable,
    NotAcceptable,
    NotAnAnswer,
    NotFound,
    ParleyError,
    RateLimited,
    ShuttingDown,
    StoreFull,
    StoreUnavailable,
    TokenLimit,
    TooBusy,
    TooLarge,
    TooManyAnswers,
    TooManyReaders,
    Unauthorized,
    UnknownModel,
    UnsupportedMediaType,
    UpstreamConnectTimeout,
    UpstreamError,
    all_errors,
)
from app.domain.requests import ConversationFields, NewMessage, Regenerate
from app.web import schemas
from app.web.auth.anonymous import COOKIE

_REF = "#/components/schemas/"
_MODELS: tuple[type[BaseModel], ...] = (
    NewMessage,
    Regenerate,
    ConversationFields,
    schemas.Conversation,
    schemas.ConversationPage,
    schemas.AnswerInOnePiece,
    schemas.UserMessage,
    schemas.Answer,
    schemas.ModelList,
    schemas.Health,
    schemas.Problem,
    schemas.StartEvent,
    schemas.NoticeEvent,
    schemas.EndEvent,
    schemas.ToolCall,
)

_WHO = (Unauthorized, KeysUnavailable)
_STORE = (*_WHO, StoreUnavailable, InternalError)
_BODY = (ForbiddenOrigin, InvalidJson, UnsupportedMediaType, InvalidRequest, TooLarge, BodyTimeout)
_ASK = (
    *_BODY,
    *_STORE,
    BadRequest,
    NotAcceptable,
    NotFound,
    ConversationBusy,
    ConversationFull,
    UnknownModel,
    IdempotencyKeyReused,
    RateLimited,
    TokenLimit,
    TooManyAnswers,
    TooManyReaders,
    StoreFull,
    ShuttingDown,
    TooBusy,
    UpstreamError,
    UpstreamConnectTimeout,
)

_STREAM = (
    "A stream of server-sent events: `start`, then text (default type, data is the text itself), `reasoning`, "
    "`tool_call` and `notice`, and exactly one `end`. An `id` is where to resume: send it back as `Last-Event-ID`. "
    "Comment lines are signs of life."
)
#: What one of a stream's events holds (there is no `itemSchema` before OpenAPI 3.2; tools apply this one to each event).
_EVENT = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
    "required": ["data"],
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    "description": "1 to 255 visible characters. The same key never asks the model twice: it attaches to the first answer.",
}
_CURSOR = {
    "name": "Last-Event-ID",
    "in": "header",
    "schema": {"type": "string", "pattern": "^[0-9]{0,15}$"},
    "description": "The id of the last event that was received; what follows is sent.",
}


def document(version: str) -> dict[str, Any]:
    """Return the whole document (OpenAPI 3.1)."""
    _, definitions = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF + "{model}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Parley",
            "version": version,
            "description": "A chat backend: POST a message, read the answer as it is written, GET a conversation by its id. "
            "An answer belongs to the store, not to the connection.",
        },
        "paths": _paths(),
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "`AUTH=anonymous`"},
                "bearer": {"type": "http", "scheme": "bearer", "description": "`AUTH=token` and `AUTH=jwt`"},
            },
        },
        "x-error-codes": {
            error.code: {"status": error.status, "retryable": error.retryable, "description": error.__doc__}
            for error in all_errors()
        },
    }


def _paths() -> dict[str, Any]:
    conversation = _path_id("conv_<32 hex>", schemas.CONVERSATION_ID)
    message = _path_id("msg_<32 hex>_<number>", schemas.MESSAGE_ID)
    page = _path_id("from `next` of the page before", "^[0-9]{1,15}-[0-9a-f]{32}$")
    read = (*_STORE, NotFound)
    return {
        "/messages": {
            "post": _operation(
                "Say something, and read the answer",
                {200: _answer(), 204: "With `Last-Event-ID`: nothing is left to send."},
                (*_ASK, BadCursor),
                body=NewMessage,
                parameters=[_KEY, _CURSOR],
            )
        },
        "/messages/{id}": {
            "get": _operation(
                "Read one message", {200: _json(schemas.UserMessage, schemas.Answer)}, read, parameters=[message]
            )
        },
        "/messages/{id}/events": {
            "get": _operation(
                "Read an answer's events, from the start or after `Last-Event-ID`",
                {200: _stream(), 204: "Nothing is left to send."},
                (*read, NotAnAnswer, BadCursor, TooManyReaders),
                parameters=[message, _CURSOR],
            )
        },
        "/messages/{id}/stop": {
            "post": _operation(
                "Stop an answer; the reply is the final message",
                {200: _json(schemas.Answer)},
                (*read, ForbiddenOrigin, NotAnAnswer),
                parameters=[message],
            )
        },
        "/messages/{id}/regenerate": {
            "post": _operation(
                "Another answer to the same message, as a sibling",
                {200: _answer(), 204: "With `Last-Event-ID`: nothing is left to send."},
                (*_ASK, NotAnAnswer, BadCursor),
                body=Regenerate,
                body_required=False,
                parameters=[message, _KEY, _CURSOR],
            )
        },
        "/conversations": {
            "post": _operation(
                "Create a conversation without messages",
                {201: _json(schemas.Conversation)},
                (*_STORE, *_BODY, UnknownModel, StoreFull),
                body=ConversationFields,
                body_required=False,
            ),
            "get": _operation("List one's conversations", {200: _json(schemas.ConversationPage)}, _STORE),
        },
        "/conversations/before/{id}": {
            "get": _operation("The next page", {200: _json(schemas.ConversationPage)}, read, parameters=[page])
        },
        "/conversations/{id}": {
            "get": _operation(
                "Read a conversation with all its messages",
                {200: _json(schemas.Conversation), 304: "It is as `If-None-Match` says."},
                read,
                parameters=[conversation],
            ),
            "patch": _operation(
                "Change title, system, model or metadata",
                {200: _json(schemas.Conversation)},
                (*read, *_BODY, UnknownModel, StoreFull),
                body=ConversationFields,
                parameters=[conversation],
            ),
            "delete": _operation(
                "Delete a conversation; a running answer is stopped first",
                {204: "It is gone."},
                (*read, ForbiddenOrigin),
                parameters=[conversation],
            ),
        },
        "/models": {"get": _operation("What may be asked for", {200: _json(schemas.ModelList)}, _WHO)},
        "/health/live": {"get": _operation("Does the process answer?", {200: _json(schemas.Health)}, (), owner=False)},
        "/health/ready": {
            "get": _operation(
                "Can it take requests?",
                {200: _json(schemas.Health)},
                (StoreUnavailable, ShuttingDown),
                owner=False,
            )
        },
        "/health/stream": {
            "get": _operation(
                "Do events arrive when they are sent? A few timed ticks", {200: _ticks()}, (), owner=False
            )
        },
    }


def _operation(
    summary: str,
    replies: Mapping[int, Any],
    errors: tuple[type[ParleyError], ...],
    *,
    body: type[BaseModel] | None = None,
    body_required: bool = True,
    parameters: list[dict[str, Any]] | None = None,
    owner: bool = True,
) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, reply in replies.items():
        responses[str(status)] = {"description": reply} if isinstance(reply, str) else reply
    for status in sorted({error.status for error in errors}):
        codes = ", ".join(f"`{error.code}`" for error in errors if error.status == status)
        responses[str(status)] = {
            "description": codes,
            "content": {"application/problem+json": {"schema": {"$ref": f"{_REF}Problem"}}},
        }
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    if owner:
        operation["security"] = [{"cookie": []}, {"bearer": []}, {}]
    if parameters:
        operation["parameters"] = parameters
    if body is not None:
        content = {"application/json": {"schema": {"$ref": f"{_REF}{body.__name__}"}}}
        operation["requestBody"] = {"required": body_required, "content": content}
    return operation


def _path_id(description: str, pattern: str) -> dict[str, Any]:
    schema = {"type": "string", "pattern": pattern}
    return {"name": "id", "in": "path", "required": True, "schema": schema, "description": description}


def _json(*models: type[BaseModel]) -> dict[str, Any]:
    refs = [{"$ref": f"{_REF}{model.__name__}"} for model in models]
    schema = refs[0] if len(refs) == 1 else {"oneOf": refs}
    return {"description": (models[0].__doc__ or "").strip(), "content": {"application/json": {"schema": schema}}}


def _stream() -> dict[str, Any]:
    return {"description": _STREAM, "content": {"text/event-stream": {"schema": _EVENT}}}


def _ticks() -> dict[str, Any]:
    return _stream() | {
        "description": "`tick` events, `every_ms` apart: `tick`, `of`, `every_ms`. Then the stream ends."
    }


def _answer() -> dict[str, Any]:
    reply = _json(schemas.AnswerInOnePiece)
    reply["content"] |= _stream()["content"]
    return reply | {"description": f"{_STREAM} With `Accept: application/json`: the whole answer, once it is complete."}
