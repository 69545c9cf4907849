"""A model server that does what a test told it: a real HTTP server on a free loopback port, one script a request.

It needs no pytest, so that it can also run in a process of its own.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from weakref import WeakSet

from aiohttp import web

MODEL = "scripted-model"
DONE = b"data: [DONE]\n\n"
JSON = {"Content-Type": "application/json"}
EVENT_STREAM = {"Content-Type": "text/event-stream"}


class Gate:
    """Holds a script back: each step of it waits for one `release()`, or for `open()`."""

    def __init__(self) -> None:
        """Begin closed."""
        self._steps = asyncio.Semaphore(0)
        self._open = False

    def release(self, steps: int = 1) -> None:
        """Let so many steps pass."""
        for _ in range(steps):
            self._steps.release()

    def open(self) -> None:
        """Let everything pass from now on."""
        self._open = True
        self._steps.release()

    async def passed(self) -> None:
        """Wait until one step may pass."""
        if not self._open:
            await self._steps.acquire()
        if self._open:
            self._steps.release()  # for others that wait


@dataclass
class Script:
    """What happens on one request: `head` is written with the headers, then each of `steps` in a write of its own.

    `delay` (seconds) and `gate` come before each step. After `cut_at` bytes of the body the connection is aborted.
    `hold` keeps the response open after the last step; `mute` never sends even the headers. `sent` counts the steps.
    """

    steps: Sequence[bytes] = ()
    head: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: dict(EVENT_STREAM))
    delay: float = 0.0
    gate: Gate | None = None
    cut_at: int | None = None
    hold: bool = False
    mute: bool = False
    sent: int = 0


class ScriptedUpstream:
    """Use it as `async with ScriptedUpstream() as upstream`; each POST takes the next script, or else `default`."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Begin without scripts. `port` 0 is a free one."""
        self._address = (host, port)
        #: The address to give to a client, ending in `/v1`; known once it is entered.
        self.base_url = ""
        #: The JSON body and the headers of each POST, in order.
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        #: The path with the query of each POST.
        self.paths: list[str] = []
        #: How many POSTs are being answered; falls when the client closes its connection.
        self.open_streams = 0
        #: On how many connections POSTs have come.
        self.connections = 0
        #: What a request without a script of its own does: a script, or one made from the request's body.
        self.default: Script | Callable[[dict[str, Any]], Script] = echo
        #: What GET /models does.
        self.models = Script([_json({"object": "list", "data": [{"id": MODEL, "object": "model"}]})], headers=JSON)
        self._scripts: deque[Script] = deque()
        self._seen: WeakSet[asyncio.BaseTransport] = WeakSet()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    def add(self, script: Script) -> Script:
        """Queue a script for the next request that has none."""
        self._scripts.append(script)
        return script

    def forget(self) -> None:
        """Forget what it was told, and what it was asked."""
        self._scripts.clear()
        for seen in (self.requests, self.headers, self.paths):
            seen.clear()
        self.default = echo

    def gate(self) -> Gate:
        """Return a new gate, to give to a script."""
        return Gate()

    def reply(self, text_pieces: Iterable[str] = (), **options: Any) -> Script:
        """Queue an answer in pieces; the options are those of the function `reply`."""
        return self.add(reply(text_pieces, **options))

    def raw(self, chunks: Iterable[bytes], **options: Any) -> Script:
        """Queue bytes, a step each; the options are those of `Script`."""
        return self.add(Script(list(chunks), **options))

    def error(self, status: int, body: object = None, headers: Mapping[str, str] | None = None) -> Script:
        """Queue an error; a body that is not bytes is sent as JSON."""
        data = body if isinstance(body, bytes) else _json(body or {"error": {"message": f"scripted {status}"}})
        return self.add(Script([data], status=status, headers={**JSON, **(headers or {})}))

    def silent(self) -> Script:
        """Queue headers, and then nothing."""
        return self.add(Script(hold=True))

    async def wait_for_open_streams(self, count: int) -> None:
        """Wait until exactly so many POSTs are being answered."""
        await self._until(lambda: self.open_streams == count)

    async def wait_for_requests(self, count: int) -> None:
        """Wait until at least so many POSTs have come."""
        await self._until(lambda: len(self.requests) >= count)

    async def wait_for_sent(self, script: Script, steps: int) -> None:
        """Wait until a script has written at least so many steps."""
        await self._until(lambda: script.sent >= steps)

    async def __aenter__(self) -> Self:
        """Start listening."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._list_models)
        # With cancellation a handler notices at once that its client has gone.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._address).start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop at once, also with open streams."""
        for task in self._tasks:
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if request.transport is not None and request.transport not in self._seen:
            self._seen.add(request.transport)
            self.connections += 1
        self.requests.append(body)
        self.headers.append(request.headers)
        self.paths.append(request.path_qs)
        if self._scripts:
            script = self._scripts.popleft()
        else:
            script = self.default if isinstance(self.default, Script) else self.default(body)
        return await self._tracked(request, script)

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        return await self._play(request, self.models)

    async def _tracked(self, request: web.Request, script: Script) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open_streams += 1
        self._changed.set()
        try:
            return await self._play(request, script)
        finally:
            self._tasks.discard(task)
            self.open_streams -= 1
            self._changed.set()

    async def _play(self, request: web.Request, script: Script) -> web.StreamResponse:
        forever = asyncio.Event()
        if script.mute:
            await forever.wait()
        response = web.StreamResponse(status=script.status, headers=script.headers)
        await response.prepare(request)
        written = await self._write(request, response, script.head, 0, script.cut_at)
        for step in script.steps:
            if script.gate is not None:
                await script.gate.passed()
            # Also without a delay, others get a turn.
            await asyncio.sleep(script.delay)
            written = await self._write(request, response, step, written, script.cut_at)
            script.sent += 1
            self._changed.set()
        if script.hold:
            await forever.wait()
        await response.write_eof()
        return response

    async def _write(
        self, request: web.Request, response: web.StreamResponse, data: bytes, before: int, cut_at: int | None
    ) -> int:
        cut = cut_at is not None and before + len(data) >= cut_at
        if cut:
            data = data[: (cut_at or 0) - before]
        if data:
            await response.write(data)
        if cut and request.transport is not None:
            request.transport.abort()
            await asyncio.Event().wait()  # until the lost connection cancels this handler
        return before + len(data)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


