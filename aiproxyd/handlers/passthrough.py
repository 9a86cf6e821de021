"""The upstreams' other paths (images, audio, files, batches, ...): authenticated and relayed, nothing held back.

JSON bodies are read, for the model they name; everything else streams through in both directions.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from email.message import Message
from typing import Final
from urllib.parse import quote, unquote, unquote_plus

import msgspec
from aiohttp import web
from msgspec import Struct

from aiproxyd.appkeys import PRINCIPAL, RECORD
from aiproxyd.attempt import JSON_TYPE, RelayedStream, Request
from aiproxyd.config import Target
from aiproxyd.dispatch import describe, log_failure
from aiproxyd.errors import (
    InvalidRequest,
    MethodNotAllowed,
    PermissionDenied,
    UnknownPath,
    UpstreamError,
    UpstreamRefusal,
)
from aiproxyd.formats import format_of_caller
from aiproxyd.formats.base import Format, decode_body
from aiproxyd.handlers.generation import GEMINI_PREFIXES, OWN_PATHS
from aiproxyd.handlers.reading import read_body, read_query, refuse_upgrade, use_model
from aiproxyd.headers import select_for_caller, select_for_upstream
from aiproxyd.providers.base import Answer, Call, Provider
from aiproxyd.relay import relay_bytes, relay_stream
from aiproxyd.routing.catalogue import Catalogue, Route
from aiproxyd.routing.choice import Router
from aiproxyd.routing.faults import REPEATABLE, Fault, judge
from aiproxyd.routing.plan import Lease
from aiproxyd.splice import Edit, Span, apply_edits, find_members
from aiproxyd.sse import EventCutter
from aiproxyd.telemetry.records import CallRecord, Try

UPSTREAM_HEADER: Final = "x-aiproxyd-upstream"
"""Names the upstream of a request that names no model; without it, the first that speaks the caller's format."""
MAX_FORM_HEAD_BYTES: Final = 64 * 1024
"""How far into a form its ``model`` field is looked for: SDKs put the fields before the files."""

_COMPLETIONS: Final = "/v1/completions"
_ONE_MODEL_PATHS: Final = frozenset(
    (
        _COMPLETIONS,
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/images/edits",
        "/v1/images/generations",
        "/v1/images/variations",
        "/v1/moderations",
        "/v1/responses/compact",
        "/v1/responses/input_tokens",
    )
)
"""What callers whose key is limited to models may use: calls of exactly the model that their body names.

They leave nothing behind at the upstream: the same call with another key does the same, and once more does no harm."""
_MODEL_PATHS: Final = tuple(f"{prefix}/" for prefix in GEMINI_PREFIXES)
_DISPOSITION: Final = re.compile(rb"^content-disposition:.*", re.IGNORECASE | re.MULTILINE)
_PARAMETER: Final = re.compile(rb';[ \t]*(?P<name>[\w*-]+)=(?P<value>"(?:[^"\\]|\\.)*"|[^;\r]*)')
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_NOT_DONE: Final = frozenset((Fault.KEY, Fault.ACCESS, Fault.LIMIT, Fault.BUSY, Fault.UNREACHABLE))
"""Failures of requests that were not carried out, and that another key, or another moment, may mend."""
_MENDABLE: Final = REPEATABLE | _NOT_DONE
"""The same of requests that may have been carried out."""
_MODELLESS: Final = frozenset((Fault.KEY, Fault.UNREACHABLE))
"""Failures that say something of an upstream whatever it was asked for."""


class _Body(Struct):
    model: str | None = None


_body: Final = msgspec.json.Decoder(_Body)


