"""Every error as `application/problem+json` (RFC 9457), in one place; and the id of each request."""

import logging
import re
import secrets

from aiohttp import web
from aiohttp.typedefs import Handler

from app.domain.errors import BadRequest, InternalError, MethodNotAllowed, NotFound, ParleyError, RateLimited, TooLarge
from app.domain.events import dump
from app.web.rate_limits import rate_headers

log = logging.getLogger("parley.web")

REQUEST_ID = "X-Request-ID"
ID = web.RequestKey("ID", str)
#: The code of the error that the request is answered with, if any.
CODE = web.RequestKey("CODE", str)
# What a proxy may hand on as a request's id; anything else is replaced, as it goes to the log.
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")


def problem(error: ParleyError, request: web.Request) -> web.Response:
    """Render an error, and note its code."""
    request[CODE] = error.code
    body = {
        "type": f"/docs#{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request[ID],
        **error.extra,
    }
    response = web.Response(
        status=error.status, body=dump(body).encode(), content_type="application/problem+json", charset=None
    )
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.status == 409:
        response.headers["x-should-retry"] = "false"  # official clients repeat a 409 by themselves
    response.headers.update(error.headers)
    if isinstance(error, RateLimited):
        response.headers.update(rate_headers(error.allowances))
    response.headers["Cache-Control"] = "no-store"
    return response


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever is raised into a problem."""
    try:
        return await handler(request)
    except ParleyError as error:
        known = error
    except web.HTTPException as error:
        known = _of_http(error, request)
    except ConnectionError:
        raise  # the client has gone
    except Exception:
        log.exception("A request failed.")
        known = InternalError("The service failed. Its log tells more under this request_id.")
    return problem(known, request)


def request_id_of(request: web.Request) -> str:
    """Return the id that a proxy has given the request, if it is sane, else a new one."""
    given = request.headers.get(REQUEST_ID, "")
    return given if _SANE_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"


async def name_response(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Signal handler: return the request's id with every response, streams too."""
    if isinstance(request, web.Request) and ID in request:
        response.headers.setdefault(REQUEST_ID, request[ID])


def _of_http(error: web.HTTPException, request: web.Request) -> ParleyError:
    match error.status:
        case 404:
            return NotFound("There is nothing at this path. /docs lists what there is.")
        case 405:
            allow = error.headers.get("Allow", "")
            return MethodNotAllowed(f"{request.method} is not possible here; {allow} is.", headers={"Allow": allow})
        case 413:
            return TooLarge("The body is larger than this service takes (MAX_MESSAGE_BYTES).")
        case status if status < 500:
            return BadRequest(error.reason)
    return InternalError("The service failed. Its log tells more under this request_id.")
