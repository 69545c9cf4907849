"""What clients get, as pydantic models: the source of `openapi.json`, and what the tests check responses against."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.domain.requests import ImagePart, TextPart

MESSAGE_ID = r"^msg_[0-9a-f]{32}_[1-9][0-9]{0,8}$"
CONVERSATION_ID = r"^conv_[0-9a-f]{32}$"

Status = Literal["streaming", "completed", "stopped", "interrupted", "failed"]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Usage(_Shape):
    """Tokens, as the upstream counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerError(_Shape):
    """Why an answer failed."""

    code: str = Field(description="one of the codes that a problem can have")
    message: str
    retryable: bool = Field(description="can another try help?")


class ToolCall(_Shape):
    """One complete call of a tool; also the data of a `tool_call` event."""

    id: str
    name: str
    arguments: str = Field(description="JSON, as the model wrote it")


class ToolResult(_Shape):
    """What one tool has returned."""

    tool_call_id: str
    content: str


class UserMessage(_Shape):
    """What a user said, or what the tools have returned that an answer called."""

    id: str = Field(pattern=MESSAGE_ID)
    conversation: str = Field(pattern=CONVERSATION_ID)
    parent: str | None = Field(description="the message that it follows; null: the first")
    role: Literal["user", "tool"]
    content: str | list[TextPart | ImagePart]
    status: Literal["completed"]
    created_at: str = Field(description="RFC 3339, UTC")
    tool_call_id: str | None = Field(None, description="with one result of a tool: the call")
    tool_results: list[ToolResult] | None = Field(None, description="with `role: tool`: all results")


class Answer(_Shape):
    """What a model writes, or has written."""

    id: str = Field(pattern=MESSAGE_ID)
    conversation: str = Field(pattern=CONVERSATION_ID)
    parent: str = Field(description="the user message that it replies to", pattern=MESSAGE_ID)
    role: Literal["assistant"]
    content: str = Field(description="the text, or the text so far")
    status: Status
    created_at: str
    model: str = Field(description="the model that answers")
    finish_reason: str | None
    usage: Usage | None = Field(description="null where the upstream did not say")
    error: AnswerError | None
    completed_at: str | None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None
    left_out: int | None = Field(None, description="how many older messages did not fit into the context window")


class _ConversationBase(_Shape):
    id: str = Field(pattern=CONVERSATION_ID)
    title: str | None = Field(description="from the first message, until a client sets one")
    system: str | None
    model: str | None
    metadata: dict[str, Any]
    created_at: str
    updated_at: str = Field(description="its last activity")
    active: str | None = Field(description="the answer that is being written")
    usage: Usage = Field(description="totals of all answers")


class Conversation(_ConversationBase):
    """A conversation with all its messages, in the order in which they came."""

    messages: list[UserMessage | Answer]


class ConversationSummary(_ConversationBase):
    """A row of the list of conversations."""

    message_count: int


class ConversationPage(_Shape):
    """Up to 50 conversations, the newest activity first."""

    conversations: list[ConversationSummary]
    next: str | None = Field(description="path of the next page; null: this is the last")


class AnswerInOnePiece(_Shape):
    """The reply to `Accept: application/json`."""

    message: Answer
    conversation: str = Field(pattern=CONVERSATION_ID)


class ModelInfo(_Shape):
    """A model, as OpenAI lists it."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(_Shape):
    """What may be asked for; the default comes first."""

    object: Literal["list"]
    data: list[ModelInfo]


class Health(_Shape):
    """A probe's answer."""

    status: str


class FieldError(_Shape):
    """What is wrong with a field."""

    field: str
    message: str


class Problem(BaseModel):
    """An error, after RFC 9457."""

    type: str
    title: str
    status: int
    detail: str = Field(description="what is wrong, and what to do")
    code: str = Field(description="for programs")
    request_id: str = Field(description="what the service's log knows this request by")
    errors: list[FieldError] | None = Field(None, description="the fields that are wrong")
    message: Any = Field(None, description="`conversation_busy`: the running answer's id; a failed answer: the message")


class StartEvent(_Shape):
    """Data of `start`, always the first event: the ids to resume with."""

    conversation: str
    message: str
    reply_to: str
    model: str = Field(description="the one that was asked for")


class NoticeEvent(BaseModel):
    """Data of `notice`: what goes on before the first token."""

    code: Literal["context_trimmed", "retrying", "model_changed"]
    left_out: int | None = Field(None, description="`context_trimmed`: so many older messages did not fit")
    attempt: int | None = Field(None, description="`retrying`: the number of the try that comes")
    delay_seconds: float | None = Field(None, description="`retrying`: until then")
    model: str | None = Field(None, description="`model_changed`: the one that is asked now")


class EndEvent(_Shape):
    """Data of `end`, always the last event."""

    status: Literal["completed", "stopped", "interrupted", "failed"]
    finish_reason: str | None
    model: str | None
    usage: Usage | None
    error: AnswerError | None
