"""`WORKERS`: several processes, one port, one store."""

import asyncio
import os
import re
import resource
import secrets
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import ClientSession, ClientTimeout, CookieJar, TCPConnector

from tests.support.reader import Reader
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.service import ServiceProcess

# One loop for all tests here, as they share a model server.
pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {
    "workers": 2,
    "openai_api_key": "sk-test-0123456789",
    "openai_model": "model-a",
    "lease_seconds": 1,
}
#: How many connections it may take until both workers have had one; a wrong alarm once in 2^59.
TRIES = 60


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, as a unix socket's has a limit."""
    with tempfile.TemporaryDirectory(prefix="parley-") as path:
        yield Path(path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model() -> AsyncIterator[ScriptedUpstream]:
    """The model server of all tests here."""
    async with ScriptedUpstream() as scripted:
        yield scripted


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(model: ScriptedUpstream) -> AsyncIterator[ScriptedUpstream]:
    """The model server without what the last test has told it."""
    model.forget()
    yield model
    await asyncio.wait_for(model.wait_for_open_streams(0), 10)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(model: ScriptedUpstream) -> AsyncIterator[ServiceProcess]:
    """Two workers with an embedded store, for tests that end neither."""
    with tempfile.TemporaryDirectory(prefix="parley-") as path:
        process = ServiceProcess(Path(path), **SETTINGS, openai_base_url=model.base_url)
        try:
            yield await process.start()
        finally:
            process.close()


@pytest_asyncio.fixture(loop_scope="module")
async def service(folder: Path, upstream: ScriptedUpstream) -> AsyncIterator[ServiceProcess]:
    """The same, to be ended."""
    process = ServiceProcess(folder, **SETTINGS, openai_base_url=upstream.base_url)
    try:
        yield await process.start()
    finally:
        process.close()


@pytest_asyncio.fixture(loop_scope="module")
async def session() -> AsyncIterator[ClientSession]:
    """A browser that makes a connection for each request, so that any worker may get it."""
    connector = TCPConnector(force_close=True)
    async with ClientSession(cookie_jar=CookieJar(unsafe=True), connector=connector) as client:
        yield client


def children(pid: int) -> dict[int, str]:
    """Return the processes that a process has started, with their command lines."""
    found = {}
    for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found[int(number)] = Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def workers(service: ServiceProcess) -> list[int]:
    """Return the workers' pids."""
    return [pid for pid, command in children(service.pid).items() if "app.worker" in command]


def alive(pid: int) -> bool:
    """Is there such a process, and no mere zombie?"""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def served_by(service: ServiceProcess, about: str, count: int = 1) -> list[int]:
    """Return which worker has answered each of the requests that are about an answer, or have an id, once all are logged."""
    async with asyncio.timeout(10):
        while True:
            found = [int(pid) for pid in re.findall(rf"\[(\d+)\] parley\.access: .*{about}", service.log)]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)


async def _met_by_a_worker(browser: ClientSession, service: ServiceProcess) -> None:
    """Get a connection that a worker has accepted; others wait for one that is not there yet."""
    while True:
        with suppress(TimeoutError):
            async with browser.get(f"{service.url}/conversations", timeout=ClientTimeout(total=2)) as response:
                await response.read()
                return


async def server_of(session: ClientSession, service: ServiceProcess, path: str) -> int:
    """Ask, and return which worker has answered."""
    name = secrets.token_hex(8)
    async with session.get(f"{service.url}{path}", headers={"X-Request-ID": name}):
        pass
    (pid,) = await served_by(service, name)
    return pid


