"""The embedded store: data that stays, a server that goes with its service, and sentences instead of tracebacks."""

import asyncio
import logging
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
from app.store import embedded, repair
from app.store.embedded import embedded_store

#: A service in small: starts the store, says where it is, and waits to be killed.
HOST = """
import asyncio, sys
from pathlib import Path
from app.store import embedded, repair
from app.store.embedded import embedded_store
embedded._DIES_WITH_PARENT = sys.argv[2] == "kernel" and embedded._DIES_WITH_PARENT
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


async def _opened(folder: Path, key: str) -> Any:
    async with embedded_store(folder) as url:
        return await _value(url, key)


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


@pytest.mark.parametrize("by", ["kernel", "guard"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_what_was_written_is_there_after_the_service_was_killed_and_its_server_goes_with_it(
    folder: Path, how: signal.Signals, by: str
) -> None:
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(folder / "data"), by],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert host.stdout is not None
    url = (await asyncio.to_thread(host.stdout.readline)).strip()
    await _set(url, "a", "2")
    assert len(_servers(folder)) == 1
    host.send_signal(how)  # nothing handles it: it ends at once
    assert host.wait(10) == -how
    host.stdout.close()
    async with asyncio.timeout(10):
        while _servers(folder):
            await asyncio.sleep(0.01)
        async with embedded_store(folder / "data") as again:
            assert await _value(again, "a") == "2"


async def test_the_store_outlives_a_ctrl_c_in_the_terminal(folder: Path) -> None:
    async with embedded_store(folder) as url:
        (server,) = _servers(folder)
        assert os.getpgid(server) != os.getpgrp()
        assert await _value(url, "a") is None


async def test_a_new_service_waits_for_a_server_that_is_still_writing(folder: Path) -> None:
    async with embedded_store(folder) as url:
        await _set(url, "a", "7")
        waiting = asyncio.create_task(_opened(folder, "a"))
        await asyncio.sleep(0)
    assert await asyncio.wait_for(waiting, 10) == "7"


async def test_a_server_that_was_left_behind_is_named_by_its_pid(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LOCK_SECONDS", 0.05)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(10)
    async with embedded_store(folder):
        (server,) = _servers(folder)
        assert (folder / "lock").read_text() == f"{os.getpid()}\n{server}\n"
        (folder / "lock").write_text(f"{gone.pid}\n{server}\n")
        with pytest.raises(StartupError) as refusal:
            async with embedded_store(folder):
                pass
    assert str(refusal.value) == (
        f"The store that an earlier service left behind (process {server}) uses the data folder {folder.resolve()}. "
        "Stop it, or set another DATA_DIR."
    )


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


async def test_a_folder_with_a_space_and_signs_that_urls_use_works(folder: Path) -> None:
    async with embedded_store(folder / "my data, 100%25 #1?") as url:
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


async def test_an_end_that_a_power_cut_left_unreadable_is_cut_and_a_copy_kept(folder: Path) -> None:
    async with embedded_store(folder) as url:
        await _set(url, "a", "8")
    (log,) = (folder / "appendonlydir").glob("*.incr.aof")
    sound = log.read_bytes()
    log.write_bytes(sound + b"\0" * 100)
    async with embedded_store(folder) as url:
        assert await _value(url, "a") == "8"
    (copy,) = folder.glob("appendonlydir.torn-*")
    assert (copy / log.name).read_bytes() == sound + b"\0" * 100


async def test_more_damage_than_a_crash_leaves_is_not_touched_and_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "LONGEST_TORN_BYTES", 99)
    async with embedded_store(folder) as url:
        await _set(url, "a", "8")
    (log,) = (folder / "appendonlydir").glob("*.incr.aof")
    damaged = log.read_bytes() + b"\0" * 100
    log.write_bytes(damaged)
    with pytest.raises(StartupError, match=r"did not start: .*Bad file format"):
        async with embedded_store(folder):
            pass
    assert log.read_bytes() == damaged
    assert _servers(folder) == []


async def test_a_binary_that_does_not_run_here_is_said_in_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "valkey-server").write_bytes(b"\x7fELF")
    (folder / "valkey-server").chmod(0o700)
    monkeypatch.setattr(embedded, "find_binary", lambda: folder / "valkey-server")
    with pytest.raises(StartupError, match=r"can't be started: .*Exec format error.*REDIS_URL"):
        async with embedded_store(folder / "data"):
            pass


async def test_what_the_server_says_about_its_options_is_in_the_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LONGEST_SOCKET_PATH", 1000)
    with pytest.raises(StartupError, match=r"did not start: .*[Ss]ocket"):
        async with embedded_store(folder / ("x" * 60) / ("y" * 60)):
            pass


async def test_a_large_file_is_waited_for_and_told_in_the_log(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with embedded_store(folder):
        pass
    (log,) = (folder / "appendonlydir").glob("*.incr.aof")
    with log.open("ab") as file:
        file.write(b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n" * 1_000_000)
    with caplog.at_level(logging.INFO, "parley.store"):
        async with embedded_store(folder) as url:
            assert await _value(url, "n") == "1000000"
    assert "is loading its file: " in caplog.text


async def test_a_server_that_ends_by_itself_is_an_error_in_the_log(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with embedded_store(folder):
        (server,) = _servers(folder)
        os.kill(server, signal.SIGKILL)
        async with asyncio.timeout(10):
            while "has ended by itself (exit code -9)" not in caplog.text:
                await asyncio.sleep(0.01)
    assert [record.levelname for record in caplog.records if "by itself" in record.message] == ["ERROR"]


async def test_a_server_that_does_not_end_when_asked_to_is_killed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.1)
    async with embedded_store(folder):
        (server,) = _servers(folder)
        os.kill(server, signal.SIGSTOP)
    assert _servers(folder) == []


async def test_files_in_a_folder_that_is_open_to_all_are_the_owners_alone(folder: Path) -> None:
    folder.chmod(0o755)
    async with embedded_store(folder) as url:
        await _set(url, "a", "9")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"lock": 0o600, "valkey.log": 0o600, "appendonlydir": 0o700}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


async def test_the_servers_log_does_not_grow_without_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LONGEST_LOG_BYTES", 100)
    (folder / "valkey.log").write_bytes(b"old" * 34)
    async with embedded_store(folder):
        pass
    assert (folder / "valkey.log.1").read_bytes() == b"old" * 34
    assert b"old" not in (folder / "valkey.log").read_bytes()
