"""The model server of the measurements, in a process of its own: `python -m tests.bench.upstream PORT`.

A protocol on a bare loop that writes bytes made beforehand, so that what it takes from the machine is little beside what is
measured. The model's name says what it does: see `script.py`. `GET /seen` tells what it was asked and how late it was.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, cast

import uvloop

from tests.bench.script import Script, word

#: What real servers send around a token.
FIELDS = {
    "id": "chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012",
    "object": "chat.completion.chunk",
    "created": 1764000000,
    "model": "gpt-4o-mini-2024-07-18",
    "system_fingerprint": "fp_0123456789",
}
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
#: How long after its first half the rest of a write comes that is cut in two, in seconds.
CUT_SECONDS = 0.002


def event(number: int) -> bytes:
    """Return a token's event, of the size that real servers send."""
    choice = {"index": 0, "delta": {"content": word(number)}, "logprobs": None, "finish_reason": None}
    return b"data: " + json.dumps(FIELDS | {"choices": [choice]}, ensure_ascii=False).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    """Return data as a chunk of HTTP."""
    return b"%x\r\n%b\r\n" % (len(data), data)


#: Made beforehand, so that the first who asks does not wait for it.
MOST_TOKENS = 2000
EVENTS = [event(number) for number in range(MOST_TOKENS)]


@cache
def writes(script: Script) -> list[bytes]:
    """Return what is written for an answer, one item at each tick; the end comes with the last."""
    numbers = list(range(script.tokens))
    if script.how == "wrong":
        numbers[script.tokens // 2] += 1
    bursts = [numbers[at : at + script.burst] for at in range(0, script.tokens, script.burst)]
    made = [chunk(b"".join(EVENTS[number] for number in burst)) for burst in bursts]
    made[-1] += chunk(STOP) + b"0\r\n\r\n"
    return made


def whole(script: Script) -> bytes:
    """Return an answer in one piece, for those who ask for no stream."""
    message = {"role": "assistant", "content": script.text}
    usage = {"prompt_tokens": 9, "completion_tokens": script.tokens, "total_tokens": 9 + script.tokens}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return response(FIELDS | {"object": "chat.completion", "choices": [choice], "usage": usage})


def response(body: Any) -> bytes:
    """Return a response that is JSON."""
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)


class Seen:
    """What the server was last asked, and how late each token was."""

    def __init__(self) -> None:
        self.connections = 0
        self.messages = 0
        self.late: list[float] = []

    def told(self) -> dict[str, float]:
        """Return it, and forget how late tokens were."""
        late = sorted(self.late) or [0.0]
        self.late = []
        p99 = late[min(len(late) - 1, int(len(late) * 0.99))]
        return {"messages": self.messages, "late_p99_ms": round(p99 * 1000, 1)}


class Model(asyncio.Protocol):
    """One connection, which is kept alive."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        seen.connections += 1
        #: Another one for each connection, so that all together are cut at every byte.
        self._shift = seen.connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._request = b""
        self._paused = False
        self._rest: Iterator[bytes] = iter(())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Answer once the request is whole."""
        self._request += data
        head, mark, body = self._request.partition(b"\r\n\r\n")
        if not mark:
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) < int(length or 0):
            return
        self._request = b""
        if head.startswith(b"GET /seen"):
            self._transport.write(response(self._seen.told()))
            return
        asked = json.loads(body)
        self._seen.messages = len(asked["messages"])
        script = Script.of(asked["model"])
        if not asked.get("stream"):
            self._transport.write(whole(script))
            return
        self._transport.write(STREAM_HEAD)
        if script.rate:
            self._tick(script, 0, self._loop.time())
        else:
            self._rest = iter(writes(script))
            self._next()

    def pause_writing(self) -> None:
        """Write no more: who reads is slow."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._paused = False
        self._next()

    def connection_lost(self, *_: object) -> None:
        """Whoever asked has gone."""
        self._rest = iter(())

    def _next(self) -> None:
        """As fast as possible: each write in a turn of the loop of its own."""
        if self._paused:
            return
        data = next(self._rest, None)
        if data is not None:
            self._transport.write(data)
            self._loop.call_soon(self._next)

    def _tick(self, script: Script, number: int, due: float) -> None:
        """At the script's pace, whatever was late before."""
        if self._transport.is_closing():
            return
        data = writes(script)[number]
        self._seen.late.append(self._loop.time() - due)
        if script.how == "cut":
            at = 1 + (number * 7 + self._shift) % (len(data) - 1)
            self._transport.write(data[:at])
            self._loop.call_later(CUT_SECONDS, self._ticked, script, number, due, data[at:])
        else:
            self._ticked(script, number, due, data)

    def _ticked(self, script: Script, number: int, due: float, data: bytes) -> None:
        """Write what is left to write, and only then see to the next, which may be due already."""
        self._transport.write(data)
        if number + 1 < len(writes(script)):
            due += script.burst / script.rate
            self._loop.call_at(due, self._tick, script, number + 1, due)


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    seen = Seen()
    server = await asyncio.get_running_loop().create_server(lambda: Model(seen), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
