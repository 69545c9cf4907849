"""The writing end of a log under every order of commits, lost replies and failovers.

The log here is a list that follows XADD's rules (an id must be above the top); that Redis follows them, too, is shown by
the tests against a real one.
"""

import asyncio
from collections.abc import Sequence
from typing import cast

import hiredis
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import OutOfMemoryError, ResponseError

from app.domain.events import Event, Kind, numbered, text_of
from app.domain.ids import MessageRef
from app.domain.live_log import LiveLog
from app.store.entries import Entry, log_events
from app.store.log_writer import LONGEST_TAIL, Interrupt, LogWriter

START = Event("start", "{}", 1)


class Log:
    """A stream, and the writer of an answer whose `begin` it has."""

    def __init__(self) -> None:
        self.entries: list[Entry] = [("1-0", ["start", "{}"])]
        self._before: list[Entry] = []
        self.interrupts: list[Interrupt] = []
        self.live = LiveLog([START])
        self.writer = LogWriter(
            MessageRef("0" * 32, 2), "runner", self.live, interrupt=self.interrupts.append, wake=lambda _: None
        )

    def apply(self, command: bytes | None) -> object:
        """Do what XADD does, and return its reply."""
        _, _, option, name, *fields = _words(command)
        assert option == "NOMKSTREAM"
        if not self.entries:
            return None
        if int(name.split("-")[0]) <= int(self.entries[-1][0].split("-")[0]):
            return ResponseError("The ID specified in XADD is equal or smaller than the target stream top item")
        self.entries.append((name, fields))
        return name

    def reconnect(self) -> None:
        """Compare, as the journal does when it has a connection again."""
        self.writer.reconcile(self.entries[-1] if self.entries else None)

    def commit(self, how: str) -> None:
        """Append what is pending, and lose the command or its reply on the way, where `how` says so."""
        command = self.writer.take()
        if command is None:
            return
        reply = None if how == "lose the command" else self.apply(command)
        if how == "commit":
            self.writer.acknowledged(reply)
        else:
            self.reconnect()

    def fail_over(self, lost: int) -> None:
        """Lose so many entries, as a replica that was behind has lost them."""
        self._before = list(self.entries)
        self.entries[max(1, len(self.entries) - lost) :] = []
        self.reconnect()

    def fail_back(self) -> None:
        """Return to the one that had more, as long as the other has taken nothing new."""
        if self._before[: len(self.entries)] == self.entries:
            self.entries = list(self._before)
            self.reconnect()


def _words(command: bytes | None) -> list[str]:
    reader = hiredis.Reader(encoding="utf-8")
    reader.feed(command or b"")
    words: list[str] = reader.gets()
    return words


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from(["message", "reasoning", "notice"])),
        st.tuples(st.just("commit"), st.just("")),
        st.tuples(st.just("lose the command"), st.just("")),
        st.tuples(st.just("lose the reply"), st.just("")),
        st.tuples(st.just("fail over"), st.integers(1, 4).map(str)),
        st.tuples(st.just("fail back"), st.just("")),
    ),
    max_size=40,
)


def written(log: Log, steps: list[tuple[str, str]]) -> dict[Kind, str]:
    """Do all that, and return what was appended, by its kind."""
    appended: dict[Kind, str] = {"message": "", "reasoning": "", "notice": ""}
    for number, (step, detail) in enumerate(steps):
        if step == "append":
            piece = (cast("Kind", detail), f"{number},")
            appended[piece[0]] += piece[1]
            log.writer.append(piece)
        elif step == "fail over":
            log.fail_over(int(detail))
        elif step == "fail back":
            log.fail_back()
        else:
            log.commit(step)
    return appended


def told(events: Sequence[Event]) -> dict[Kind, str]:
    """Return what events say, by their kind."""
    return {kind: text_of(events, kind) for kind in ("message", "reasoning", "notice")}


