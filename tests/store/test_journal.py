"""What the journal does where a defect breaks a commit: nothing is lost by it, and it is told."""

import asyncio
from typing import Any

import pytest

from app.domain.events import text_of
from app.store import keys
from app.store.journal import Journal
from app.store.log_writer import LogWriter
from tests.store.conftest import journal_of, writers_of
from tests.support.store import StoreProcess


async def test_a_defect_in_an_acknowledgement_loses_and_repeats_nothing_of_any_answer_and_is_logged(
    journal: Journal, redis: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, other = await writers_of(journal, redis, 2)
    real = LogWriter.acknowledged
    defects: list[object] = []

    def acknowledged(writer: LogWriter, reply: object) -> None:
        if writer is broken and not defects:
            defects.append(reply)
            raise RuntimeError("a defect")
        real(writer, reply)

    monkeypatch.setattr(LogWriter, "acknowledged", acknowledged)
    for piece in ("a", "b", "c"):
        for writer in (broken, other):
            writer.append(("message", piece))
        async with asyncio.timeout(10):
            await broken.room(1)
            await other.room(1)
    assert len(defects) == 1
    assert "The journal failed." in caplog.text
    for writer in (broken, other):
        stored = [fields.get("message", "") for _, fields in await redis.xrange(writer.key)]
        assert "".join(stored) == text_of(writer.live.events, "message") == "abc"


async def test_a_request_whose_commit_a_defect_breaks_is_answered_all_the_same(
    journal: Journal, redis: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = Journal._check
    defects: list[object] = []

    def check(self: Journal, replies: list[Any]) -> None:
        if not defects:
            defects.append(replies)
            raise RuntimeError("a defect")
        real(self, replies)

    monkeypatch.setattr(Journal, "_check", check)
    async with asyncio.timeout(10):
        assert await journal.call("ECHO", "hello") == "hello"
    assert defects == [["hello"]]
    assert "The journal failed." in caplog.text


async def test_a_commit_that_writes_nothing_waits_for_the_disk_behind_a_write_all_the_same(
    redis: Any, store_process: StoreProcess
) -> None:
    """What is sent again after a reconnect may have been done, and `WAITAOF` waits for its own connection's writes only."""
    await redis.config_set("appendonly", "yes")
    try:
        async with journal_of(store_process, durability="fsync") as journal:
            await redis.delete(keys.BARRIER)
            assert await journal.call("ECHO", "hello") == "hello"
            assert await redis.exists(keys.BARRIER)
    finally:
        await redis.config_set("appendonly", "no")
        await redis.flushall()
