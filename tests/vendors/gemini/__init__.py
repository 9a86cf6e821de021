"""A scripted Gemini: content, token counts, embeddings, models. No I/O."""

import json
import re
from typing import Any, Final
from urllib.parse import parse_qs

from typing_extensions import override

from tests.support import Received, Reply
from tests.vendors.gemini.answers import encode_chunks, encode_response
from tests.vendors.gemini.rules import Model, check_parts, check_request, declarations, find_model, responses_of
from tests.vendors.gemini.wire import (
    BatchEmbedRequest,
    Blob,
    Content,
    CountRequest,
    EmbedRequest,
    FunctionResponse,
    Part,
    Request,
    normalise,
)
from tests.vendors.scene import INPUT_TOKENS, RETRY_AFTER_S, Media, Prompt
from tests.vendors.seals import decode_base64
from tests.vendors.vendor import Refused, Vendor, read_struct, send_stream

STATUSES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
MODELS: Final = ("gemini-2.5-flash", "gemini-2.5-pro", "gemini-3-pro-preview")
EMBEDDING_MODELS: Final = ("gemini-embedding-", "text-embedding-", "embedding-")
UNKNOWN: Final = 'Invalid JSON payload received. Unknown name "{}": Cannot find field.'
INVALID_KEY: Final = "API_KEY_INVALID"


class GeminiVendor(Vendor):
    takes_ids = False
    """Whether 2.x accepts ids of calls too. Gateways report that it refuses them, but Gemini CLI sends them."""

    @override
    def answer(self, received: Received) -> Reply:
        path, _, query = received.target.partition("?")
        options = {name: values[0] for name, values in parse_qs(query).items()}
        key = received.headers.get("x-goog-api-key") or options.get("key")
        if key is None:
            raise Refused(
                "Method doesn't allow unregistered callers (callers without established identity).", status=403
            )
        if key != self.key:
            raise Refused("API key not valid. Please pass a valid API key.", code=INVALID_KEY)
        match = re.fullmatch(r"/v1(?:beta|alpha)?/models(?:/([^/:]+))?(?::(\w+))?", path)
        if match is None:
            raise Refused(f"Not found: {path}", status=404)
        name, method = match[1], match[2]
        if received.method == "GET":
            return _send([_describe(each) for each in MODELS] if name is None else _describe(name))
        return self._call(received, name, method, is_sse=options.get("alt") == "sse")

    def _call(self, received: Received, name: str, method: str, *, is_sse: bool) -> Reply:
        match method:
            case "generateContent" | "streamGenerateContent":
                return self._generate(received, name, is_stream=method != "generateContent", is_sse=is_sse)
            case "countTokens":
                return self._count_tokens(received, name)
            case "batchEmbedContents":
                return self._embed(received, name)
            case "embedContent":
                _check_embeds(name)
                request = read_struct(normalise(self.read_body(received)), EmbedRequest, UNKNOWN)
                return _send({"embedding": _make_vector(0, request)})
            case _:
                raise Refused(f"Not found: {name}:{method}", status=404)

    @override
    def encode_error(self, status: int, message: str, code: str = "") -> Reply:
        return Reply(json.dumps({"error": _make_error(status, message, code)}).encode(), status)

    def _generate(self, received: Received, name: str, *, is_stream: bool, is_sse: bool) -> Reply:
        body = normalise(self.read_body(received))
        model = self._find_model(name)
        request = read_struct(body, Request, UNKNOWN)
        check_request(request, model)
        answer = self.decide(read_prompt(request, model, body, is_stream=is_stream))
        if answer.status != 200:
            return self.encode_error(answer.status, f"The answer is an error {answer.status}, as asked.")
        response = encode_response(request, model, answer, self.make_id)
        if not is_stream:
            return self.send_whole(answer, response)
        if not is_sse:
            raise Refused("This vendor only streams with alt=sse.", "?alt")
        error = b"data: " + json.dumps({"error": _make_error(503, "The model is overloaded.")}).encode() + b"\r\n\r\n"
        return send_stream(encode_chunks(response), answer, error)

    def _find_model(self, name: str, method: str = "generateContent") -> Model:
        model = find_model(name, method)
        return model._replace(takes_ids=model.takes_ids or self.takes_ids)

    def _count_tokens(self, received: Received, name: str) -> Reply:
        model = self._find_model(name, "countTokens")
        request = read_struct(normalise(self.read_body(received)), CountRequest, UNKNOWN)
        if (request.contents is None) == (request.generate_content_request is None):
            raise Refused("contents and generateContentRequest are mutually exclusive, and one is needed", "$")
        if request.contents is not None:
            check_parts(request.contents, model)
        else:
            inner = dict(request.generate_content_request or {})
            if inner.pop("model", None) != f"models/{name}":
                raise Refused("the model is to be that of the path", "$.generateContentRequest.model")
            check_request(read_struct(inner, Request, UNKNOWN), model)
        details = [{"modality": "TEXT", "tokenCount": INPUT_TOKENS}]
        return _send({"totalTokens": INPUT_TOKENS, "promptTokensDetails": details})

    def _embed(self, received: Received, name: str) -> Reply:
        _check_embeds(name)
        batch = read_struct(normalise(self.read_body(received)), BatchEmbedRequest, UNKNOWN)
        for index, request in enumerate(batch.requests):
            if request.model != f"models/{name}":
                raise Refused("the model is to be that of the path", f"$.requests[{index}].model")
        return _send({"embeddings": [_make_vector(index, request) for index, request in enumerate(batch.requests)]})


