"""One log line for each request, and its place in the counts: no message text, no query, no header."""

import logging
from collections.abc import Iterable
from time import monotonic

from aiohttp import web
from aiohttp.typedefs import Handler

from app.domain.ids import parse_message_id
from app.domain.log_context import about_answer, about_request, known
from app.domain.measures import Measures
from app.domain.spans import NO_SPANS, Spans
from app.web.problems import CODE, ID, request_id_of

_PREPARED = web.RequestKey("_PREPARED", web.StreamResponse)

log = logging.getLogger("parley.access")

#: What a client gets that has gone before it was answered (nginx's number for it).
GONE = 499
#: Asked every few seconds by machines: logged with `LOG_LEVEL=DEBUG` only.
PROBES = ("/health/live", "/health/ready", "/metrics")


class Access:
    """The outermost middleware: it names the request, and sees how it ended."""

    def __init__(self, measures: Measures, spans: Spans = NO_SPANS) -> None:
        self._measures = measures
        self._spans = spans

    def watch(self, routes: Iterable[web.AbstractRoute]) -> None:
        """Make room for the counts of all routes; once, when all are there."""
        named = {(route.method, route.resource.canonical) for route in routes if route.resource is not None}
        self._measures.watch_routes(sorted(named))

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Log and count what the handler makes of the request, a stream when it is over."""
        begun = monotonic()
        request[ID] = request_id_of(request)
        about_request(request[ID])
        named = request.match_info.get("id", "")
        if parse_message_id(named) is not None:
            about_answer(named)
        response: web.StreamResponse | None = None
        route = _route(request)
        with self._spans.within(
            f"{request.method} {route}", request.headers, http__request__method=request.method, http__route=route
        ) as span:
            span.note("parley.request_id", request[ID])
            try:
                response = await handler(request)
            finally:
                status = self._note(request, response, monotonic() - begun)
                span.note("http.response.status_code", status)
                if status >= 500:
                    span.note("error.type", request.get(CODE, str(status)))
        return response

    async def prepared(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Signal handler: keep what was begun, for when its client goes before the end."""
        if isinstance(request, web.Request):
            request[_PREPARED] = response

    def _note(self, request: web.Request, response: web.StreamResponse | None, seconds: float) -> int:
        """Return the status."""
        route = _route(request)
        gone = response is None
        response = response or request.get(_PREPARED)
        status = response.status if response is not None else GONE
        self._measures.request(request.method, route, status)
        code = request.get(CODE)
        if code is not None:
            self._measures.problem(code)
        level = logging.DEBUG if route in PROBES else logging.INFO
        if not log.isEnabledFor(level):
            return status
        fields: dict[str, object] = {
            "method": request.method if request.method.isalpha() else "other",
            "route": route,
            "status": status,
            "milliseconds": round(seconds * 1000, 1),
        }
        if code is not None:
            fields["code"] = code
        words = "%(method)s %(route)s %(status)d in %(milliseconds)g ms"
        if gone:
            fields["gone"] = True
            words = f"{words}: the client went"
        log.log(level, words, fields, extra={"fields": fields, "about": known()})
        return status


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "none"
