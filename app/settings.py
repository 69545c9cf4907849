"""The settings: environment variables, read once into one frozen object."""

import json
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, JsonValue, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.domain.requests import ModelName
from app.domain.startup import StartupError

#: Ten years: more means nothing, and overflows here a timer and there a number of milliseconds.
MOST_SECONDS = 315_360_000

Seconds = Annotated[float, Field(ge=0, le=MOST_SECONDS, allow_inf_nan=False)]
#: A shorter one lapses while its runner lives, and renewals are all that it does.
Lease = Annotated[float, Field(ge=0.1, le=MOST_SECONDS, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=MOST_SECONDS, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
#: A list in one variable, its items between commas.
Names = Annotated[tuple[str, ...], NoDecode]

ORIGIN = re.compile(r"((https?)://(?:[a-z0-9.-]+|\[[0-9a-f:]+\]))(?::([0-9]{1,5}))?")
USUAL_PORTS = {"http": 80, "https": 443}
ESCAPES = "in a user's name or a password write %23 for #, %3F for ?, %2F for /, %3A for :, %40 for @"

#: Secrets may also come from files: `NAME_FILE` holds the path (as Docker secrets do).
SECRETS = ("openai_api_key", "redis_url", "jwt_key", "metrics_token")


class Settings(BaseSettings):
    """Each field is the environment variable of the same name in capitals; 0 switches a limit off."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore")

    # service
    host: str = Field("127.0.0.1", description="address to listen at")
    port: int = Field(8080, ge=0, le=65535, description="port to listen at; 0 picks a free one")
    workers: int = Field(1, ge=1, le=256, description="processes that share the port and the store")
    data_dir: Path = Field(Path("data"), description="where the embedded store keeps its files")
    log_format: Literal["text", "json"] = Field("text", description="`text` for people, `json`: one object a line")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="how much is logged")
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="port of its own for `/metrics`, at HOST; 0 picks a free one"
    )
    metrics_token: SecretStr | None = Field(
        None, description="bearer token for `/metrics` on PORT; with neither of the two there are no metrics"
    )
    shutdown_grace_seconds: Seconds = Field(20, description="how long running answers may go on after SIGTERM")
    close_on_shutdown: bool = Field(
        False,  # noqa: FBT003 - the default of a field
        description="refuse connections from SIGTERM on, for a proxy that then asks another replica",
    )

    # store
    redis_url: SecretStr | None = Field(None, description="redis://, rediss:// or unix://; none: the embedded store")
    durability: Literal["acknowledged", "fsync", "replica"] = Field(
        "acknowledged", description="what must have happened to an event before it is shown"
    )
    lease_seconds: Lease = Field(
        3, description="how long a runner that gives no sign of life counts as alive; 0.1 or more"
    )
    redis_outage_seconds: Positive = Field(30, description="how long answers wait for a store that is away")
    max_buffered_bytes: Bytes = Field(
        1_048_576, description="unacknowledged bytes of an answer at which its upstream is not read further"
    )
    conversation_ttl_seconds: Seconds = Field(0, description="life of a conversation after its last activity; 0: kept")
    event_log_ttl_seconds: Positive = Field(3600, description="life of an event log after its answer has ended")

    # upstream
    openai_api_key: SecretStr | None = Field(None, description="the key that the upstream wants")
    openai_base_url: str | None = Field(None, description="the upstream; default `https://api.openai.com/v1`")
    openai_model: Annotated[tuple[ModelName, ...], NoDecode] = Field(
        (), description="models that may be asked for, the default first; default `gpt-4o-mini`"
    )
    openai_extra_headers: Annotated[dict[str, str], NoDecode] = Field(
        {}, description="further headers of each request, a JSON object"
    )
    openai_extra_body: Annotated[dict[str, JsonValue], NoDecode] = Field(
        {}, description="further fields of each request, a JSON object: `temperature` and the like; a POST's own win"
    )
    context_tokens: int | None = Field(
        None, ge=256, description="the context window; default: what is known of the model, else 8192"
    )
    upstream_retry_seconds: Seconds = Field(
        30, description="how long an answer that has not begun is tried again; 0: it is not"
    )
    connect_timeout_seconds: Seconds = Field(10, description="until the upstream is connected")
    first_token_timeout_seconds: Seconds = Field(120, description="until its first token")
    token_timeout_seconds: Seconds = Field(60, description="between two tokens")
    answer_timeout_seconds: Seconds = Field(900, description="for a whole answer")

    # readers
    heartbeat_seconds: Seconds = Field(15, description="between two signs of life in a stream")
    send_timeout_seconds: Seconds = Field(120, description="until a client that reads nothing is cut off")
    abandoned_answer_seconds: Seconds = Field(0, description="until an answer that nobody reads is stopped; 0: never")

    # limits
    max_message_bytes: Bytes = Field(262_144, description="largest body of a request")
    body_timeout_seconds: Seconds = Field(20, description="for a request's whole body")
    limit_messages_per_minute: Count = Field(60, description="messages of an owner within any minute")
    limit_address_messages_per_minute: Count = Field(
        300, description="messages from a client's address within any minute (`AUTH=anonymous`)"
    )
    limit_tokens_per_day: Count = Field(0, description="tokens of an owner's answers in a day (UTC)")
    limit_address_tokens_per_day: Count = Field(
        0, description="tokens of answers for a client's address in a day (`AUTH=anonymous`)"
    )
    limit_active_answers: Count = Field(8, description="answers that are written for an owner at the same time")
    limit_readers: Count = Field(
        32, description="streams that an owner reads at the same time, those of its POSTs left out"
    )
    max_active_answers: Count = Field(2000, description="answers that a process writes at the same time")
    trusted_proxies: Names = Field(
        (), description="whose `X-Forwarded-For`, `-Proto` and `-Host` count: addresses, networks, `unix` for a socket"
    )

    # who
    auth: Literal["anonymous", "token", "jwt"] = Field("anonymous", description="how a request says whose it is")
    tokens_file: Path | None = Field(None, description="`AUTH=token`: the file of names and hashes of tokens")
    jwt_jwks_url: str | None = Field(None, description="`AUTH=jwt`: where the identity provider publishes its keys")
    jwt_key: SecretStr | None = Field(None, description="or the key: a public one in PEM, or a shared secret")
    jwt_algorithms: Names = Field(
        (), description="how tokens may be signed; default: RS256 and ES256 with a URL, else the usual one of the key"
    )
    jwt_issuer: str | None = Field(None, description="what a token's `iss` has to be")
    jwt_audience: Names = Field((), description="what a token's `aud` has to name, one of these")
    cors_origins: Names = Field(
        (), description="other origins whose pages may use the service, such as `https://a.example`"
    )

    @field_validator("openai_model", "trusted_proxies", "jwt_algorithms", "jwt_audience", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(item for item in (item.strip() for item in value.split(",")) if item)
        return value

    @field_validator("openai_extra_headers", "openai_extra_body", mode="before")
    @classmethod
    def _object(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                return json.loads(value)
            except ValueError:
                raise ValueError('must be a JSON object, such as {"name": "value"}') from None
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            if item != "unix":
                ip_network(item, strict=False)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_origin, value))

    @field_validator("metrics_token")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", value.get_secret_value()):
            raise ValueError("a bearer token has letters, digits and . _ ~ + / - only")
        return value

    @field_validator("openai_base_url", "jwt_jwks_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        if not _parts(value).hostname:
            raise ValueError("names no host")
        return value.rstrip("/")

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value:
            if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
                raise ValueError("must begin with redis://, rediss:// or unix://")
            parts = _parts(value.get_secret_value())
            if parts.scheme != "unix" and ("@" in parts.path or ("@" in parts.query and "=" not in parts.query)):
                raise ValueError(f"must not hold @ behind its host: {ESCAPES}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _files(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in SECRETS:
            path = values.pop(f"{name}_file", None)
            if path and not values.get(name):  # what is set itself goes before what a deployment's file says
                try:
                    content = Path(path).read_text("utf-8").strip()
                except OSError as error:
                    raise ValueError(f"{name.upper()}_FILE: {error.strerror}: {path}") from error
                except UnicodeDecodeError:
                    raise ValueError(f"{name.upper()}_FILE: is no text: {path}") from None
                if content:  # an empty one is as one that is not set, as with a variable
                    values[name] = content
        return values

    @model_validator(mode="after")
    def _ports(self) -> Self:
        if self.metrics_port and self.metrics_port == self.port:
            raise ValueError("METRICS_PORT has to be another port than PORT")
        return self

    @model_validator(mode="after")
    def _who(self) -> Self:
        if self.auth == "token" and self.tokens_file is None:
            raise ValueError("AUTH=token wants TOKENS_FILE")
        if self.auth == "jwt":
            if (self.jwt_jwks_url is None) == (self.jwt_key is None):
                raise ValueError("AUTH=jwt wants JWT_JWKS_URL or JWT_KEY, one of them")
            if self.jwt_issuer is None or not self.jwt_audience:
                raise ValueError("AUTH=jwt wants JWT_ISSUER and JWT_AUDIENCE: who made a token, and for whom")
        return self

    openai_api_key_file: Path | None = Field(None, description="a file that holds `OPENAI_API_KEY`")
    metrics_token_file: Path | None = Field(None, description="a file that holds `METRICS_TOKEN`")
    redis_url_file: Path | None = Field(None, description="a file that holds `REDIS_URL`")
    jwt_key_file: Path | None = Field(None, description="a file that holds `JWT_KEY`")

    @property
    def metrics(self) -> bool:
        """Is there somebody who may ask for what is counted?"""
        return self.metrics_port is not None or self.metrics_token is not None

    @property
    def demo(self) -> bool:
        """Is the built-in demo model the upstream?"""
        return self.openai_api_key is None and self.openai_base_url is None


def _parts(url: str) -> SplitResult:
    """Split an address. Raises ValueError with a sentence that shows nothing of it: any part may be of a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(f"is no address: a port is a number up to 65535, and {ESCAPES}") from None
    if "#" in url:
        raise ValueError(f"must not hold #: {ESCAPES}")
    return parts


def _origin(text: str) -> str:
    """Return an origin as browsers spell it, without its scheme's usual port. Raises ValueError."""
    match = ORIGIN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text}: an origin is a scheme, a host in small letters and perhaps a port, no more")
    host, scheme, port = match.groups()
    if port is None or int(port) == USUAL_PORTS[scheme]:
        return host
    if not 0 < int(port) <= 65535:
        raise ValueError(f"{text}: a port is a number from 1 to 65535")
    return f"{host}:{int(port)}"


def load() -> Settings:
    """Read the environment. Raises StartupError with a sentence for each setting that is not usable."""
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"{'_'.join(map(str, item['loc'][:1])).upper() or 'settings'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise StartupError("Settings that can't be used: " + "; ".join(lines)) from None
