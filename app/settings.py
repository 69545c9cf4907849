"""The settings: environment variables, read once into one frozen object."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.domain.startup import StartupError

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0)]

#: Secrets may also come from files: `NAME_FILE` holds the path (as Docker secrets do).
SECRETS = ("openai_api_key", "redis_url")


class Settings(BaseSettings):
    """Each field is the environment variable of the same name in capitals; 0 switches a limit off."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore")

    # service
    host: str = Field("127.0.0.1", description="address to listen at")
    port: int = Field(8080, ge=0, le=65535, description="port to listen at; 0 picks a free one")
    data_dir: Path = Field(Path("data"), description="where the embedded store keeps its files")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="how much is logged")
    shutdown_grace_seconds: Seconds = Field(20, description="how long running answers may go on after SIGTERM")

    # store
    redis_url: SecretStr | None = Field(None, description="redis://, rediss:// or unix://; none: the embedded store")
    durability: Literal["acknowledged", "fsync", "replica"] = Field(
        "acknowledged", description="what must have happened to an event before it is shown"
    )
    lease_seconds: Positive = Field(3, description="how long a runner that gives no sign of life counts as alive")
    redis_outage_seconds: Positive = Field(30, description="how long answers wait for a store that is away")
    max_buffered_bytes: Bytes = Field(
        1_048_576, description="unacknowledged bytes of an answer at which its upstream is not read further"
    )
    conversation_ttl_seconds: Seconds = Field(0, description="life of a conversation after its last activity; 0: kept")
    event_log_ttl_seconds: Positive = Field(3600, description="life of an event log after its answer has ended")

    # upstream
    openai_api_key: SecretStr | None = Field(None, description="the key that the upstream wants")
    openai_base_url: str | None = Field(None, description="the upstream; default `https://api.openai.com/v1`")
    openai_model: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="models that may be asked for, the default first; default `gpt-4o-mini`"
    )
    openai_extra_headers: dict[str, str] = Field({}, description="further headers of each request, a JSON object")
    openai_extra_body: dict[str, JsonValue] = Field(
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

    @field_validator("openai_model", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(item for item in (item.strip() for item in value.split(",")) if item)
        return value

    @field_validator("openai_base_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/") if value else value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return value

    @model_validator(mode="before")
    @classmethod
    def _files(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in SECRETS:
            path = values.pop(f"{name}_file", None)
            if path and not values.get(name):  # what is set itself goes before what a deployment's file says
                try:
                    values[name] = Path(path).read_text("utf-8").strip()
                except OSError as error:
                    raise ValueError(f"{name.upper()}_FILE: {error.strerror}: {path}") from error
        return values

    openai_api_key_file: Path | None = Field(None, description="a file that holds `OPENAI_API_KEY`")
    redis_url_file: Path | None = Field(None, description="a file that holds `REDIS_URL`")

    @property
    def demo(self) -> bool:
        """Is the built-in demo model the upstream?"""
        return self.openai_api_key is None and self.openai_base_url is None


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