class _Upload(Struct):
    """A request body on its way through."""

    head: bytes = b""
    """What was read of it to find the model; the whole body where *rest* is None."""
    rest: AsyncIterator[bytes] | None = None
    size_bytes: int | None = None
    """Length of head and rest together, where it is known."""
    model: str | None = None
    span: Span | None = None
    """Where *head* names the model."""
    is_json: bool = False

    def rename(self, model: str) -> None:
        """Put *model* where the body names its model."""
        if self.span is None or model == self.model:
            return
        value = msgspec.json.encode(model) if self.is_json else model.encode()
        if self.size_bytes is not None:
            self.size_bytes += len(value) - (self.span.end - self.span.start)
        self.head = apply_edits(self.head, [Edit(*self.span, value)])

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body."""
        if self.head:
            yield self.head
        if self.rest is not None:
            async for chunk in self.rest:
                yield chunk


def routes(catalogue: Catalogue, router: Router, providers: Mapping[str, Provider]) -> Iterable[web.RouteDef]:
    """Return the routes of this module; they catch what no other route serves."""
    handler = _Passthrough(catalogue, router, providers).handle
    for prefix in ("/v1", "/v1beta"):
        for method in _METHODS:
            yield web.route(method, prefix + "/{tail:.+}", handler)


class _Passthrough:
    def __init__(self, catalogue: Catalogue, router: Router, providers: Mapping[str, Provider]) -> None:
        self._catalogue = catalogue
        self._router = router
        self._providers = providers

    async def handle(self, request: web.Request) -> web.StreamResponse:
        refuse_upgrade(request)
        path = request.rel_url.raw_path
        _refuse_own_paths(request.method, unquote(path))
        fmt = format_of_caller(request.path, request.headers)
        upload = await _read_upload(request, is_limited=request[PRINCIPAL].allowed_models is not None)
        target = await self._choose(request, fmt, upload)
        provider = self._providers[target.upstream]
        record = request[RECORD]
        record.upstream, record.upstream_model = target
        upload.rename(target.model)
        call = Call(
            method=request.method,
            path=path,
            query=_rename_in_query(read_query(request), target.model),
            headers=select_for_upstream(request.headers),
            body=upload.head if upload.rest is None else upload.chunks(),
            body_size_bytes=upload.size_bytes,
        )
        # What a call leaves at the upstream is found with the key that left it, where keys are of different accounts.
        leaves_nothing = request.path in _ONE_MODEL_PATHS
        plan = self._router.plan(Route((target,)), is_stream=False, rotates=leaves_nothing)
        mendable = _find_mendable(request, upload)
        while True:
            candidate, wait_s = plan.next()
            if wait_s:
                await asyncio.sleep(wait_s)
            try:
                lease = await plan.start(candidate, request[PRINCIPAL].name)
                if lease is not None:
                    return await self._try(request, call, lease, fmt, plan.deadline(candidate))
            except UpstreamError as exc:
                provider.hide_keys(exc)
                fault = judge(exc)
                log_failure(exc, fault, candidate, record)
                if fault not in mendable:
                    raise
                if fault not in _NOT_DONE and not leaves_nothing:
                    plan.reject(target, exc)  # with all keys but this one
                plan.fail(candidate, exc.with_traceback(None))  # else it and this frame would hold each other

    async def _try(
        self, request: web.Request, call: Call, lease: Lease, fmt: Format, deadline: float
    ) -> web.StreamResponse:
        """Make one attempt; it fails before anything is sent to the caller, or not at all."""
        record = request[RECORD]
        record.attempts += 1
        started_s = time.perf_counter()
        outcome = "left"
        try:
            response = await self._send(request, call, lease, fmt, deadline)
            outcome = "ok"
        except UpstreamError as exc:
            outcome = describe(exc)
            self._note_failure(request, exc, lease)
            raise
        finally:
            lease.end()
            elapsed_ms = (time.perf_counter() - started_s) * 1000
            record.tries.append(Try(*lease.candidate.target, lease.candidate.key, outcome, elapsed_ms))
        return response

    def _note_failure(self, request: web.Request, error: UpstreamError, lease: Lease) -> None:
        """Note what a failure says of the upstream and its key, and of the model where that was what was asked."""
        fault, candidate = judge(error), lease.candidate
        if fault in _MODELLESS or _concerns_model(request, candidate.target):
            lease.fail(error)
            return
        lease.withdraw()
        self._router.outcomes[candidate.target.upstream, fault.name.lower()] += 1
        has_answered = isinstance(error, UpstreamRefusal)
        self._router.health.fail(candidate, Fault.TARGET, self._router.clock(), has_answered=has_answered)

    async def _send(
        self, request: web.Request, call: Call, lease: Lease, fmt: Format, deadline: float
    ) -> web.StreamResponse:
        provider, record = self._providers[lease.candidate.target.upstream], request[RECORD]
        started_s = time.perf_counter()
        answer = await provider.send(call, deadline, lease.candidate.key)
        record.upstream_ms = (time.perf_counter() - started_s) * 1000
        try:
            if not 200 <= answer.status < 300:
                raise await provider.read_refusal(answer, fmt)
            response = await _relay(request, call, answer, fmt, provider, lease, deadline)
            if not record.error:
                lease.succeed()
            return response
        finally:
            answer.close()

    async def _choose(self, request: web.Request, fmt: Format, upload: _Upload) -> Target:
        """Return the upstream that the request is for, and its name of the model, empty where none is named."""
        models = [name for name in (*request.query.getall("model", ()), upload.model) if name]
        if request[PRINCIPAL].allowed_models is not None:
            _refuse_what_could_hide_a_model(request.path, upload, fmt)
        for model in models:
            # All of them: which one counts is the upstream's choice.
            use_model(request, model)
        if models:
            route = await self._catalogue.resolve(models[-1], request[PRINCIPAL])
            for target in route.targets:
                if fmt.name in self._providers[target.upstream].formats:
                    return target
            raise InvalidRequest(f"the upstream of the model {models[-1][:200]!r} does not speak {fmt.name}")
        named = request.headers.get(UPSTREAM_HEADER)
        if named is not None and (named not in self._providers or fmt.name not in self._providers[named].formats):
            raise InvalidRequest(f"{UPSTREAM_HEADER}: there is no upstream {named[:80]!r} that speaks {fmt.name}")
        upstreams = (name for name, provider in self._providers.items() if fmt.name in provider.formats)
        upstream = named or next(upstreams, None)
        if upstream is None:
            raise UnknownPath(f"there is nothing at {request.path[:200]}, and no upstream that might know it")
        return Target(upstream, "")


def _refuse_own_paths(method: str, path: str) -> None:
    """Keep what is served here, and what could be mistaken for it, from being relayed.

    Raises:
        MethodNotAllowed: the path is ours, but not with *method*.
        UnknownPath: an upstream might read the path as another one than we do.
    """
    if path in OWN_PATHS:
        raise MethodNotAllowed(method, ["POST"])
    if path in GEMINI_PREFIXES:
        raise MethodNotAllowed(method, ["GET"])
    if path.startswith(_MODEL_PATHS):
        raise MethodNotAllowed(method, ["GET", "POST"])
    # What follows a semicolon is no part of a name for some servers: they take `..;` for `..`.
    if not {"", ".", ".."}.isdisjoint(part.partition(";")[0] for part in path.split("/")[1:]):
        raise UnknownPath(f"there is nothing at {path[:200]}: empty parts, '.' and '..' are not understood")


def _find_mendable(request: web.Request, upload: _Upload) -> frozenset[Fault]:
    """Return the failures after which the request may be made again, without its being done twice."""
    if upload.rest is not None:
        return frozenset()
    is_harmless = request.method == "GET" or request.path in _ONE_MODEL_PATHS or "Idempotency-Key" in request.headers
    return _MENDABLE if is_harmless else _NOT_DONE


def _concerns_model(request: web.Request, target: Target) -> bool:
    """Tell whether an answer, or none, says something of the target's model: what is stored there says nothing."""
    return bool(target.model) and request.path in _ONE_MODEL_PATHS


