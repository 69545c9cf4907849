"""`AUTH=jwt`: what is taken for a token, and how the provider's keys are kept."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from app.domain.startup import StartupError
from app.web.auth.jwks import Jwks
from app.web.auth.jwts import FixedKey
from tests.conftest import Client, Start
from tests.support.people import AUDIENCE, ISSUER, KEY, OTHER_KEY, PUBLIC_PEM, bearer, jwk, signed

JWT = {"auth": "jwt", "jwt_issuer": ISSUER, "jwt_audience": f"other,{AUDIENCE}"}
SECRET = "s" * 64


async def status(client: Client, token: str) -> int:
    """Return what a token is answered with."""
    async with client.get("/conversations", headers=bearer(token)) as response:
        if response.status == 401:
            assert response.headers["WWW-Authenticate"] == 'Bearer realm="parley", error="invalid_token"'
        return response.status


def _pem(key: Any) -> str:
    return str(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


@pytest.fixture
async def client(start: Start) -> Client:
    return await start(**JWT, jwt_key=PUBLIC_PEM)


async def test_a_token_is_taken_as_it_should_be(client: Client) -> None:
    assert await status(client, signed("ada")) == 200
    assert await status(client, signed("ada", aud=["somebody", AUDIENCE])) == 200


def _unsigned() -> str:
    return jwt.encode({"sub": "ada", "iss": ISSUER, "aud": AUDIENCE, "exp": 1 << 40}, "", algorithm="none")


def _public_key_as_secret() -> str:
    """The old trick: the public key, which everybody has, taken for a shared secret."""
    head, body, _ = signed("ada", key=SECRET, algorithm="HS256").split(".")
    signature = hmac.new(PUBLIC_PEM.encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(signed("ada", key=OTHER_KEY), id="another key"),
        pytest.param(signed("ada", algorithm="RS512"), id="another algorithm"),
        pytest.param(signed("ada", exp=int(time.time()) - 60), id="expired"),
        pytest.param(signed("ada", nbf=int(time.time()) + 600), id="not yet"),
        pytest.param(signed("ada", exp=None), id="no exp"),
        pytest.param(signed("ada", iss=None), id="no issuer"),
        pytest.param(signed("ada", iss="https://evil.example"), id="another issuer"),
        pytest.param(signed("ada", aud=None), id="no audience"),
        pytest.param(signed("ada", aud="shop"), id="another audience"),
        pytest.param(signed(None), id="no sub"),
        pytest.param(signed(""), id="an empty sub"),
        pytest.param(signed("\ud800"), id="half of a character as sub"),
        pytest.param(_unsigned(), id="none"),
        pytest.param(_public_key_as_secret(), id="the public key as a secret"),
        pytest.param(signed("ada")[:-8], id="cut"),
        pytest.param("a.b.c", id="no JWT"),
        pytest.param("x", id="no dots"),
    ],
)
async def test_a_token_that_is_not_as_it_should_be_is_refused(client: Client, token: str) -> None:
    assert await status(client, token) == 401


async def test_a_shared_secret_and_an_elliptic_key_work_as_well(start: Start) -> None:
    by_secret = await start(**JWT, jwt_key=SECRET)
    assert await status(by_secret, signed("ada", key=SECRET, algorithm="HS256")) == 200
    assert await status(by_secret, signed("ada", key="t" * 64, algorithm="HS256")) == 401
    assert await status(by_secret, signed("ada")) == 401
    private = ec.generate_private_key(ec.SECP384R1())
    by_curve = await start(**JWT, jwt_key=_pem(private.public_key()))
    assert await status(by_curve, signed("ada", key=private, algorithm="ES384")) == 200
    assert await status(by_curve, signed("ada")) == 401


@pytest.mark.parametrize(
    ("key", "algorithms", "sentence"),
    [
        (PUBLIC_PEM, ("HS256",), "HS256 can't be used, as JWT_KEY is a public key"),
        (PUBLIC_PEM, ("none",), "none can't be used"),
        (PUBLIC_PEM, ("RS256", "ES256"), "ES256 can't be used"),
        (SECRET, ("RS256",), "RS256 can't be used, as JWT_KEY is a shared secret"),
        ("short", (), "fewer than 32 bytes"),
        ("s" * 40, ("HS512",), "fewer than 64 bytes"),
        (PUBLIC_PEM, ("rs256",), "rs256 can't be used"),
        (
            _pem(x25519.X25519PrivateKey.generate().public_key()),
            (),
            "JWT_KEY is a public key of a kind that signs no token",
        ),
        (
            _pem(ec.generate_private_key(ec.SECP256K1()).public_key()),
            (),
            "JWT_KEY is a public key of a kind that signs",
        ),
        (_pem(ec.generate_private_key(ec.SECP256R1()).public_key()), ("ES384",), "ES384 can't be used"),
        (
            KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            (),
            "JWT_KEY is no public key in PEM",
        ),
    ],
)
def test_a_key_and_algorithms_that_do_not_go_together_are_refused(
    key: str, algorithms: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(StartupError, match=sentence):
        FixedKey(key, algorithms)


def test_published_keys_are_no_shared_secrets() -> None:
    with pytest.raises(StartupError, match="HS256 can't be used"):
        Jwks("http://127.0.0.1:9", ("RS256", "HS256"))


def test_an_algorithm_that_is_not_known_is_refused() -> None:
    with pytest.raises(StartupError, match=r"JWT_ALGORITHMS: rs256, RS-256 can't be used .*; RS256, .* can\."):
        Jwks("http://127.0.0.1:9", ("rs256", "ES256", "RS-256"))


class Provider:
    """An identity provider's list of keys, on a socket."""

    def __init__(self) -> None:
        self.keys: Any = []
        self.fetched = 0
        self.failing = False
        self.holding = threading.Event()
        self.holding.set()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.fetched += 1
                provider.holding.wait(10)
                self.send_response(500 if provider.failing else 200)
                self.end_headers()
                self.wfile.write(json.dumps({"keys": provider.keys}).encode())

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.holding.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()


