"""Conversations as the outside sees them: create, read, list, change, delete."""

import re
from collections.abc import Sequence
from typing import Any

from app.answers.service import Answers
from app.domain.errors import NotFound, UnknownModel
from app.domain.events import dump
from app.domain.ids import new_conversation, ref_of
from app.domain.requests import ConversationFields
from app.store.conversations import ConversationStore, Cursor, Snapshot

_CURSOR = re.compile(r"([0-9]{1,15})-([0-9a-f]{32})")


class Conversations:
    """What the handlers of conversations ask."""

    def __init__(self, store: ConversationStore, answers: Answers) -> None:
        self._store = store
        self._answers = answers

    async def create(self, owner: str, fields: ConversationFields) -> dict[str, Any]:
        """Create a conversation without messages and return it."""
        conversation = new_conversation()
        await self._store.create(owner, conversation, self._set(fields))
        return await self._whole(owner, conversation)

    async def change(self, owner: str, conversation: str, fields: ConversationFields) -> dict[str, Any]:
        """Set the fields that the request names, and return the conversation. Raises NotFound."""
        await self._store.change(owner, conversation, self._set(fields))
        return await self._whole(owner, conversation)

    async def read(self, owner: str, conversation: str, have: str = "") -> Snapshot:
        """Read a conversation; `have` is the version that the caller knows. Raises NotFound."""
        snapshot = await self._store.read(owner, conversation, have)
        if snapshot.active is not None:
            self._answers.look_after(snapshot.active)
        return snapshot

    async def page(self, owner: str, before: str | None) -> dict[str, Any]:
        """Return a page of summaries, newest activity first; `before` is the end of the page that came earlier."""
        cursor = None
        if before is not None:
            match = _CURSOR.fullmatch(before)
            if match is None:
                raise NotFound("There is no such page. Follow `next` of the page before.")
            cursor = Cursor(int(match[1]), match[2])
        rows, last = await self._store.page(owner, cursor)
        for row in rows:
            if row["active"] is not None:
                self._answers.look_after(ref_of(row["active"]))
        path = f"/conversations/before/{last.activity}-{last.conversation}" if last else None
        return {"conversations": rows, "next": path}

    async def delete(self, owner: str, conversation: str) -> None:
        """Delete a conversation; a running answer is stopped first. Raises NotFound."""
        await self._answers.delete(owner, conversation)

    async def check_store(self) -> None:
        """Raise StoreUnavailable where the store does not answer."""
        await self._store.ping()

    async def _whole(self, owner: str, conversation: str) -> dict[str, Any]:
        snapshot = await self._store.read(owner, conversation)
        assert snapshot.body is not None
        return snapshot.body

    def _set(self, fields: ConversationFields) -> dict[str, str]:
        models: Sequence[str] = self._answers.models
        if fields.model is not None and fields.model not in models:
            errors = [{"field": "model", "message": "is none of those that GET /models lists"}]
            raise UnknownModel("There is no such model. GET /models lists those that may be asked for.", errors=errors)
        values = {name: getattr(fields, name) for name in fields.model_fields_set}
        if "metadata" in values:
            values["metadata"] = dump(values["metadata"] or {})
        return {name: value or "" for name, value in values.items()}
