"""`python -m app check` says in words what is wrong, and what only may be."""

import asyncio
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.check import check
from app.settings import Settings
from app.web.auth import token_file
from tests.support.people import AUDIENCE, ISSUER, OTHER_KEY, jwk
from tests.support.ports import free_port
from tests.support.scripted_upstream import MODEL, Script, ScriptedUpstream
from tests.support.service import OURS, ROOT
from tests.support.store import StoreProcess

KEY = "sk-marker-0123456789"
PASSWORD = "marker-of-the-password"


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, as a unix socket's has a limit."""
    with tempfile.TemporaryDirectory(prefix="parley-") as path:
        yield Path(path)


class Checked:
    """The check of settings that are good but for what a test changes; keeps what it says."""

    def __init__(self, upstream: ScriptedUpstream, capture: pytest.CaptureFixture[str], store: StoreProcess) -> None:
        self._capture = capture
        self._settings: dict[str, Any] = {
            "redis_url": store.url,
            "openai_base_url": upstream.base_url,
            "openai_api_key": KEY,
            "openai_model": MODEL,
            "upstream_retry_seconds": 0,
        }

    async def __call__(self, **changes: Any) -> tuple[bool, list[str]]:
        """Return whether all is well, and the lines that don't say `ok`."""
        async with asyncio.timeout(20):
            well = await check(Settings(**(self._settings | changes)))
        said = self._capture.readouterr()
        assert "marker" not in said.out + said.err
        lines = said.out.splitlines()
        assert all(line.startswith(("ok       ", "warning  ", "error    ")) for line in lines)
        return well, [line for line in lines if not line.startswith("ok ")]


@pytest.fixture
async def good_store(folder: Path) -> AsyncIterator[StoreProcess]:
    store = StoreProcess(folder, "--maxmemory-policy", "noeviction")
    await store.start()
    yield store
    store.close()


@pytest.fixture
def checked(upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str], good_store: StoreProcess) -> Checked:
    return Checked(upstream, capsys, good_store)


async def test_where_all_is_well_nothing_else_is_said(checked: Checked) -> None:
    assert await checked() == (True, [])
    assert await checked(durability="fsync") == (True, [])


