"""Mends the embedded store's append-only file after a crash that left its end unreadable."""

import logging
import re
import shutil
import subprocess
import time
from pathlib import Path

log = logging.getLogger("parley.store")

#: What a crash can have left unreadable at the end of the append-only file: more than the writes of some seconds is
#: damage that a person should look at.
LONGEST_TORN_BYTES = 4 << 20


def cut_torn_end(binary: Path, data_dir: Path) -> bool:
    """Cut what a crash left unreadable at the end of the append-only file, keeping a copy; say whether it was done.

    A write that merely stops short is the server's own matter (`aof-load-truncated`); a power cut can also leave zeros.
    Blocks: nothing else runs yet.
    """
    folder = data_dir / "appendonlydir"
    try:
        manifest = (folder / "appendonly.aof.manifest").read_text("utf-8", "replace")
        *_, last = re.findall(r"^file (\S+) seq \d+ type i", manifest, re.MULTILINE)
    except (OSError, ValueError):
        return False
    # The binary is the checker too, by the name that it is called by. It is given the one file, as with the manifest it
    # takes the first file's format for damage; where that is what is unreadable, the next start fails and says so.
    command = ["valkey-check-aof", str(folder / last)]
    torn = re.search(r", diff=(\d+)", _run(binary, command))
    if torn is None or not 0 < int(torn[1]) <= LONGEST_TORN_BYTES:
        return False
    copy = data_dir / f"appendonlydir.torn-{time.time_ns()}"
    try:
        shutil.copytree(folder, copy)
    except OSError:
        return False  # without a copy nothing is cut
    if "Successfully truncated" not in _run(binary, [command[0], "--fix", command[1]]):
        return False
    log.warning("The append-only file ended in %s unreadable bytes: cut. As it was: %s.", torn[1], copy)
    return True


def _run(binary: Path, command: list[str]) -> str:
    try:
        return subprocess.run(  # noqa: S603 - our own binary and arguments
            command,
            executable=binary,
            input="y\n",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
