"""A model server for measurements, in a process of its own: `python -m tests.bench.upstream PORT`.

The model's name says what it does: `bench-<tokens a second, 0 = as fast as possible>-<tokens>`; with `-cut` behind it,
each event is written in two pieces, cut at another byte each time.
"""

import asyncio
import json
import sys

import uvloop
from aiohttp import web

END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def word(number: int) -> str:
    """Return a token: each one is told from the others, and some have characters of several bytes."""
    return f"w{number}é "


def text(tokens: int) -> str:
    """Return the whole answer."""
    return "".join(map(word, range(tokens)))


def event(number: int) -> bytes:
    """Return a token's event, of the size that real servers send."""
    chunk = {
        "id": "chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012",
        "object": "chat.completion.chunk",
        "created": 1764000000,
        "model": "gpt-4o-mini-2024-07-18",
        "system_fingerprint": "fp_0123456789",
        "choices": [{"index": 0, "delta": {"content": word(number)}, "logprobs": None, "finish_reason": None}],
    }
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


EVENTS = [event(number) for number in range(2000)]


async def complete(request: web.Request) -> web.StreamResponse:
    """Answer as the model's name says."""
    _, rate, tokens, *cut = (await request.json())["model"].split("-")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    loop = asyncio.get_running_loop()
    due = loop.time()
    for number, data in enumerate(EVENTS[: int(tokens)]):
        if float(rate):
            due += 1 / float(rate)
            await asyncio.sleep(max(0.0, due - loop.time()))
        if cut:
            at = 1 + number * 7 % (len(data) - 1)
            await response.write(data[:at])
            await asyncio.sleep(0)
            data = data[at:]  # noqa: PLW2901 - the rest of the same event
        await response.write(data)
    await response.write(END)
    return response


def main() -> None:
    """Serve until the process is ended."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None, backlog=4096, loop=loop)


if __name__ == "__main__":
    main()
