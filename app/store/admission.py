"""How an answer begins: within its limits, and listed. One script does it, or several where a store's scripts keep to one slot."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from redis.exceptions import ClusterCrossSlotError

from app.domain.context import estimate_tokens
from app.domain.errors import (
    ConversationBusy,
    ConversationFull,
    IdempotencyKeyReused,
    NotAnAnswer,
    NotFound,
    ParleyError,
)
from app.domain.ids import FIRST_NUMBER, MessageRef, message_id
from app.domain.limits import Allowance
from app.domain.messages import AnswerHead
from app.domain.spans import NO_SPANS, Spans
from app.store import keys, scripts
from app.store.journal import Journal
from app.store.limits import Limits, Place, used_up
from app.store.owner_list import OwnerLists

log = logging.getLogger("parley.store")

#: How large a conversation may become: it is read as a whole, within some tenths of a second at this size.
MOST_MESSAGES = 10_000
MOST_BYTES = 16 << 20


class Question(NamedTuple):
    """What is to be answered. `record` is the message as it is stored, but for `parent` and `depth`.

    `record` None: regenerate, and `parent` is the answer that gets a sibling. `parent` None: reply after the
    conversation's last message; 0: as a new first message.
    """

    owner: str
    conversation: str
    may_create: bool
    record: str | None
    asked_at: int
    parent: int | None
    model: str | None
    system: str | None
    title: str
    idempotency_key: str | None
    #: What tells a repeated request from another one with the same key; empty without a key.
    digest: str
    #: The client's address where it has limits of its own; None: it has none.
    address: str | None


class Begun(NamedTuple):
    """A new answer, with what its prompt is made of: the branch's latest stored messages (JSON), newest first."""

    head: AnswerHead
    system: str | None
    records: list[str]
    #: What is left of the limits.
    left: tuple[Allowance, ...]


class Attached(NamedTuple):
    """The answer that the same idempotency key began before."""

    ref: MessageRef


class _Given(NamedTuple):
    """What the script `begin` is given."""

    names: list[str]
    arguments: list[str | int]


#: What is left of the limits, and the reply of the script `begin`; None: it did not run, as something was used up.
_Admitted = tuple[tuple[Allowance, ...], list[Any] | None]


