"""The routes of messages and answers: ask, read, events, stop, regenerate."""

from typing import Any

from aiohttp import web

from app.answers.service import Answers
from app.domain.errors import ParleyError, all_errors
from app.domain.events import dump
from app.domain.ids import MessageRef, conversation_id
from app.domain.requests import NewMessage, Regenerate
from app.web.bodies import cursor_of, idempotency_key_of, message_of, read_body, wants_json
from app.web.owners import known_owner, owner_of
from app.web.problems import problem
from app.web.streams import Streams


class MessageRoutes:
    """Handlers over `Answers`."""

    def __init__(self, answers: Answers, streams: Streams) -> None:
        self._answers = answers
        self._streams = streams

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
        message = await read_body(request, NewMessage)
        owner = owner_of(request)
        if cursor is not None:
            ref = await self._answers.attach(owner.id, message, key)
        else:
            ref = await self._answers.ask(owner.id, message, key)
        return await self._answer(request, owner.id, ref, cursor, in_one_piece=in_one_piece)

    async def regenerate(self, request: web.Request) -> web.StreamResponse:
        """`POST /messages/{id}/regenerate`."""
        in_one_piece = wants_json(request)
        key = idempotency_key_of(request)
        ref = message_of(request)
        owner = known_owner(request)
        body = await read_body(request, Regenerate, optional=True)
        sibling = await self._answers.regenerate(owner, ref, body, key)
        return await self._answer(request, owner, sibling, None, in_one_piece=in_one_piece)

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

    async def _answer(
        self, request: web.Request, owner: str, ref: MessageRef, cursor: int | None, *, in_one_piece: bool
    ) -> web.StreamResponse:
        if not in_one_piece:
            return await self._stream(request, owner, ref, cursor, granted=True)
        message = await self._answers.wait(owner, ref, granted=True)
        error = message.get("error")
        if message["status"] == "failed" and error:
            return problem(_raised(error, message), request)
        return _json({"message": message, "conversation": conversation_id(ref.conversation)})

    async def _stream(
        self, request: web.Request, owner: str, ref: MessageRef, cursor: int | None, *, granted: bool = False
    ) -> web.StreamResponse:
        async with self._answers.read(owner, ref, granted=granted) as live:
            position = cursor or 0
            await self._answers.check_cursor(ref, live, position)
            if live.over and position >= live.position:
                return web.Response(status=204)  # nothing is left: this stops an EventSource
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
