"""The client of an OpenAI-compatible model server: one request, one async generator of deltas.

Source of the wire form: https://platform.openai.com/docs/api-reference/chat/create.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
from multidict import CIMultiDict

from app.domain.errors import UpstreamAnswerTimeout, UpstreamBadResponse, UpstreamCut, UpstreamError
from app.upstream.body import Body
from app.upstream.deadlines import Deadlines
from app.upstream.decoder import Decoder
from app.upstream.deltas import Delta
from app.upstream.failures import Redactor, context_too_long, of_request, of_status

log = logging.getLogger("parley.upstream")

#: The largest answer in one piece, or list of models, in bytes: some millions of tokens.
MAX_BODY_BYTES = 8 * 1024 * 1024
#: How long the body of an error is waited for (all that it may change is which error it is), and how long the list of
#: models, in seconds.
ERROR_BODY_SECONDS = 2.0
MODELS_SECONDS = 15.0
#: What aiohttp reads ahead of the consumer, in bytes: 2,000 answers that wait for the store hold 256 MB at most.
READ_AHEAD_BYTES = 64 * 1024

_OK: Final = 200
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
        self._base_url, self._mark, self._query = base_url.partition("?")
        self._base_url = self._base_url.rstrip("/")
        # Compressed, a token would wait in the compressor.
        self._headers = CIMultiDict({"User-Agent": "parley", "Accept-Encoding": "identity"})
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._headers.update(extra_headers or {})
        self._connect_timeout = connect_timeout
        self._limits = (first_token_timeout, token_timeout, answer_timeout)
        self._redactor = Redactor([api_key or "", *" ".join((extra_headers or {}).values()).split()])
        self._proxy = _environment_proxy(self._base_url)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the connection pool; no connection is made yet."""
        self._session = aiohttp.ClientSession(
            # No bound on connections: how many answers run at once is bounded elsewhere, and a request that waited
            # here for its turn would look like a slow connection.
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout or None),
            # A cookie would tie the requests of different people together.
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=READ_AHEAD_BYTES,
        )

    async def close(self) -> None:
        """Close all connections; a stream that is still read ends as cut."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> Self:
        """Open it."""
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Ask, and yield the answer piece by piece; `Finish` is the last. Every failure is an `UpstreamError`.

        Comments and empty deltas are no tokens. What the consumer does between two items counts for the whole answer
        only. The connection is closed when the generator ends, is closed (`aclose()`) or is cancelled.
        """
        deadlines = Deadlines(*self._limits)
        response = await self._ask(request, deadlines)
        try:
            await self._check(response)
            deadlines.watch(response.content)
            body = Body(response)
            decoder = Decoder()
            read = _read_whole if response.content_type == "application/json" else _read_some
            while not (decoder.ended or body.ended):
                before = decoder.tokens
                deltas = await read(body, decoder)
                if deltas:
                    deadlines.pause()
                    for delta in deltas:
                        yield delta
                if decoder.tokens != before:
                    deadlines.token()
            self._raise_failure(decoder)
            await body.linger()
        finally:
            deadlines.stop()
            response.close()  # where the body was read to its end, the connection has gone back to the pool before

    async def models(self) -> list[str]:
        """Return the ids that the upstream lists under `/models`, in its order. Every failure is an `UpstreamError`."""
        try:
            async with asyncio.timeout(MODELS_SECONDS):
                response = await self._request("GET", "/models")
                try:
                    await self._check(response, "application/json")
                    body = await Body(response).read_at_most(MAX_BODY_BYTES)
                finally:
                    response.close()
        except TimeoutError:
            detail = "The model server did not list its models in time."
            raise UpstreamAnswerTimeout(detail) from None
        try:
            return [model.id for model in msgspec.json.decode(body, type=_Models).data]
        except (ValueError, RecursionError):
            log.warning("the upstream's list of models is none: %s", self._redactor.text(body))
            detail = "The model server sent something that is not a list of models."
            raise UpstreamBadResponse(detail) from None

    async def _ask(self, request: ChatRequest, deadlines: Deadlines) -> aiohttp.ClientResponse:
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
            async with deadlines.headers():
                return await self._request("POST", "/chat/completions", body)
        except TimeoutError:
            raise deadlines.error() from None

    async def _request(self, method: str, path: str, body: bytes | None = None) -> aiohttp.ClientResponse:
        if self._session is None:
            message = "the upstream is not open"
            raise RuntimeError(message)
        headers = CIMultiDict({"Accept": "text/event-stream", "Content-Type": "application/json"} if body else {})
        headers.update(self._headers)
        try:
            return await self._session.request(
                method,
                f"{self._base_url}{path}{self._mark}{self._query}",
                data=body,
                headers=headers,
                proxy=self._proxy,
                allow_redirects=False,  # the key is for this server only
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Not its repr: that may hold the request's headers, and so the key.
            said = self._redactor.text(str(error).encode("utf-8", "replace"))
            log.warning("the upstream could not be asked: %s %s", type(error).__name__, said)
            raise of_request(error) from None

    async def _check(self, response: aiohttp.ClientResponse, *accepted: str) -> None:
        """Raise where a response is none that can be decoded; log what it says instead."""
        if response.status == _OK and response.content_type in (accepted or ("text/event-stream", "application/json")):
            return
        body = Body(response)
        said = b""
        try:
            async with asyncio.timeout(ERROR_BODY_SECONDS):
                said = await body.read_at_most(self._redactor.wanted)
        except TimeoutError:
            pass
        log.warning(
            "the upstream answered with status %d (%r): %s",
            response.status,
            response.content_type,
            self._redactor.text(said),
        )
        if response.status == _OK:
            raise UpstreamBadResponse(_NO_STREAM)
        raise of_status(response.status, response.headers, said)

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


async def _read_some(body: Body, decoder: Decoder) -> list[Delta]:
    """Return what the next bytes make, or what the end of the body leaves."""
    try:
        data = await body.read()
    except UpstreamError:
        if not decoder.complete:
            raise
        return decoder.close()  # all that was missing is the end mark
    return decoder.feed(data) if data else decoder.close()


async def _read_whole(body: Body, decoder: Decoder) -> list[Delta]:
    data = await body.read_at_most(MAX_BODY_BYTES)
    if body.broken:
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


def _environment_proxy(url: str) -> str | None:
    """Return the proxy that the environment names for a URL (`HTTPS_PROXY`, `NO_PROXY` and so on), or None.

    aiohttp's `trust_env` looks it up anew for each request, in a thread, and refuses to send our key to a host that
    has an entry in `~/.netrc`. This machine itself (the built-in demo model) is never behind a proxy.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("localhost", "127.0.0.1", "::1") or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)
