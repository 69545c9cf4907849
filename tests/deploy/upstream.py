"""The model server of the deployment's tests, in a container of its own: `python -m tests.deploy.upstream`.

A message says what is answered: `count 200 every 0.02` counts to 200, a number each 0.02 s. At port 9001 it tells how often
each message was asked for.
"""

import asyncio
import re
from collections import Counter
from typing import Any

from aiohttp import web

from tests.support.scripted_upstream import Script, ScriptedUpstream, reply

#: The only key that it takes.
KEY = "sk-deploy-5f0c1a9be2d74c33"
_WANTED = re.compile(r"count (\d+) every ([\d.]+)")


def pieces(content: str) -> list[str]:
    """Return what is answered to a message, a piece for each delta."""
    wanted = _WANTED.match(content)
    assert wanted is not None, content
    return [f"{number} " for number in range(1, int(wanted[1]) + 1)]


def script(body: dict[str, Any]) -> Script:
    """Return the answer to a request."""
    content = body["messages"][-1]["content"]
    wanted = _WANTED.match(content)
    assert wanted is not None, content
    return reply(pieces(content), delay=float(wanted[2]), usage=(1, int(wanted[1]), 1 + int(wanted[1])))


async def main() -> None:
    """Serve until the container is stopped."""
    async with ScriptedUpstream("0.0.0.0", 9000) as upstream:
        upstream.default = script

        async def asked(_: web.Request) -> web.Response:
            wrong = [dict(headers) for headers in upstream.headers if headers.get("Authorization") != f"Bearer {KEY}"]
            assert wrong == []
            return web.json_response(Counter(body["messages"][-1]["content"] for body in upstream.requests))

        app = web.Application()
        app.router.add_get("/asked", asked)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", 9001).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