async def test_a_store_that_may_lose_what_it_has_is_a_warning_and_no_error(checked: Checked, folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    store = StoreProcess(other, "--appendonly", "no", "--maxmemory-policy", "allkeys-lru", "--maxmemory", "100mb")
    await store.start()
    try:
        well, (policy, file) = await checked(redis_url=store.url)
        assert well
        assert policy == (
            "warning  store: maxmemory-policy is allkeys-lru: a full store drops conversations. Set noeviction."
        )
        assert file.startswith("warning  store: it writes no append-only file")
        well, (line, *_) = await checked(redis_url=store.url, durability="fsync")
        assert not well
        assert line.startswith("error    store: The store cannot give the DURABILITY that is asked for")
    finally:
        store.close()


async def test_a_store_without_the_replica_that_durability_wants_is_an_error(checked: Checked) -> None:
    well, (line,) = await checked(durability="replica")
    assert not well
    assert line.startswith("error    store: DURABILITY=replica, but the store has no replica")


async def test_a_replica_is_no_store_to_write_to(checked: Checked, folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    store = StoreProcess(other, "--replicaof", "127.0.0.1", str(free_port()))
    await store.start()
    try:
        well, (line,) = await checked(redis_url=store.url)
        assert not well
        assert line.startswith("error    store: It is a replica")
    finally:
        store.close()


async def test_a_wrong_password_is_said_and_not_shown(checked: Checked, folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    port = free_port()
    store = StoreProcess(other, "--port", str(port), "--requirepass", "right")
    store.spawn()
    try:
        refused = "error    store: The store refuses the user or the password of REDIS_URL, or wants one."
        async with asyncio.timeout(20):
            while (said := await checked(redis_url=f"redis://:{PASSWORD}@127.0.0.1:{port}")) != (False, [refused]):
                assert "cannot be reached" in said[1][0]  # it is still starting
        assert await checked(redis_url=f"redis://127.0.0.1:{port}") == (False, [refused])
        well, lines = await checked(redis_url=f"redis://:right@127.0.0.1:{port}")
        assert (well, lines) == (True, [])
    finally:
        store.close()


async def test_a_store_that_is_not_there_or_hangs_is_an_error_and_the_rest_is_looked_at_all_the_same(
    checked: Checked, good_store: StoreProcess, upstream: ScriptedUpstream
) -> None:
    upstream.models = Script([b"{}"], status=401, headers={"Content-Type": "application/json"})
    well, (store, model) = await checked(redis_url=f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0")
    assert not well
    assert store.startswith("error    store: The store cannot be reached")
    assert model.startswith("error    upstream: ")
    good_store.freeze()
    well, (store, _) = await checked()
    assert not well
    assert store.startswith("error    store: The store cannot be reached")
    good_store.thaw()


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_the_model_server_refuses_or_wants(
    checked: Checked, upstream: ScriptedUpstream, status: int
) -> None:
    said = b'{"error": {"message": "no such key sk-marker-0123456789"}}'
    upstream.models = Script([said], status=status, headers={"Content-Type": "application/json"})
    well, (line,) = await checked()
    assert not well
    assert line == (
        f"error    upstream: {upstream.base_url} refuses the key ({status}). Is OPENAI_API_KEY the one for this server?"
    )
    well, (line,) = await checked(openai_api_key=None)
    assert line == f"error    upstream: {upstream.base_url} wants a key ({status}). Set OPENAI_API_KEY."


async def test_a_model_server_that_lists_none_is_asked_for_a_word(checked: Checked, upstream: ScriptedUpstream) -> None:
    upstream.models = Script([b"{}"], status=404, headers={"Content-Type": "application/json"})
    upstream.reply(["Hello"])
    assert await checked() == (True, [])
    (request,) = upstream.requests
    assert (request["model"], request["max_tokens"]) == (MODEL, 1)
    upstream.error(404, {"error": {"message": "no such model"}})
    well, (line,) = await checked()
    assert not well
    assert line.startswith(f"error    upstream: {upstream.base_url} refuses to be asked for {MODEL}: ")
    upstream.error(401)
    well, (line,) = await checked()
    assert "refuses the key (401)" in line


async def test_a_model_that_is_not_listed_is_a_warning(checked: Checked) -> None:
    well, lines = await checked(openai_model=f"{MODEL},model-x")
    assert well
    assert lines == ["warning  upstream: it does not list model-x. Is OPENAI_MODEL right?"]


async def test_a_model_server_that_is_not_there_is_an_error(checked: Checked) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    assert await checked(openai_base_url=url) == (
        False,
        [f"error    upstream: {url}: The model server cannot be reached."],
    )


async def test_tokens_that_cannot_be_read_are_an_error(checked: Checked, folder: Path) -> None:
    well, (line,) = await checked(auth="token", tokens_file=folder / "none")
    assert not well
    assert line.startswith("error    owners: TOKENS_FILE: No such file")


async def test_a_file_without_a_token_is_a_warning(checked: Checked, folder: Path) -> None:
    (folder / "tokens").touch()
    well, (line,) = await checked(auth="token", tokens_file=folder / "tokens")
    assert well
    assert line.startswith("warning  owners: TOKENS_FILE holds no token, so nobody is let in")
    token_file.add(folder / "tokens", "ada")
    assert await checked(auth="token", tokens_file=folder / "tokens") == (True, [])


@pytest.mark.parametrize("published", [None, {"keys": []}, {"keys": [jwk(OTHER_KEY, "one", alg="RS512")]}])
async def test_an_identity_provider_that_has_no_usable_key_is_an_error(
    checked: Checked, published: dict[str, Any] | None
) -> None:
    wanted = {"auth": "jwt", "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    async with _provider(published) as url:
        well, (line,) = await checked(**wanted, jwt_jwks_url=url)
        assert not well
        assert line.startswith("error    owners: JWT_JWKS_URL gives no key")
    async with _provider({"keys": [jwk(OTHER_KEY, "one")]}) as url:
        assert await checked(**wanted, jwt_jwks_url=url) == (True, [])


@asynccontextmanager
async def _provider(published: dict[str, Any] | None) -> AsyncIterator[str]:
    """Lend an identity provider's address; None: nobody listens there."""
    if published is None:
        yield f"http://127.0.0.1:{free_port()}"
        return
    app = web.Application()
    app.router.add_get("/", partial(_publish, published))
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


async def _publish(published: dict[str, Any], _: web.Request) -> web.Response:
    return web.json_response(published)


def _command(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not OURS.match(name)} | settings
    return subprocess.run(
        [sys.executable, "-m", "app", "check"],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_the_command_needs_no_setting_and_its_code_tells_whether_all_is_well(folder: Path) -> None:
    done = _command(folder)
    assert done.returncode == 0, done.stderr
    kinds = [line.split()[0:2] for line in done.stdout.splitlines()]
    assert kinds == [["ok", "settings:"], ["ok", "store:"], ["warning", "upstream:"], ["ok", "owners:"]]
    assert done.stderr == ""
    done = _command(folder, OPENAI_BASE_URL=f"http://127.0.0.1:{free_port()}", OPENAI_API_KEY=KEY)
    assert done.returncode == 1
    assert "error    upstream: " in done.stdout
    assert KEY not in done.stdout + done.stderr


def test_a_setting_that_cannot_be_used_is_said_and_nothing_is_started(folder: Path) -> None:
    done = _command(folder, PORT="70000", LEASE_SECONDS="soon")
    assert (done.returncode, done.stdout) == (1, "")
    assert "PORT: " in done.stderr
    assert "LEASE_SECONDS: " in done.stderr
    assert list(folder.iterdir()) == []