async def test_all_workers_answer_on_one_port_and_have_one_store(
    shared: ServiceProcess, session: ClientSession, upstream: ScriptedUpstream
) -> None:
    crew = workers(shared)
    assert len(crew) == 2
    assert shared.log.count("Listening at ") == 1
    assert sum("valkey-server" in command for command in children(shared.pid).values()) == 1
    async with asyncio.timeout(60), session.post(f"{shared.url}/messages", json={"content": "Hi all"}) as response:
        reader = Reader()
        await reader.read(response)
        assert (reader.text, reader.end and reader.end["status"]) == ("Echo: Hi all", "completed")
    seen = set()
    async with asyncio.timeout(60):
        for _ in range(TRIES):
            seen.add(await server_of(session, shared, f"/conversations/{reader.conversation}"))
            if seen == set(crew):
                break
            async with session.get(f"{shared.url}/messages/{reader.answer}") as response:
                assert (await response.json())["content"] == "Echo: Hi all"
    assert seen == set(crew)


async def test_an_answer_that_one_worker_writes_is_read_at_the_other_exactly_while_it_runs(
    shared: ServiceProcess, session: ClientSession, upstream: ScriptedUpstream
) -> None:
    pieces = [f"word{number} " for number in range(50)]
    gate = upstream.gate()
    upstream.reply(pieces, gate=gate)
    readers = []
    async with asyncio.timeout(60):
        gate.release(3)
        first = Reader()
        async with session.post(f"{shared.url}/messages", json={"content": "Hi"}) as response:
            await first.read(response, until=1)
            readers = [first.again() for _ in range(12)]
            following = [asyncio.create_task(reader.resume(session, shared.url)) for reader in readers]
            await asyncio.gather(*(reader.begun() for reader in readers))
            gate.open()
            await first.read(response)
            await asyncio.gather(*following)
    assert [reader.text for reader in (first, *readers)] == ["".join(pieces)] * 13
    assert all(reader.end == first.end for reader in readers)
    # Twelve connections: once in 2048 times all go to one.
    assert set(await served_by(shared, first.answer, 13)) == set(workers(shared))


async def test_a_killed_workers_answers_end_as_interrupted_and_another_takes_its_place(
    service: ServiceProcess, session: ClientSession, upstream: ScriptedUpstream
) -> None:
    upstream.reply(["so far"], unfinished=True)
    crew = workers(service)
    reader = Reader()
    async with asyncio.timeout(60):
        async with session.post(f"{service.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=7)
            await upstream.wait_for_open_streams(1)
            # Whoever writes it is the one that has a connection to the upstream.
            (writer,) = [pid for pid in crew if _connected(pid, upstream)]
            os.kill(writer, signal.SIGKILL)
            await reader.read(response)
        await reader.finish(session, service.url)
        assert reader.end is not None
        assert (reader.text, reader.end["status"]) == ("so far", "interrupted")
        while len(workers(service)) < 2 or f"Worker {crew.index(writer)} is process" not in service.log:
            await asyncio.sleep(0.01)
    assert f"process {writer}) has died (signal 9)" in service.log
    fresh = workers(service)
    assert set(fresh) & set(crew) == set(crew) - {writer}
    seen = set()
    async with asyncio.timeout(60):
        for _ in range(TRIES):
            seen.add(await server_of(session, service, f"/conversations/{reader.conversation}"))
            if seen == set(fresh):
                break
    assert seen == set(fresh)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="The limits of another process are Linux's.")
