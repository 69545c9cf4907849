"""The yardstick: aiohttp that copies the upstream's bytes, parses and stores nothing: `python -m tests.bench.pipe PORT URL`."""

import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web

SESSION = web.AppKey("SESSION", aiohttp.ClientSession)


async def copy(request: web.Request) -> web.StreamResponse:
    """Hand the request on, and the answer's bytes back as they come."""
    body = await request.read()
    async with request.app[SESSION].post(f"{sys.argv[2]}/chat/completions", data=body) as upstream:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for chunk in upstream.content.iter_any():
            await response.write(chunk)
        return response


async def session(app: web.Application) -> AsyncIterator[None]:
    """Keep one pool of connections."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as pool:
        app[SESSION] = pool
        yield


def main() -> None:
    """Serve until the process is ended."""
    app = web.Application()
    app.router.add_post("/messages", copy)
    app.cleanup_ctx.append(session)
    loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None, backlog=4096, loop=loop)


if __name__ == "__main__":
    main()
