"""The endpoints that call a model: chat, responses, messages, Gemini's methods, embeddings, counting tokens."""

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from aiohttp import web
from aiohttp.typedefs import Handler

from aiproxyd.appkeys import PRINCIPAL, RECORD
from aiproxyd.attempt import JSON_TYPE, Kind, Request, WholeAnswer
from aiproxyd.cache.calls import CachedCalls
from aiproxyd.directives import NONE, Directives, read_directives
from aiproxyd.dispatch import Dispatcher
from aiproxyd.errors import MethodNotAllowed, UnknownPath
from aiproxyd.formats import ANTHROPIC, GEMINI, OPENAI_CHAT, OPENAI_RESPONSES
from aiproxyd.formats.base import Format, Peek
from aiproxyd.handlers.reading import read_body, read_query, refuse_upgrade, use_model
from aiproxyd.headers import select_for_upstream
from aiproxyd.relay import relay_stream

GEMINI_PREFIXES: Final = ("/v1beta/models", "/v1/models", "/v1alpha/models", "/v1beta1/publishers/google/models")

_ENDPOINTS: Final[tuple[tuple[str, Format, Kind], ...]] = (
    ("/v1/chat/completions", OPENAI_CHAT, "generate"),
    ("/v1/embeddings", OPENAI_CHAT, "embed"),
    ("/v1/responses", OPENAI_RESPONSES, "generate"),
    ("/v1/responses/input_tokens", OPENAI_RESPONSES, "count"),
    ("/v1/messages", ANTHROPIC, "generate"),
    ("/v1/messages/count_tokens", ANTHROPIC, "count"),
)
_GEMINI_KINDS: Final[dict[str, Kind]] = {
    "generateContent": "generate",
    "streamGenerateContent": "generate",
    "countTokens": "count",
    "embedContent": "embed",
    "batchEmbedContents": "embed",
}
"""The methods that can be converted."""

OWN_PATHS: Final = frozenset(path for path, _, _ in _ENDPOINTS)


def routes(calls: Dispatcher | CachedCalls) -> Iterable[web.RouteDef]:
    """Return the routes of this module."""
    for path, fmt, kind in _ENDPOINTS:
        yield web.post(path, _endpoint(path, fmt, calls, kind))
    yield web.get("/v1/responses", _refuse_get)
    gemini = _gemini_endpoint(calls)
    for prefix in GEMINI_PREFIXES:
        yield web.post(prefix + "/{tail:.+}", gemini)


def _endpoint(path: str, fmt: Format, calls: Dispatcher | CachedCalls, kind: Kind) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        body = await read_body(request)
        peek = fmt.peek(body)
        peek.stream = kind == "generate" and peek.stream
        return await _serve(request, calls, fmt, path, body, peek, kind)

    return handler


def _gemini_endpoint(calls: Dispatcher | CachedCalls) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        prefix, _, tail = request.rel_url.raw_path.partition("/models/")
        model, _, method = (unquote(tail) if "%" in tail else tail).rpartition(":")
        if not (model and method.isalpha()):
            raise UnknownPath("write /models/MODEL:METHOD, for example :generateContent")
        body = await read_body(request)
        peek = GEMINI.peek(body)
        peek.model, peek.stream = model.removeprefix("models/"), method.startswith("stream")
        kind = _GEMINI_KINDS.get(method, "other")
        return await _serve(request, calls, GEMINI, f"{prefix}/models/{{model}}:{method}", body, peek, kind)

    return handler


async def _serve(
    request: web.Request, calls: Dispatcher | CachedCalls, fmt: Format, path: str, body: bytes, peek: Peek, kind: Kind
) -> web.StreamResponse:
    use_model(request, peek.model, fmt, body)
    headers = select_for_upstream(request.headers)
    if headers.get("Content-Type") != JSON_TYPE and request.content_type != JSON_TYPE:
        headers["Content-Type"] = JSON_TYPE  # it was read as JSON, and curl says that it is a form
    record = request[RECORD]
    record.format = fmt.name
    call = Request(
        fmt=fmt,
        model=peek.model,
        path=path,
        query=read_query(request),
        headers=headers,
        body=body,
        is_stream=bool(peek.stream),
        wants_usage=peek.wants_usage,
        candidates=peek.candidates,
        kind=kind,
        wishes=_read_wishes(request),
    )
    answer = await calls.send(call, request[PRINCIPAL], record)
    if isinstance(answer, WholeAnswer):
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
    return await relay_stream(request, answer, fmt, record)


def _read_wishes(request: web.Request) -> Directives:
    said = request.headers.getall("Cache-Control", None)
    return NONE if said is None else read_directives(",".join(said))


async def _refuse_get(request: web.Request) -> web.StreamResponse:
    refuse_upgrade(request)
    raise MethodNotAllowed(request.method, ["POST"])
