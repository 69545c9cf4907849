"""Spans that OpenTelemetry sends; see `app/tracing.py`."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from app.domain.spans import Span, Spans
from app.domain.version import VERSION

#: How long the end of the process waits for what is not sent yet.
CLOSE_SECONDS = 1.0


class SentSpans(Spans):
    """Hands spans to OpenTelemetry, whose thread sends them in batches over OTLP/HTTP."""

    def __init__(self) -> None:
        own = {"service.version": VERSION}
        if not os.environ.get("OTEL_SERVICE_NAME"):
            own["service.name"] = "parley"
        self._provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("parley", VERSION)

    def begin(self, name: str, **attributes: str | int) -> Span:
        """Begin a span that asks somebody else."""
        span = self._tracer.start_span(name, kind=trace.SpanKind.CLIENT, attributes=_dotted(attributes))
        return _SentSpan(span)

    @contextmanager
    def within(self, name: str, headers: Mapping[str, str] | None = None, **attributes: str | int) -> Iterator[Span]:
        """Be in a span; with headers, in one of a request that may belong to another service's trace."""
        parent, kind = None, trace.SpanKind.INTERNAL
        if headers is not None:
            kind = trace.SpanKind.SERVER
            parent = propagate.extract({key.lower(): value for key, value in headers.items()})
        span = self._tracer.start_span(name, context=parent, kind=kind, attributes=_dotted(attributes))
        # Exceptions are not recorded: their texts may hold what people wrote.
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield _SentSpan(span)

    def close(self) -> None:
        """Send what is left, and wait for that, but for a second only: a receiver that is away keeps nobody from ending."""
        # OpenTelemetry's own wait has no limit that can be set; a daemon thread is not waited for.
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(CLOSE_SECONDS)


class _SentSpan(Span):
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def note(self, name: str, value: str | int) -> None:
        self._span.set_attribute(name.replace("__", "."), value)

    def event(self, name: str) -> None:
        self._span.add_event(name)

    def end(self, error: str | None = None) -> None:
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()


def _dotted(attributes: Mapping[str, str | int]) -> dict[str, str | int]:
    """Return attributes under OpenTelemetry's names: `http__route` is `http.route`."""
    return {name.replace("__", "."): value for name, value in attributes.items()}
