"""Reads what a request brings: its JSON body, and the headers that have a meaning here."""

import asyncio
import re
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from app.domain.errors import (
    BadCursor,
    BadRequest,
    BodyTimeout,
    InvalidJson,
    InvalidRequest,
    NotAcceptable,
    NotFound,
    UnsupportedMediaType,
)
from app.domain.ids import MessageRef, parse_conversation_id, parse_message_id

_CURSOR = re.compile(r"[0-9]{1,15}")
_KEY = re.compile(r"[!-~]{1,255}")

Body = TypeVar("Body", bound=BaseModel)

BODY_TIMEOUT = web.AppKey("BODY_TIMEOUT", float)


async def read_body(request: web.Request, model: type[Body], *, optional: bool = False) -> Body:
    """Return the checked body. Raises one of the errors that DESIGN's table has for a bad one; nothing was stored then."""
    raw = await read_bytes(request)
    if optional and not raw:
        return model()
    if request.content_type != "application/json" or (request.charset or "utf-8").lower() != "utf-8":
        raise UnsupportedMediaType("Send JSON in UTF-8, with `Content-Type: application/json`.")
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        if found[0]["type"] == "json_invalid":
            raise InvalidJson(f"The body is not JSON: {found[0]['msg']}.") from None
        errors = _by_field(found)
        detail = "; ".join(f"{item['field']}: {item['message']}" for item in errors[:5])
        raise InvalidRequest(f"{detail}. /docs says what is taken.", errors=errors) from None


def _by_field(found: list[ErrorDetails]) -> list[dict[str, str]]:
    """Return what is wrong with each field; where several forms are possible, what is wrong with each of them."""
    told: dict[str, list[str]] = {}
    for item in found:
        # pydantic also puts into the place which form of a field it has tried: that is no name of ours.
        names = [str(name) for name in item["loc"] if isinstance(name, int) or name.isidentifier()]
        told.setdefault(".".join(names) or "body", []).append(item["msg"])
    return [{"field": field, "message": ", or: ".join(messages)} for field, messages in told.items()]


async def read_bytes(request: web.Request) -> bytes:
    """Return the whole body. Raises BodyTimeout and BadRequest; one that is too large is aiohttp's 413."""
    try:
        if request.content.is_eof():  # it came with its head, as most do: no timer
            return await request.read()
        async with asyncio.timeout(request.app[BODY_TIMEOUT] or None):
            return await request.read()
    except TimeoutError:
        raise BodyTimeout("The body came too slowly (BODY_TIMEOUT_SECONDS).") from None
    except web.RequestPayloadError:
        raise BadRequest("The body is not what `Content-Encoding` or `Transfer-Encoding` says.") from None


def cursor_of(request: web.Request) -> int | None:
    """Return the position in `Last-Event-ID`; None without one. Raises BadCursor."""
    text = request.headers.get("Last-Event-ID")
    if text is None or text == "":
        return None
    if not _CURSOR.fullmatch(text):
        raise BadCursor("`Last-Event-ID` is the id of an event that was received: digits only.")
    return int(text)


def idempotency_key_of(request: web.Request) -> str | None:
    """Return the `Idempotency-Key`; None without one. Raises BadRequest."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise BadRequest("`Idempotency-Key` has 1 to 255 visible ASCII characters.")
    return key


def wants_json(request: web.Request) -> bool:
    """Does the client want the answer in one piece? An event stream is the default. Raises NotAcceptable."""
    accepted = [item.split(";")[0].strip().lower() for item in request.headers.get("Accept", "").split(",")]
    if (
        any(item in ("", "*/*", "text/*", "text/event-stream") for item in accepted)
        and "application/json" not in accepted
    ):
        return False
    if "text/event-stream" in accepted:
        return False
    if any(item in ("application/json", "application/*") for item in accepted):
        return True
    raise NotAcceptable("An answer comes as `text/event-stream` or as `application/json`.")


def conversation_of(request: web.Request) -> str:
    """Return the 32 hex digits of the conversation in the path. Raises NotFound for what is no id."""
    conversation = parse_conversation_id(request.match_info["id"])
    if conversation is None:
        raise NotFound("There is no such conversation. Ids are those that this service gave to you.")
    return conversation


def message_of(request: web.Request) -> MessageRef:
    """Return the message in the path. Raises NotFound for what is no id."""
    ref = parse_message_id(request.match_info["id"])
    if ref is None:
        raise NotFound("There is no such message. Ids are those that this service gave to you.")
    return ref