async def test_the_providers_keys_are_fetched_once_and_again_when_a_new_one_is_used(
    start: Start, provider: Provider
) -> None:
    secret = base64.urlsafe_b64encode(SECRET.encode()).decode()
    provider.keys = [
        jwk(KEY, "one"),
        jwk(OTHER_KEY, "for-encryption", use="enc"),
        {"kty": "oct", "kid": "secret", "k": secret},
        {"kty": "new", "kid": "unknown"},
    ]
    client = await start(**JWT, jwt_jwks_url=provider.url)
    assert provider.fetched == 1
    for _ in range(3):
        assert await status(client, signed("ada", kid="one")) == 200
    assert await status(client, signed("ada")) == 200  # the only key need not be named
    assert provider.fetched == 1
    for token in (
        signed("ada", kid="two"),
        signed("ada", key=OTHER_KEY, kid="one"),
        signed("ada", key=OTHER_KEY, kid="for-encryption"),
        signed("ada", key=SECRET, algorithm="HS256", kid="secret"),
        signed("ada", algorithm="RS512", kid="one"),
    ):
        assert await status(client, token) == 401
    assert provider.fetched == 1  # made-up ids do not make it fetch: it has looked a moment ago


@pytest.fixture
async def jwks(provider: Provider) -> AsyncIterator[Jwks]:
    """Keys that are looked for again at once."""
    provider.keys = [jwk(KEY, "one")]
    keys = Jwks(provider.url, (), look_again_seconds=0)
    await keys.start()
    yield keys


async def test_a_new_key_is_found_and_one_that_is_withdrawn_is_gone(jwks: Jwks, provider: Provider) -> None:
    assert await jwks.find("one") is not None
    provider.keys = [jwk(OTHER_KEY, "two")]
    assert await jwks.find("two") is not None
    assert await jwks.find("one") is None


async def test_while_the_provider_is_away_the_keys_that_are_known_go_on(jwks: Jwks, provider: Provider) -> None:
    provider.failing = True
    assert await jwks.find("two") is None
    assert await jwks.find("one") is not None


async def test_many_that_wait_for_a_key_wait_for_one_fetch_and_nobody_else_waits(
    jwks: Jwks, provider: Provider
) -> None:
    provider.keys.append(jwk(OTHER_KEY, "two"))
    before = provider.fetched
    provider.holding.clear()
    waiting = [asyncio.create_task(jwks.find("two")) for _ in range(20)]
    while provider.fetched == before:
        await asyncio.sleep(0.01)
    assert await jwks.find("one") is not None  # the event loop is free, and known keys need no fetch
    provider.holding.set()
    assert None not in await asyncio.gather(*waiting)
    assert provider.fetched == before + 1


async def test_without_any_key_yet_a_request_is_told_to_come_again(start: Start, provider: Provider) -> None:
    provider.failing = True
    client = await start(**JWT, jwt_jwks_url=provider.url)
    async with client.get("/conversations", headers=bearer(signed("ada", kid="one"))) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
        assert (await response.json())["code"] == "keys_unavailable"
