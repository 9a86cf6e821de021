"""The built-in upstream of ``aiproxyd --demo``: answers every format without key, network, clock or chance.

It reads and writes the formats by their own codecs; what it says stands in `aiproxyd.providers.demo_script`. What the
hub has no words for, such as what is stored at a vendor, it refuses as an upstream would. Does no I/O.
"""

import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, unquote

from typing_extensions import override

from aiproxyd.config import Secret
from aiproxyd.errors import InvalidRequest, ProxyError, UnknownModel, UnknownPath
from aiproxyd.formats import GEMINI, format_of_caller
from aiproxyd.formats.base import Format
from aiproxyd.hub import Embeddings, ModelCard, Usage
from aiproxyd.providers import demo_script as script
from aiproxyd.providers.base import Answer, Call, Provider
from aiproxyd.splice import JSON_ERRORS

DEFAULT_DIMENSIONS: Final = 8
MAX_DIMENSIONS: Final = 4096
MAX_VECTORS: Final = 2048

_MODEL: Final = ModelCard(name="demo", created=script.CREATED, owner="aiproxyd")
_JSON_TYPE: Final = "application/json"
_SSE_TYPE: Final = "text/event-stream"
_MODELS_PATH: Final = re.compile(r"/v1(?:alpha|beta|beta1/publishers/google)?/models(?:/(.+))?", re.DOTALL)
_ID_PREFIXES: Final = {
    "openai-chat": ("chatcmpl-", "call_"),
    "openai-responses": ("resp_", "call_"),
    "anthropic": ("msg_", "toolu_"),
    "gemini": ("", "call_"),
}
"""How the ids of answers and of calls begin."""


class DemoReply(NamedTuple):
    """One answer: a whole one is a single chunk, a stream one chunk per step, whole events each."""

    status: int
    content_type: str
    chunks: tuple[bytes, ...]


class _Asked(NamedTuple):
    """One request as it came."""

    fmt: Format
    path: str
    query: str
    body: bytes
    seed: str
    """The same for the same body; ids are made of it."""
    model: str
    """As the path names it, empty where the path names none."""


_Service: TypeAlias = Callable[[_Asked], DemoReply]


def _generate(asked: _Asked) -> DemoReply:
    fmt = asked.fmt
    request = fmt.decode_request(asked.body)
    fmt.refuse_state(request)
    if fmt is GEMINI:
        request.model, request.stream = asked.model, asked.path.endswith(":streamGenerateContent")
    answer_prefix, call_prefix = _ID_PREFIXES[fmt.name]
    response = script.answer(request, answer_prefix + asked.seed, call_prefix + asked.seed)
    if not request.stream:
        return _reply_whole(fmt.encode_response(response, request))
    is_array = fmt is GEMINI and "alt=sse" not in asked.query.split("&")
    encoder = (GEMINI.array_encoder if is_array else fmt.stream_encoder)(request, asked.seed)
    steps = map(encoder.feed, script.unfold_in_pieces(response))
    return DemoReply(200, _JSON_TYPE if is_array else _SSE_TYPE, tuple(filter(None, steps)))


def _count(asked: _Asked) -> DemoReply:
    request = asked.fmt.decode_count_request(asked.body)
    return _reply_whole(asked.fmt.encode_count(script.count_input(request)))


def _embed(asked: _Asked) -> DemoReply:
    request = asked.fmt.decode_embedding_request(asked.body, asked.path)
    dimensions = DEFAULT_DIMENSIONS if request.dimensions is None else request.dimensions
    if len(request.inputs) > MAX_VECTORS or not 1 <= dimensions <= MAX_DIMENSIONS:
        raise InvalidRequest(f"the demo makes up to {MAX_VECTORS} vectors of 1 to {MAX_DIMENSIONS} dimensions")
    embeddings = Embeddings(
        vectors=tuple(script.make_vector(text, dimensions) for text in request.inputs),
        model=request.model,
        usage=Usage(input_tokens=script.count_texts(request.inputs)),
    )
    return _reply_whole(asked.fmt.encode_embeddings(embeddings, request))


