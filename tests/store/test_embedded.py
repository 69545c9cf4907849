"""The embedded store: data that stays, a server that goes with its service, and sentences instead of tracebacks."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from app.domain.startup import StartupError
from app.store import embedded
from app.store.embedded import embedded_store

#: A service in small: starts the store, says where it is, and waits to be killed.
HOST = """
import asyncio, os, sys
from pathlib import Path
from app.store.embedded import embedded_store
async def main():
    async with embedded_store(Path(sys.argv[1])) as url:
        print(url, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, as a unix socket's has a limit."""
    with tempfile.TemporaryDirectory(prefix="parley-") as path:
        yield Path(path)


async def _value(url: str, key: str) -> Any:
    async with Redis.from_url(url, decode_responses=True) as client:
        return await client.get(key)


async def _set(url: str, key: str, value: str) -> None:
    async with Redis.from_url(url) as client:
        await client.set(key, value)


def _servers(folder: Path) -> list[int]:
    """Return the pids of servers with their socket in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"valkey-server" in line and os.fsencode(folder) in line:
                found.append(int(entry.name))
    return found


async def test_what_was_written_is_there_after_a_clean_end_and_another_start(folder: Path) -> None:
    async with embedded_store(folder / "data") as url:
        await _set(url, "a", "1")
    assert _servers(folder) == []
    async with embedded_store(folder / "data") as url:
        assert await _value(url, "a") == "1"


async def test_what_was_written_is_there_after_the_service_was_killed_and_its_server_goes_with_it(folder: Path) -> None:
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(folder / "data")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert host.stdout is not None
    url = (await asyncio.to_thread(host.stdout.readline)).strip()
    await _set(url, "a", "2")
    assert len(_servers(folder)) == 1
    host.send_signal(signal.SIGKILL)
    host.wait(10)
    host.stdout.close()
    async with asyncio.timeout(10):
        while _servers(folder):
            await asyncio.sleep(0.01)
        async with embedded_store(folder / "data") as again:
            assert await _value(again, "a") == "2"


async def test_a_second_service_on_the_same_folder_is_refused_in_a_sentence_and_harms_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LOCK_SECONDS", 0.1)
    async with embedded_store(folder) as url:
        await _set(url, "a", "3")
        with pytest.raises(StartupError, match=rf"process {os.getpid()}.*{folder}.*DATA_DIR"):
            async with embedded_store(folder):
                pass
        assert await _value(url, "a") == "3"
    async with embedded_store(folder) as url:
        assert await _value(url, "a") == "3"


async def test_without_a_binary_a_sentence_says_what_to_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with pytest.raises(StartupError, match="REDIS_URL"):
        async with embedded_store(folder / "data"):
            pass
    assert not (folder / "data").exists()


async def test_a_folder_that_cannot_be_made_is_said_in_a_sentence(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(StartupError, match="DATA_DIR"):
        async with embedded_store(folder / "file" / "data"):
            pass


async def test_a_server_that_does_not_start_is_said_in_a_sentence(folder: Path) -> None:
    (folder / "appendonlydir").write_text("no folder")
    with pytest.raises(StartupError, match="did not start"):
        async with embedded_store(folder):
            pass
    assert _servers(folder) == []


async def test_a_path_that_is_too_long_for_a_socket_works(folder: Path) -> None:
    deep = folder / ("x" * 60) / ("y" * 60)
    async with embedded_store(deep) as url:
        await _set(url, "a", "4")
        assert len(url) < 110
    assert not Path(url.removeprefix("unix://")).parent.exists()
    async with embedded_store(deep) as url:
        assert await _value(url, "a") == "4"


async def test_a_folder_with_a_space_works(folder: Path) -> None:
    async with embedded_store(folder / "my data") as url:
        await _set(url, "a", "5")
        assert await _value(url, "a") == "5"


async def test_folder_and_socket_are_the_owners_alone(folder: Path) -> None:
    async with embedded_store(folder / "data") as url:
        socket = Path(url.removeprefix("unix://"))
        assert stat.S_IMODE((folder / "data").stat().st_mode) == 0o700
        assert stat.S_IMODE(socket.stat().st_mode) == 0o700


@pytest.mark.parametrize(("always", "policy"), [(True, "always"), (False, "everysec")])
async def test_writes_go_to_the_disk_as_often_as_asked_for(folder: Path, always: bool, policy: str) -> None:
    async with embedded_store(folder, fsync_always=always) as url, Redis.from_url(url, decode_responses=True) as client:
        config = await client.config_get("append*", "maxmemory-policy")
    assert (config["appendonly"], config["appendfsync"]) == ("yes", policy)
    assert config["maxmemory-policy"] == "noeviction"


async def test_a_file_that_was_cut_off_in_the_middle_of_a_write_still_loads(folder: Path) -> None:
    async with embedded_store(folder) as url:
        await _set(url, "a", "6")
    (log,) = (folder / "appendonlydir").glob("*.incr.aof")
    log.write_bytes(log.read_bytes() + b"*3\r\n$3\r\nSET\r\n$1\r\na")
    async with embedded_store(folder) as url:
        assert await _value(url, "a") == "6"
