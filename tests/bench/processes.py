"""What Linux knows of processes: a service's whole tree, its CPU time, its memory; and where they may run."""

import os
import re
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

CORES = sorted(os.sched_getaffinity(0))
#: Servers that are measured run on the first core, all else on the last; they are one where there is only one.
SERVER_CORE, OTHER_CORE = CORES[0], CORES[-1]
STORE = "valkey-server"


class Use(NamedTuple):
    """What a service has used: its own processes, and apart from them its embedded store (0 where it has none)."""

    own: float
    store: float

    def since(self, before: "Use") -> "Use":
        """Return what came to it."""
        return Use(self.own - before.own, self.store - before.store)


def raise_limits() -> None:
    """Allow as many open files as this user may have; children inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def pinned(core: int, command: list[str]) -> list[str]:
    """Return a command that runs on one core, where there are two and `taskset`."""
    if len(CORES) < 2 or shutil.which("taskset") is None:
        return command
    return ["taskset", "-c", str(core), *command]


@contextmanager
def everywhere() -> Iterator[None]:
    """Let what is started in this block run on all cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def keep_apart() -> None:
    """Keep this process, and what it starts, off the servers' core, unless said otherwise."""
    os.sched_setaffinity(0, {OTHER_CORE})


def pin(root: int, cores: set[int]) -> None:
    """Keep a running service, with its threads, on some cores, and its store on the other one."""
    own, stores = tree(root)
    for pids, where in ((own, cores), (stores, {OTHER_CORE})):
        for pid in pids:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), where)


def tree(root: int) -> tuple[list[int], list[int]]:
    """Return the processes of a service, and those of its embedded store."""
    parents, names = {}, {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with suppress(OSError):  # it may have ended since
                name, rest = re.findall(r"\((.*)\) \S (\d+)", (path / "stat").read_text())[0]
                parents[int(path.name)], names[int(path.name)] = int(rest), name
    found = [root]
    for pid in found:  # grows as we go
        found += [child for child, parent in parents.items() if parent == pid]
    stores = [pid for pid in found if names.get(pid) == STORE]
    return [pid for pid in found if pid not in stores], stores


def cpu(root: int) -> Use:
    """Return the CPU time that a service has used so far, user's and system's, in seconds; 0 is no process."""
    if not root:
        return Use(0, 0)
    own, stores = tree(root)
    return Use(sum(map(_seconds, own)), sum(map(_seconds, stores)))


def memory(root: int) -> Use:
    """Return the memory of a service, in bytes; what it shares with other processes counts in parts (PSS)."""
    own, stores = tree(root)
    return Use(sum(map(_pss, own)), sum(map(_pss, stores)))


def _seconds(pid: int) -> float:
    # Linux's number for the CPU clock of another process (`clock_getcpuclockid`); /proc counts in steps of 10 ms.
    own = time.clock_gettime((~pid << 3) | 2)
    ended_children = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[13:15]
    return own + sum(map(int, ended_children)) / os.sysconf("SC_CLK_TCK")


def _pss(pid: int) -> float:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