def _list_models(asked: _Asked) -> DemoReply:
    if not asked.model:
        return _reply_whole(asked.fmt.encode_model_list((_MODEL,), dict(parse_qsl(asked.query))))
    if asked.model != _MODEL.name:
        raise UnknownModel(f"there is no model {asked.model}: this demo lists {_MODEL.name} alone")
    return _reply_whole(asked.fmt.encode_model(_MODEL))


def _refuse_path(asked: _Asked) -> DemoReply:
    raise UnknownPath(f"the demo does not serve {asked.path}")


def _reply_whole(body: bytes) -> DemoReply:
    return DemoReply(200, _JSON_TYPE, (body,))


_SERVICES: Final[dict[str, _Service]] = {
    "/v1/chat/completions": _generate,
    "/v1/responses": _generate,
    "/v1/responses/input_tokens": _count,
    "/v1/messages": _generate,
    "/v1/messages/count_tokens": _count,
    "/v1/embeddings": _embed,
}
_GEMINI_SERVICES: Final[dict[str, _Service]] = {
    "generateContent": _generate,
    "streamGenerateContent": _generate,
    "countTokens": _count,
    "embedContent": _embed,
    "batchEmbedContents": _embed,
}


def reply(method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> DemoReply:
    """Answer one request, whatever it is: what cannot be served is told in the shape of the path's format.

    *path* is raw, *query* has no question mark, and the names in *headers* are in lower case, or their case is ignored.
    """
    path = unquote(path.encode(errors="replace"))
    fmt, model, serve = _find_service(method, path, headers)
    asked = _Asked(fmt, path, query, body, sha256(body).hexdigest()[:24], model)
    try:
        return serve(asked)
    except JSON_ERRORS as exc:  # in a schema: formats do not look into those
        return _reply_error(asked, InvalidRequest(f"malformed JSON: {exc}"))
    except ProxyError as exc:
        return _reply_error(asked, exc)


def _find_service(method: str, path: str, headers: Mapping[str, str]) -> tuple[Format, str, _Service]:
    """Return the format, the model that *path* names, and who serves it."""
    fmt = format_of_caller(path, headers)
    found = _MODELS_PATH.fullmatch(path)
    name = (found[1] or "") if found else ""
    if method == "GET" and found:
        return fmt, name, _list_models
    if method == "POST" and path in _SERVICES:
        return fmt, "", _SERVICES[path]
    model, _, call = name.rpartition(":")
    if method == "POST" and model and call in _GEMINI_SERVICES:
        return GEMINI, model, _GEMINI_SERVICES[call]
    return fmt, "", _refuse_path


def _reply_error(asked: _Asked, error: ProxyError) -> DemoReply:
    body = asked.fmt.encode_error(error, f"req_{asked.seed}")
    return DemoReply(asked.fmt.error_status(error), _JSON_TYPE, (body,))


class DemoProvider(Provider):
    """The upstream of ``--demo``. Its calls never leave the process."""

    name = "demo"
    formats = ("openai-chat", "openai-responses", "anthropic", "gemini")
    model_prefixes = ("demo",)

    @override
    def credential(self, key: Secret) -> dict[str, str]:
        return {}

    @override
    async def send(self, call: Call, deadline: float, key: int = 0) -> Answer:
        # Nothing that the demo serves comes as an upload.
        body = call.body if isinstance(call.body, bytes) else b""
        return _DemoAnswer(reply(call.method, call.path, call.query, call.headers, body))


class _DemoAnswer(Answer):
    def __init__(self, answer: DemoReply) -> None:
        self.status = answer.status
        self.headers = {"content-type": answer.content_type}
        self._chunks = iter(answer.chunks)

    @override
    async def read(self) -> bytes:
        return next(self._chunks, b"")

    @override
    def close(self) -> None:
        return None
