"""The client of an OpenAI-compatible model server: one request, one async generator of deltas.

Source of the wire form: https://platform.openai.com/docs/api-reference/chat/create.
"""

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, Self
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec
from multidict import CIMultiDict

from app.domain.errors import UpstreamAnswerTimeout, UpstreamBadResponse, UpstreamCut, UpstreamError
from app.upstream.deadlines import Alarm, Deadlines
from app.upstream.decoder import Decoder
from app.upstream.deltas import Delta, Sink
from app.upstream.direct import DirectTransport
from app.upstream.failures import Redactor, context_too_long, of_status
from app.upstream.general import GeneralTransport
from app.upstream.transport import Endless, Patience, Reply, Transport, linger, read_at_most

log = logging.getLogger("parley.upstream")

#: The largest answer in one piece, or list of models, in bytes: some millions of tokens.
MAX_BODY_BYTES = 8 * 1024 * 1024
#: How long the body of an error is waited for (all that it may change is which error it is), and how long the list of
#: models, in seconds.
ERROR_BODY_SECONDS = 2.0
MODELS_SECONDS = 15.0

_OK: Final = 200
_VISIBLE: Final = re.compile(r"[!-~]+").fullmatch
_BROKE_OFF: Final = "The model server broke off in the middle of its answer."
_NO_STREAM: Final = "The model server sent something that is not an event stream."


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a model is asked: `messages` in OpenAI's wire form, `extra` further fields of the request's body."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    extra: Mapping[str, Any] = field(default_factory=dict)


