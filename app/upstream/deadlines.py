"""The time limits of one answer: first token, next token, whole answer.

`asyncio.timeout` does not serve here. A scope cannot stand open over a generator's `yield`, where it would cancel what
its consumer is doing, and a scope for each read makes a timer for each token. So there is one timer, which looks when
it fires whether its time has been put off, and then sets itself anew; a token costs a clock reading and a store.
"""

import asyncio
from math import inf

from app.domain.errors import UpstreamAnswerTimeout, UpstreamError, UpstreamFirstTokenTimeout, UpstreamTokenTimeout
from app.upstream.transport import Reply


class Deadlines:
    """Begins at once with the first token's limit. All limits are in seconds, 0 switches one off."""

    def __init__(self, first_token: float, token: float, answer: float) -> None:
        """Take the limits; the clock is the running loop's."""
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._token_span = token or inf
        self._answer_due = now + (answer or inf)
        self._due = now + (first_token or inf)
        self._had_token = False
        self._reply: Reply | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf

    def headers(self) -> asyncio.Timeout:
        """Return the scope for the wait until the response begins; on TimeoutError, `error()` says what ran out."""
        at = min(self._due, self._answer_due)
        return asyncio.timeout_at(None if at == inf else at)

    def watch(self, reply: Reply) -> None:
        """From now on end the read that waits too long, by raising `error()` in it."""
        self._reply = reply
        self._arm()

    def token(self) -> None:
        """Say that a token came, and the next one is waited for."""
        self._had_token = True
        self._due = self._loop.time() + self._token_span
        if self._due < self._timer_at:
            self._arm()

    def pause(self) -> None:
        """Say that nothing is waited for, until the next `token()`: the consumer is busy, and that is not counted."""
        self._due = inf

    def stop(self) -> None:
        """End the watch."""
        self._reply = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def error(self) -> UpstreamError:
        """Return what ran out, or does so first."""
        if self._answer_due <= self._due:
            return UpstreamAnswerTimeout("The model server did not complete its answer in time.")
        if self._had_token:
            return UpstreamTokenTimeout("The model server stopped sending in the middle of its answer.")
        return UpstreamFirstTokenTimeout("The model server did not begin to answer in time.")

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = min(self._due, self._answer_due)
        if self._timer_at < inf:
            self._timer = self._loop.call_at(self._timer_at, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if min(self._due, self._answer_due) > self._timer_at:
            self._arm()
        elif self._reply is not None:
            self._reply.fail(self.error())