class Admission:
    """Begins answers."""

    def __init__(
        self,
        journal: Journal,
        limits: Limits,
        owners: OwnerLists,
        *,
        default_model: str,
        window_bytes: int,
        lease_seconds: float,
        conversation_ttl_seconds: float,
        spans: Spans = NO_SPANS,
    ) -> None:
        """`window_bytes`: the latest messages of a branch are read as far as these many hold them."""
        self._journal = journal
        self._limits = limits
        self._owners = owners
        self._default_model = default_model
        self._window_bytes = window_bytes
        self._lease_ms = int(lease_seconds * 1000)
        self._ttl_ms = int(conversation_ttl_seconds * 1000)
        self._spans = spans
        self._across_slots = True  # until a store refuses it

    async def begin(
        self, question: Question, runner: str, place: Place, overdue: Callable[[], None] | None = None
    ) -> Begun | Attached:
        """Take what a message needs, store it and open its answer, in one round trip; `overdue` as in `Journal.ask`.

        Raises RateLimited, TokenLimit, TooManyAnswers, NotFound, ConversationBusy, ConversationFull,
        IdempotencyKeyReused, NotAnAnswer, StoreFull or StoreUnavailable; nothing is stored then, unless `overdue` was
        called. The place is taken where an answer has begun.
        """
        given = self._given(question, runner)
        with self._spans.within("begin"):
            try:
                left, reply = await self._try(question, given, place, overdue)
                if reply is None and await self._limits.free(place, left):
                    left, reply = await self._try(question, given, place, overdue)
            except BaseException:  # also of who is cancelled: it may have been taken, and nobody told
                self._limits.give_back(place)
                raise
        match reply:
            case None:
                raise used_up(left)
            case ["begun", number, parent, depth, model, system, created, *records]:
                estimate = 0
                if self._limits.counts_tokens:
                    estimate = estimate_tokens(min(sum(map(len, records)), self._window_bytes))
                ref = MessageRef(question.conversation, number)
                head = AnswerHead(ref, parent, depth, model, int(created), estimate, question.address)
                return Begun(head, system or None, records, left)
        self._limits.give_back(place)
        match reply:
            case ["attach", number]:
                return Attached(MessageRef(question.conversation, number))
        raise _refusal(reply, question.conversation)

    async def _try(
        self, question: Question, given: _Given, place: Place, overdue: Callable[[], None] | None
    ) -> _Admitted:
        if self._across_slots:
            try:
                return await self._at_once(question, given, place, overdue)
            except ClusterCrossSlotError:
                log.info("The store is a cluster, whose scripts keep to one slot: a message takes a round trip more.")
                self._across_slots = False
        return await self._in_turn(question, given, place, overdue)

    async def _at_once(
        self, question: Question, given: _Given, place: Place, overdue: Callable[[], None] | None
    ) -> _Admitted:
        limits, numbers = self._limits.demand(place)
        left, *begun = await self._journal.run_script(
            scripts.ADMIT,
            [keys.owner_conversations(question.owner), *limits, *given.names],
            [self._ttl_ms, len(limits), place.name, *numbers, *given.arguments],
            overdue=overdue,
        )
        return self._limits.left(place, left), begun[0] if begun else None

    async def _in_turn(
        self, question: Question, given: _Given, place: Place, overdue: Callable[[], None] | None
    ) -> _Admitted:
        left, taken = await self._limits.take(place)
        if not taken:
            return left, None
        asked = self._journal.run_script(scripts.BEGIN, *given, overdue=overdue)
        if question.may_create:  # with the same commit; where nothing is begun, reading the list takes it out again
            self._owners.add(question.owner, question.conversation, question.asked_at)
        reply: list[Any] = await asked
        match reply:
            case ["begun", _, parent, _, _, _, created, *_] if not (question.may_create and parent == FIRST_NUMBER):
                self._owners.put(question.owner, question.conversation, int(created))
        return left, reply

    def _given(self, question: Question, runner: str) -> _Given:
        conversation = question.conversation
        names = [
            keys.chat(conversation),
            keys.messages(conversation),
            keys.events_prefix(conversation),
            keys.lease_prefix(conversation),
        ]
        if question.idempotency_key is not None:
            names.append(keys.idempotency(conversation, question.idempotency_key))
        arguments: list[str | int] = [
            question.owner,
            question.asked_at,
            runner,
            self._lease_ms,
            self._ttl_ms,
            conversation,
            int(question.may_create),
            int(question.record is None),
            "" if question.parent is None else question.parent,
            question.record or "",
            question.model or "",
            self._default_model,
            question.digest,
            keys.IDEMPOTENCY_SECONDS * 1000,
            self._window_bytes,
            question.title,
            question.system or "",
            question.model or "",
            MOST_MESSAGES,
            MOST_BYTES,
        ]
        return _Given(names, arguments)


def _refusal(reply: list[Any], conversation: str) -> ParleyError:
    """Return why an answer was not begun."""
    match reply:
        case ["busy", number]:
            return ConversationBusy(
                "An answer is being written in this conversation. Read it, stop it, or wait for its end.",
                message=message_id(conversation, number),
            )
        case ["full"]:
            return ConversationFull("This conversation is as large as one may become. Go on in a new one.")
        case ["key_reused"]:
            return IdempotencyKeyReused("This Idempotency-Key was used with another request. Use a new one.")
        case ["no_parent"]:
            errors = [{"field": "parent", "message": "no such message in this conversation"}]
            return NotFound("`parent` is no message of this conversation.", errors=errors)
        case ["not_an_answer"]:
            return NotAnAnswer("That message is a user's; only an answer can be regenerated.")
    return NotFound("There is no such conversation.")