class Upstream:
    """One model server. Open it before use, in the loop that uses it: `async with Upstream(...) as upstream`."""

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None = None,
        extra_headers: Mapping[str, str] | None = None,
        connect_timeout: float = 10,
        first_token_timeout: float = 120,
        token_timeout: float = 60,
        answer_timeout: float = 900,
    ) -> None:
        """Take the address (such as `https://host/v1`) and the limits, in seconds; 0 switches a limit off.

        Without `api_key`, no `Authorization` is sent, unless `extra_headers` has one; those win over all others.
        """
        # A query is kept behind the path: Azure's address has its `?api-version=…` there.
        self._address = urlsplit(base_url)
        self._query = f"?{self._address.query}" if self._address.query else ""
        # Compressed, a token would wait in the compressor.
        self._headers = CIMultiDict({"User-Agent": "parley", "Accept-Encoding": "identity"})
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._headers.update(extra_headers or {})
        self._headers_with_body = CIMultiDict({"Accept": "text/event-stream", "Content-Type": "application/json"})
        self._headers_with_body.update(self._headers)
        self._connect_timeout = connect_timeout
        self._limits = (first_token_timeout, token_timeout, answer_timeout)
        self._proxy = environment_proxy(self._address)
        self._redactor = Redactor(
            [
                *(api_key or "", *" ".join((extra_headers or {}).values()).split()),
                *_secrets_of(self._address),
                *(_secrets_of(urlsplit(self._proxy)) if self._proxy else ()),
            ]
        )
        self._transport: Transport | None = None
        self._alarm = Alarm()

    async def open(self) -> None:
        """Make the connection pool; no connection is made yet."""
        if self._proxy is None and _is_plain(self._address):
            self._transport = DirectTransport(self._address, connect_timeout=self._connect_timeout)
        else:
            origin = f"{self._address.scheme}://{self._address.netloc}"
            self._transport = GeneralTransport(origin, connect_timeout=self._connect_timeout, proxy=self._proxy)

    async def close(self) -> None:
        """Close all connections; a stream that is still read ends as cut."""
        if self._transport is not None:
            await self._transport.close()
            self._transport = None
            self._alarm.stop()

    async def __aenter__(self) -> Self:
        """Open it."""
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    async def stream(self, request: ChatRequest, sink: Sink | None = None) -> AsyncGenerator[Delta, None]:
        """Ask, and yield the answer piece by piece; `Finish` is the last. Every failure is an `UpstreamError`.

        With a `sink`, only what is said first is yielded: the rest goes there as it comes, until the end.

        Comments and empty deltas are no tokens. What the consumer does between two items counts for the whole answer
        only. The connection is closed when the generator ends, is closed (`aclose()`) or is cancelled.
        """
        deadlines = Deadlines(self._alarm, *self._limits)
        reply: Reply | None = None
        try:
            reply = await self._ask(request, deadlines)
            if not _decodable(reply, "text/event-stream", "application/json"):
                deadlines.pause()  # what it says may change which error it is, not that it is one
                raise await self._refusal(reply)
            decoder = Decoder()
            read = _read_whole if reply.content_type == "application/json" else _read_some
            said = False  # a first token may have been held back
            while not (decoder.ended or reply.ended):
                if sink is not None and said:
                    await _push(reply, decoder, deadlines, sink)
                    continue
                before = decoder.tokens
                deltas = await read(reply, decoder)
                if deltas:
                    said = True
                    deadlines.pause()
                    for delta in deltas:
                        yield delta
                if decoder.tokens != before:
                    deadlines.token()
            self._raise_failure(decoder)
            await linger(reply)
        finally:
            deadlines.stop()
            if reply is not None:
                reply.close()

    async def models(self) -> list[str]:
        """Return the ids that the upstream lists under `/models`, in its order. Every failure is an `UpstreamError`."""
        try:
            async with asyncio.timeout(MODELS_SECONDS):
                reply = await self._request("GET", "/models", None, Endless())
                try:
                    if not _decodable(reply, "application/json"):
                        raise await self._refusal(reply)
                    body = await read_at_most(reply, MAX_BODY_BYTES)
                finally:
                    reply.close()
        except TimeoutError:
            detail = "The model server did not list its models in time."
            raise UpstreamAnswerTimeout(detail) from None
        try:
            return [model.id for model in msgspec.json.decode(body, type=_Models).data]
        except (ValueError, RecursionError):
            log.warning("the upstream's list of models is none: %s", self._redactor.text(body))
            detail = "The model server sent something that is not a list of models."
            raise UpstreamBadResponse(detail) from None

    async def _ask(self, request: ChatRequest, deadlines: Deadlines) -> Reply:
        body = _encode(
            {
                **request.extra,
                "model": request.model,
                "messages": request.messages,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )
        try:
            return await self._request("POST", "/chat/completions", body, deadlines)
        except TimeoutError:
            raise deadlines.error() from None

    async def _request(self, method: str, path: str, body: bytes | None, patience: Patience) -> Reply:
        if self._transport is None:
            message = "the upstream is not open"
            raise RuntimeError(message)
        target = f"{self._address.path.rstrip('/')}{path}{self._query}"
        headers = self._headers_with_body if body else self._headers
        try:
            return await self._transport.request(method, target, headers, body, patience)
        except UpstreamError as error:
            # Not the cause's repr: that may hold the request's headers, and so the key.
            cause = error.__cause__ or error
            said = self._redactor.text(str(cause).encode("utf-8", "replace"))
            log.warning("the upstream could not be asked: %s %s", type(cause).__name__, said)
            raise error from None

    async def _refusal(self, reply: Reply) -> UpstreamError:
        """Return why a response is none that can be decoded; log what it says instead."""
        said = b""
        try:
            async with asyncio.timeout(ERROR_BODY_SECONDS):
                said = await read_at_most(reply, self._redactor.wanted)
        except TimeoutError:
            pass
        log.warning(
            "the upstream answered with status %d (%r): %s",
            reply.status,
            reply.content_type,
            self._redactor.text(said),
        )
        if reply.status == _OK:
            return UpstreamBadResponse(_NO_STREAM)
        return of_status(reply.status, reply.headers, said)

    def _raise_failure(self, decoder: Decoder) -> None:
        if decoder.failure is not None:
            log.warning("the upstream failed in its answer: %s", self._redactor.text(decoder.evidence))
            # Some servers have begun their 200 before they look at the prompt.
            raise (context_too_long(decoder.evidence) if decoder.tokens == 0 else None) or decoder.failure
        if not decoder.complete:
            raise UpstreamCut(_BROKE_OFF)


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


def _decodable(reply: Reply, *types: str) -> bool:
    """Is it a response that can be decoded, of one of these content types?"""
    return reply.status == _OK and reply.content_type in types


async def _read_some(reply: Reply, decoder: Decoder) -> list[Delta]:
    """Return what the next bytes make, or what the end of the body leaves."""
    try:
        data = await reply.read()
    except UpstreamError:
        if not decoder.complete:
            raise
        return decoder.close()  # all that was missing is the end mark
    return decoder.feed(data) if data else decoder.close()


class _Pipe:
    """Hands bytes to the decoder, and what that makes of them to the sink: the way of nearly all tokens."""

    __slots__ = ("_deadlines", "_decoder", "_sink")

    def __init__(self, decoder: Decoder, deadlines: Deadlines, sink: Sink) -> None:
        self._decoder = decoder
        self._deadlines = deadlines
        self._sink = sink

    def take(self, data: bytes) -> bool:
        """Take what came, or, with nothing, the end of it; return False at the end of the answer, or where the sink is full."""
        decoder = self._decoder
        text = decoder.text(data)
        if text is not None:  # nearly always
            now = monotonic()
            deadlines = self._deadlines
            deadlines.read_due = now + deadlines.token_span
            return self._sink.say(text, now)
        before = decoder.tokens
        deltas = decoder.feed(data) if data else decoder.close()
        came = decoder.tokens - before
        if came:
            self._deadlines.read_due = monotonic() + self._deadlines.token_span
        return self._sink.take(deltas, came) and not decoder.ended


async def _push(reply: Reply, decoder: Decoder, deadlines: Deadlines, sink: Sink) -> None:
    """Let what comes flow into the sink, until the end of the answer or of the body, or until the sink is full."""
    pipe = _Pipe(decoder, deadlines, sink)
    try:
        await reply.push(pipe.take)
    except UpstreamError:
        if not decoder.complete:
            raise
        pipe.take(b"")  # all that was missing is the end mark
    else:
        if decoder.ended:
            return
        if reply.ended:
            pipe.take(b"")
        else:
            deadlines.pause()
            await sink.room()
            deadlines.token()


async def _read_whole(reply: Reply, decoder: Decoder) -> list[Delta]:
    data = await read_at_most(reply, MAX_BODY_BYTES)
    if reply.broken:
        raise UpstreamCut(_BROKE_OFF)
    return decoder.whole(data)


def _encode(body: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body, enc_hook=_plain)
    except UnicodeEncodeError:
        # Half of a character, in text that came from elsewhere: as an escape it can be sent.
        return json.dumps(body, default=_plain).encode()


def _plain(value: Any) -> dict[str, Any] | list[Any]:
    return dict(value) if isinstance(value, Mapping) else list(value)


def _is_plain(address: SplitResult) -> bool:
    """Can the direct way go there? Names that need an encoding and addresses with a password are the general one's."""
    try:
        port = address.port
    except ValueError:
        return False
    plain = address.scheme in ("http", "https") and address.hostname and port != 0 and "@" not in address.netloc
    return bool(plain and _VISIBLE(address.geturl()))


def environment_proxy(address: SplitResult) -> str | None:
    """Return the proxy that the environment names for an address (`HTTPS_PROXY`, `NO_PROXY` and so on), or None.

    aiohttp's `trust_env` looks it up anew for each request, in a thread, and refuses to send our key to a host that
    has an entry in `~/.netrc`. This machine itself (the built-in demo model) is never behind a proxy.
    """
    host = address.hostname or ""
    if host in ("localhost", "127.0.0.1", "::1") or proxy_bypass(address.netloc.rpartition("@")[2]):
        return None
    proxy = getproxies().get(address.scheme)
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _secrets_of(address: SplitResult) -> list[str]:
    """Return the password in an address, and what its query says, as they stand there and decoded."""
    password = address.netloc.rpartition("@")[0].partition(":")[2]
    values = [password, *(pair.partition("=")[2] for pair in address.query.split("&"))]
    return [*values, *map(unquote, values)]
