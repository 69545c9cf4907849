"""Conversations in the store: create, read, list, change, delete."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from app.domain.errors import ConversationBusy, NotFound
from app.domain.events import Event
from app.domain.ids import MessageRef, conversation_id, message_id
from app.domain.messages import wire_message
from app.domain.times import now_ms, rfc3339
from app.store import keys, scripts
from app.store.barrier import Barrier
from app.store.connection import Connector, store_errors
from app.store.entries import log_events
from app.store.owner_list import OwnerLists

PAGE = 50
#: A probe is to be told that the store hangs before it loses its own patience.
PING_SECONDS = 2.0


class Snapshot(NamedTuple):
    """A conversation as it was at one moment; `version` is its ETag. `body` None: the caller has that version."""

    version: str
    #: The answer that runs; None: there is none.
    active: MessageRef | None
    body: dict[str, Any] | None


class MessageView(NamedTuple):
    """A stored message, with the events so far where it is an answer that runs (else None)."""

    ref: MessageRef
    record: dict[str, Any]
    events: list[Event] | None

    @property
    def running(self) -> bool:
        """Is it an answer that is being written?"""
        return self.record.get("status") == "streaming"

    def wire(self) -> dict[str, Any]:
        """Return the message as clients see it."""
        return wire_message(self.ref, self.record, self.events)


class Cursor(NamedTuple):
    """A place in the owner's list: behind this conversation, whose last activity was then."""

    activity: int
    conversation: str


