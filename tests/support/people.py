"""People who use the service, in each way of knowing who somebody is."""

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.web.auth import token_file

ISSUER, AUDIENCE = "https://id.example", "parley"
#: Made once: it takes a tenth of a second.
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

MODES = ("anonymous", "token", "jwt")


def signed(sub: Any, *, key: Any = KEY, algorithm: str = "RS256", kid: str | None = None, **claims: Any) -> str:
    """Return a token of somebody's; a claim that is None is left out."""
    payload = {"sub": sub, "iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 600} | claims
    payload = {name: value for name, value in payload.items() if value is not None}
    return jwt.encode(payload, key, algorithm=algorithm, headers={"kid": kid} if kid else None)


def jwk(key: rsa.RSAPrivateKey, kid: str, **more: Any) -> dict[str, Any]:
    """Return the public half of a key, as providers publish it."""
    public: dict[str, Any] = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    return public | {"kid": kid, "use": "sig"} | more


class People:
    """What the service is started with, and the headers of people."""

    def __init__(self, mode: str, folder: Path) -> None:
        self.mode = mode
        self.tokens = folder / "tokens"
        self.settings: dict[str, Any] = {"auth": mode}
        if mode == "token":
            self.tokens.touch()
            self.settings |= {"tokens_file": self.tokens}
        if mode == "jwt":
            self.settings |= {"jwt_key": PUBLIC_PEM, "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}

    def headers(self, name: str) -> dict[str, str]:
        """Return what says that a request is of this person."""
        if self.mode == "anonymous":
            return {"Cookie": f"parley_owner={name.ljust(43, '_')}"}
        return bearer(token_file.add(self.tokens, name) if self.mode == "token" else signed(name))


def bearer(token: str) -> dict[str, str]:
    """Return the header that brings a token."""
    return {"Authorization": f"Bearer {token}"}
