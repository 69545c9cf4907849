"""What ends a runner: an interrupt, whoever cancels it, and both at once."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from time import monotonic

import pytest

from app.answers.runner import Runner
from app.domain.errors import UpstreamCut
from app.domain.events import Event
from app.domain.ids import MessageRef
from app.domain.live_log import LiveLog
from app.domain.measures import Measures, buckets
from app.domain.messages import AnswerHead, Ending
from app.main import ANSWERS
from app.store.limits import Place
from app.upstream.deltas import Delta, Sink
from tests.conftest import Client


class Watched(Runner):
    """A runner that writes down how it ends, instead of telling the store."""

    ended: list[Ending]

    async def _finish(self, ending: Ending) -> None:
        self.ended = [*getattr(self, "ended", ()), ending]


def runner_of(client: Client, live: LiveLog, measures: Measures | None = None) -> Watched:
    answers = client.server.app[ANSWERS]  # type: ignore[attr-defined]  # a server of an application has it
    head = AnswerHead(MessageRef("0" * 32, 2), 1, 2, "m", 0)
    place = Place("o", None, "p")
    return Watched(
        head,
        live,
        place=place,
        name="n",
        store=answers._store,
        journal=answers._journal,
        max_buffered_bytes=0,
        measures=measures or Measures(),
    )


@pytest.mark.parametrize("interrupted", [False, True])
async def test_whoever_cancels_a_runner_ends_all_of_it_also_while_it_is_being_interrupted(
    client: Client, *, interrupted: bool
) -> None:
    live = LiveLog([Event("start", "{}", 1)])
    runner, asked, closed = runner_of(client, live), asyncio.Event(), asyncio.Event()

    async def silent(_: Sink) -> AsyncGenerator[Delta]:
        asked.set()
        try:
            await asyncio.Event().wait()
            yield ("message", "never")
        finally:
            closed.set()

    task = asyncio.create_task(runner.run(silent))
    async with asyncio.timeout(5):
        await asked.wait()
        if interrupted:
            runner.end_as(Ending("stopped"))
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert task.cancelled()
    assert (closed.is_set(), live.gone, live.events[-1].kind) == (True, True, "start")


async def test_an_interrupt_ends_the_upstream_and_counts_before_what_the_upstream_says_then(client: Client) -> None:
    runner, asked = runner_of(client, LiveLog([Event("start", "{}", 1)])), asyncio.Event()

    async def failing(_: Sink) -> AsyncGenerator[Delta]:
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise UpstreamCut("It has seen that we went.") from None
        yield ("message", "never")

    task = asyncio.create_task(runner.run(failing))
    async with asyncio.timeout(5):
        await asked.wait()
        runner.end_as(Ending("stopped"))
        runner.end_as(Ending("interrupted"))
        await task
    assert runner.ended == [Ending("stopped")]


@pytest.mark.parametrize(("on", "first", "others"), [(True, 1, 6), (False, 0, 0)])
async def test_tokens_are_counted_where_somebody_asks(client: Client, *, on: bool, first: int, others: int) -> None:
    measures = Measures(on=on)
    runner = runner_of(client, LiveLog([Event("start", "{}", 1)]), measures)
    for tokens in (2, 1, 3):
        runner.take([("message", "x" * tokens)], tokens)
    runner.say("x", monotonic())
    measures.committed(1, 0.001)  # whatever a reader has been shown is counted
    sums = measures.board.sums()
    counted = {family.name: buckets(family, sums)[0][-1][1] for family in measures.families if family.bounds}
    assert counted["parley_first_token_seconds"] == first
    assert counted["parley_token_seconds"] == others