def event(payload: object) -> bytes:
    """Return one event of a stream, as bytes."""
    return b"data: " + _json(payload) + b"\n\n"


def chunk(delta: Mapping[str, Any], finish_reason: str | None = None, model: str = MODEL) -> bytes:
    """Return the event of one `chat.completion.chunk`."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    return event(
        {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": model, "choices": choices}
    )


def reply(
    text_pieces: Iterable[str] = (),
    *,
    reasoning: Iterable[str] = (),
    tool_calls: Sequence[tuple[str, str, str]] = (),
    finish_reason: str | None = "stop",
    usage: tuple[int, int, int] | None = None,
    model: str = MODEL,
    no_done: bool = False,
    unfinished: bool = False,
    **options: Any,
) -> Script:
    """Make a script that answers as real servers do.

    A first delta without content comes with the headers. Each piece of reasoning, each piece of text and each tool call
    (id, name, arguments) is a step; the end (`finish_reason`, `usage`, `[DONE]`) is one step more. Without a finish
    reason and with `no_done` nothing marks the end. `unfinished`: after the last piece nothing comes, until the client
    goes. Options are those of `Script`: delay, gate, cut_at, hold and so on.
    """
    steps = [chunk({"reasoning_content": piece}, model=model) for piece in reasoning]
    steps += [chunk({"content": piece}, model=model) for piece in text_pieces]
    for index, (call, name, arguments) in enumerate(tool_calls):
        function = {"name": name, "arguments": arguments}
        piece = {"index": index, "id": call, "type": "function", "function": function}
        steps.append(chunk({"tool_calls": [piece]}, model=model))
    end = b"" if finish_reason is None else chunk({}, finish_reason, model)
    if usage is not None:
        counts = dict(zip(("prompt_tokens", "completion_tokens", "total_tokens"), usage, strict=True))
        end += event({"object": "chat.completion.chunk", "model": model, "choices": [], "usage": counts})
    end += b"" if no_done else DONE
    if unfinished:
        options["hold"] = True
    else:
        steps.append(end)
    return Script(steps, head=chunk({"role": "assistant", "content": None}, model=model), **options)


def echo(body: Mapping[str, Any]) -> Script:
    """Make the answer to a request without a script: "Echo: " and the last message, a word at a time."""
    messages = body.get("messages") or [{"content": ""}]
    content = messages[-1].get("content") or ""
    pieces = f"Echo: {content}".split(" ")
    spaced = [pieces[0], *(f" {piece}" for piece in pieces[1:])]
    prompt = sum(len(str(message.get("content")).split()) for message in messages)
    usage = (prompt, len(pieces), prompt + len(pieces))
    return reply(spaced, usage=usage, model=str(body.get("model") or MODEL))


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
