"""The direct way: HTTP as servers speak it, cut anywhere, against a server that writes raw bytes."""

import asyncio
import gzip
import socket
import ssl
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.domain.errors import UpstreamBadResponse, UpstreamCut, UpstreamError, UpstreamUnreachable
from app.upstream import direct
from app.upstream.client import ChatRequest, Upstream
from app.upstream.deltas import Delta, Finish
from app.upstream.transport import READ_AHEAD_BYTES, Endless, Reply, read_at_most
from tests.support.scripted_upstream import DONE, chunk
from tests.upstream.streams import joined, says

TLS = Path(__file__).parents[1] / "support" / "tls"
HELLO = ChatRequest("m", [{"role": "user", "content": "Hello"}])
BODY = chunk({"content": "Hé"}) + chunk({"content": "llo 😀"}) + DONE
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"


def chunked(*pieces: bytes, extension: bytes = b"") -> bytes:
    """Return a body in chunks, with its end."""
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces) + b"0\r\n\r\n"


WHOLE = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BODY[:7], BODY[7:])


@dataclass
class Raw:
    """A server that answers each request on a connection with the next of its answers; None closes the connection."""

    answers: list[tuple[bytes, ...] | None]
    #: Close the connection behind each answer.
    close: bool = False
    url: str = ""
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:"))
                self.requests.append(head + await reader.readexactly(length))
                answer = self.answers.pop(0)
                for piece in answer or ():
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if answer is None or self.close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


@asynccontextmanager
async def serving(
    *answers: tuple[bytes, ...] | None, close: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Raw]:
    """Run a server that answers so."""
    raw = Raw(list(answers), close=close)
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        raw.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield raw
        for writer in raw.writers:
            writer.close()


async def collect(client: Upstream) -> list[Delta]:
    """Return all deltas of an answer, neighbouring text joined."""
    return joined([delta async for delta in client.stream(HELLO)])


async def asked(*pieces: bytes, close: bool = False) -> list[Delta]:
    """Return what a response becomes."""
    async with serving(pieces, close=close) as raw, Upstream(base_url=raw.url) as client:
        return await collect(client)


SAID = [says("Héllo 😀"), Finish(None, "scripted-model", None)]


async def test_a_response_cut_at_any_byte_is_the_same_answer() -> None:
    answers = [(WHOLE[:at], WHOLE[at:]) for at in range(1, len(WHOLE))]
    async with serving(*answers) as raw, Upstream(base_url=raw.url) as client:
        for at in range(1, len(WHOLE)):
            assert await collect(client) == SAID, at
        assert raw.connections == 1


@pytest.mark.parametrize(
    "response",
    [
        HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + WHOLE,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BODY, extension=b";name=value"),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BODY)[:-2] + b"X-Trailer: x\r\n\r\n",
        HEAD.replace(b"Content-Type", b"CONTENT-type") + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY,
        HEAD
        + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(gzip.compress(BODY, mtime=0))
        + gzip.compress(BODY, mtime=0),
        *(
            HEAD + b"Content-Encoding: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % name + chunked(*pieces)
            for name, pieces in (
                (b"gzip", [gzip.compress(BODY[:9], mtime=0), gzip.compress(BODY[9:], mtime=0)]),
                (b"gzip", [gzip.compress(BODY[:9], mtime=0) + gzip.compress(BODY[9:], mtime=0)]),
                (b"deflate", [zlib.compress(BODY)]),
                (b"deflate", [zlib.compress(BODY, wbits=-15)]),
            )
        ),
    ],
    ids=["length", "1xx", "extension", "trailer", "case", "gzip", "gzips", "joined gzips", "zlib", "deflate"],
)
async def test_every_form_of_a_body_is_read(response: bytes) -> None:
    assert await asked(response) == SAID


async def test_a_body_without_a_length_ends_with_its_connection() -> None:
    body = BODY.removesuffix(DONE) + chunk({}, "stop")
    deltas = await asked(HEAD + b"\r\n" + body, close=True)
    assert deltas == [SAID[0], Finish("stop", "scripted-model", None)]


async def test_a_body_that_ends_before_its_length_is_a_cut() -> None:
    for framing in (b"Content-Length: 9999\r\n\r\n" + BODY.removesuffix(DONE), WHOLE[len(HEAD) : -40]):
        with pytest.raises(UpstreamCut):
            await asked(HEAD + framing, close=True)


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"220 mail.example ESMTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Header: %b\r\n" % (b"x" * 70_000),
        b"HTTP/1.1 200 OK\r\n" + b"X-Header: x\r\n" * 6_000,
    ],
    ids=["upgrade", "smtp", "long header", "many headers"],
)
async def test_what_is_no_response_to_us_is_a_bad_response(response: bytes) -> None:
    with pytest.raises(UpstreamBadResponse) as caught:
        await asked(response)
    assert caught.value.detail == "The model server did not answer in HTTP."


