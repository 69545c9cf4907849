"""Reads what a request brings: its JSON body, and the headers that have a meaning here."""

import asyncio
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeVar

from aiohttp import HttpVersion11, web
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
#: A media range of `Accept`, and its weight; a weight that is none counts as none.
_RANGE = re.compile(r"\s*([^\s;]+)(?:.*;\s*q\s*=\s*([01](?:\.\d*)?)\s*(?:;|$))?", re.ASCII)

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
    if _says_too_much(request):
        raise web.HTTPRequestEntityTooLarge(request.client_max_size, request.content_length or 0)
    try:
        if request.content.is_eof():  # it came with its head, as most do: no timer
            return await request.read()
        async with asyncio.timeout(request.app[BODY_TIMEOUT] or None):
            return await request.read()
    except TimeoutError:
        raise BodyTimeout("The body came too slowly (BODY_TIMEOUT_SECONDS).") from None
    except web.RequestPayloadError:
        raise BadRequest("The body is not what `Content-Encoding` or `Transfer-Encoding` says.") from None


def _says_too_much(request: web.Request) -> bool:
    """Does a request say itself that its body is larger than is taken?"""
    return bool(request.client_max_size) and (request.content_length or 0) > request.client_max_size


async def _invite(request: web.Request) -> None:
    """Answer `Expect: 100-continue`, unless the body is refused anyway. Other expectations are passed over (RFC 9110, 10.1.1)."""
    invited = request.headers["Expect"].lower() == "100-continue" and not _says_too_much(request)
    if invited and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # as aiohttp's own does: the response has not begun


def inviting(routes: Iterable[web.RouteDef]) -> list[web.RouteDef]:
    """Return routes whose clients may ask whether to send a body.

    aiohttp's own answer invites a body of any size, and is a bare 417 to any other expectation.
    """
    return [web.RouteDef(way.method, way.path, way.handler, way.kwargs | {"expect_handler": _invite}) for way in routes]


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
    return _prefers_json(",".join(request.headers.getall("Accept", ())))


@lru_cache(64)
def _prefers_json(accept: str) -> bool:
    weights = {
        match[1].lower(): float(match[2] or 1) for item in accept.split(",") if (match := _RANGE.match(item))
    } or {"*/*": 1.0}
    stream, whole = _weight(weights, "text/event-stream"), _weight(weights, "application/json")
    if not (stream[0] or whole[0]):
        raise NotAcceptable("An answer comes as `text/event-stream` or as `application/json`.")
    return whole > stream


def _weight(weights: dict[str, float], kind: str) -> tuple[float, int]:
    """Return how much a media type is wanted (0: not at all), and how closely it is named: what is, goes before."""
    for closeness, name in ((2, kind), (1, f"{kind.partition('/')[0]}/*"), (0, "*/*")):
        if name in weights:
            return weights[name], closeness
    return 0.0, 0


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
