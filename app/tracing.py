"""OpenTelemetry traces, where `OTEL_EXPORTER_OTLP_ENDPOINT` says so: the packages are an extra, imported only then.

All else is OpenTelemetry's own environment variables: `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`
and so on. https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import os

from app.domain.spans import NO_SPANS, Spans
from app.domain.startup import StartupError

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def spans_of_environment() -> Spans:
    """Return what sends spans to where the environment says, or nowhere. Raises StartupError without the packages."""
    name = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if name is None:
        return NO_SPANS
    try:
        from app.sent_spans import SentSpans  # noqa: PLC0415 - its packages are an extra
    except ImportError as error:
        raise StartupError(
            f"{name} is set, but the packages for traces are missing ({error.name}). "
            "Install them: pip install --require-hashes -r requirements-tracing.txt"
        ) from error
    return SentSpans()
