"""What an owner, or an address, may use, counted in Redis: so all processes of the service share it.

Places in sorted sets, each with the time at which it is free again: messages of the last minute (the window slides, so
there are never more within any minute), and answers that run. The script `take` takes them all, and goes with what it is
taken for (`admission.py`); our own, as libraries of this kind take a round trip for each limit, and none knows of answers.
"""

import asyncio
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from app.domain.errors import RateLimited, TokenLimit, TooManyAnswers, TooManyReaders
from app.domain.limits import Allowance
from app.domain.times import now_ms
from app.store import keys, scripts
from app.store.connection import Connector, store_errors
from app.store.journal import Journal

MINUTE_MS = 60_000
DAY_SECONDS = 24 * 3600
#: Added to the longest that an answer may take: its retries, and a store that was away.
ANSWER_SLACK_SECONDS = 120.0
#: Where answers have no longest time.
NO_END_SECONDS = 7 * 24 * 3600.0
#: What a process says of its readers holds so long, and is said again so often.
READERS_MS = 60_000
READERS_AGAIN_SECONDS = 20.0
#: A place that was taken so recently may belong to an answer that is about to begin.
BEGINNING_MS = 5_000
#: How often places are compared with the answers that run, for one owner.
LOOK_SECONDS = 1.0

#: By the policy of which nothing is left.
_REFUSALS: dict[str, tuple[type[RateLimited], str]] = {
    "messages": (RateLimited, "That were too many messages within a minute."),
    "address": (RateLimited, "That were too many messages from this address within a minute."),
    "tokens": (TokenLimit, "The tokens of this day are used up. The day ends at midnight, UTC."),
    "address-tokens": (
        TokenLimit,
        "The tokens of this day are used up for this address. The day ends at midnight, UTC.",
    ),
    "answers": (TooManyAnswers, "Too many answers are being written for you. Wait for the end of one, or stop one."),
}


class Limit(NamedTuple):
    """A limit as its script knows it. `ms` 0: a count of tokens."""

    policy: str
    limit: int
    window_seconds: int | None
    ms: int


#: Somebody's limits.
_Limited = tuple[str, tuple[Limit, ...]]


class Place(NamedTuple):
    """What one message takes: of its owner, and of an anonymous owner's address (None: no limit of its own)."""

    owner: str
    address: str | None
    #: `<conversation>.<runner>`
    name: str


def used_up(left: Sequence[Allowance]) -> RateLimited:
    """Return why a message is refused that was to have more than is left."""
    kind, sentence = next(_REFUSALS[allowance.policy] for allowance in left if allowance.remaining <= 0)
    return kind(sentence, allowances=left)


