"""Exceptions → the caller's format. The one place where what went wrong becomes an answer."""

import asyncio
import logging
import math
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDict

from aiproxyd.appkeys import RECORD
from aiproxyd.errors import (
    BodyTooLarge,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    PermissionDenied,
    ProxyError,
    UnknownPath,
    UpstreamRefusal,
)
from aiproxyd.formats import format_of_caller
from aiproxyd.inflight import take_stop

DEFAULT_RETRY_AFTER_S: Final = 5.0
"""Sent with 429 and 503 where the upstream did not say: Codex gives up on a 429 without it."""

_PATHS_WITHOUT_V1: Final = frozenset(("/chat/completions", "/responses", "/embeddings", "/models"))
"""What OpenAI's SDKs ask for where their base URL lacks the /v1 that they leave to it; the others' add their own."""

_log: Final = logging.getLogger(__name__)


def errors() -> Middleware:
    """Return the middleware that answers exceptions; behind a started answer they only end the connection."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        # No exception is kept in a local: it would hold this frame, and the frame it, with the request's body between
        # them, until a collection that comes seldom.
        try:
            return await handler(request)
        except ConnectionError:
            raise  # the caller has gone: there is nobody to answer
        except asyncio.CancelledError:
            stop = take_stop(request[RECORD])
            if stop is None:
                raise
            return answer_error(request, stop)
        except Exception as exc:  # noqa: BLE001  # a bug must not reach the wire as a traceback
            return answer_error(request, _to_error(exc, request))

    return middleware


def answer_error(request: web.Request, error: ProxyError) -> web.Response:
    """Return the response that tells *error* in the format of whoever sent *request*.

    Raises:
        ConnectionResetError: an answer has begun already; a second status line would end up inside its body.
    """
    record = request[RECORD]
    record.error = error.code or error.kind
    if record.is_started:
        raise ConnectionResetError(error.message) from None
    fmt = format_of_caller(request.path, request.headers)
    record.format = fmt.name
    body, headers = None, CIMultiDict[str]()
    if isinstance(error, UpstreamRefusal):
        body = error.body
        headers.extend(error.headers)
    headers["Content-Type"] = "application/json"
    if error.is_lasting:
        headers["x-should-retry"] = "false"
    status = error.status if body is not None else fmt.error_status(error)
    if error.retry_after_s is None and status in (429, 503):
        error.retry_after_s = DEFAULT_RETRY_AFTER_S
    if error.retry_after_s is not None and not headers.get("Retry-After", "").endswith("GMT"):
        # An upstream's date is as good; a fraction is not, and what cannot be read at all.
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.allowed)
    if body is None:
        body = fmt.encode_error(error, record.request_id)
    return web.Response(status=status, body=body, headers=headers)


def _to_error(exc: Exception, request: web.Request) -> ProxyError:
    """Rename what is none of ours: what aiohttp raises on its own, and bugs."""
    match exc:
        case ProxyError():
            return exc
        case web.HTTPNotFound():
            hint = "; the base URL of OpenAI's clients ends in /v1" if request.path in _PATHS_WITHOUT_V1 else ""
            return UnknownPath(f"there is nothing at {request.path[:200]}{hint}")
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed(request.method, exc.allowed_methods)
        case web.HTTPRequestEntityTooLarge():
            return BodyTooLarge("the request body is too large")
        case web.HTTPForbidden():
            return PermissionDenied(exc.text or exc.reason)  # a preflight, refused by aiohttp-cors
        case web.HTTPException() if exc.status < 500:
            return InvalidRequest(exc.reason)
        case _:
            _log.error("request %s: bug while serving %s", request[RECORD].request_id, request.path, exc_info=exc)
            return InternalError("internal error; the log of the gateway knows more")
