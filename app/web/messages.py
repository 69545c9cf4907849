"""The routes of messages and answers: ask, read, events, stop, regenerate."""

from collections.abc import Awaitable
from typing import Any

from aiohttp import web

from app.answers.service import Answers, Asked
from app.domain.errors import ParleyError, all_errors
from app.domain.events import dump
from app.domain.ids import MessageRef, conversation_id
from app.domain.requests import NewMessage, Regenerate
from app.web.bodies import cursor_of, idempotency_key_of, message_of, read_body, wants_json
from app.web.owners import address_of, known_owner, owner_of
from app.web.problems import problem
from app.web.proxies import Proxies
from app.web.rate_limits import rate_headers
from app.web.streams import Streams


class MessageRoutes:
    """Handlers over `Answers`."""

    def __init__(self, answers: Answers, streams: Streams, proxies: Proxies) -> None:
        self._answers = answers
        self._streams = streams
        self._proxies = proxies

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/messages", self.ask),
            web.get("/messages/{id}", self.read, allow_head=False),
            web.get("/messages/{id}/events", self.events, allow_head=False),
            web.post("/messages/{id}/stop", self.stop),
            web.post("/messages/{id}/regenerate", self.regenerate),
        ]

    async def ask(self, request: web.Request) -> web.StreamResponse:
        """`POST /messages`."""
        in_one_piece = wants_json(request)
        key = idempotency_key_of(request)
        cursor = cursor_of(request)
        owner, asked = await self._asked(request, key, cursor)
        return await self._answer(request, owner, asked, cursor, in_one_piece=in_one_piece)

    async def _asked(self, request: web.Request, key: str | None, cursor: int | None) -> tuple[str, Asked]:
        """Return the owner's id and the answer. By itself, so that the body is not kept for as long as that is read."""
        message = await read_body(request, NewMessage)
        owner = owner_of(request).id
        if cursor is not None:
            return owner, Asked(await self._answers.attach(owner, message, key))
        return owner, await self._answers.ask(owner, message, key, address_of(request, self._proxies))

    async def regenerate(self, request: web.Request) -> web.StreamResponse:
        """`POST /messages/{id}/regenerate`."""
        in_one_piece = wants_json(request)
        key = idempotency_key_of(request)
        cursor = cursor_of(request)
        owner, sibling = await self._sibling(request, key, cursor)
        return await self._answer(request, owner, sibling, cursor, in_one_piece=in_one_piece)

    async def _sibling(self, request: web.Request, key: str | None, cursor: int | None) -> tuple[str, Asked]:
        """As `_asked`."""
        ref = message_of(request)
        owner = known_owner(request)
        body = await read_body(request, Regenerate, optional=True)
        if cursor is not None:
            return owner, Asked(await self._answers.attach_sibling(owner, ref, body, key))
        return owner, await self._answers.regenerate(owner, ref, body, key, address_of(request, self._proxies))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """`GET /messages/{id}/events`."""
        owner, ref, cursor = known_owner(request), message_of(request), cursor_of(request)
        return await self._stream(request, owner, ref, cursor)

    async def read(self, request: web.Request) -> web.StreamResponse:
        """`GET /messages/{id}`."""
        owner, ref = known_owner(request), message_of(request)
        view = await self._answers.message(owner, ref)
        return _json(view)

    async def stop(self, request: web.Request) -> web.StreamResponse:
        """`POST /messages/{id}/stop`."""
        owner, ref = known_owner(request), message_of(request)
        return _json(await self._answers.stop(owner, ref))

    def _answer(
        self, request: web.Request, owner: str, asked: Asked, cursor: int | None, *, in_one_piece: bool
    ) -> Awaitable[web.StreamResponse]:
        # No coroutine, as it only chooses: each one on the way lives as long as its stream.
        if in_one_piece:
            return self._whole(request, owner, asked, cursor)
        if asked.live is None:
            return self._stream(request, owner, asked.ref, cursor, granted=True)
        response = self._streams.response()
        response.headers.update(rate_headers(asked.left))
        return self._streams.send(request, asked.live, 0, response)

    async def _whole(self, request: web.Request, owner: str, asked: Asked, cursor: int | None) -> web.Response:
        if cursor is not None:
            async with self._answers.read(owner, asked.ref, granted=True) as live:
                await self._answers.check_cursor(asked.ref, live, cursor)
        message = await self._answers.wait(owner, asked.ref, granted=True)
        error = message.get("error")
        if message["status"] == "failed" and error:
            response = problem(_raised(error, message), request)
        else:
            response = _json({"message": message, "conversation": conversation_id(asked.ref.conversation)})
        response.headers.update(rate_headers(asked.left))
        return response

    async def _stream(
        self, request: web.Request, owner: str, ref: MessageRef, cursor: int | None, *, granted: bool = False
    ) -> web.StreamResponse:
        async with self._answers.read(owner, ref, granted=granted) as live:
            position = cursor or 0
            await self._answers.check_cursor(ref, live, position)
            if live.over and position >= live.position:
                return web.Response(status=204)  # nothing is left: this stops an EventSource
            async with self._answers.reader(owner):
                return await self._streams.send(request, live, position, self._streams.response())


def _json(body: dict[str, Any]) -> web.Response:
    response = web.json_response(body, dumps=dump)
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def _raised(error: dict[str, Any], message: dict[str, Any]) -> ParleyError:
    """Make the error that ended an answer again, to answer a request with."""
    known = {kind.code: kind for kind in all_errors()}
    kind = known.get(error["code"], ParleyError)
    return kind(error["message"], message=message)
