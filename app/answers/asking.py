"""Asks the model: composes the prompt, and composes a shorter one where the upstream says that it is too long."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from app.domain.context import compose, window_of
from app.domain.errors import UpstreamContextTooLong
from app.domain.messages import AnswerHead
from app.upstream.client import ChatRequest
from app.upstream.deltas import Delta, Notice, Sink
from app.upstream.retries import Retrying


class Asking:
    """What every answer is asked with."""

    def __init__(
        self,
        upstream: Retrying,
        *,
        models: Sequence[str],
        context_tokens: int | None,
        defaults: Mapping[str, Any],
    ) -> None:
        """`models`: those that may be asked for, the default first; each falls back to those behind it.

        `context_tokens` None: what is known of the model. `defaults`: further fields of each request.
        """
        self._upstream = upstream
        self.models = tuple(models)
        self._context_tokens = context_tokens
        self._defaults = defaults
        #: The context window of the model with the largest one, in tokens.
        self.largest_window = max(map(self._window, self.models))

    async def deltas(
        self,
        head: AnswerHead,
        system: str | None,
        records: list[str],
        options: Mapping[str, Any],
        sink: Sink | None = None,
    ) -> AsyncGenerator[Delta]:
        """Yield an answer as the upstream writes it, after notices of what was left out; `sink` as in `Upstream.stream`.

        `records` are the branch's latest messages, newest first; the list is emptied when the answer has begun, since
        nobody asks again then, and a long history would be kept for as long as its answer takes. Raises an UpstreamError.
        """
        # A conversation may keep a model that is no longer offered: it is asked for all the same, without fallbacks.
        models = self.models[self.models.index(head.model) :] if head.model in self.models else (head.model,)
        window = self._window(head.model)
        told = 0
        while True:
            prompt = compose(system, records, head.depth - 1, window)
            if prompt.left_out != told:
                told = prompt.left_out
                yield Notice({"code": "context_trimmed", "left_out": told})
            request = ChatRequest(models[0], prompt.messages, {**self._defaults, **options})
            try:
                async with aclosing(self._upstream.stream(request, models, sink)) as stream:
                    async for delta in stream:
                        if isinstance(delta, Notice) and "model" in delta.data:
                            # Should this one refuse the prompt's length, it is asked again, and not those before it.
                            models = models[models.index(delta.data["model"]) :]
                        elif records and not isinstance(delta, Notice):
                            records.clear()
                            prompt.messages.clear()  # the request's, too
                        yield delta
            except UpstreamContextTooLong as error:
                # It comes before any token. What the upstream names may be what we thought already: then by half.
                named = error.limit_tokens
                window = named if named and named < window else window // 2
                shorter = compose(system, records, head.depth - 1, window)
                while shorter.left_out == prompt.left_out and window > 1:
                    window //= 2
                    shorter = compose(system, records, head.depth - 1, window)
                if shorter.left_out == prompt.left_out:
                    raise  # the last turn alone is too long
            else:
                return

    def _window(self, model: str) -> int:
        return self._context_tokens or window_of(model)
