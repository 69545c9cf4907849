"""The writing end of a log under every order of commits, lost replies and failovers.

The log here is a list that follows XADD's rules (an id must be above the top); that Redis follows them, too, is shown by
the tests against a real one.
"""

import hiredis
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import OutOfMemoryError, ResponseError

from app.domain.events import Event, Kind, text_of
from app.domain.ids import MessageRef
from app.domain.live_log import LiveLog
from app.store.entries import Entry, log_events
from app.store.log_writer import Interrupt, LogWriter

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


@given(STEPS)
@settings(max_examples=300)
def test_nothing_is_lost_repeated_or_reordered_whatever_is_lost_on_the_way(steps: list[tuple[str, str]]) -> None:
    log = Log()
    writer, written = log.writer, {"message": "", "reasoning": "", "notice": ""}
    for number, (step, detail) in enumerate(steps):
        if step == "append":
            data = f"{number},"
            written[detail] += data
            writer.append((detail, data))  # type: ignore[arg-type]
        elif step == "fail over":
            log.fail_over(int(detail))
        elif step == "fail back":
            log.fail_back()
        else:
            log.commit(step)
    while (command := writer.take()) is not None:
        writer.acknowledged(log.apply(command))
    assert log.interrupts == []
    kinds: list[Kind] = ["message", "reasoning", "notice"]
    for events in (log.live.events, log_events(log.entries)):
        assert {kind: text_of(events, kind) for kind in kinds} == written
    assert log_events(log.entries)[-1].end == log.live.position


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
