"""Reads what a request brings: its JSON body, and the headers that have a meaning here."""

import asyncio
import re
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

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
        errors = _by_field(found, from_json(raw))
        detail = "; ".join(f"{item['field']}: {item['message']}" for item in errors[:5])
        raise InvalidRequest(f"{detail}. /docs says what is taken.", errors=errors) from None


def _by_field(found: list[ErrorDetails], sent: Any) -> list[dict[str, str]]:
    """Return what is wrong with each field; where several forms are possible, what is wrong with each of them."""
    told: dict[str, list[str]] = {}
    for item in found:
        told.setdefault(_field(item, sent), []).append(item["msg"])
    return [{"field": field, "message": ", or: ".join(messages)} for field, messages in told.items()]


def _field(error: ErrorDetails, sent: Any) -> str:
    """Return where an error is, in the names of what was sent, with dots between them.

    pydantic also puts into the place which form of a field it has tried: those lead nowhere in what was sent.
    """
    place = error["loc"]
    names: list[str] = []
    for before, name in zip((None, *place), place, strict=False):
        is_form_of_item = isinstance(before, int) and isinstance(sent, dict) and sent.get("type") == name
        if _leads_on(name, sent) and not is_form_of_item:
            sent = sent[name]
        elif error["type"] != "missing" or name is not place[-1]:
            continue
        names.append(str(name))
    return ".".join(names) if names else "body"


def _leads_on(name: str | int, sent: Any) -> bool:
    return name in sent if isinstance(sent, dict) else isinstance(sent, list) and isinstance(name, int)


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
