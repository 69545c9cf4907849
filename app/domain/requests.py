"""What clients may send: the bodies of requests, checked before anything else happens."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

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
#: Whatever an upstream may call one: no control characters.
ModelName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_writable)]
ConversationId = Annotated[str, AfterValidator(_conversation_id)]
MessageId = Annotated[str, AfterValidator(_message_id)]


class _Body(BaseModel):
    # A field that we don't know is a misunderstanding, which is better told than ignored.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextPart(_Body):
    """A piece of text among the parts of a message."""

    type: Literal["text"]
    text: Content


class ImageUrl(_Body):
    """Where an image is."""

    url: Annotated[Text, Field(pattern=r"^(https://|data:image/[a-z0-9.+-]+;base64,)\S+$")] = Field(
        description="https, or the image itself as a data URL"
    )
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(_Body):
    """An image among the parts of a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
Parts = Annotated[list[Part], Field(min_length=1, max_length=32)]


class ToolResult(_Body):
    """What one tool has returned."""

    tool_call_id: Annotated[Text, Field(min_length=1, max_length=200)]
    content: Text


class Options(_Body):
    """Fields that go to the model server as they are; all may be left out, and what is may have a default of the service's."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[list[Text], Field(min_length=1, max_length=4)] | Text | None = None
    reasoning_effort: Annotated[Text, Field(max_length=20)] | None = None
    response_format: JsonObject | None = None
    tools: Annotated[list[JsonObject], Field(min_length=1, max_length=128)] | None = None
    tool_choice: JsonObject | Text | None = None
    parallel_tool_calls: bool | None = None

    def options(self) -> dict[str, Any]:
        """Return those that were set, for the body of the request upstream."""
        if self.model_fields_set.isdisjoint(Options.model_fields):  # nearly always
            return {}
        return self.model_dump(mode="json", include=set(Options.model_fields), exclude_none=True)


class NewMessage(Options):
    """A message, and how it is to be answered."""

    content: Content | Parts | None = Field(
        None, description="What the user says: text that is not only white space, or a list of parts."
    )
    role: Literal["user", "tool"] = Field("user", description="`tool`: results of the tools that the answer called.")
    tool_call_id: Annotated[Text, Field(min_length=1, max_length=200)] | None = Field(
        None, description="With `role: tool`: the call that `content` is the result of."
    )
    tool_results: Annotated[list[ToolResult], Field(min_length=1, max_length=128)] | None = Field(
        None, description="With `role: tool`, instead of `content`, where the answer called several tools."
    )
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
        None, description="The system message of a new conversation; in another one, for this answer only."
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.role == "user":
            if self.content is None:
                raise ValueError("content: what does the user say?")
            if self.tool_call_id is not None or self.tool_results is not None:
                raise ValueError("tool_call_id and tool_results go with `role: tool`")
        else:
            one = self.tool_call_id is not None and isinstance(self.content, str)
            several = self.tool_results is not None and self.content is None and self.tool_call_id is None
            if one == several:
                raise ValueError("`role: tool` takes `tool_call_id` with `content`, or `tool_results`")
            if self.conversation is None and self.parent is None:
                raise ValueError("`role: tool` needs the conversation, or the answer that called as `parent`")
        return self

    def results(self) -> list[dict[str, str]]:
        """Return the results of tools that the message brings; none for a user's."""
        if self.tool_results is not None:
            return [{"tool_call_id": result.tool_call_id, "content": result.content} for result in self.tool_results]
        if self.tool_call_id is not None and isinstance(self.content, str):
            return [{"tool_call_id": self.tool_call_id, "content": self.content}]
        return []

    def stored_content(self) -> str | list[dict[str, Any]]:
        """Return the content as it is stored and sent upstream."""
        if isinstance(self.content, list):
            return [part.model_dump(mode="json", exclude_none=True) for part in self.content]
        return self.content or ""

    def words(self) -> str:
        """Return the text of the content, for a title."""
        if isinstance(self.content, list):
            return " ".join(part.text for part in self.content if isinstance(part, TextPart)) or "Image"
        return self.content or ""


class Regenerate(Options):
    """How another answer is to be made; all of it may be left out."""

    model: ModelName | None = Field(None, description="One of `GET /models`; none: the conversation's.")


class ConversationFields(_Body):
    """What a client may set of a conversation; `null` takes it away."""

    title: Annotated[Text, Field(max_length=200)] | None = None
    system: Text | None = None
    model: ModelName | None = None
    metadata: JsonObject | None = Field(None, description="A JSON object of the client's own.")