@given(STEPS)
@settings(max_examples=300)
def test_nothing_is_lost_repeated_or_reordered_whatever_is_lost_on_the_way(steps: list[tuple[str, str]]) -> None:
    log = Log()
    appended = written(log, steps)
    while (command := log.writer.take()) is not None:
        log.writer.acknowledged(log.apply(command))
    assert log.interrupts == []
    assert told(log.live.events) == told(log_events(log.entries)) == appended
    assert log_events(log.entries)[-1].end == log.live.position


async def tail_of(log: Log) -> list[Event]:
    """Return what is left to the end, once the journal has committed what must stand before it."""
    asked = asyncio.ensure_future(log.writer.tail())
    await asyncio.sleep(0)
    while not asked.done():
        log.writer.acknowledged(log.apply(log.writer.take()))
        await asyncio.sleep(0)
    return asked.result()


@given(STEPS, st.integers(0, 4))
@settings(max_examples=300)
def test_what_is_left_to_the_end_follows_what_is_committed_also_when_a_failover_loses_some_of_that(
    steps: list[tuple[str, str]], lost: int
) -> None:
    async def end() -> None:
        log = Log()
        appended = written(log, steps)
        for _ in range(2):
            tail = await tail_of(log)
            committed = log_events(log.entries)
            assert log.interrupts == []
            assert told([*log.live.events, *tail]) == told([*committed, *tail]) == appended
            assert list(numbered(((event.kind, event.data) for event in tail), committed[-1].end)) == tail
            assert log.writer.last_id == log.entries[-1][0]
            assert log.writer.take() is None
            log.fail_over(lost)

    asyncio.run(end())


def test_what_is_too_much_for_the_end_to_take_along_is_committed_before_it() -> None:
    async def end() -> None:
        log = Log()
        for number in range(LONGEST_TAIL + 1):
            log.writer.append(("notice", str(number)))
        assert await tail_of(log) == []
        assert len(log_events(log.entries)) == 1 + LONGEST_TAIL + 1

    asyncio.run(end())


def test_an_entry_of_somebody_else_at_the_next_position_stops_the_writer() -> None:
    log = Log()
    log.writer.append(("message", "mine"))
    command = log.writer.take()
    log.entries.append(("2-0", ["end", "{}"]))
    log.writer.acknowledged(log.apply(command))
    assert log.interrupts == [Interrupt.FENCED]
    assert log.live.events == [START]
    log.writer.append(("message", "more"))
    assert log.writer.take() is None
    assert log.entries[1:] == [("2-0", ["end", "{}"])]


def test_an_end_or_another_text_found_after_a_reconnect_stops_the_writer() -> None:
    for foreign in (["end", "{}"], ["message", "theirs"]):
        log = Log()
        log.writer.append(("message", "mine"))
        log.writer.take()
        log.entries.append(("2-0", foreign))
        log.reconnect()
        assert log.interrupts == [Interrupt.FENCED]
        assert log.live.events == [START]


def test_a_log_that_has_gone_stops_the_writer() -> None:
    log = Log()
    log.entries.clear()
    log.writer.append(("message", "mine"))
    log.writer.acknowledged(log.apply(log.writer.take()))
    assert log.interrupts == [Interrupt.GONE]
    other = Log()
    other.entries.clear()
    other.reconnect()
    assert other.interrupts == [Interrupt.GONE]


def test_a_full_store_stops_the_writer_and_what_it_did_not_take_is_not_shown() -> None:
    log = Log()
    log.writer.append(("message", "mine"))
    log.writer.take()
    log.writer.acknowledged(OutOfMemoryError("command not allowed when used memory > 'maxmemory'."))
    assert log.interrupts == [Interrupt.FULL]
    assert (log.live.events, log.writer.buffered) == ([START], 0)


def test_unacknowledged_bytes_are_counted_in_utf_8() -> None:
    log = Log()
    log.writer.append(("message", "aé😀"))
    assert log.writer.buffered == 7
    command = log.writer.take()
    log.writer.append(("message", "b"))
    assert log.writer.buffered == 8
    log.writer.acknowledged(log.apply(command))
    assert log.writer.buffered == 1
