"""When a commit is made: at once where few answers are written, some milliseconds after the last one where many are."""

import asyncio
from math import inf
from typing import Any

import pytest

from app.domain.events import text_of
from app.store import journal as subject
from app.store.journal import Journal
from app.store.log_writer import LogWriter
from tests.store.conftest import journal_of, writers_of
from tests.support.store import StoreProcess, reads_of


async def committed(writer: LogWriter) -> str:
    """Wait until all that a writer has is committed, and return the answer's text so far."""
    async with asyncio.timeout(10):
        await writer.room(1)
    return text_of(writer.live.events, "message")


async def test_with_many_answers_tokens_that_come_one_by_one_share_commits(journal: Journal, redis: Any) -> None:
    writers = await writers_of(journal, redis, 100)
    for writer in writers:
        writer.append(("message", "a"))
    for writer in writers:
        await committed(writer)
    loop = asyncio.get_running_loop()
    before, begun = await reads_of(redis), loop.time()
    for _ in range(10):
        for writer in writers:
            writer.append(("message", "b"))
            await asyncio.sleep(0)
    assert {await committed(writer) for writer in writers} == {"a" + 10 * "b"}
    # Not a commit for each of the thousand tokens, but one in ten milliseconds; the rest are beats and the second INFO.
    most = (loop.time() - begun) / subject.LONGEST_SPACING_SECONDS
    assert await reads_of(redis) - before <= most + 5 + most / 50


@pytest.fixture
def no_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal reads no stop marks, so nothing is committed with them."""

    async def never(_: Journal) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Journal, "_beat", never)


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch, no_beats: None) -> None:
    """Nothing is committed again of itself."""
    monkeypatch.setattr(subject, "SPACING_SECONDS", 3600.0)
    monkeypatch.setattr(subject, "LONGEST_SPACING_SECONDS", 3600.0)


async def test_the_first_words_of_an_answer_do_not_wait_for_their_turn_and_go_alone(
    endless: None, journal: Journal, redis: Any
) -> None:
    writer, other = await writers_of(journal, redis, 2)
    writer.append(("message", "a"))
    assert await committed(writer) == "a"
    writer.append(("message", "b"))
    for _ in range(5):
        await redis.ping()
    assert text_of(writer.live.events, "message") == "a"
    other.append(("message", "A"))
    assert await committed(other) == "A"
    assert text_of(writer.live.events, "message") == "a"


async def shown_after_a_request(journal: Journal, redis: Any) -> str:
    """Return an answer's text once a request was answered: `a` was committed before it, and `b` waits for its turn."""
    (writer,) = await writers_of(journal, redis, 1)
    writer.append(("message", "a"))
    await committed(writer)
    writer.append(("message", "b"))
    async with asyncio.timeout(10):
        assert await journal.call("ECHO", "hello", patience=inf) == "hello"
    return text_of(writer.live.events, "message")


async def test_what_a_request_waits_for_does_not_wait_for_its_turn_and_goes_alone(
    endless: None, journal: Journal, redis: Any
) -> None:
    assert await shown_after_a_request(journal, redis) == "a"


async def test_where_each_commit_waits_for_the_disk_it_takes_all_along(
    endless: None, redis: Any, store_process: StoreProcess
) -> None:
    await redis.config_set("appendonly", "yes")
    try:
        async with journal_of(store_process, durability="fsync") as journal:
            assert await shown_after_a_request(journal, redis) == "ab"
    finally:
        await redis.config_set("appendonly", "no")
        await redis.flushall()


async def test_words_do_not_wait_longer_because_a_request_has_left_that_hurried(
    no_beats: None, journal: Journal, redis: Any
) -> None:
    writers = await writers_of(journal, redis, 100)
    for writer in writers:
        writer.append(("message", "a"))
    for writer in writers:
        await committed(writer)
    left = journal.ask("ECHO", "hello")
    writers[0].append(("message", "b"))
    left.cancel()
    assert await committed(writers[0]) == "ab"


async def test_what_has_all_the_time_in_the_world_goes_with_the_next_commit(
    endless: None, journal: Journal, redis: Any
) -> None:
    (writer,) = await writers_of(journal, redis, 1)
    writer.append(("message", "a"))
    await committed(writer)
    patient = journal.ask("ECHO", "the end", patience=None)
    for _ in range(5):
        await redis.ping()
    assert not patient.done()
    async with asyncio.timeout(10):
        assert await journal.call("ECHO", "hello", patience=inf) == "hello"
    assert patient.result() == "the end"


async def test_what_was_posted_does_not_wait_for_its_turn_when_the_process_ends(
    endless: None, journal: Journal, redis: Any
) -> None:
    (writer,) = await writers_of(journal, redis, 1)
    writer.append(("message", "a"))
    await committed(writer)
    journal.post("SET", "posted", "yes", "EX", 60)
    await journal.close()
    assert await redis.get("posted") == "yes"


async def test_an_answer_alone_never_waits(journal: Journal, redis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (writer,) = await writers_of(journal, redis, 1)
    loop, timers = asyncio.get_running_loop(), []
    later = loop.call_later

    def call_later(delay: float, *rest: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append(rest)
        return later(delay, *rest, **options)

    monkeypatch.setattr(loop, "call_later", call_later)
    for length in range(1, 20):
        writer.append(("message", "a"))
        while len(text_of(writer.live.events, "message")) < length:
            await asyncio.sleep(0)
    assert [rest for rest in timers if rest[0] == journal._commit] == []
