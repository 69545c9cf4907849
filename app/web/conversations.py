"""The routes of conversations."""

from aiohttp import ETag, web

from app.answers.conversations import Conversations
from app.domain.events import dump
from app.domain.requests import ConversationFields
from app.web.bodies import conversation_of, read_body
from app.web.owners import known_owner, owner_of

CACHE = {"Cache-Control": "private, no-cache"}


class ConversationRoutes:
    """Handlers over `Conversations`."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/conversations", self.create),
            web.get("/conversations", self.first_page, allow_head=False),
            web.get("/conversations/before/{id}", self.next_page, allow_head=False),
            web.get("/conversations/{id}", self.read, allow_head=False),
            web.patch("/conversations/{id}", self.change),
            web.delete("/conversations/{id}", self.delete),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """`POST /conversations`."""
        fields = await read_body(request, ConversationFields, optional=True)
        owner = owner_of(request)
        body = await self._conversations.create(owner.id, fields)
        headers = {"Location": f"/conversations/{body['id']}"}
        return web.json_response(body, status=201, headers=headers, dumps=dump)

    async def first_page(self, request: web.Request) -> web.Response:
        """`GET /conversations`."""
        owner = owner_of(request)
        return web.json_response(await self._conversations.page(owner.id, None), headers=CACHE, dumps=dump)

    async def next_page(self, request: web.Request) -> web.Response:
        """`GET /conversations/before/{id}`."""
        page = await self._conversations.page(known_owner(request), request.match_info["id"])
        return web.json_response(page, headers=CACHE, dumps=dump)

    async def read(self, request: web.Request) -> web.Response:
        """`GET /conversations/{id}`."""
        owner, conversation = known_owner(request), conversation_of(request)
        # Weak ones too, as `If-None-Match` compares (RFC 9110, 13.1.2); `*` is whatever there is.
        known = [tag.value for tag in request.if_none_match or ()]
        snapshot = await self._conversations.read(owner, conversation, known[0] if len(known) == 1 else "")
        response: web.Response
        if snapshot.body is None or snapshot.version in known or "*" in known:
            response = web.Response(status=304, headers=CACHE)
        else:
            response = web.json_response(snapshot.body, headers=CACHE, dumps=dump)
        response.etag = ETag(snapshot.version)
        return response

    async def change(self, request: web.Request) -> web.Response:
        """`PATCH /conversations/{id}`."""
        owner, conversation = known_owner(request), conversation_of(request)
        fields = await read_body(request, ConversationFields)
        return web.json_response(await self._conversations.change(owner, conversation, fields), dumps=dump)

    async def delete(self, request: web.Request) -> web.Response:
        """`DELETE /conversations/{id}`."""
        await self._conversations.delete(known_owner(request), conversation_of(request))
        return web.Response(status=204)