def _rename_in_query(query: str, model: str) -> str:
    if "model" not in query:
        return query
    pairs = [
        f"model={quote(model, safe='/:')}" if unquote_plus(pair.partition("=")[0]) == "model" else pair
        for pair in query.split("&")
    ]
    return "&".join(pairs)


def _refuse_what_could_hide_a_model(path: str, upload: _Upload, fmt: Format) -> None:
    """Let a key that is limited to models only do what one model, named in the body, decides.

    Raises:
        PermissionDenied: the request could reach other models, or what others have left at the upstream.
        InvalidRequest: parsers do not agree about what the body names.
    """
    if path not in _ONE_MODEL_PATHS or not upload.model:
        raise PermissionDenied("this key is limited to certain models, and the request does not name one")
    if upload.is_json:
        fmt.find_models(upload.head)


async def _read_upload(request: web.Request, *, is_limited: bool) -> _Upload:
    if not request.can_read_body:
        return _Upload()
    kind = request.content_type
    if kind == "multipart/form-data":
        return await _read_form(request, is_limited=is_limited)
    if kind == JSON_TYPE:
        return _read_json(await read_body(request))
    if kind == "application/x-www-form-urlencoded" or "Content-Encoding" in request.headers:
        # The first is what curl says of JSON; the second could grow without bound while it streams.
        body = await read_body(request)
        return _read_json(body) if body.lstrip().startswith(b"{") else _Upload(head=body)
    return _Upload(rest=request.content.iter_any(), size_bytes=request.content_length)


