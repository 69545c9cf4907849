"""The built-in demo model: a server on loopback that speaks OpenAI's wire protocol, for a service without a model.

What it says is made from the conversation by `demo_answer.py`, the same each time; only the pace is a typewriter's.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from app.upstream.demo_answer import Message, compose, count_tokens, pieces

#: The id of the only model.
DEMO_MODEL = "parley-demo"
#: The pace, in seconds for a token.
DEMO_DELAY_SECONDS = 0.03

# Long conversations are asked whole; what is larger than any of them is refused by aiohttp with 413.
_MAX_REQUEST_BYTES = 64 * 1024 * 1024


class _Refusal(Exception):
    """A request that cannot be answered, as OpenAI says it."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"message": message, "type": "invalid_request_error", "param": param, "code": code}


@dataclass(frozen=True, slots=True)
class _Request:
    messages: list[Message]
    stream: bool
    include_usage: bool


class DemoModel:
    """The handlers of the demo model."""

    def __init__(self, delay: float = DEMO_DELAY_SECONDS) -> None:
        """`delay` is the pace, in seconds for a token; 0 is as fast as it goes."""
        self._delay = delay
        self._created = int(time.time())
        self._answering: set[asyncio.Task[Any]] = set()

    def application(self) -> web.Application:
        """Return the app, to be served with `handler_cancellation`."""
        app = web.Application(client_max_size=_MAX_REQUEST_BYTES)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        return app

    def stop(self) -> None:
        """End all answers that are being written, in the middle."""
        for task in self._answering:
            task.cancel()

    async def _models(self, _: web.Request) -> web.Response:
        model = {"id": DEMO_MODEL, "object": "model", "created": self._created, "owned_by": "parley"}
        return web.json_response({"object": "list", "data": [model]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None  # a handler runs in a task
        self._answering.add(task)
        try:
            asked = _parse(await request.read())
            return await (self._stream(request, asked) if asked.stream else self._whole(asked))
        except _Refusal as refusal:
            return web.json_response({"error": refusal.body}, status=refusal.status)
        finally:
            self._answering.discard(task)

    async def _whole(self, asked: _Request) -> web.Response:
        text = compose(asked.messages)
        await asyncio.sleep(self._delay * len(pieces(text)))
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return web.json_response(
            {**self._head(asked, "chat.completion"), "choices": [choice], "usage": _usage(asked.messages, text)}
        )

    async def _stream(self, request: web.Request, asked: _Request) -> web.StreamResponse:
        text = compose(asked.messages)
        head = self._head(asked, "chat.completion.chunk")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        await response.write(_chunk(head, {"role": "assistant", "content": ""}))
        for piece in pieces(text):
            await asyncio.sleep(self._delay)
            await response.write(_chunk(head, {"content": piece}))
        end = _chunk(head, {}, "stop")
        if asked.include_usage:
            end += _event({**head, "choices": [], "usage": _usage(asked.messages, text)})
        await response.write(end + b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _head(self, asked: _Request, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(repr(asked.messages).encode("utf-8", "replace")).hexdigest()[:24]
        return {"id": f"chatcmpl-{digest}", "object": kind, "created": self._created, "model": DEMO_MODEL}


@asynccontextmanager
async def run_demo(delay: float = DEMO_DELAY_SECONDS) -> AsyncIterator[str]:
    """Serve the demo model on a free port of this machine and yield its base URL; it ends at once."""
    model = DemoModel(delay)
    # With cancellation, an answer whose reader has gone ends at once.
    runner = web.AppRunner(model.application(), handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/v1"
    finally:
        model.stop()
        await runner.cleanup()


def _parse(data: bytes) -> _Request:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise _Refusal(400, "We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict):
        raise _Refusal(400, "The body of your request is not a JSON object.")
    if not isinstance(body.get("model"), str):
        raise _Refusal(400, "You must provide a model parameter.", "model")
    if body["model"] != DEMO_MODEL:
        raise _Refusal(404, f"The model '{body['model'][:100]}' does not exist.", "model", "model_not_found")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _Refusal(400, "'messages' must be an array with at least one message.", "messages")
    options = body.get("stream_options")
    return _Request(
        messages=[_message(item, number) for number, item in enumerate(messages)],
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def _message(value: object, number: int) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        raise _Refusal(400, "A message must be an object with a role.", f"messages[{number}]")
    content = value.get("content")
    if isinstance(content, list):  # content in parts: the text of those that have one
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    if content is not None and not isinstance(content, str):
        raise _Refusal(400, "A message's content must be a string or an array.", f"messages[{number}].content")
    return Message(value["role"], content or "")


def _usage(messages: list[Message], text: str) -> dict[str, int]:
    prompt = sum(count_tokens(message.content) for message in messages)
    completion = count_tokens(text)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _chunk(head: Mapping[str, Any], delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
    return _event({**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]})


def _event(value: object) -> bytes:
    # ASCII escapes, as a message may hold half of a character, which UTF-8 cannot.
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"