class Limits:
    """All limits that are shared; 0 switches one off."""

    def __init__(
        self,
        connector: Connector,
        journal: Journal,
        *,
        process: str,
        messages_per_minute: int,
        address_messages_per_minute: int,
        tokens_per_day: int,
        address_tokens_per_day: int,
        active_answers: int,
        readers: int,
        answer_seconds: float,
    ) -> None:
        """`process` names this one among the others; `answer_seconds` is the longest of an answer, 0: there is none."""
        self._redis = connector.redis
        self._journal = journal
        self._process = process
        answer_ms = int((answer_seconds + ANSWER_SLACK_SECONDS if answer_seconds else NO_END_SECONDS) * 1000)
        self._answer_ms = answer_ms
        self._of_owner = _set(
            Limit("messages", messages_per_minute, 60, MINUTE_MS),
            Limit("answers", active_answers, None, answer_ms),
            Limit("tokens", tokens_per_day, DAY_SECONDS, 0),
        )
        self._of_address = _set(
            Limit("address", address_messages_per_minute, 60, MINUTE_MS),
            Limit("address-tokens", address_tokens_per_day, DAY_SECONDS, 0),
        )
        self._tokens_of_owner = bool(tokens_per_day)
        self._tokens_of_address = bool(address_tokens_per_day)
        self._counts_answers = bool(active_answers)
        self._readers = readers
        self._reading: dict[str, int] = {}
        self._saying: asyncio.Task[None] | None = None
        self._looked: dict[str, float] = {}

    @property
    def counts_tokens(self) -> bool:
        """Does anybody's use of tokens matter?"""
        return self._tokens_of_owner or self._tokens_of_address

    async def start(self) -> None:
        """Begin to say again who reads here."""
        if self._readers:
            self._saying = asyncio.create_task(self._say_again())

    async def close(self) -> None:
        """Undo `start`."""
        if self._saying is not None:
            self._saying.cancel()
            await asyncio.gather(self._saying, return_exceptions=True)

    # --- messages and answers -----------------------------------------------------------------------------------------

    def demand(self, place: Place) -> tuple[list[str], list[int]]:
        """Return the keys of all limits of a message, and the numbers that the script `take` has for them."""
        return _demand(self._of(place))

    def left(self, place: Place, reply: list[int]) -> tuple[Allowance, ...]:
        """Return what is left of them, as `take` replied."""
        return tuple(_allowances([limit for _, limits in self._of(place) for limit in limits], reply))

    async def take(self, place: Place) -> tuple[tuple[Allowance, ...], bool]:
        """Take what a message needs, by a script for each slot; return what is left, and whether it was taken.

        One round trip. Raises StoreUnavailable and StoreFull; it may have been taken then.
        """
        asked = self._of(place)
        pending = [self._journal.ask(*_command(one, place.name)) for one in asked]
        try:
            with store_errors():
                replies = [await reply for reply in pending]
        finally:
            for reply in pending:
                reply.cancel()  # where all of them have failed, this says that it was seen
        taken = all(reply[0] for reply in replies)
        if not taken:
            for reply, (_, limits) in zip(replies, asked, strict=True):
                if reply[0]:  # what was taken here is given back
                    reply[1::2] = [left + (limit.ms > 0) for left, limit in zip(reply[1::2], limits, strict=True)]
            self.give_back(place)
        left = [_allowances(limits, reply) for (_, limits), reply in zip(asked, replies, strict=True)]
        return tuple(itertools.chain(*left)), taken

    async def free(self, place: Place, left: Sequence[Allowance]) -> bool:
        """Where a message was refused as too many answers run: give back the places of those that do not; was there any?"""
        refused = [allowance.policy for allowance in left if allowance.remaining <= 0]
        return refused == ["answers"] and await self._free_places(place.owner)

    def give_back(self, place: Place) -> None:
        """Undo `take`: no answer was begun."""
        if self._of_owner:
            self._journal.post("ZREM", keys.limit_messages(place.owner), place.name)
        if place.address is not None and self._of_address:
            self._journal.post("ZREM", keys.limit_messages(place.address), place.name)
        self.ended(place)

    def ended(self, place: Place) -> None:
        """Give an answer's place back."""
        if self._counts_answers:
            self._journal.post("ZREM", keys.limit_answers(place.owner), place.name)

    def spend(self, owner: str, address: str | None, answer: str, tokens: int) -> None:
        """Count the tokens of an answer that has ended; `answer` is its message's id."""
        if tokens <= 0:
            return
        midnight = (now_ms() // (DAY_SECONDS * 1000) + 1) * DAY_SECONDS * 1000
        for who, counted in ((owner, self._tokens_of_owner), (address, self._tokens_of_address)):
            if who is not None and counted:
                names = keys.limit_tokens(who), keys.limit_spent(who, answer)
                numbers = tokens, midnight, keys.SPENT_SECONDS * 1000
                self._journal.post("EVALSHA", scripts.SPEND.sha, len(names), *names, *numbers)

    def _of(self, place: Place) -> list[_Limited]:
        """Return whose limits a message meets, and which: the keys of one lie in one slot."""
        asked = [(place.owner, self._of_owner)] if self._of_owner else []
        if place.address is not None and self._of_address:
            asked.append((place.address, self._of_address))
        return asked

    async def _free_places(self, owner: str) -> bool:
        """Give back the places of answers that do not run any more, as their process was killed; was there any?"""
        now = asyncio.get_running_loop().time()
        if now - self._looked.get(owner, -LOOK_SECONDS) < LOOK_SECONDS:
            return False
        if len(self._looked) > 10_000:
            self._looked.clear()
        self._looked[owner] = now
        name = keys.limit_answers(owner)
        with store_errors():
            pipeline = self._redis.pipeline(transaction=False)
            (seconds, micros), rows = await pipeline.time().zrange(name, 0, -1, withscores=True).execute()
            store_ms = seconds * 1000 + micros // 1000
            old = [place for place, score in rows if store_ms - (score - self._answer_ms) > BEGINNING_MS]
            dead = await self._dead(old)
            return bool(dead) and bool(await self._redis.zrem(name, *dead))

    async def _dead(self, places: list[str]) -> list[str]:
        if not places:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for place in places:
            pipeline.hmget(keys.chat(place.partition(".")[0]), "active", "runner")
        running = await pipeline.execute()
        pipeline = self._redis.pipeline(transaction=False)
        for place, (active, _) in zip(places, running, strict=True):
            pipeline.exists(keys.lease(place.partition(".")[0], int(active or 0)))
        leased = await pipeline.execute()
        return [
            place
            for place, (_, runner), lease in zip(places, running, leased, strict=True)
            if runner != place.partition(".")[2] or not lease
        ]

    # --- readers ------------------------------------------------------------------------------------------------------

    async def open_reader(self, owner: str) -> None:
        """Count one stream more. Raises TooManyReaders and StoreUnavailable; nothing is counted then."""
        if not self._readers:
            return
        count = self._reading[owner] = self._reading.get(owner, 0) + 1
        try:
            allowed, _ = await self._journal.call(*self._say(owner, count, self._readers))
        except BaseException:
            self.close_reader(owner)
            raise
        if not allowed:
            self._leave(owner)
            left = Allowance("readers", self._readers, None, 0, None)
            raise TooManyReaders("Too many streams are open for you. Close one.", allowances=[left])

    def close_reader(self, owner: str) -> None:
        """Undo `open_reader`."""
        if self._readers:
            self._journal.post(*self._say(owner, self._leave(owner), 0))

    def _leave(self, owner: str) -> int:
        count = self._reading[owner] - 1
        if count:
            self._reading[owner] = count
        else:
            del self._reading[owner]
        return count

    async def _say_again(self) -> None:
        while True:
            await asyncio.sleep(READERS_AGAIN_SECONDS)
            for owner, count in self._reading.items():
                self._journal.post(*self._say(owner, count, 0))

    def _say(self, owner: str, count: int, limit: int) -> Sequence[str | int]:
        name = keys.limit_readers(owner)
        return ("EVALSHA", scripts.READERS.sha, 1, name, self._process, count, limit, READERS_MS)


def _set(*limits: Limit) -> tuple[Limit, ...]:
    return tuple(limit for limit in limits if limit.limit)


def _key(policy: str, who: str) -> str:
    match policy:
        case "answers":
            return keys.limit_answers(who)
        case "tokens" | "address-tokens":
            return keys.limit_tokens(who)
    return keys.limit_messages(who)


def _demand(asked: Sequence[_Limited]) -> tuple[list[str], list[int]]:
    names = [_key(limit.policy, who) for who, limits in asked for limit in limits]
    numbers = [number for _, limits in asked for limit in limits for number in (limit.limit, limit.ms)]
    return names, numbers


def _command(asked: _Limited, name: str) -> list[str | int]:
    names, numbers = _demand([asked])
    return ["EVALSHA", scripts.TAKE.sha, len(names), *names, name, *numbers]


def _allowances(limits: Sequence[Limit], reply: list[int]) -> list[Allowance]:
    return [
        Allowance(
            limit.policy,
            limit.limit,
            limit.window_seconds,
            max(0, reply[2 * index + 1]),
            -(-reply[2 * index + 2] // 1000) if limit.window_seconds and reply[2 * index + 2] >= 0 else None,
        )
        for index, limit in enumerate(limits)
    ]