async def test_a_broken_frame_in_the_middle_keeps_what_came_and_is_a_cut() -> None:
    response = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BODY.removesuffix(DONE))[:-5] + b"no size\r\n"
    async with serving((response,)) as raw, Upstream(base_url=raw.url) as client:
        said: list[Delta] = []
        with pytest.raises(UpstreamCut):
            async for delta in client.stream(HELLO):
                said.append(delta)  # noqa: PERF401 - what came before the failure counts
    assert said == [says("Héllo 😀")]


async def test_connection_close_and_bytes_behind_the_response_end_the_connection() -> None:
    closing = (HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY,)
    more = (WHOLE + b"HTTP/1.1 200 OK\r\n\r\n",)
    async with serving(closing, more, (WHOLE,)) as raw, Upstream(base_url=raw.url) as client:
        for _ in range(3):
            assert await collect(client) == SAID
    assert raw.connections == 3


async def test_a_connection_that_was_closed_while_it_idled_is_made_anew_and_nobody_hears_of_it() -> None:
    async with serving((WHOLE,), None, (WHOLE,)) as raw, Upstream(base_url=raw.url) as client:
        assert await collect(client) == SAID
        assert await collect(client) == SAID  # the second request met the closed door
    assert (raw.connections, len(raw.requests)) == (2, 3)


async def test_a_server_that_closes_all_connections_is_asked_once_more_not_once_for_each() -> None:
    async with serving((HEAD,), (HEAD,), (HEAD,), None, None) as raw, Upstream(base_url=raw.url) as client:
        asking = [asyncio.create_task(collect(client)) for _ in range(3)]
        while len(raw.requests) < 3:
            await asyncio.sleep(0)
        for writer in raw.writers:
            writer.write(b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        assert await asyncio.gather(*asking) == [SAID] * 3  # three connections idle
        with pytest.raises(UpstreamCut):
            await collect(client)
    assert (raw.connections, len(raw.requests)) == (4, 5)


async def test_a_request_that_was_answered_in_part_is_never_sent_again() -> None:
    async with serving((WHOLE,), (HEAD,), close=False) as raw, Upstream(base_url=raw.url) as client:
        assert await collect(client) == SAID
        task = asyncio.create_task(collect(client))
        while len(raw.requests) < 2:
            await asyncio.sleep(0)
        raw.writers[0].close()
        with pytest.raises(UpstreamCut):
            await task
    assert (raw.connections, len(raw.requests)) == (1, 2)


async def test_an_idle_connection_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "KEEP_ALIVE_SECONDS", 0.01)
    async with serving((WHOLE,), (WHOLE,)) as raw, Upstream(base_url=raw.url) as client:
        await collect(client)
        while not raw.writers[0].is_closing():
            await asyncio.sleep(0.005)
        await collect(client)
    assert raw.connections == 2


async def test_the_head_of_a_request_is_what_servers_expect() -> None:
    async with serving((WHOLE,)) as raw, Upstream(base_url=f"{raw.url}/?a=b", api_key="key-0123456") as client:
        await collect(client)
    head, _, body = raw.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first == "POST /v1/chat/completions?a=b HTTP/1.1"
    assert sorted(lines) == sorted(
        [
            "Accept: text/event-stream",
            "Content-Type: application/json",
            "User-Agent: parley",
            "Accept-Encoding: identity",
            "Authorization: Bearer key-0123456",
            f"Host: {urlsplit(raw.url).netloc}",
            f"Content-Length: {len(body)}",
        ]
    )


async def test_a_name_is_looked_up() -> None:
    async with serving((WHOLE,)) as raw, Upstream(base_url=raw.url.replace("127.0.0.1", "localhost")) as client:
        assert await collect(client)
    assert f"Host: localhost:{urlsplit(raw.url).port}".encode() in raw.requests[0]


async def _reply(raw: Raw) -> tuple[direct.DirectTransport, Reply]:
    transport = direct.DirectTransport(urlsplit(raw.url), connect_timeout=5)
    return transport, await transport.request("POST", "/v1", {}, b"x", Endless())


