"""An answer in the store once it has begun: its end, its stop mark, and reading its log."""

import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from app.domain.context import estimate_tokens
from app.domain.events import TEXT_KINDS, Event, dump
from app.domain.ids import MessageRef, message_id
from app.domain.measures import Measures
from app.domain.messages import AnswerHead, Ending, end_data, ended_record, head_of
from app.domain.spans import NO_SPANS, Spans
from app.domain.times import now_ms
from app.store import keys, scripts
from app.store.barrier import Barrier
from app.store.connection import Connector, store_errors
from app.store.entries import entry_id, log_events
from app.store.journal import Journal
from app.store.limits import Limits, Place
from app.store.owner_list import OwnerLists

Finished = Literal["done", "refused", "gone"]


class Outcome(NamedTuple):
    """What came of the end of an answer: its `end` event, and the message as it is stored, where it is `done`."""

    finished: Finished
    end: Event
    record: dict[str, Any]


class RunningLog(NamedTuple):
    """An answer's log as it stands: its events, whether somebody has the lease, and its head (None: no such message)."""

    events: list[Event]
    leased: bool
    head: AnswerHead | None
    #: The id of the last entry; None where the log is gone.
    last_id: str | None


class ProofOfLife(NamedTuple):
    """What tells a live runner from a dead one."""

    #: What is left of the lease, in milliseconds; 0 or less: there is none.
    lease_ms: int
    #: The id of the log's last entry; None where there is no log.
    last_id: str | None
    #: The answer does not run any more.
    ended: bool


class AnswerStore:
    """Writes by the journal, so that they are as durable and as cheap as its commits; reads by the pool."""

    def __init__(
        self,
        connector: Connector,
        journal: Journal,
        barrier: Barrier,
        limits: Limits,
        owners: OwnerLists,
        *,
        conversation_ttl_seconds: float,
        event_log_ttl_seconds: float,
        measures: Measures,
        spans: Spans = NO_SPANS,
    ) -> None:
        self._journal = journal
        self._barrier = barrier
        self._measures = measures
        self._spans = spans
        self._limits = limits
        self._ttl_ms = int(conversation_ttl_seconds * 1000)
        self._owners = owners
        log_ttl_ms = int(event_log_ttl_seconds * 1000)
        self._log_ttl_ms = min(log_ttl_ms, self._ttl_ms) if self._ttl_ms else log_ttl_ms
        self._redis = connector.redis
        self._log = connector.redis.register_script(scripts.LOG.text)
        self._stop = connector.redis.register_script(scripts.STOP.text)

    async def finish(
        self,
        head: AnswerHead,
        events: list[Event],
        ending: Ending,
        last_id: str | None,
        *,
        tail: Sequence[Event] = (),
        place: Place | None = None,
    ) -> Outcome:
        """End an answer whose log holds exactly `events`, the last entry being `last_id`; return what came of it.

        `last_id` None: the log is lost, only the message can be ended. `tail`: what is appended before the end.
        `place`: what is given back with it, and in whose list the conversation comes to the top; None where another
        process's answer is ended.

        Waits for a store that is away. With 'refused' somebody else has ended it, or it still grows; with 'gone' there
        is nothing left to end.
        """
        ref, now = head.ref, now_ms()
        position = events[-1].end if events else 0
        end = Event("end", end_data(ending), (tail[-1].end if tail else position) + 1)
        events = [*events, *tail]
        record = ended_record(head, events, ending, now)
        usage = ending.usage
        if place is not None:  # goes with the same commit, so that whoever sees the end sees these
            self._owners.put(place.owner, ref.conversation, now, "XX")
            self._limits.ended(place)
        with self._spans.within("finish", parley__answer=message_id(*ref), parley__status=ending.status):
            reply: list[Any] = await self._journal.run_script(
                scripts.FINISH,
                [keys.chat(ref.conversation), keys.messages(ref.conversation), keys.events(*ref), keys.lease(*ref)],
                [
                    ref.number,
                    last_id or "",
                    entry_id(position),
                    dump(record),
                    now,
                    self._ttl_ms,
                    self._log_ttl_ms,
                    usage["prompt_tokens"] if usage else 0,
                    usage["completion_tokens"] if usage else 0,
                    usage["total_tokens"] if usage else 0,
                    *(word for event in (*tail, end) for word in (event.kind, event.data)),
                ],
                patience=None,
            )
        outcome: Finished = reply[0]
        if outcome == "done":
            self._measures.answer_ended(ending.status)
        if outcome == "done" and len(reply) > 1 and reply[1]:
            if place is None:
                self._owners.put(reply[1], ref.conversation, now)
            if self._limits.counts_tokens:
                self._limits.spend(reply[1], head.address, message_id(*ref), _spent(head, events, ending))
        return Outcome(outcome, end, record)

    async def mark_stop(self, ref: MessageRef) -> bool:
        """Leave the stop mark for an answer's runner, wherever it is; False where that answer does not run."""
        with store_errors():
            return bool(await self._stop([keys.chat(ref.conversation)], [ref.number]))

    async def proof_of_life(self, ref: MessageRef) -> ProofOfLife:
        """Look whether an answer's runner lives. Raises StoreUnavailable."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.pttl(keys.lease(*ref)).xrevrange(keys.events(*ref), count=1).hget(
            keys.chat(ref.conversation), "active"
        )
        with store_errors():
            lease_ms, top, active = await pipeline.execute()
        return ProofOfLife(lease_ms, top[0][0] if top else None, active != str(ref.number))

    async def find_key(self, conversation: str, key: str) -> tuple[MessageRef, str] | None:
        """Return the answer that an idempotency key began, and the digest of its request; None: no such key."""
        with store_errors():
            found = await self._redis.get(keys.idempotency(conversation, key))
        if not found:
            return None
        number, _, digest = found.partition(" ")
        return MessageRef(conversation, int(number)), digest

    async def has_reader(self, ref: MessageRef) -> bool:
        """Is an answer read in another process?"""
        with store_errors():
            return bool(await self._redis.exists(keys.reader(*ref)))

    async def read_log(self, ref: MessageRef) -> RunningLog:
        """Read an answer's log to its top. Raises StoreUnavailable."""
        names = [keys.messages(ref.conversation), keys.events(*ref), keys.lease(*ref)]
        with store_errors():
            reply: list[Any] = await self._log(names, [ref.number])
        await self._barrier.passed()
        entries, leased = reply[:2]
        record = json.loads(reply[2]) if len(reply) > 2 and reply[2] else None
        head = head_of(ref, record) if record and record["role"] == "assistant" else None
        return RunningLog(log_events(entries), bool(leased), head, entries[-1][0] if entries else None)


def _spent(head: AnswerHead, events: list[Event], ending: Ending) -> int:
    """Return the tokens that an answer counts for; estimated where the upstream has counted none: it was broken off."""
    if ending.usage is not None:
        return ending.usage["total_tokens"]
    written = sum(len(event.data.encode()) for event in events if event.kind in TEXT_KINDS)
    if not written and ending.status == "failed":
        return 0
    return head.prompt_estimate + estimate_tokens(written)