class ConversationStore:
    """Reads by the pool; a conversation that is not the owner's is not found."""

    def __init__(
        self, connector: Connector, barrier: Barrier, owners: OwnerLists, *, conversation_ttl_seconds: float
    ) -> None:
        self._redis = connector.redis
        self._barrier = barrier
        self._ttl_ms = int(conversation_ttl_seconds * 1000)
        self._owners = owners
        self._read = self._redis.register_script(scripts.READ.text)
        self._edit = self._redis.register_script(scripts.EDIT.text)
        self._delete = self._redis.register_script(scripts.DELETE.text)

    async def ping(self) -> None:
        """Raise StoreUnavailable where the store does not answer within `PING_SECONDS`."""
        with store_errors():
            async with asyncio.timeout(PING_SECONDS):
                await self._redis.ping()

    async def create(self, owner: str, conversation: str, fields: Mapping[str, str]) -> None:
        """Create a conversation without messages. Raises StoreFull or StoreUnavailable."""
        now = now_ms()
        await self._write(owner, conversation, fields, now, create=True)
        self._owners.put(owner, conversation, now)

    async def change(self, owner: str, conversation: str, fields: Mapping[str, str]) -> None:
        """Set some of title, system, model, metadata (JSON); '' takes a field away. Raises NotFound."""
        if not await self._write(owner, conversation, fields, now_ms(), create=False):
            raise _not_found()
        self._owners.keep(owner)

    async def read(self, owner: str, conversation: str, have: str = "") -> Snapshot:
        """Read a conversation with all its messages; `have` is the version that the caller knows. Raises NotFound."""
        version, active, chat, records, events = await self._snapshot(owner, conversation, "", have)
        running = MessageRef(conversation, active) if active else None
        if chat is None:
            return Snapshot(version, running, None)
        # A process that died behind `begin` may have left the list without this one.
        self._owners.put(owner, conversation, int(chat["updated"]))
        body = _conversation(conversation, chat)
        body["messages"] = [
            wire_message(MessageRef(conversation, number), record, events if number == active else None)
            for number, record in sorted(records.items())
        ]
        return Snapshot(version, running, body)

    async def read_message(self, owner: str, ref: MessageRef) -> MessageView:
        """Read one message. Raises NotFound."""
        _, _, chat, records, events = await self._snapshot(owner, ref.conversation, str(ref.number), "")
        if chat is None or ref.number not in records:
            raise _not_found()
        record = records[ref.number]
        return MessageView(ref, record, events if record.get("status") == "streaming" else None)

    async def latest(self, owner: str, conversation: str) -> tuple[MessageView, dict[str, Any]] | None:
        """Return the last answer with the stored message that it replies to; None before the first. Raises NotFound."""
        with store_errors():
            known_owner, head = await self._redis.hmget(keys.chat(conversation), "owner", "head")
        if known_owner != owner:
            raise _not_found()
        if not head:
            return None
        view = await self.read_message(owner, MessageRef(conversation, int(head)))
        asked = await self.read_message(owner, MessageRef(conversation, view.record["parent"]))
        return view, asked.record

    async def delete(self, owner: str, conversation: str) -> None:
        """Delete a conversation. Raises NotFound, and ConversationBusy while an answer runs."""
        names = [
            keys.chat(conversation),
            keys.messages(conversation),
            keys.events_prefix(conversation),
        ]
        with store_errors():
            match await self._delete(names, [owner]):
                case ["deleted"]:
                    await self._redis.zrem(keys.owner_conversations(owner), conversation)
                case ["busy", number]:
                    raise ConversationBusy("An answer is being written.", message=message_id(conversation, number))
                case _:
                    raise _not_found()

    async def page(self, owner: str, before: Cursor | None) -> tuple[list[dict[str, Any]], Cursor | None]:
        """Return up to 50 summaries, newest activity first, and the cursor of the next page (None: there is none)."""
        name = keys.owner_conversations(owner)
        rows: list[dict[str, Any]] = []
        last: Cursor | None = None
        offset = 0
        highest: int | str = before.activity if before else "+inf"
        with store_errors():
            while True:
                found = await self._redis.zrevrangebyscore(
                    name, highest, "-inf", start=offset, num=PAGE + 1, withscores=True
                )
                listed = [Cursor(int(score), member) for member, score in found]
                # Equal times are ordered by id, downwards: of those at the cursor's time, the ones before it are done.
                fresh = [cursor for cursor in listed if before is None or cursor < before]
                summaries = await self._summaries(owner, fresh)
                for cursor, summary in zip(fresh, summaries, strict=True):
                    if summary is None:
                        continue
                    if len(rows) == PAGE:
                        return rows, last
                    rows.append(summary)
                    last = cursor
                if len(found) <= PAGE:
                    return rows, None
                offset += len(found) - sum(summary is None for summary in summaries)

    async def _summaries(self, owner: str, listed: list[Cursor]) -> list[dict[str, Any] | None]:
        """Return a summary for each row, None for what is gone; and mend the list."""
        if not listed:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for row in listed:
            pipeline.hgetall(keys.chat(row.conversation)).hlen(keys.messages(row.conversation))
        name = keys.owner_conversations(owner)
        summaries: list[dict[str, Any] | None] = []
        for row, (chat, count) in zip(listed, _pairs(await pipeline.execute()), strict=True):
            if chat.get("owner") != owner:
                await self._redis.zrem(name, row.conversation)
                summaries.append(None)
                continue
            if int(chat["updated"]) != row.activity:
                self._owners.put(owner, row.conversation, int(chat["updated"]))
            summaries.append(_conversation(row.conversation, chat) | {"message_count": count})
        return summaries

    async def _write(self, owner: str, conversation: str, fields: Mapping[str, str], now: int, *, create: bool) -> bool:
        args: list[str | int] = [owner, int(create), now, self._ttl_ms]
        args += [text for field in fields.items() for text in field]
        with store_errors():
            return bool(await self._edit([keys.chat(conversation), keys.messages(conversation)], args))

    async def _snapshot(
        self, owner: str, conversation: str, number: str, have: str
    ) -> tuple[str, int, dict[str, str] | None, dict[int, dict[str, Any]], list[Event]]:
        names = [keys.chat(conversation), keys.messages(conversation), keys.events_prefix(conversation)]
        with store_errors():
            reply: list[Any] = await self._read(names, [owner, number, have])
        if not reply:
            raise _not_found()
        await self._barrier.passed()
        version, active, *rest = reply
        if not rest:
            return version, int(active), None, {}, []
        chat, records, entries = rest
        return (
            version,
            int(active),
            dict(_pairs(chat)),
            {int(key): json.loads(record) for key, record in _pairs(records)},
            log_events(entries),
        )


def _pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    """Return a flat list's items two by two."""
    return list(zip(flat[::2], flat[1::2], strict=True))


def _conversation(conversation: str, chat: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": conversation_id(conversation),
        "title": chat.get("title") or None,
        "system": chat.get("system") or None,
        "model": chat.get("model") or None,
        "metadata": json.loads(chat.get("metadata") or "{}"),
        "created_at": rfc3339(int(chat["created"])),
        "updated_at": rfc3339(int(chat["updated"])),
        "active": message_id(conversation, int(chat["active"])) if "active" in chat else None,
        "usage": {name: int(chat.get(name, 0)) for name in ("prompt_tokens", "completion_tokens", "total_tokens")},
    }


def _not_found() -> NotFound:
    return NotFound("There is no such conversation or message. Ids are those that this service gave to you.")
