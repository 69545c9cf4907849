"""Random faults for as long as one likes: `python -m tests.faults.soak --seconds 60 [--seed N]`.

Several readers follow answers that are written on two services over one store, while sockets are cut, processes are
killed, stopped and started again, and the store restarts or hangs. Every reader verifies that each event comes once and
in order; at the end each text is compared with the stored message, and with the words that the upstream sent.
"""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from aiohttp import ClientError, ClientSession, ClientTimeout, CookieJar, TCPConnector

from tests.support.proxy import Proxy
from tests.support.reader import Reader
from tests.support.scripted_upstream import Script, ScriptedUpstream, reply
from tests.support.service import NO_LIMITS, ServiceProcess
from tests.support.store import StoreProcess

WORDS = [f"{number}{mark}" for number, mark in zip(range(120), [" ", "\n", " é ", " 😀 "] * 30, strict=True)]
READERS = 3
#: No answer may take longer than this to reach its `end`, whatever dies meanwhile.
ANSWER_SECONDS = 40.0


class Soak:
    """One run: two services, one store, an upstream, and a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.faults: dict[str, int] = {}
        self.endings: dict[str, int] = {}

    async def run(self, seconds: float) -> None:
        """Ask and break things for so long, then let everything come to its end. Raises AssertionError."""
        folder = Path(tempfile.mkdtemp(prefix="parley-soak-"))
        store = StoreProcess(folder, "--appendfsync", "always")
        services: list[ServiceProcess] = []
        try:
            async with ScriptedUpstream() as upstream:
                upstream.default = self._script
                await store.start()
                settings = {
                    "redis_url": store.url,
                    "openai_base_url": upstream.base_url,
                    "openai_api_key": "sk-soak-0123456789",
                    "openai_model": "model-a",
                    "lease_seconds": 1,
                    **NO_LIMITS,
                    "heartbeat_seconds": 0.2,
                }
                services += [ServiceProcess(folder, **settings) for _ in range(2)]
                for service in services:
                    await service.start()
                await self._with_services(seconds, store, services)
        finally:
            for service in services:
                service.close()
            store.close()
            shutil.rmtree(folder, ignore_errors=True)

    def _script(self, _: object) -> Script:
        return reply(WORDS, delay=self.random.choice([0.0, 0.005, 0.02]))

    async def _with_services(self, seconds: float, store: StoreProcess, services: list[ServiceProcess]) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        timeout = ClientTimeout(total=None, connect=5)
        jar, connector = CookieJar(unsafe=True), TCPConnector(limit=0, force_close=True)
        async with ClientSession(cookie_jar=jar, timeout=timeout, connector=connector) as session:
            async with session.get(f"{services[0].url}/conversations"):
                pass  # the cookie
            breaking = asyncio.create_task(self._break(until, store, services))
            try:
                asking = [asyncio.create_task(self._ask(until, session, services)) for _ in range(3)]
                await asyncio.gather(*asking)
            finally:
                breaking.cancel()
                with suppress(asyncio.CancelledError):
                    await breaking

    async def _ask(self, until: float, session: ClientSession, services: list[ServiceProcess]) -> None:
        loop = asyncio.get_running_loop()
        conversation: str | None = None
        while loop.time() < until:
            async with asyncio.timeout(ANSWER_SECONDS):
                conversation = await self._answer(conversation, session, services)

    async def _answer(
        self, conversation: str | None, session: ClientSession, services: list[ServiceProcess]
    ) -> str | None:
        """Ask once, with several readers of which each is cut at times; return the conversation to go on with."""
        first = Reader()
        body = {"content": "Hi"} | ({"conversation": conversation} if conversation else {})
        headers = {"Idempotency-Key": f"{self.random.getrandbits(64):x}"}
        while not first.ids:  # a POST is repeated until it has been taken; the key makes it one answer
            url = self.random.choice(services).url
            with suppress(ClientError, ConnectionError, TimeoutError):
                async with (
                    asyncio.timeout(10),
                    session.post(f"{url}/messages", json=body, headers=headers) as response,
                ):
                    if response.status == 200:
                        await first.read(response, until=self.random.randrange(1, 200))
                        continue
                    assert response.status in (409, 503), await response.text()
            await asyncio.sleep(0.05)
        readers = [first, *(first.again() for _ in range(READERS - 1))]
        await asyncio.gather(*(self._follow(reader, session, services) for reader in readers))
        await self._check(readers, session, services)
        return first.conversation if self.random.random() < 0.7 else None

    async def _follow(self, reader: Reader, session: ClientSession, services: list[ServiceProcess]) -> None:
        while reader.end is None:
            target = self.random.choice(services).url.removeprefix("http://")
            async with Proxy(target) as proxy:
                if self.random.random() < 0.6:
                    proxy.cut_after = self.random.randrange(250, 3000)
                proxy.split = self.random.choice([None, 1, 7, 100])
                with suppress(ClientError, ConnectionError, TimeoutError):
                    try:
                        async with asyncio.timeout(8):
                            await reader.resume(session, f"http://{proxy.address}")
                    except AssertionError as error:
                        if "store_unavailable" not in str(error):
                            raise
            await asyncio.sleep(0.02)

    async def _check(self, readers: list[Reader], session: ClientSession, services: list[ServiceProcess]) -> None:
        while True:
            url = self.random.choice(services).url
            with suppress(ClientError, ConnectionError, TimeoutError):
                async with asyncio.timeout(8), session.get(f"{url}/messages/{readers[0].answer}") as response:
                    if response.status == 200:
                        message = await response.json()
                        break
                    assert response.status == 503, await response.text()
            await asyncio.sleep(0.05)
        whole = "".join(WORDS)
        for reader in readers:
            assert reader.text == message["content"], "a reader's text is not what is stored"
            assert reader.end is not None
            assert reader.end["status"] == message["status"]
            assert whole.startswith(reader.text), "words that the model never wrote"
            if message["status"] == "completed":
                assert reader.text == whole
        self.endings[message["status"]] = self.endings.get(message["status"], 0) + 1

    async def _break(self, until: float, store: StoreProcess, services: list[ServiceProcess]) -> None:
        loop = asyncio.get_running_loop()
        faults = {
            "kill a service": self._kill,
            "stop and wake a service": self._sleep,
            "restart the store": self._restart,
            "hang the store": self._hang,
        }
        while loop.time() < until:
            await asyncio.sleep(self.random.uniform(0.3, 2))
            name = self.random.choice(list(faults))
            self.faults[name] = self.faults.get(name, 0) + 1
            await faults[name](store, self.random.choice(services))

    async def _kill(self, _: StoreProcess, service: ServiceProcess) -> None:
        service.kill()
        await service.start()

    async def _sleep(self, _: StoreProcess, service: ServiceProcess) -> None:
        service.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(self.random.choice([0.5, 3.5]))  # shorter and longer than the lease
        finally:
            service.signal(signal.SIGCONT)

    async def _restart(self, store: StoreProcess, _: ServiceProcess) -> None:
        store.kill()
        try:
            await asyncio.sleep(self.random.choice([0, 0.5, 2]))
        finally:
            await store.start()

    async def _hang(self, store: StoreProcess, _: ServiceProcess) -> None:
        store.freeze()
        try:
            await asyncio.sleep(self.random.uniform(0.1, 2))
        finally:
            store.thaw()


async def soak(seconds: float, seed: int) -> Soak:
    """Run once, and say what was done."""
    print(f"soak: {seconds:g} s with seed {seed}", flush=True)  # noqa: T201 - a command's output
    run = Soak(seed)
    await run.run(seconds)
    print(f"soak: faults {run.faults}; answers {run.endings}", flush=True)  # noqa: T201
    return run


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    arguments = parser.parse_args()
    asyncio.run(soak(arguments.seconds, arguments.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
