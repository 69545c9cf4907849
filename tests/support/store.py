"""A real Valkey for tests: a process on a unix socket that can be killed, stopped and started again."""

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import redis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.store.embedded import find_binary
from tests.support.ports import free_port


async def reads_of(redis: Any) -> int:
    """Return how often the server has read from a connection: a pipeline is one read. This question is one, too."""
    return int((await redis.info("stats"))["total_reads_processed"])


class StoreProcess:
    """A server with its files in `folder`, which must be short enough for a unix socket."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.socket = folder / "valkey.sock"
        self.url = f"unix://{self.socket}"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        """Start the server; it may not listen yet."""
        self.socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [
                *(find_binary(), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder)),
                *("--appendonly", "yes", "--save", "", "--logfile", "log", *self._options),
            ]
        )

    async def start(self) -> None:
        """Start the server and wait until it answers."""
        self.spawn()
        async with asyncio.timeout(10), Redis.from_url(self.url) as client:
            while True:
                try:
                    await client.ping()
                except (RedisError, OSError):
                    await asyncio.sleep(0.01)
                else:
                    return

    def kill(self) -> None:
        """Kill -9."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)
        self._process = None

    def freeze(self) -> None:
        """SIGSTOP: it accepts connections, and says nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the server, whatever state it is in."""
        if self._process is not None:
            self.kill()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


class ClusterNode(StoreProcess):
    """A cluster of one server: no command and no script of it may have keys of two slots."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "--appendonly", "no", "--cluster-enabled", "yes", "--cluster-port", str(free_port()))

    def spawn(self) -> None:
        """Start it and wait until it serves all slots, which takes two seconds."""
        super().spawn()
        deadline = time.monotonic() + 20
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            while True:
                assert time.monotonic() < deadline
                try:
                    if not client.execute_command("CLUSTER SLOTS"):
                        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
                    if client.execute_command("CLUSTER INFO")["cluster_state"] == "ok":
                        return
                except (RedisError, OSError):
                    pass  # it does not listen yet
                time.sleep(0.02)


async def prolonged(redis: Any, key: str) -> None:
    """Wait until a key's lifetime is longer than just before. Fails where it has none, or ends."""
    left = await redis.pttl(key)
    while (now := await redis.pttl(key)) <= left:
        left = now
        assert left > 0
        await asyncio.sleep(0.01)
