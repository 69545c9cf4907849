"""The decoder of an answer: bytes of a chat-completions event stream in, typed deltas out, without any I/O.

The bytes may be cut anywhere; what comes out, joined, is the same. It never raises: a failure stands in `failure`, so
that what came before it is handed out first.
"""

import json
from typing import Final

from app.domain.errors import UpstreamBadResponse, UpstreamError
from app.upstream.chunks import Chunk, Said, TokenCounts, ToolCallPiece, lenient, mend, strict, text_alone
from app.upstream.deltas import Delta, Finish, TextKind, ToolCall, Usage
from app.upstream.sse import BLANK_LINE, CR, FIELD, LF, MAX_EVENT_BYTES, EventFramer

#: From so many chunks on that say more than text, none is expected to say text alone: a refusal takes longer than a look.
MOST_OTHERS = 8

_DONE = b"[DONE]"
_IN_STREAM_ERROR: Final = "The model server reported an error while it was answering."
_NOT_JSON: Final = "The model server sent an event that is not JSON."
_TOO_LARGE: Final = "The model server sent an event that is too large."
_NOT_AN_ANSWER: Final = "The model server sent something that is not a chat completion."


class _Call:
    """A tool call that is being collected."""

    __slots__ = ("arguments", "id", "index", "name")

    def __init__(self, index: int) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class Decoder:
    r"""Decodes one answer.

    Neighbouring text of a kind that comes in the same bytes is one piece. No "\r" ends a piece whose next one begins
    with "\n": a trailing "\r" is held back until the next text of the same kind, text of the other kind, or the end. So
    a CR LF is never split over two pieces, unless the model says something of the other kind in between.
    """

    __slots__ = (
        "_calls",
        "_calls_size",
        "_framer",
        "_kind",
        "_mending",
        "_model",
        "_others",
        "_plain",
        "_reason",
        "_run",
        "_usage",
        "ended",
        "evidence",
        "failure",
        "tokens",
    )

    def __init__(self) -> None:
        """Begin before the first byte of an answer."""
        #: Nothing more is to be read: a `Finish` was handed out, or `failure` is set.
        self.ended = False
        #: Why the answer failed; None as long as it has not. The detail is ours.
        self.failure: UpstreamError | None = None
        #: What the upstream sent where `failure` is set. For a log, redacted; never for a client.
        self.evidence = b""
        #: How many pieces of text, reasoning and tool calls have come, also those that are held back or collected.
        self.tokens = 0
        self._framer = EventFramer()
        self._plain = False  # is text alone expected next?
        self._others = 0  # how often something else came then
        self._run: list[str] = []  # text of one kind that is not handed out
        self._kind: TextKind = "message"
        self._mending = False  # has there been a chunk that `strict` refused? Only then can text hold surrogates.
        self._calls: list[_Call] = []
        self._calls_size = 0
        self._reason: str | None = None
        self._model: str | None = None
        self._usage: Usage | None = None

    @property
    def complete(self) -> bool:
        """Is the answer whole, so that `close()` ends (or has ended) it with a `Finish`?"""
        return self.failure is None and (self.ended or self._reason is not None)

    def text(self, data: bytes) -> str | None:
        """Return what these bytes say if they are one event of text alone, as nearly all are; None: `feed` them.

        All is done here, without a call of a function of Python's: so a token is received with a seventh less of the CPU.
        """
        if not (self._plain and self._framer.between_events) or self._run:
            return None
        if data[:6] != FIELD or data[-2:] != BLANK_LINE or len(data) > MAX_EVENT_BYTES:
            return None
        event = data[6:-2]
        if LF in event or CR in event:
            return None
        try:
            (choice,) = text_alone(event).choices
        except (ValueError, RecursionError):
            return None
        text = choice.delta.content
        if text[-1] == "\r":
            return None
        self.tokens += 1
        return text

    def feed(self, data: bytes) -> list[Delta]:
        """Return what these bytes complete; with `[DONE]`, a `Finish` is the last."""
        out: list[Delta] = []
        if self.ended:
            return out
        for event in self._framer.feed(data):
            if self._plain:
                try:
                    (choice,) = text_alone(event).choices
                except (ValueError, RecursionError):
                    self._others += 1
                else:
                    self.tokens += 1
                    self._run.append(choice.delta.content)
                    continue
            self._take_event(event, out)
            if self.ended:
                break
        if self._framer.overflow and not self.ended:
            self._fail(UpstreamBadResponse(_TOO_LARGE), b"", out)
        if self._run:
            self._hand_out(out)
        return out

    def close(self) -> list[Delta]:
        """Return what was held back, as the connection has ended; with a `Finish` where the answer was complete."""
        out: list[Delta] = []
        if self.ended:
            return out
        for event in self._framer.close():
            if event.strip() == _DONE or _is_whole(event.decode("utf-8", "replace")):
                self._take_odd_event(event, out)
        if not self.ended:
            if self._reason is not None:
                self._finish(out)
            else:
                self._release(out)
        return out

    def whole(self, body: bytes) -> list[Delta]:
        """Return the deltas of an answer that came in one piece, as a `chat.completion` object, `Finish` the last."""
        out: list[Delta] = []
        try:
            chunk = lenient(body, "message")
        except ValueError:
            chunk = None
        self._mending = True
        for choice in (chunk and chunk.choices) or ():
            for number, piece in enumerate((choice.delta and choice.delta.tool_calls) or ()):
                piece.index = number  # here each entry is a call
        if chunk is not None and (chunk.choices or chunk.error):
            self._take(chunk, body, out)
        else:
            self._fail(UpstreamBadResponse(_NOT_AN_ANSWER), body, out)
        if not self.ended:
            self._finish(out)
        return out

    def _take_event(self, data: bytes, out: list[Delta]) -> None:
        if data == _DONE:
            self._finish(out)
            return
        try:
            chunk = strict(data)
        except (ValueError, RecursionError):
            self._take_odd_event(data, out)
        else:
            self._take(chunk, data, out)

    def _take_odd_event(self, data: bytes, out: list[Delta]) -> None:
        """Take what `strict` refused: an end mark between spaces, half characters, unusual types, or what is not JSON."""
        if data.strip() == _DONE:
            self._finish(out)
            return
        self._mending = True
        try:
            chunk = lenient(data)
        except ValueError:
            self._fail(UpstreamBadResponse(_NOT_JSON), data, out)
            return
        if chunk is not None:
            self._take(chunk, data, out)

    def _take(self, chunk: Chunk, data: bytes, out: list[Delta]) -> None:
        choices = chunk.choices
        if chunk.error or (choices is None and _is_error(data)):
            self._fail(UpstreamError(_IN_STREAM_ERROR), data, out)
            return
        self._model = chunk.model or self._model
        if chunk.usage is not None:
            self._usage = _usage(chunk.usage) or self._usage
        for choice in choices or ():
            if choice.index != 0:
                continue
            said = choice.delta
            if said is not None:
                reasoning = said.reasoning_content or said.reasoning
                if reasoning:
                    self._say("reasoning", reasoning, out)
                content = said.content or said.refusal
                if content:
                    self._say("message", content, out)
                if said.tool_calls:
                    self._collect(said, out)
            self._reason = choice.finish_reason or self._reason
        # Behind the reason why it ended there is none, nearly always.
        more = self._reason is None and self._others < MOST_OTHERS
        self._plain = more and self._kind == "message" and self._model is not None

    def _say(self, kind: TextKind, text: str, out: list[Delta]) -> None:
        self.tokens += 1
        if kind != self._kind:
            self._release(out)
            self._kind = kind
        self._run.append(text)

    def _hand_out(self, out: list[Delta]) -> None:
        r"""Hand out the run, but for what its next text may complete: a trailing "\r" or high surrogate."""
        text = "".join(self._run)
        self._run.clear()
        if self._mending or text[-1] == "\r":
            last = text[-1]
            if last == "\r" or "\ud800" <= last <= "\udbff":
                self._run.append(last)
                text = text[:-1]
            text = mend(text)
            if not text:
                return
        out.append((self._kind, text))

    def _release(self, out: list[Delta]) -> None:
        """Hand out the whole run."""
        if self._run:
            text = "".join(self._run)
            out.append((self._kind, mend(text) if self._mending else text))
            self._run.clear()

    def _collect(self, said: Said, out: list[Delta]) -> None:
        for piece in said.tool_calls or ():
            self.tokens += 1
            call = self._call_of(piece)
            function = piece.function
            call.id = call.id or piece.id or ""
            if function is not None:
                call.name = call.name or function.name or ""
                if function.arguments:
                    call.arguments.append(function.arguments)
                    self._calls_size += len(function.arguments)
            # Calls are collected in memory, so they are bounded like an event; a call itself counts, too.
            if self._calls_size + 256 * len(self._calls) > MAX_EVENT_BYTES:
                self._fail(UpstreamBadResponse(_TOO_LARGE), b"", out)
                return

    def _call_of(self, piece: ToolCallPiece) -> _Call:
        """Return the call that a piece belongs to, a new one where it begins one.

        Some servers give no index, and some the same one to each call: then another id with a name begins a call, and
        without an id a name with arguments, where those before it are whole.
        """
        for call in reversed(self._calls):
            if piece.index is None or call.index == piece.index:
                if call.name and piece.function is not None and piece.function.name:
                    more = piece.function.arguments and _is_whole("".join(call.arguments))
                    if call.id != piece.id if piece.id else more:
                        break
                return call
        self._calls.append(_Call(len(self._calls) if piece.index is None else piece.index))
        return self._calls[-1]

    def _finish(self, out: list[Delta]) -> None:
        self._release(out)
        for number, call in enumerate(self._calls):
            # Without an id, the result of the call could not be sent back.
            out.append(ToolCall(call.id or f"call_{number}", call.name, mend("".join(call.arguments))))
        out.append(Finish(self._reason, self._model, self._usage))
        self.ended = True
        self._plain = False

    def _fail(self, failure: UpstreamError, evidence: bytes, out: list[Delta]) -> None:
        self._release(out)
        self.failure = failure
        self.evidence = evidence
        self.ended = True
        self._plain = False


def _usage(counts: TokenCounts) -> Usage | None:
    if counts.prompt_tokens is None and counts.completion_tokens is None:
        return None
    prompt = max(counts.prompt_tokens or 0, 0)
    completion = max(counts.completion_tokens or 0, 0)
    return Usage(prompt, completion, max(counts.total_tokens or 0, 0) or prompt + completion)


def _is_error(data: bytes) -> bool:
    """Is an event without choices the older form of an error, with its members at the top?"""
    try:
        chunk = lenient(data)
    except ValueError:
        return False
    return chunk is not None and bool(chunk.error)


def _is_whole(text: str) -> bool:
    """Is this JSON to its end?"""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
