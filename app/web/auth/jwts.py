"""`AUTH=jwt`: tokens that an identity provider has signed (RFC 7519); its `sub` is the owner."""

from typing import Any, Protocol

import jwt
from aiohttp import web
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from app.domain.startup import StartupError
from app.web.auth.bearer import bearer_of, refused
from app.web.auth.interface import Owner, owner_id

#: The algorithms of each kind of key. A token says itself how it is signed: it is believed only within its key's kind,
#: or a public key could be taken for a shared secret.
ALGORITHMS = {
    "oct": ("HS256", "HS384", "HS512"),
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
#: What a shared secret needs, in bytes (RFC 7518, 3.2).
SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
#: How far the clocks of the provider and of this machine may differ.
LEEWAY_SECONDS = 30

_KINDS: tuple[tuple[type, str], ...] = (
    (RSAPublicKey, "RSA"),
    (EllipticCurvePublicKey, "EC"),
    (Ed25519PublicKey, "OKP"),
    (Ed448PublicKey, "OKP"),
)
_CURVES = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}


class Key(Protocol):
    """A key and the algorithms that it may be used with."""

    @property
    def key(self) -> Any:
        """What PyJWT verifies with."""

    @property
    def algorithms(self) -> tuple[str, ...]:
        """Return the algorithms' names in a token's header."""


class Keys(Protocol):
    """Where the keys are."""

    async def start(self) -> None:
        """Read them. Raises StartupError."""

    def missing(self) -> str | None:
        """Say what is missing for any token to be taken; None: nothing."""

    async def find(self, kid: str | None) -> Key | None:
        """Return the key of an id; None where there is none. Raises KeysUnavailable."""


class FixedKey:
    """`JWT_KEY`: a public key in PEM, or a shared secret."""

    def __init__(self, text: str, algorithms: tuple[str, ...]) -> None:
        """`algorithms` empty: the usual one of the key's kind. Raises StartupError where they don't go together."""
        self.key: Any = text
        kind = "oct"
        if "-----BEGIN" in text:
            try:
                self.key = load_pem_public_key(text.encode())
            except (ValueError, UnsupportedAlgorithm) as error:
                raise StartupError(
                    "JWT_KEY is no public key in PEM (a private key or a certificate is not taken)."
                ) from error
            kind = kind_of(self.key)
        possible = _possible(kind, self.key)
        if not possible:
            raise StartupError(
                "JWT_KEY is a public key of a kind that signs no token. RSA, the curves P-256, P-384 and P-521, "
                "Ed25519 and Ed448 do."
            )
        self.algorithms = algorithms or possible[:1]  # the usual one
        wrong = [name for name in self.algorithms if name not in possible]
        if wrong:
            what = "a shared secret" if kind == "oct" else f"a public key ({kind})"
            raise StartupError(f"JWT_ALGORITHMS: {', '.join(wrong)} can't be used, as JWT_KEY is {what}.")
        if kind == "oct" and len(text.encode()) < (least := max(SECRET_BYTES[name] for name in self.algorithms)):
            raise StartupError(f"JWT_KEY is a shared secret of fewer than {least} bytes: it could be guessed.")

    async def start(self) -> None:
        """It is here."""

    def missing(self) -> None:
        """Nothing is missing."""

    async def find(self, kid: str | None) -> "FixedKey":  # noqa: ARG002 - there is one only
        """Return the key, whatever its id."""
        return self


class Jwts:
    """Checks signature, issuer, audience and time of each token."""

    def __init__(self, keys: Keys, *, issuer: str, audience: tuple[str, ...]) -> None:
        """`audience`: one of these has to be among the token's."""
        self._keys = keys
        self._issuer = issuer
        self._audience = audience

    async def start(self) -> None:
        """Read the keys. Raises StartupError."""
        await self._keys.start()

    def missing(self) -> str | None:
        """Say that there is no key, if so; None: there is one."""
        return self._keys.missing()

    async def identify(self, request: web.Request) -> Owner:
        """Return the owner. Raises Unauthorized and KeysUnavailable."""
        token = bearer_of(request)
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except jwt.PyJWTError:
            raise refused("The token is no JWT") from None
        key = await self._keys.find(kid)
        if key is None:
            raise refused("The token is signed with a key that is not known")
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=key.algorithms,
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "sub", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise refused("The token has expired") from None
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            # Which check has failed helps those who have set it up wrong, and nobody else: the signature comes first.
            raise refused(f"The token is not valid ({type(error).__name__})") from None
        if not claims["sub"]:
            raise refused("The token's `sub` is empty")
        try:
            return Owner(owner_id("jwt", self._issuer, claims["sub"]))
        except UnicodeEncodeError:  # JSON can hold half of a character
            raise refused("The token's `sub` is no text") from None


def kind_of(key: Any) -> str:
    """Return the `kty` of a public key; "" for one of a kind that is not used here."""
    return next((kind for of, kind in _KINDS if isinstance(key, of)), "")


def _possible(kind: str, key: Any) -> tuple[str, ...]:
    """Return the algorithms that a key may be used with; a curve has one of its own."""
    if kind == "EC":
        return _CURVES.get(key.curve.name, ())
    return ALGORITHMS.get(kind, ())
