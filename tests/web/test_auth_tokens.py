"""`AUTH=token`: bearer tokens from a file of hashes, and the command that makes them."""

import stat
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from app.domain.startup import StartupError
from app.settings import Settings, load
from app.token_command import run_token_command
from app.web.auth import token_file
from tests.conftest import Client, Start
from tests.support.people import bearer
from tests.support.service import ROOT, ServiceProcess


async def asked(client: Client, headers: dict[str, str]) -> tuple[int, str]:
    """Return the status of a request, and what it says of how to be let in."""
    async with client.get("/conversations", headers=headers) as response:
        return response.status, response.headers.get("WWW-Authenticate", "")


INVALID = (401, 'Bearer realm="parley", error="invalid_token"')


async def test_a_token_of_the_file_lets_in_and_no_other(start: Start, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    token = token_file.add(tokens, "ada")
    client = await start(auth="token", tokens_file=tokens)
    assert await asked(client, bearer(token)) == (200, "")
    assert await asked(client, {"Authorization": f"bearer {token}"}) == (200, "")
    for wrong in (token[:-1], token + "x", token.upper(), token_file.digest_of(token), "ada", "é", ""):
        assert await asked(client, bearer(wrong)) == INVALID, wrong
    for header in ("Basic YTpi", token, f"Bearer {token} {token}", f"Bearer {token}, Bearer {token}"):
        assert await asked(client, {"Authorization": header}) == INVALID, header
    assert await asked(client, {"Cookie": f"parley_owner={'x' * 43}"}) == (401, 'Bearer realm="parley"')


async def test_the_file_is_read_again_when_it_changes(start: Start, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    ada = token_file.add(tokens, "ada")
    client = await start(auth="token", tokens_file=tokens)
    eve = token_file.add(tokens, "eve")
    assert await asked(client, bearer(eve)) == (200, "")
    assert token_file.remove(tokens, "ada") == 1
    assert await asked(client, bearer(ada)) == INVALID
    assert await asked(client, bearer(eve)) == (200, "")
    tokens.write_text("what is this?\n")  # unusable: those that were read before go on
    assert await asked(client, bearer(eve)) == (200, "")
    tokens.unlink()
    assert await asked(client, bearer(eve)) == (200, "")
    again = token_file.add(tokens, "ada")
    assert await asked(client, bearer(again)) == (200, "")
    assert await asked(client, bearer(eve)) == INVALID


async def test_a_new_token_of_the_same_name_has_the_same_conversations(start: Start, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    old = token_file.add(tokens, "ada")
    client = await start(auth="token", tokens_file=tokens)
    async with client.post("/conversations", json={}, headers=bearer(old)) as response:
        path = response.headers["Location"]
        assert "Set-Cookie" not in response.headers
    new = token_file.add(tokens, "ada")
    token_file.add(tokens, "ad")
    for token in (old, new):
        async with client.get(path, headers=bearer(token)) as response:
            assert response.status == 200


async def test_the_file_holds_hashes_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    token = token_file.add(tokens, "ada")
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o600
    assert token not in tokens.read_text()
    tokens.write_text(f"# people\n\n{tokens.read_text().strip()}")  # an editor that ends no last line
    token_file.add(tokens, "eve.b")
    assert [entry.name for entry in token_file.read(tokens)] == ["ada", "eve.b"]
    assert token_file.remove(tokens, "eve") == 0
    assert token_file.remove(tokens, "eve.b") == 1
    assert tokens.read_text().startswith("# people\n")
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o600


def command(folder: Path, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m app token …`."""
    environment = {"PYTHONPATH": str(ROOT)} | {name.upper(): str(value) for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "app", "token", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


async def test_the_command_makes_lists_and_removes_tokens(start: Start, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    made = command(tmp_path, "new", "ada", tokens_file=tokens)
    token = made.stdout.strip()
    assert (made.returncode, len(made.stdout.splitlines()), made.stderr) == (0, 1, "")
    assert command(tmp_path, "list", tokens_file=tokens).stdout == "ada\n"
    client = await start(auth="token", tokens_file=tokens)
    assert await asked(client, bearer(token)) == (200, "")
    assert command(tmp_path, "remove", "ada", tokens_file=tokens).returncode == 0
    assert await asked(client, bearer(token)) == INVALID


@pytest.mark.parametrize(
    ("arguments", "settings", "sentence"),
    [
        (("new", "a b"), {"tokens_file": "tokens"}, "a name has"),
        (("new", "ada"), {}, "TOKENS_FILE is not set"),
        (("new", "ada"), {"tokens_file": "/nowhere/at/all"}, "No such file"),
        (("list",), {"tokens_file": "tokens"}, "No such file"),
    ],
)
def test_what_the_command_cannot_do_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], settings: dict[str, Any], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    verb, *name = arguments
    with pytest.raises(StartupError, match=sentence):
        run_token_command(Settings(**settings), Namespace(verb=verb, name="".join(name)))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"auth": "token"}, "AUTH=token wants TOKENS_FILE"),
        ({"auth": "jwt"}, "AUTH=jwt wants JWT_JWKS_URL or JWT_KEY"),
        ({"auth": "jwt", "jwt_key": "x" * 32}, "AUTH=jwt wants JWT_ISSUER and JWT_AUDIENCE"),
        ({"auth": "password"}, "AUTH: "),
        ({"cors_origins": "https://a.example/"}, "CORS_ORIGINS: "),
        ({"cors_origins": "*"}, "CORS_ORIGINS: "),
        ({"trusted_proxies": "nginx"}, "TRUSTED_PROXIES: "),
    ],
)
def test_settings_that_do_not_go_together_are_refused_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], sentence: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name.upper(), value)
    with pytest.raises(StartupError, match=sentence):
        load()


async def test_a_service_without_its_tokens_file_says_how_to_make_one_and_ends(tmp_path: Path) -> None:
    service = ServiceProcess(tmp_path, auth="token", tokens_file="none")
    service.spawn()
    try:
        assert await service.ended() == 1
        assert "TOKENS_FILE: No such file or directory: none. `python -m app token new NAME` makes" in service.log
        assert "Traceback" not in service.log
    finally:
        service.close()
