"""What a POST costs in a long conversation, beside a short one whose messages fill the model's context window too."""

import json
import logging
import statistics
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis.asyncio import Redis

from tests.bench.browser import Browser
from tests.bench.contestants import Arena, Contestant, arena
from tests.bench.processes import cpu
from tests.bench.script import Script
from tests.bench.table import Result, Row, number

log = logging.getLogger("bench")

QUESTION = "What do you think of this? " * 8
#: Ten messages of these sizes are more than it holds.
CONTEXT_TOKENS = 512


class Cost(NamedTuple):
    """What a POST took: CPU of the service and of its store, in seconds; bytes that the store sent; messages to the model."""

    own: float
    store: float
    bytes: float
    sent: float


@dataclass(frozen=True, slots=True)
class History:
    """Conversations with `short` and `long` POSTs behind them; `posts` more in each, in turn, each round."""

    name: str = "history"
    short: int = 10
    long: int = 1000
    posts: int = 20
    stack: bool = True

    async def run(self, rounds: int) -> Result:
        """Fill both conversations, then measure."""
        script = Script(20, 0, 20)
        async with arena([script], stack=self.stack, context_tokens=CONTEXT_TOKENS) as running:
            ours = await self._ours(running, script, rounds)
            stack = await self._stack(running, script) if "stack" in running.contestants else None
        return self._result(ours, stack)

    async def _ours(self, running: Arena, script: Script, rounds: int) -> dict[str, list[Cost]]:
        who = running.contestants["parley"]
        talks = {name: await Talk.begin(who, script) for name in ("short", "long")}
        await talks["short"].post(self.short - 1)
        await talks["long"].post(self.long - 1)
        log.info("%s: both conversations are filled", self.name)
        costs: dict[str, list[Cost]] = {name: [] for name in talks}
        async with Redis.from_url(who.store) as redis:
            for _ in range(rounds):
                for name, talk in talks.items():
                    costs[name].append(await self._measured(running, who, redis, talk))
        for talk in talks.values():
            talk.browser.close()
        return costs

    async def _measured(self, running: Arena, who: Contestant, redis: Any, talk: "Talk") -> Cost:
        first = await _sent_bytes(redis)
        sent = await _sent_bytes(redis)
        look = sent - first  # what looking itself takes
        used = cpu(who.pid)
        await talk.post(self.posts)
        used = cpu(who.pid).since(used)
        bytes_sent = await _sent_bytes(redis) - sent - look
        asked = (await running.seen())["messages"]
        return Cost(used.own / self.posts, used.store / self.posts, bytes_sent / self.posts, asked)

    async def _stack(self, running: Arena, script: Script) -> dict[str, float]:
        """Return CPU seconds for each POST; the list is filled directly, as that many POSTs would take minutes."""
        who = running.contestants["stack"]
        costs = {}
        async with Redis.from_url(who.store) as redis:
            for name, behind in (("short", self.short), ("long", self.long)):
                turn = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": script.text}]
                await redis.rpush(f"conversation:{name}", *[json.dumps(message) for message in turn * behind])
                talk = Talk(await Browser.at(who.url), script, name)
                used = cpu(who.pid)
                await talk.post(5)
                costs[name] = cpu(who.pid).since(used).own / 5
                talk.browser.close()
        return costs

    def _result(self, ours: dict[str, list[Cost]], stack: dict[str, float] | None) -> Result:
        ratios = [long.own / short.own for short, long in zip(ours["short"], ours["long"], strict=True)]
        ratio = statistics.median(ratios)
        short, long = (Cost(*map(statistics.median, zip(*ours[name], strict=True))) for name in ("short", "long"))
        figures = {"ratio": ratio, "short_ms": short.own * 1e3, "long_ms": long.own * 1e3}
        figures |= {"short_store_us": short.store * 1e6, "long_store_us": long.store * 1e6}
        figures |= {
            "short_bytes": short.bytes,
            "long_bytes": long.bytes,
            "short_sent": short.sent,
            "long_sent": long.sent,
        }
        told = f"{number(short.own * 1e3)} / {number(long.own * 1e3)}"
        times = f"**{ratio:.2f}** x ({min(ratios):.2f} to {max(ratios):.2f})"
        rows = [
            Row(
                f"**POST number {self.short} / {self.long:,} of a conversation**: CPU, ms",
                f"{told}: {times}",
                stack=f"{number(stack['short'] * 1e3)} / {number(stack['long'] * 1e3)}" if stack else "",
                goal="1.3 x",
            ),
            Row("its store's, us", f"{number(short.store * 1e6)} / {number(long.store * 1e6)}"),
            Row("bytes that its store sends", f"{short.bytes:.0f} / {long.bytes:.0f}"),
            Row("messages that the model is asked with", f"{short.sent:.0f} / {long.sent:.0f}"),
        ]
        return Result(rows, {name: round(value, 3) for name, value in figures.items()})


@dataclass(slots=True)
class Talk:
    """A conversation, with its browser."""

    browser: Browser
    script: Script
    conversation: str

    @classmethod
    async def begin(cls, who: Contestant, script: Script) -> "Talk":
        """POST the first message."""
        talk = cls(await Browser.at(who.url), script, "")
        await talk.post(1)
        return talk

    async def post(self, times: int) -> None:
        """POST so many messages, each with its answer; every answer must be the upstream's."""
        for _ in range(times):
            body = {"content": QUESTION, "model": self.script.model}
            if self.conversation:
                body["conversation"] = self.conversation
            answer = await self.browser.json("POST", "/messages", body)
            self.conversation = answer["conversation"]
            text = answer["message"]["content"] if "message" in answer else answer["text"]
            assert text == self.script.text


async def _sent_bytes(redis: Any) -> int:
    """Return how many bytes a store has sent, those of this very answer not yet counted."""
    return int((await redis.info("stats"))["total_net_output_bytes"])
