"""The architecture: imports point one way, and each outside thing is known in one place."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
APP = ROOT / "app"

#: What the modules of a layer may import of ours.
ALLOWED = {
    "domain": {"domain"},
    "store": {"domain", "store"},
    "upstream": {"domain", "upstream"},
    "answers": {"domain", "store", "upstream", "answers"},
    "web": {"domain", "answers", "web"},
    "settings": {"domain"},
    "shared": {"domain", "store", "upstream", "settings"},
    "main": {"domain", "store", "upstream", "answers", "web", "settings", "shared", "tracing"},
    "logs": {"domain", "settings"},
    "tracing": {"domain", "sent_spans"},
    "sent_spans": {"domain"},
    "check": {"domain", "store", "upstream", "settings", "shared", "main"},
    "listening": {"domain"},
    "serve": {"domain", "settings", "listening", "main"},
    "workers": {"domain", "settings", "shared", "listening", "serve"},
    "worker": {"domain", "settings", "shared", "listening", "main", "logs", "serve"},
    "token_command": {"domain", "settings", "web"},
    "__main__": {"domain", "settings", "logs", "check", "serve", "workers", "token_command"},
    "__init__": set(),
    "page": set(),
}

#: Who may know what is outside: a package, and the folders or files of `app` that import it.
OUTSIDE = {
    "redis": {"store"},
    "hiredis": {"store"},
    "httpx": set(),
    "openai": set(),
    "pydantic_settings": {"settings"},
    "aiohttp_sse": {"web"},
    "jwt": {"web"},
    "cryptography": {"web"},
    "prometheus_client": {"web"},
    "opentelemetry": {"sent_spans"},
}

MODULES = sorted(APP.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


def layer(path: Path) -> str:
    """Return the folder of `app` that a file is in, or its own name."""
    return path.relative_to(APP).parts[0].removesuffix(".py")


def test_there_are_modules_to_look_at() -> None:
    assert len(MODULES) > 30
    assert {layer(path) for path in MODULES} == set(ALLOWED) - {"page"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("app.")}
    assert ours <= ALLOWED[layer(path)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_outside_is_known_in_one_place(path: Path) -> None:
    for name in imports(path):
        package = name.split(".")[0]
        if package in OUTSIDE:
            assert layer(path) in OUTSIDE[package], name
    uses = {name for name in imports(path) if name.split(".")[0] == "aiohttp"}
    if layer(path) not in ("web", "upstream", "main", "serve", "worker"):
        assert uses == set()
    if layer(path) == "upstream":
        # The demo model is a server; all else there asks one.
        assert path.stem == "demo" or not any(name.startswith("aiohttp.web") for name in uses)
    else:
        # The client's classes are aiohttp's own names, or modules named for it; a bare `import aiohttp` has them all.
        names = {name.split(".")[1] for name in uses - {"aiohttp"}}
        bare = any(
            isinstance(node, ast.Import) and any(alias.name == "aiohttp" for alias in node.names)
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
        )
        assert not bare
        assert not {name for name in names if name.lower().startswith(("client", "request", "tcpconn", "baseconn"))}


def test_one_module_spells_redis_keys() -> None:
    for path in [*MODULES, *APP.rglob("*.lua")]:
        if path != APP / "store" / "keys.py":
            text = path.read_text("utf-8")
            assert "chat:{" not in text, path
            for spelling in ('"chat:', "'chat:", 'f"owner:', "'owner:", ":events:", ":lease:", ":idempotency:"):
                assert spelling not in text, path


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_its_job_first_and_is_not_long(path: Path) -> None:
    text = path.read_text("utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 400
