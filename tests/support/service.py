"""The service as an operator runs it: a process of its own, with real signals, on a free port."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
LISTENING = re.compile(r"Listening at (http://[^/]+)/")
#: Settings of the machine that runs the tests must not reach the service.
OURS = re.compile(
    r"OPENAI_|REDIS_|[A-Z_]+_SECONDS$|PORT$|HOST$|DATA_DIR$|DURABILITY$|LOG_|WORKERS$|METRICS_|OTEL_"
    r"|LIMIT_|MAX_|AUTH$|TOKENS_|JWT_|CORS_|TRUSTED_"
)
#: Settings of a service which anybody may ask as much as they like.
NO_LIMITS = dict.fromkeys(
    ("limit_messages_per_minute", "limit_address_messages_per_minute", "limit_active_answers", "limit_readers"), 0
)


class ServiceProcess:
    """`python -m app` with settings of a test's; its log goes to a file."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        """`folder` gets the log; `settings` are named as in `Settings`."""
        self.folder = folder
        self.url = ""
        self._log = folder / f"service-{id(self)}.log"
        self._settings = {"port": 0} | settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """Return what the service has said since its last start."""
        return self._log.read_text("utf-8", "replace")

    async def start(self) -> Self:
        """Start it and wait until it listens. Raises AssertionError with its log where it does not."""
        self.spawn()
        async with asyncio.timeout(20):
            while (match := LISTENING.search(self.log)) is None:
                assert self._process is not None
                assert self._process.poll() is None, self.log
                await asyncio.sleep(0.01)
        self.url = match[1]
        return self

    def spawn(self) -> None:
        """Start it."""
        environment = {name: value for name, value in os.environ.items() if not OURS.match(name)}
        environment |= {name.upper(): str(value) for name, value in self._settings.items()}
        environment["PYTHONPATH"] = str(ROOT)
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else each start would compile it, as none of a user's does
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app"], cwd=self.folder, env=environment, stdout=log, stderr=log
            )

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)

    async def ended(self, seconds: float = 20) -> int:
        """Wait until it has ended by itself and return its exit code."""
        assert self._process is not None
        async with asyncio.timeout(seconds):
            while (code := self._process.poll()) is None:
                await asyncio.sleep(0.01)
        return code

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