def _read_json(body: bytes) -> _Upload:
    model = decode_body(_body, body).model
    span = find_members(body)["model"] if model else None
    return _Upload(head=body, model=model, span=span, is_json=True)


async def _read_form(request: web.Request, *, is_limited: bool) -> _Upload:
    """Read a form as far as its ``model`` field, or to the bound; all of it for a key that is limited to models.

    Raises:
        InvalidRequest: it has no boundary, or names its model twice.
    """
    content_type = Message()
    content_type["Content-Type"] = request.headers["Content-Type"]
    boundary = content_type.get_param("boundary")
    if not isinstance(boundary, str) or not boundary:
        raise InvalidRequest("multipart/form-data without a boundary")
    delimiter = b"--" + boundary.encode("utf-8", "surrogateescape")
    is_held = is_limited or "Content-Encoding" in request.headers
    head = await read_body(request) if is_held else b""
    spans = _find_form_models(head, delimiter)
    while not spans and len(head) < MAX_FORM_HEAD_BYTES and (chunk := await request.content.readany()):
        head += chunk
        spans = _find_form_models(head, delimiter)
    if len(spans) > 1:
        raise InvalidRequest("the form names its model twice")
    upload = _Upload(head=head)
    if not is_held:
        upload.rest, upload.size_bytes = request.content.iter_any(), request.content_length
    if spans:
        upload.span = spans[0]
        upload.model = head[upload.span.start : upload.span.end].decode("utf-8", "replace")
    return upload


def _find_form_models(head: bytes, delimiter: bytes) -> list[Span]:
    """Return where the values of the fields ``model`` stand, as far as all of them is in *head*.

    Goes from part to part: a file's name or content must not pass for the field.
    """
    text = b"\r\n" + head
    end_of_part = b"\r\n" + delimiter
    start_of_part = end_of_part + b"\r\n"
    spans: list[Span] = []
    at = text.find(start_of_part)
    while at != -1:
        end_of_headers = text.find(b"\r\n\r\n", at + len(end_of_part))
        end = text.find(end_of_part, end_of_headers + 4)
        if -1 in (end_of_headers, end):
            break
        if _is_model_field(text[at:end_of_headers]):
            spans.append(Span(end_of_headers + 4 - 2, end - 2))  # in head
        at = text.find(start_of_part, end)
    return spans


def _is_model_field(headers: bytes) -> bool:
    disposition = _DISPOSITION.search(headers)
    parameters = _PARAMETER.finditer(disposition[0]) if disposition else ()
    names = (parameter["value"].strip(b' \t"') for parameter in parameters if parameter["name"].lower() == b"name")
    return next(names, None) == b"model"


async def _relay(
    request: web.Request, call: Call, answer: Answer, fmt: Format, provider: Provider, lease: Lease, deadline: float
) -> web.StreamResponse:
    headers, record = select_for_caller(answer.headers), request[RECORD]
    if answer.content_type == JSON_TYPE:
        body = await answer.read_whole()
        lease.answer(None)
        with suppress(msgspec.DecodeError):
            record.usage = fmt.read_answer(body).usage
        return web.Response(status=answer.status, body=body, headers=headers)
    if answer.content_type == "text/event-stream" and request.path == _COMPLETIONS:
        # The one stream here whose end we know.
        stream = RelayedStream(answer, EventCutter(), fmt.stream_tap(), fmt, provider, record, deadline)
        stream.request = _read_request(call, fmt, record)
        await stream.wait_for_first()
        lease.answer(None)
        if _concerns_model(request, lease.candidate.target):
            stream.lease = lease
        return await relay_stream(request, stream, fmt, record)
    lease.answer(None)
    return await relay_bytes(request, answer, web.StreamResponse(status=answer.status, headers=headers), deadline)


def _read_request(call: Call, fmt: Format, record: CallRecord) -> Request:
    """Return *call* as what a stream must know of its request, to tell about what it cost where it was left."""
    body = call.body if isinstance(call.body, bytes) else b""
    return Request(fmt=fmt, model=record.model, path=call.path, query=call.query, headers=call.headers, body=body)
