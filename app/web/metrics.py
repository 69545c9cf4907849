"""`/metrics`: what was counted, in Prometheus's and OpenMetrics' text, by prometheus-client."""

import asyncio
import hmac
import platform
from collections.abc import Iterator, Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from app.domain.measures import Family, Measures, buckets, values
from app.domain.version import VERSION
from app.web.auth.bearer import bearer_of, refused

#: Between two looks at how late the event loop is.
LOOK_SECONDS = 0.5


class MetricsRoutes:
    """The handler. With `token` it is for whoever brings that; without, it is on a port of its own."""

    def __init__(self, measures: Measures, token: str | None) -> None:
        self._token = token
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Counted(measures))

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.get("/metrics", self.metrics)]

    async def metrics(self, request: web.Request) -> web.Response:
        """`GET /metrics`."""
        # Constant time, whatever the token is made of.
        if self._token is not None and not hmac.compare_digest(bearer_of(request).encode(), self._token.encode()):
            raise refused("The token is not METRICS_TOKEN")
        try:
            encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        except (TypeError, ValueError):  # a version that is no number
            encode, content_type = choose_encoder("")
        headers = {"Content-Type": content_type, "Cache-Control": "no-store"}
        return web.Response(body=encode(self._registry), headers=headers)


async def watch_loop(measures: Measures) -> None:
    """Measure how late the event loop is, for ever."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LOOK_SECONDS
        await asyncio.sleep(LOOK_SECONDS)
        measures.lagged(max(0.0, loop.time() - due))


class _Counted(Collector):
    """Makes prometheus-client's objects of the numbers, when somebody asks."""

    def __init__(self, measures: Measures) -> None:
        self._measures = measures

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, summed over the processes."""
        sums = self._measures.board.sums()
        for family in self._measures.families:
            yield _metric(family, sums)
        build = {"version": VERSION, "python": platform.python_version()}
        yield InfoMetricFamily("parley_build", "What runs here", value=build)


def _metric(family: Family, sums: Sequence[float]) -> Metric:
    if family.kind == "histogram":
        counts, total = buckets(family, sums)
        return HistogramMetricFamily(family.name, family.help, buckets=counts, sum_value=total)
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.help, labels=family.labels)
    for labels, value in values(family, sums):
        metric.add_metric(labels, value)
    return metric
