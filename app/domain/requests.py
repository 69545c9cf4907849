"""What clients may send: the bodies of requests, checked before anything else happens."""

import json
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from app.domain.ids import parse_conversation_id, parse_message_id


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL")
    return text


def _conversation_id(text: str) -> str:
    if parse_conversation_id(text) is None:
        raise ValueError("must be an id of a conversation: conv_<32 hex>")
    return text


def _message_id(text: str) -> str:
    if parse_message_id(text) is None:
        raise ValueError("must be an id of a message: msg_<32 hex>_<number>")
    return text


def _writable(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError as error:  # NaN, or an integer of thousands of digits
        raise ValueError("must hold plain JSON only") from error
    return value


Text = Annotated[str, AfterValidator(_no_nul)]
Content = Annotated[Text, Field(min_length=1, pattern=r"\S")]
ModelName = Annotated[Text, Field(min_length=1, max_length=200, pattern=r"^[!-~]+$")]
ConversationId = Annotated[str, AfterValidator(_conversation_id)]
MessageId = Annotated[str, AfterValidator(_message_id)]


class _Body(BaseModel):
    # A field that we don't know is a misunderstanding, which is better told than ignored.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NewMessage(_Body):
    """A message, and how it is to be answered."""

    content: Content = Field(description="What the user says; not only white space.")
    conversation: ConversationId | None = Field(None, description="Where it is said; none: a new conversation.")
    parent: MessageId | None = Field(
        None,
        description="Reply after this message instead of the last: an edit, a branch. `null`: as a new first message.",
    )
    model: ModelName | None = Field(
        None,
        description="One of `GET /models`. A new conversation keeps it as its own; else it is for this answer only.",
    )
    system: Text | None = Field(
        None, description="The system message of a new conversation; for this answer only in another."
    )


class Regenerate(_Body):
    """How another answer is to be made; all of it may be left out."""

    model: ModelName | None = Field(None, description="One of `GET /models`; none: the conversation's.")


class ConversationFields(_Body):
    """What a client may set of a conversation; `null` takes it away."""

    title: Annotated[Text, Field(max_length=200)] | None = None
    system: Text | None = None
    model: ModelName | None = None
    metadata: Annotated[dict[str, JsonValue], AfterValidator(_writable)] | None = Field(
        None, description="A JSON object of the client's own."
    )