def _send(body: Any) -> Reply:
    if isinstance(body, list):
        body = {"models": body}
    return Reply(json.dumps(body, indent=2).encode())


def _make_error(status: int, message: str, code: str = "") -> dict[str, Any]:
    error: dict[str, Any] = {"code": status, "message": message, "status": STATUSES.get(status, "INTERNAL")}
    if code:
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code, "domain": "googleapis.com"}
        error["details"] = [info]
    if status in (429, 503):
        retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{RETRY_AFTER_S}s"}
        error["details"] = [retry]
    return error


def _check_embeds(name: str) -> None:
    if not name.startswith(EMBEDDING_MODELS):
        raise Refused(f"models/{name} is not found, or is not supported for embedContent.", status=404)


def _make_vector(index: int, request: EmbedRequest) -> dict[str, Any]:
    return {"values": [1 / (index + place + 1) for place in range(request.output_dimensionality)]}


def _describe(name: str) -> dict[str, Any]:
    model = find_model(name)
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name.replace("-", " ").title(),
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": model.max_output_tokens,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
        "thinking": model.version >= (2, 5),
    }


def read_prompt(request: Request, model: Model, body: Any, *, is_stream: bool) -> Prompt:
    """Return what the model sees of a request."""
    tail = _tail(request.contents)
    parts = [part for content in tail for part in content.parts]
    responses = [response for content in tail for response in responses_of(content)]
    tools = {each.name: each.parameters or each.parameters_json_schema or {} for each in declarations(request)}
    config = request.tool_config.function_calling_config if request.tool_config else None
    allowed = config.allowed_function_names if config and config.allowed_function_names else list(tools)
    generation = request.generation_config
    schema = generation.response_schema or generation.response_json_schema
    blobs = [part.inline_data for response in responses for part in response.parts]
    return Prompt(
        model=model.name,
        text="\n".join(part.text for part in parts if part.text is not None),
        results=tuple(_read_response(response) for response in responses),
        media=tuple(media for each in [*parts, *blobs] if (media := _read_media(each))),
        tools={name: tools[name] for name in allowed},
        forced=tuple(allowed) if config and config.mode == "ANY" else (),
        may_call=config is None or config.mode != "NONE",
        thinks=_thinks(request, model),
        wants_json=generation.response_mime_type == "application/json",
        schema=schema,
        stop_sequences=tuple(generation.stop_sequences),
        is_stream=is_stream,
        body=body,
    )


def _thinks(request: Request, model: Model) -> bool:
    """Return whether it thinks: 3.x always, 2.5 unless that is switched off, its smallest only where it is on."""
    config = request.generation_config.thinking_config
    budget = config.thinking_budget if config else None
    if model.is_3 or budget is not None:
        return budget != 0
    return model.version == (2, 5) and model.size != "flash-lite"


def _tail(contents: list[Content]) -> list[Content]:
    ends = [index for index, content in enumerate(contents[:-1]) if content.role == "model"]
    return [content for content in contents[ends[-1] + 1 if ends else 0 :] if content.role == "user"]


def _read_response(response: FunctionResponse) -> str:
    match response.response:
        case {"error": str() as text, **rest} if not rest:
            return f"Error: {text}"
        case {"output": str() as text, **rest} | {"result": str() as text, **rest} if not rest:
            return text
        case other:
            return json.dumps(other)


def _read_media(each: Part | Blob | None) -> Media | None:
    match each:
        case Part(inline_data=Blob() as blob) | (Blob() as blob):
            kind = blob.mime_type.partition("/")[0]
            size = len(decode_base64(blob.data, is_urlsafe=True) or b"")
            return Media("document" if kind in ("application", "text") else kind, blob.mime_type, size)
        case Part(file_data=file) if file is not None:
            return Media((file.mime_type or "file").partition("/")[0], file.file_uri)
        case _:
            return None
