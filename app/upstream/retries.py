"""Retries before the first token: the same model again after a back-off, then the next model of the list.

The back-off is exponential with full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from tenacity import AsyncRetrying, RetryCallState
from tenacity.wait import wait_base, wait_exception, wait_random_exponential

from app.domain.errors import UpstreamError
from app.domain.measures import Measures
from app.domain.spans import NO_SPANS, Span, Spans
from app.upstream.client import ChatRequest, Upstream
from app.upstream.deltas import Delta, Notice, Sink

log = logging.getLogger("parley.upstream")

#: The first wait is at most so long, in seconds: a lost connection is overcome before a reader wonders.
FIRST_DELAY_SECONDS = 0.5
#: No wait is longer, in seconds: a server that is back is found soon, and is asked by each answer once in 4 s on average.
LONGEST_DELAY_SECONDS = 8.0
#: Between nothing and an end that doubles, so that the answers which failed together do not ask again together.
FULL_JITTER: Final = wait_random_exponential(multiplier=FIRST_DELAY_SECONDS, max=LONGEST_DELAY_SECONDS)


class Retrying:
    """Asks an upstream until an answer begins. It keeps nothing between two answers.

    `retry_seconds` is how long a reader may wait for the last attempt to begin, counted from the first one: waits and
    failed attempts together, since to a reader both are silence, and a model that was silent for a minute is not worth
    another one. All models share it, so that a longer list is no longer wait; each is asked once at least, also when
    nothing is left of it (or it is 0: no retries), since what the one refuses for now the next may take.
    """

    def __init__(
        self,
        upstream: Upstream,
        retry_seconds: float,
        *,
        jitter: wait_base = FULL_JITTER,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        measures: Measures | None = None,
        spans: Spans = NO_SPANS,
    ) -> None:
        """`jitter`, `sleep` and `clock` (both in seconds) are for tests."""
        self._upstream = upstream
        self._retry_seconds = retry_seconds
        # A server that names a time is left alone until then, and is not met by all who heard it at that very moment.
        self._wait = wait_exception(_asked_for) + jitter
        self._sleep = sleep
        self._clock = clock
        self._measures = measures or Measures(on=False)
        self._spans = spans

    async def stream(
        self, request: ChatRequest, models: Sequence[str], sink: Sink | None = None
    ) -> AsyncGenerator[Delta, None]:
        """Yield the answer of the first of `models` that begins one, as `Upstream.stream` does, after `Notice`s.

        `models` is the one asked for and then the fallbacks, at least one; it goes before `request.model`. Only
        failures that are `transient` are retried, and only as long as nothing but notices was yielded: so nothing is
        said twice. Every other `UpstreamError` is passed on, and when no model is left, the last one's.
        """
        begun = self._clock()
        names = list(dict.fromkeys(models))
        for model in names:
            if model != names[0]:
                log.warning("the upstream is asked for another model: %r", model)
                yield Notice({"code": "model_changed", "model": model})
            attempt = 1
            while True:
                span = self._spans.begin("upstream", gen_ai__request__model=model, parley__attempt=attempt)
                outcome = _Outcome(self._measures, span)
                try:
                    with outcome:
                        asked = request if request.model == model else replace(request, model=model)
                        async with aclosing(self._upstream.stream(asked, sink)) as deltas:
                            async for delta in deltas:
                                outcome.token()
                                yield delta
                except UpstreamError as error:
                    if outcome.said or not error.transient:
                        raise
                    delay = self._delay(attempt, error, self._retry_seconds - (self._clock() - begun))
                    if delay is None and model == names[-1]:
                        raise
                else:
                    return
                if delay is None:
                    break
                attempt += 1
                self._measures.upstream_retried()
                log.info("the upstream is asked again in %.2f s, attempt %d", delay, attempt)
                yield Notice({"code": "retrying", "attempt": attempt, "delay_seconds": round(delay, 2)})
                await self._sleep(delay)

    def _delay(self, attempt: int, error: UpstreamError, left: float) -> float | None:
        """Return the wait after an attempt that failed, in seconds; None where the next one would begin too late."""
        if left <= 0:
            return None
        # tenacity's own loop has no place for a generator's `yield`, which it would take for the call: a `GeneratorExit`
        # counts as a failed attempt there. Its strategies work by themselves, on the state that the loop would keep.
        state = RetryCallState(AsyncRetrying(), None, (), {})
        state.attempt_number = attempt
        state.set_exception((type(error), error, None))
        delay = self._wait(state)
        if delay > left and error.retry_after_seconds is not None:
            delay = max(error.retry_after_seconds, left)  # where what was asked for fits, only the jitter does not
        return delay if delay <= left else None


class _Outcome:
    """Counts and traces what comes of asking once."""

    __slots__ = ("_measures", "_span", "said")

    def __init__(self, measures: Measures, span: Span) -> None:
        self._measures = measures
        self._span = span
        #: Has there been anything of the answer?
        self.said = False

    def token(self) -> None:
        """Take the first token, and those behind it."""
        if not self.said:
            self._span.event("first token")
            self.said = True

    def __enter__(self) -> None:
        """Begin before asking."""

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        """Take the end."""
        if isinstance(error, UpstreamError):
            self._measures.upstream_failed(error.code)
            self._span.end(error.code)
        else:
            self._span.end("cancelled" if error is not None else None)


def _asked_for(error: BaseException) -> float:
    return (error.retry_after_seconds if isinstance(error, UpstreamError) else None) or 0.0
