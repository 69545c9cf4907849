"""The time limits of answers: first token, next token, whole answer.

`asyncio.timeout` does not serve here. A scope cannot stand open over a generator's `yield`, where it would cancel what
its consumer is doing, and a scope for each read makes a timer for each token. So there is one timer for all answers: it
looks when it fires which of them have put their time off, and then sets itself anew; a token costs a clock reading and a
store.
"""

import asyncio
from math import inf

from app.domain.errors import UpstreamAnswerTimeout, UpstreamError, UpstreamFirstTokenTimeout, UpstreamTokenTimeout
from app.upstream.transport import Reply


class Alarm:
    """The timer of all answers."""

    def __init__(self) -> None:
        self._watched: set[Deadlines] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._at = inf

    def begin(self, deadlines: "Deadlines") -> None:
        """Look after these, too."""
        self._watched.add(deadlines)
        self.look_at(deadlines.due)

    def end(self, deadlines: "Deadlines") -> None:
        """Look after them no more."""
        self._watched.discard(deadlines)

    def look_at(self, at: float) -> None:
        """Look at the time `at` of the loop's clock at the latest."""
        if at < self._at:
            self.stop()
            self._at, self._timer = at, asyncio.get_running_loop().call_at(at, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._at, self._timer = inf, None

    def _look(self) -> None:
        now = max(asyncio.get_running_loop().time(), self._at)  # a timer may fire a moment early
        self._at, self._timer = inf, None
        for deadlines in [watched for watched in self._watched if watched.due <= now]:
            deadlines.expire()
        self.look_at(min((watched.due for watched in self._watched), default=inf))


class Deadlines:
    """Those of one answer. Begins at once with the first token's limit; all are in seconds, 0 switches one off."""

    __slots__ = ("_alarm", "_answer_due", "_had_token", "_loop", "_reply", "read_due", "token_span")

    def __init__(self, alarm: Alarm, first_token: float, token: float, answer: float) -> None:
        self._alarm = alarm
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        #: How long a token may take.
        self.token_span = token or inf
        self._answer_due = now + (answer or inf)
        #: When the next one has to be there, by the loop's clock, which is the system's monotonic one. Of a token behind
        #: another, with no `pause()` between, it is set from outside: a method for that takes each token's time, too.
        self.read_due = now + (first_token or inf)
        self._had_token = False
        self._reply: Reply | None = None

    @property
    def due(self) -> float:
        """Return when time runs out, by the loop's clock."""
        return min(self.read_due, self._answer_due)

    def scope(self) -> asyncio.Timeout:
        """Return the scope for a wait before there is a reply; on TimeoutError, `error()` says what ran out."""
        return asyncio.timeout_at(None if self.due == inf else self.due)

    def watch(self, reply: Reply) -> None:
        """From now on end a wait for this reply that takes too long, by raising `error()` in it."""
        self._reply = reply
        self._alarm.begin(self)

    def token(self) -> None:
        """Say that a token came, and the next one is waited for."""
        due = self._loop.time() + self.token_span
        if due < self.read_due:  # the first wait was allowed to be longer, or none was counted
            self._alarm.look_at(due)
        self.read_due = due
        self._had_token = True

    def pause(self) -> None:
        """Say that nothing is waited for, until the next `token()`: the consumer is busy, and that is not counted."""
        self.read_due = inf

    def stop(self) -> None:
        """End the watch."""
        self._reply = None
        self._alarm.end(self)

    def expire(self) -> None:
        """Take the end of the time."""
        self._alarm.end(self)
        if self._reply is not None:
            self._reply.fail(self.error())

    def error(self) -> UpstreamError:
        """Return what ran out, or does so first."""
        if self._answer_due <= self.read_due:
            return UpstreamAnswerTimeout("The model server did not complete its answer in time.")
        if self._had_token:
            return UpstreamTokenTimeout("The model server stopped sending in the middle of its answer.")
        return UpstreamFirstTokenTimeout("The model server did not begin to answer in time.")
