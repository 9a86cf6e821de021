"""Outermost: the record of each request, its id, its log line. Nothing can fail before it."""

import re
from random import getrandbits
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDict

import aiproxyd
from aiproxyd.appkeys import RECORD
from aiproxyd.formats import ANTHROPIC
from aiproxyd.inflight import InFlight
from aiproxyd.telemetry.logs import CLIENT_GONE, MAX_NAME_CHARS, REQUEST_ID, AccessLog
from aiproxyd.telemetry.records import CallRecord

_SERVER: Final = f"aiproxyd/{aiproxyd.__version__}"
_UNPRINTABLE: Final = re.compile(r"[^ -~]")
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")

MAX_DROPPED_CHARS: Final = 1024
"""Longest list of what was dropped; fields that nobody knows can be many."""


def context(log: AccessLog, in_flight: InFlight) -> Middleware:
    """Return the middleware that opens a record for each request and writes it to *log* in the end."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        presented = request.headers.get("x-request-id", "")
        record = CallRecord(presented if presented and _SANE_ID.fullmatch(presented) else f"{getrandbits(96):024x}")
        request[RECORD] = record
        outside = REQUEST_ID.set(record.request_id)
        task = in_flight.enter(record)
        status = CLIENT_GONE
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            in_flight.leave(task)
            REQUEST_ID.reset(outside)
            log.write(request.method, request.rel_url.raw_path, status, record)

    return middleware


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """Add what the record knows to a response's headers; for ``on_response_prepare``, the last moment for it."""
    record = request.get(RECORD)
    if record is None:
        return
    record.is_started = True
    headers = response.headers
    headers["Server"] = _SERVER
    headers["x-request-id"] = record.request_id
    if record.upstream:
        headers["x-aiproxyd-upstream"] = record.upstream
        # The caller may have chosen the name: no line end may get into a header, nor more than clients take.
        if record.upstream_model:
            model = record.upstream_model[:MAX_NAME_CHARS]
            is_plain = model.isascii() and model.isprintable()
            headers["x-aiproxyd-model"] = model if is_plain else _UNPRINTABLE.sub("?", model)
        headers["x-aiproxyd-attempts"] = str(record.attempts)
    _stamp_cache(headers, record)
    if record.dropped:
        headers["x-aiproxyd-dropped"] = _UNPRINTABLE.sub("?", ", ".join(record.dropped))[:MAX_DROPPED_CHARS]
    if record.upstream_ms is not None:
        headers["Server-Timing"] = f"upstream;dur={record.upstream_ms:.1f}, total;dur={record.elapsed_ms:.1f}"
    if record.format == ANTHROPIC.name and "request-id" not in headers:
        headers["request-id"] = record.request_id  # where Anthropic's SDKs look for it


def _stamp_cache(headers: CIMultiDict[str], record: CallRecord) -> None:
    if record.cache_status:
        headers["Cache-Status"] = record.cache_status
    if record.age_s is not None:
        headers["Age"] = str(record.age_s)
