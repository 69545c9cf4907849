"""The log: lines for people, or one JSON object a line, on standard error.

All of it goes through the standard library's `logging`, as the libraries' own lines do (aiohttp, asyncio, redis, warnings),
so formatters and a handler are all that is needed: structlog's processors or python-json-logger would be configured at more
length.
"""

import asyncio
import json
import logging
import os
import sys
import time
from functools import lru_cache
from logging.handlers import MemoryHandler
from types import TracebackType
from typing import Any

from app.domain.log_context import known
from app.settings import Settings

log = logging.getLogger("parley")

#: Lines that may wait are written after so long, in seconds, or once they are so many.
BUNDLE_SECONDS = 0.1
BUNDLE_LINES = 100


def configure_logs(settings: Settings | None) -> None:
    """Send the log of this process to standard error in the form that `LOG_FORMAT` names.

    None: they are not read yet, and what is wrong with them is to be said in the form that they ask for.
    """
    form = os.environ.get("LOG_FORMAT") if settings is None else settings.log_format
    several = settings is not None and settings.workers > 1
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else Lines(several=several))
    root = logging.getLogger()
    root.handlers[:] = [Bundles(handler)]
    root.setLevel(logging.INFO if settings is None else settings.log_level)
    # aiohttp's log of malformed requests quotes raw bytes, cookies included.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    # Not shown, and looked up for each line (logging's documentation, "Optimization").
    logging._srcfile = None  # noqa: SLF001 - the name that it gives
    logging.logThreads = logging.logMultiprocessing = False
    logging.logProcesses = several
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a line has beside its message: what its task works for, and `extra={"fields": {…}}`."""
    return _about(record) | getattr(record, "fields", {})


def _about(record: logging.LogRecord) -> dict[str, str]:
    noted: dict[str, str] | None = getattr(record, "about", None)
    return known() if noted is None else noted


class Bundles(MemoryHandler):
    """Writes the lines of requests together, some times a second; all others at once, and what waits before them.

    One by one, each between two other things, they were a twenty-fifth of what a short answer takes. What may wait has noted
    what it is about, with `extra={"about": known()}`.
    """

    def __init__(self, target: logging.Handler) -> None:
        super().__init__(BUNDLE_LINES, target=target)
        self._due = False

    def shouldFlush(self, record: logging.LogRecord) -> bool:  # noqa: N802 - the library's name
        """Is it time to write?"""
        if not hasattr(record, "about") or len(self.buffer) >= self.capacity:
            return True
        if not self._due:
            asyncio.get_running_loop().call_later(BUNDLE_SECONDS, self._bundle)
            self._due = True
        return False

    def _bundle(self) -> None:
        self._due = False
        self.flush()


class Lines(logging.Formatter):
    """`2026-01-31 12:00:00,000 INFO    parley: message [request_id=… owner=…]`."""

    def __init__(self, *, several: bool) -> None:
        """`several`: processes share the log, so each line names its own."""
        super().__init__()
        self._several = several

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, a traceback behind it. By hand, as the library's takes a third longer and asks for the time zone."""
        process = f"[{record.process}] " if self._several else ""
        when = f"{_local_second(int(record.created))},{int(record.msecs):03d}"
        line = f"{when} {record.levelname:<7} {process}{record.name}: {record.getMessage()}"
        fields = " ".join([f"{name}={value}" for name, value in _about(record).items()])
        if fields:
            line = f"{line} [{fields}]"
        error = self.formatException(record.exc_info) if record.exc_info else record.exc_text
        return f"{line}\n{error}" if error else line


@lru_cache(8)
def _local_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


class JsonLines(logging.Formatter):
    """One object a line: `time` (RFC 3339, UTC), `level`, `logger`, `message`, `process`, `error`, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": os.getpid(),
            **fields_of(record),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        elif record.exc_text:
            line["error"] = record.exc_text
        # The standard library's: a line may hold half of a character, which others refuse.
        return json.dumps(line, default=str)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        log.error("Interrupted.")
    else:
        log.critical("The process ends with an error.", exc_info=(kind, error, trace))