async def test_a_place_is_filled_once_processes_can_be_started_again_and_the_others_keep_their_grace(
    service: ServiceProcess, session: ClientSession, upstream: ScriptedUpstream
) -> None:
    crew = workers(service)
    before = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
    async with asyncio.timeout(60):
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (3, before[1]))  # the parent can open nothing more
        os.kill(crew[0], signal.SIGKILL)
        while service.log.count(" could not be started: ") < 2:
            await asyncio.sleep(0.01)
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, before)
        while "Worker 0 is process" not in service.log:
            await asyncio.sleep(0.01)
        assert len(workers(service)) == 2

        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (3, before[1]))
        os.kill(workers(service)[0], signal.SIGKILL)
        while service.log.count(" could not be started: ") < 3:
            await asyncio.sleep(0.01)
        gate = upstream.gate()
        upstream.reply(["one ", "two"], gate=gate)
        gate.release()
        reader = Reader()
        async with ClientSession(cookie_jar=CookieJar(unsafe=True), connector=TCPConnector(limit=1)) as browser:
            await _met_by_a_worker(browser, service)
            async with browser.post(f"{service.url}/messages", json={"content": "Hi"}) as response:
                await reader.read(response, until=5)
                service.signal(signal.SIGTERM)
                while "may finish within" not in service.log:
                    await asyncio.sleep(0.01)
                resource.prlimit(service.pid, resource.RLIMIT_NOFILE, before)  # ending needs some, too
                gate.open()
                await reader.read(response)
        assert reader.end is not None
        assert (reader.text, reader.end["status"]) == ("one two", "completed")
        assert await service.ended(10) == 0


async def test_sigterm_lets_running_answers_of_all_workers_finish_and_a_second_one_ends_them(
    service: ServiceProcess, session: ClientSession, upstream: ScriptedUpstream
) -> None:
    gate = upstream.gate()
    upstream.reply(["one ", "two"], gate=gate)
    gate.release()
    reader = Reader()
    async with asyncio.timeout(60):
        async with session.post(f"{service.url}/messages", json={"content": "Hi"}) as response:
            await reader.read(response, until=5)
            service.signal(signal.SIGTERM)
            while "may finish within" not in service.log:
                await asyncio.sleep(0.01)
            gate.open()
            await reader.read(response)
        assert reader.end is not None
        assert (reader.text, reader.end["status"]) == ("one two", "completed")
        assert await service.ended(10) == 0

        await service.start()
        upstream.reply(["one "], unfinished=True)
        again = Reader()
        async with session.post(f"{service.url}/messages", json={"content": "Hi"}) as response:
            await again.read(response, until=5)
            service.signal(signal.SIGTERM)
            while "may finish within" not in service.log:
                await asyncio.sleep(0.01)
            service.signal(signal.SIGINT)
            await again.read(response)
        assert again.end is not None
        assert (again.text, again.end["status"]) == ("one ", "interrupted")
        assert await service.ended(10) == 0


async def test_a_parent_that_is_killed_leaves_nobody_behind(service: ServiceProcess) -> None:
    family = children(service.pid)
    assert len(family) == 3
    service.kill()
    async with asyncio.timeout(15):
        while any(map(alive, family)):
            await asyncio.sleep(0.01)


async def test_a_port_that_another_service_shares_among_its_workers_is_in_use(
    shared: ServiceProcess, folder: Path
) -> None:
    port = shared.url.rpartition(":")[2]
    other = ServiceProcess(folder, **SETTINGS, data_dir=folder / "other", port=port)
    other.spawn()
    try:
        assert await other.ended() == 1
        assert f"Can't listen at 127.0.0.1:{port}" in other.log
        assert "Traceback" not in other.log
    finally:
        other.close()


async def test_the_name_of_this_machine_is_an_address_as_good_as_its_number(folder: Path) -> None:
    service = await ServiceProcess(folder, **SETTINGS, host="localhost").start()
    try:
        async with ClientSession() as client:
            port = service.url.rpartition(":")[2]
            for *_, address in socket.getaddrinfo("localhost", int(port), type=socket.SOCK_STREAM):
                host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
                async with client.get(f"http://{host}:{port}/health/ready") as response:
                    assert response.status == 200
    finally:
        service.close()


def _connected(pid: int, upstream: ScriptedUpstream) -> bool:
    """Has a process a connection to the upstream?"""
    port = int(upstream.base_url.rpartition(":")[2].partition("/")[0])
    held = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            held.add(str(link.readlink()))
        except FileNotFoundError:
            continue
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == port and f"socket:[{fields[9]}]" in held:
            return True
    return False
