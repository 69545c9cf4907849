"""The Lua scripts: each is one transition that must be atomic. Their texts, with what they take and return, are in `lua/`."""

import hashlib
import re
from importlib.resources import files
from typing import NamedTuple


class Script(NamedTuple):
    """A script's text and the SHA-1 by which Redis knows it."""

    text: str
    sha: str


def _load(name: str) -> Script:
    text = _INCLUDED.sub(lambda found: _text(found[1]).removeprefix("#!lua"), _text(name))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _text(name: str) -> str:
    return files("app.store").joinpath("lua", f"{name}.lua").read_text("utf-8")


#: Where a script has another one as the body of a function.
_INCLUDED = re.compile(r"--\[\[(\w+)\]\]")

ADMIT = _load("admit")
BEGIN = _load("begin")
FINISH = _load("finish")
READ = _load("read")
LOG = _load("log")
EDIT = _load("edit")
STOP = _load("stop")
DELETE = _load("delete")
TAKE = _load("take")
READERS = _load("readers")
RENEW = _load("renew")
SPEND = _load("spend")

#: Those that the journal sends by their SHA-1: it loads them whenever it connects.
JOURNALED = (ADMIT, BEGIN, FINISH, TAKE, READERS, RENEW, SPEND)