async def test_no_more_is_read_ahead_than_the_bound_and_all_of_it_arrives_in_the_end() -> None:
    body = bytes(range(256)) * 40_000  # more than any socket buffers
    head = HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
    async with serving((head, *(body[at : at + 65_536] for at in range(0, len(body), 65_536)))) as raw:
        transport, reply = await _reply(raw)
        first = await reply.read()
        for _ in range(200):  # turns of the loop in which everything would come that is let in
            await asyncio.sleep(0.001)
        held = await reply.read()
        assert 0 < len(held) <= READ_AHEAD_BYTES + 256 * 1024  # one more read of the loop may be under way
        assert first + held + await read_at_most(reply, len(body)) == body
        reply.close()
        await transport.close()


async def test_what_is_pushed_is_what_is_read_until_the_taker_has_enough() -> None:
    async with serving((HEAD + b"Content-Length: 6\r\n\r\nab", b"cd", b"ef")) as raw:
        transport, reply = await _reply(raw)
        taken: list[bytes] = []

        def take(data: bytes) -> bool:
            taken.append(data)
            return len(b"".join(taken)) < 3

        await reply.push(take)
        assert not reply.ended
        rest = await read_at_most(reply, 99)
        assert b"".join(taken) + rest == b"abcdef"
        assert len(b"".join(taken)) >= 3
        assert reply.complete
        reply.close()
        await transport.close()


async def test_a_failure_ends_the_push_that_waits() -> None:
    async with serving((HEAD + b"Content-Length: 6\r\n\r\nab",)) as raw:
        transport, reply = await _reply(raw)
        pushing = asyncio.create_task(reply.push(lambda _: True))
        await asyncio.sleep(0)
        reply.fail(UpstreamError("time is over"))
        with pytest.raises(UpstreamError, match="time is over"):
            await pushing
        reply.close()
        await transport.close()


async def _packets_back(pieces: int) -> int:
    """Return how many packets a server gets while it sends so many pieces, each once the one before it was taken."""
    async with serving((HEAD + b"Content-Length: 1000\r\n\r\n",)) as raw:
        transport, reply = await _reply(raw)
        taken: asyncio.Queue[bytes] = asyncio.Queue()

        def take(data: bytes) -> bool:
            taken.put_nowait(data)
            return True

        pushing = asyncio.create_task(reply.push(take))
        await asyncio.sleep(0)
        (writer,) = raw.writers
        before = _segments_in(writer)
        async with asyncio.timeout(10):
            for _ in range(pieces):
                writer.write(b"x")
                assert await taken.get() == b"x"
        packets = _segments_in(writer) - before
        reply.fail(UpstreamError("enough"))
        with pytest.raises(UpstreamError, match="enough"):
            await pushing
        reply.close()
        await transport.close()
    return packets


def _segments_in(writer: asyncio.StreamWriter) -> int:
    """Return how many packets have come in: `tcpi_segs_in` of Linux' struct tcp_info."""
    info = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)
    return int.from_bytes(info[140:144], sys.byteorder)


@pytest.mark.skipif(sys.platform != "linux", reason="Other systems have no switch for it.")
async def test_of_tokens_that_follow_closely_only_every_second_is_acknowledged_with_a_packet() -> None:
    # Some attempts, as the system goes back to a packet each after a pause of 40 ms, and the machine may have made one.
    assert min([await _packets_back(50) for _ in range(4)]) <= 30


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], ssl.SSLContext]:
    """The server's side of TLS, with a certificate that the client trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "cert.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    return lambda: server


async def test_tls_is_spoken_to_whom_is_trusted(trusted: Callable[[], ssl.SSLContext]) -> None:
    async with serving((WHOLE,), (WHOLE,), tls=trusted()) as raw:
        async with Upstream(base_url=raw.url) as client:
            assert await collect(client) == SAID
            assert await collect(client) == SAID
        assert raw.connections == 1


async def test_a_certificate_for_another_name_is_unreachable(trusted: Callable[[], ssl.SSLContext]) -> None:
    async with serving((WHOLE,), tls=trusted()) as raw:
        async with Upstream(base_url=raw.url.replace("127.0.0.1", "localhost")) as client:
            with pytest.raises(UpstreamUnreachable):
                await collect(client)
        assert raw.requests == []


async def test_a_certificate_that_is_not_trusted_is_unreachable(
    trusted: Callable[[], ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    async with serving((WHOLE,), tls=trusted()) as raw, Upstream(base_url=raw.url) as client:
        with pytest.raises(UpstreamUnreachable):
            await collect(client)
    assert raw.requests == []
