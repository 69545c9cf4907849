"""The log: lines for people, or one JSON object a line, on standard error.

All of it goes through the standard library's `logging`, as the libraries' own lines do (aiohttp, asyncio, redis, warnings),
so a formatter is all that is needed: structlog's processors or python-json-logger would be configured at more length.
"""

import json
import logging
import os
import sys
import time
from functools import lru_cache
from types import TracebackType
from typing import Any

from app.domain.log_context import known
from app.settings import Settings

log = logging.getLogger("parley")


def configure_logs(settings: Settings | None) -> None:
    """Send the log of this process to standard error in the form that `LOG_FORMAT` names.

    None: they are not read yet, and what is wrong with them is to be said in the form that they ask for.
    """
    form = os.environ.get("LOG_FORMAT") if settings is None else settings.log_format
    several = settings is not None and settings.workers > 1
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else Lines(several=several))
    root = logging.getLogger()
    root.handlers[:] = [handler]
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
    return known() | getattr(record, "fields", {})


class Lines(logging.Formatter):
    """`2026-01-31 12:00:00,000 INFO    parley: message [request_id=… owner=…]`."""

    def __init__(self, *, several: bool) -> None:
        """`several`: processes share the log, so each line names its own."""
        process = "[%(process)d] " if several else ""
        super().__init__(f"%(asctime)s %(levelname)-7s {process}%(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        """As the library's, which asks for the time zone with each line."""
        return f"{_local_second(int(record.created))},{int(record.msecs):03d}"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Add the fields behind the message, before a traceback."""
        text = super().formatMessage(record)
        fields = " ".join(f"{name}={value}" for name, value in known().items())
        return f"{text} [{fields}]" if fields else text


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
