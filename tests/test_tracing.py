"""Traces: off unless OpenTelemetry's variable names a receiver; then spans of each answer, without a word of it."""

import asyncio
import signal
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.support.otlp import Receiver, receiving
from tests.support.reader import Reader
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.service import ServiceProcess

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as taker:
        yield taker


def _attributes(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


async def test_an_answer_is_a_trace_of_its_request_begin_upstream_and_finish_without_content(
    receiver: Receiver, upstream: ScriptedUpstream
) -> None:
    with tempfile.TemporaryDirectory(prefix="parley-") as path:
        service = await ServiceProcess(
            Path(path),
            openai_base_url=upstream.base_url,
            openai_api_key="sk-marker-0123456789",
            openai_model="model-a",
            otel_exporter_otlp_endpoint=receiver.url,
            otel_bsp_schedule_delay="100",
        ).start()
        try:
            upstream.error(500)
            upstream.reply(["marker-of-", "the-answer"])
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "Cookie": "other=marker"}
            reader = Reader()
            body = {"content": "marker-of-the-question"}
            async with (
                asyncio.timeout(30),
                ClientSession() as session,
                session.post(f"{service.url}/messages?marker", json=body, headers=headers) as response,
            ):
                await reader.read(response)
            request, begin, _, finish = await receiver.named("POST /messages", "begin", "upstream", "finish")
        finally:
            service.close()
    asked = [span for span in receiver.spans if span.name == "upstream"]
    assert receiver.service == "parley"
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    for span in (begin, finish, *asked):
        assert (span.trace_id, span.parent_span_id) == (request.trace_id, request.span_id)
    assert _attributes(request) | {"parley.request_id": ""} == {
        "http.request.method": "POST",
        "http.route": "/messages",
        "http.response.status_code": 200,
        "parley.request_id": "",
    }
    assert _attributes(request)["parley.request_id"] == response.headers["X-Request-ID"]
    assert [_attributes(span) for span in asked] == [
        {"gen_ai.request.model": "model-a", "parley.attempt": 1, "error.type": "upstream_error"},
        {"gen_ai.request.model": "model-a", "parley.attempt": 2},
    ]
    assert [[event.name for event in span.events] for span in asked] == [[], ["first token"]]
    assert _attributes(finish) == {"parley.answer": reader.answer, "parley.status": "completed"}
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano for span in receiver.spans)
    assert reader.text == "marker-of-the-answer"
    assert b"marker" not in receiver.raw


async def test_what_is_not_sent_yet_is_sent_at_the_end(receiver: Receiver) -> None:
    with tempfile.TemporaryDirectory(prefix="parley-") as path:
        service = await ServiceProcess(
            Path(path), otel_exporter_otlp_endpoint=receiver.url, otel_bsp_schedule_delay="60000"
        ).start()
        try:
            async with ClientSession() as session, session.get(f"{service.url}/models") as response:
                assert response.status == 200
            assert receiver.spans == []
            service.signal(signal.SIGTERM)
            assert await service.ended() == 0
        finally:
            service.close()
    assert [span.name for span in receiver.spans] == ["GET /models"]


@pytest.mark.parametrize("listens", [True, False], ids=["says nothing", "refuses"])
async def test_a_receiver_that_is_away_holds_up_no_end(listens: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="parley-") as path, socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        if listens:
            deaf.listen()
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        service = await ServiceProcess(
            Path(path), otel_exporter_otlp_endpoint=url, otel_bsp_schedule_delay="60000"
        ).start()
        try:
            async with ClientSession() as session, session.get(f"{service.url}/models") as response:
                assert response.status == 200
            service.signal(signal.SIGTERM)
            assert await service.ended(5) == 0
        finally:
            service.close()


async def test_without_the_packages_a_sentence_says_what_to_install_and_nothing_is_imported_unasked() -> None:
    with tempfile.TemporaryDirectory(prefix="parley-") as path:
        folder = Path(path)
        # In the way of the real one, as the current folder comes first.
        (folder / "opentelemetry").mkdir()
        (folder / "opentelemetry" / "__init__.py").write_text("raise ModuleNotFoundError('no', name='opentelemetry')")
        service = await ServiceProcess(folder).start()
        service.close()
        service = ServiceProcess(folder, otel_exporter_otlp_endpoint="http://127.0.0.1:9")
        service.spawn()
        try:
            assert await service.ended() == 1
            assert "OTEL_EXPORTER_OTLP_ENDPOINT is set, but the packages for traces are missing" in service.log
            assert "requirements-tracing.txt" in service.log
            assert "Traceback" not in service.log
        finally:
            service.close()
