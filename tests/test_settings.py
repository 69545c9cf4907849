"""The settings: what can't be used is said in a sentence that shows no secret, and what is made of the others."""

import os
from pathlib import Path

import pytest

from app.domain.startup import StartupError
from app.settings import Settings, load
from tests.support.service import OURS

SECONDS = sorted(name for name in Settings.model_fields if name.endswith("_seconds"))


def _load(patch: pytest.MonkeyPatch, **settings: str) -> Settings:
    """Read an environment that has these settings and no others."""
    for name in [name for name in os.environ if OURS.match(name)]:
        patch.delenv(name)
    for name, value in settings.items():
        patch.setenv(name.upper(), value)
    return load()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("openai_extra_headers", "marker", "must be a JSON object"),
        ("openai_extra_headers", '["marker"]', "should be a valid dictionary"),
        ("openai_extra_headers", '{"a": 1}', "should be a valid string"),
        ("openai_extra_body", "marker{", "must be a JSON object"),
        ("redis_url", "redis://:ma#rker@127.0.0.1:6379", "in a user's name or a password write %23 for #"),
        ("redis_url", "redis://:1#marker@127.0.0.1:6379", "must not hold #"),
        ("redis_url", "redis://:1/marker@127.0.0.1:abc", "must not hold @"),
        ("redis_url", "redis://:1?marker@127.0.0.1:6379", "must not hold @"),
        ("redis_url", "redis://:marker@127.0.0.1:99999", "a port is a number up to 65535"),
        ("redis_url", "redis://127.0.0.1:marker", "a port is a number up to 65535"),
        ("redis_url", "redis://[::1", "is no address"),
        ("openai_base_url", "http://[::1/v1", "is no address"),
        ("openai_base_url", "http://127.0.0.1:99999/v1", "is no address"),
        ("openai_base_url", "https://", "names no host"),
        ("jwt_jwks_url", "https://ada:ma#rker@id.example/keys", "is no address"),
        ("openai_model", "model-a,a\tb", "should match pattern"),
        ("openai_model", "x" * 201, "at most 200 characters"),
        ("lease_seconds", "0.09", "greater than or equal to 0.1"),
        ("cors_origins", "https://a.example:0", "a port is a number from 1 to 65535"),
        ("cors_origins", "https://a.example:65536", "a port is a number from 1 to 65535"),
        *((name, "315360001", "less than or equal to 315360000") for name in SECONDS),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    with pytest.raises(StartupError) as refused:
        _load(monkeypatch, **{name: value})
    assert f" {name.upper()}: " in str(refused.value)
    assert sentence in str(refused.value)
    assert "rker" not in str(refused.value)


def test_metrics_have_another_port_than_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StartupError, match="METRICS_PORT has to be another port than PORT"):
        _load(monkeypatch, metrics_port="8080")
    assert _load(monkeypatch, port="0", metrics_port="0").metrics


@pytest.mark.parametrize("name", ["openai_api_key", "redis_url", "jwt_key", "metrics_token"])
def test_a_file_that_is_empty_is_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text(" \n")
    settings = _load(monkeypatch, **{f"{name}_file": str(tmp_path / "secret")})
    assert getattr(settings, name) is None
    assert (settings.demo, settings.metrics) == (True, False)


def test_a_file_that_holds_no_text_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xff\xfe")
    with pytest.raises(StartupError, match=f"METRICS_TOKEN_FILE: is no text: {tmp_path}/secret"):
        _load(monkeypatch, metrics_token_file=str(tmp_path / "secret"))


def test_what_is_given_as_json_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _load(monkeypatch, openai_extra_headers='{"X-Team": "a"}', openai_extra_body='{"a": [1, null]}')
    assert settings.openai_extra_headers == {"X-Team": "a"}
    assert settings.openai_extra_body == {"a": [1, None]}


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis:///0",
        "redis://ada:p%23%40%3F%2F%3A@[::1]:6379/0?client_name=parley",
        "redis://store?username=ada@example.com&password=secret",
        "unix:///run/valkey.sock?db=1",
    ],
)
def test_an_address_of_a_store_is_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    taken = _load(monkeypatch, redis_url=url).redis_url
    assert taken is not None
    assert taken.get_secret_value() == url


@pytest.mark.parametrize(
    ("given", "spelt"),
    [
        ("https://a.example:443", "https://a.example"),
        ("http://a.example:80", "http://a.example"),
        ("http://a.example:443", "http://a.example:443"),
        ("https://[::1]:0443, http://localhost:05173", "https://[::1] http://localhost:5173"),
    ],
)
def test_an_origin_is_spelt_as_browsers_do(monkeypatch: pytest.MonkeyPatch, given: str, spelt: str) -> None:
    assert " ".join(_load(monkeypatch, cors_origins=given).cors_origins) == spelt


def test_the_longest_times_and_the_shortest_lease_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _load(monkeypatch, **dict.fromkeys(SECONDS, "315360000") | {"lease_seconds": "0.1"})
    assert settings.lease_seconds == 0.1
    assert settings.send_timeout_seconds == 315_360_000
