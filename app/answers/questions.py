"""What a request asks: which conversation it goes to, after which message, and whether it was asked before."""

import hashlib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from app.domain.errors import BadCursor, IdempotencyKeyReused, InvalidRequest, UnknownModel
from app.domain.events import dump
from app.domain.ids import (
    MessageRef,
    derived_conversation,
    new_conversation,
    parse_conversation_id,
    ref_of,
)
from app.domain.messages import derived_title, tool_record, user_record
from app.domain.requests import NewMessage, Regenerate
from app.domain.times import now_ms
from app.store.admission import Question
from app.store.answers import AnswerStore
from app.store.conversations import ConversationStore, MessageView


class Questions:
    """Makes `Question`s of requests whose form is right already."""

    def __init__(self, store: AnswerStore, conversations: ConversationStore, *, models: Sequence[str]) -> None:
        self._store = store
        self._conversations = conversations
        self._models = models

    async def of_message(self, owner: str, message: NewMessage, key: str | None, address: str | None) -> Question:
        """Return what a message asks; `address` as in `Question`.

        Raises InvalidRequest, UnknownModel, and for results of tools NotFound.
        """
        conversation, may_create = _conversation_of(owner, message, key)
        parent: int | None = None
        if message.parent is not None:
            parent = ref_of(message.parent).number
        elif "parent" in message.model_fields_set:
            parent = 0
        now = now_ms()
        if message.role == "tool":
            if key is None or await self._store.find_key(conversation, key) is None:
                await self._check_results(owner, conversation, parent, message)
            record = tool_record(message.results(), now)
        else:
            record = user_record(message.stored_content(), now)
        return Question(
            owner=owner,
            conversation=conversation,
            may_create=may_create,
            record=record,
            asked_at=now,
            parent=parent,
            model=self._known(message.model),
            system=message.system,
            title=derived_title(message.words()) if message.role == "user" else "",
            idempotency_key=key,
            digest=_digest("ask", message) if key is not None else "",
            address=address,
        )

    def of_regenerate(
        self, owner: str, ref: MessageRef, request: Regenerate, key: str | None, address: str | None
    ) -> Question:
        """Return what asks for a sibling of an answer. Raises UnknownModel."""
        return Question(
            owner=owner,
            conversation=ref.conversation,
            may_create=False,
            record=None,
            asked_at=now_ms(),
            parent=ref.number,
            model=self._known(request.model),
            system=None,
            title="",
            idempotency_key=key,
            digest=_digest(f"regenerate {ref.number}", request) if key is not None else "",
            address=address,
        )

    async def answered(self, owner: str, message: NewMessage, key: str | None) -> MessageRef:
        """Return the answer that was begun by the same message before. Raises BadCursor where there is none."""
        conversation, _ = _conversation_of(owner, message, key)
        if key is not None and (ref := await self._of_key(owner, conversation, key, _digest("ask", message))):
            return ref
        if message.conversation is not None or message.parent is not None:
            latest = await self._conversations.latest(owner, conversation)
            if latest is not None and _says(latest[1], message):
                return latest[0].ref
        raise _nothing_to_resume()

    async def regenerated(self, owner: str, answer: MessageView, request: Regenerate, key: str | None) -> MessageRef:
        """Return the sibling of an answer that the same request has begun before. Raises BadCursor where there is none."""
        ref = answer.ref
        if key is not None and (
            found := await self._of_key(owner, ref.conversation, key, _digest(f"regenerate {ref.number}", request))
        ):
            return found
        latest = await self._conversations.latest(owner, ref.conversation)
        # The answer itself is no sibling: it was there before anybody asked for one.
        if latest is not None and latest[0].ref != ref and latest[0].record["parent"] == answer.record["parent"]:
            return latest[0].ref
        raise _nothing_to_resume()

    async def asked_before(self, question: Question) -> MessageRef | None:
        """Return the answer that the question's key began; None where it has no key, or a new one."""
        key = question.idempotency_key
        return await self._of_key(question.owner, question.conversation, key, question.digest) if key else None

    async def _of_key(self, owner: str, conversation: str, key: str, digest: str) -> MessageRef | None:
        found = await self._store.find_key(conversation, key)
        if found is None:
            return None
        ref, first = found
        await self._conversations.read_message(owner, ref)  # NotFound where it is somebody else's
        if digest != first:
            raise IdempotencyKeyReused("This Idempotency-Key was used with another request. Use a new one.")
        return ref

    async def _check_results(self, owner: str, conversation: str, parent: int | None, message: NewMessage) -> None:
        """Raise InvalidRequest unless the results are those of all calls of the answer that they follow."""
        if parent is None:
            latest = await self._conversations.latest(owner, conversation)
            record = latest[0].record if latest else {}
        else:
            record = (await self._conversations.read_message(owner, MessageRef(conversation, parent))).record
        called = {call["id"] for call in record.get("tool_calls") or ()}
        brought = [result["tool_call_id"] for result in message.results()]
        if set(brought) != called or len(brought) != len(called):
            told = f"The answer called {sorted(called)}: bring one result for each." if called else "It called none."
            errors = [{"field": "tool_call_id", "message": told}]
            raise InvalidRequest(f"The results are not those of the answer before them. {told}", errors=errors)

    def _known(self, model: str | None) -> str | None:
        if model is not None and model not in self._models:
            errors = [{"field": "model", "message": "is none of those that GET /models lists"}]
            raise UnknownModel("There is no such model. GET /models lists those that may be asked for.", errors=errors)
        return model


def _conversation_of(owner: str, message: NewMessage, key: str | None) -> tuple[str, bool]:
    """Return the conversation that a message goes to, and whether it may be a new one."""
    named = parse_conversation_id(message.conversation) if message.conversation is not None else None
    if message.parent is not None:
        parent = ref_of(message.parent).conversation
        if named not in (None, parent):
            errors = [{"field": "parent", "message": "is a message of another conversation"}]
            raise InvalidRequest("`parent` and `conversation` do not agree.", errors=errors)
        named = parent
    if named is not None:
        return named, False
    return (derived_conversation(owner, key) if key is not None else new_conversation()), True


def _says(record: dict[str, Any], message: NewMessage) -> bool:
    """Does a stored message say the same as a new one?"""
    if message.role == "tool":
        return bool(record.get("tool_results") == message.results())
    return bool(record.get("content") == message.stored_content())


def _nothing_to_resume() -> BadCursor:
    return BadCursor("No answer to this is known, so there is nothing to resume. Send it without Last-Event-ID.")


def _digest(what: str, body: BaseModel) -> str:
    """Tell a repeated request from another one."""
    sent = dump(body.model_dump(mode="json", exclude_unset=True))
    return hashlib.sha256(f"{what} {sent}".encode()).hexdigest()[:32]
