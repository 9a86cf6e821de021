"""A scripted Anthropic: Messages, token counts, models. No I/O."""

import json
from typing import Any, Final

from typing_extensions import override

from tests.support import Received, Reply
from tests.vendors.anthropic.answers import encode_events, encode_message
from tests.vendors.anthropic.rules import (
    Model,
    check_beta_fields,
    check_nulls,
    check_request,
    check_version,
    find_model,
)
from tests.vendors.anthropic.wire import (
    Adaptive,
    Base64Source,
    Block,
    Document,
    Enabled,
    Forbidden,
    Image,
    Message,
    Named,
    Request,
    Required,
    Text,
    TextSource,
    Tool,
    ToolResult,
)
from tests.vendors.scene import INPUT_TOKENS, Media, Prompt
from tests.vendors.seals import decode_base64
from tests.vendors.vendor import Refused, Vendor, read_struct, retry_after, send_stream

ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
MODELS: Final = ("claude-opus-4-5", "claude-sonnet-4-6", "claude-sonnet-5")
UNKNOWN: Final = "{}: Extra inputs are not permitted"


class AnthropicVendor(Vendor):
    @override
    def answer(self, received: Received) -> Reply:
        headers = received.headers
        if self.key not in (headers.get("x-api-key"), headers.get("authorization", "").removeprefix("Bearer ")):
            raise Refused("invalid x-api-key", status=401)
        check_version(headers.get("anthropic-version"))
        path = received.target.partition("?")[0]
        match received.method, path.removeprefix("/v1/").split("/"):
            case "POST", ["messages"]:
                return self._answer_message(received)
            case "POST", ["messages", "count_tokens"]:
                self._read(received, is_count=True)
                return Reply(json.dumps({"input_tokens": INPUT_TOKENS}).encode())
            case "GET", ["models"]:
                page = {"data": [_describe(name) for name in MODELS], "has_more": False}
                return Reply(json.dumps(page | {"first_id": MODELS[0], "last_id": MODELS[-1]}).encode())
            case "GET", ["models", name]:
                return Reply(json.dumps(_describe(find_model(name).name)).encode())
            case _:
                raise Refused(f"Not found: {received.method} {path}", status=404)

    @override
    def encode_error(self, status: int, message: str, code: str = "") -> Reply:
        error: dict[str, Any] = {"type": ERROR_TYPES.get(status, "api_error"), "message": message}
        if code:
            error["details"] = {"error_code": code, "unsupported": ["thread"]}
        request_id = self.make_id("req_")
        body = {"type": "error", "error": error, "request_id": request_id}
        return Reply(json.dumps(body).encode(), status, headers={"request-id": request_id, **retry_after(status)})

    def _read(self, received: Received, *, is_count: bool) -> tuple[Request, Model, Any]:
        body = self.read_body(received)
        version = received.headers["anthropic-version"]
        if is_count:
            for name in ("max_tokens", "stream", "temperature", "stop_sequences", "metadata"):
                if name in body:
                    raise Refused(UNKNOWN.format(name), f"$.{name}")
            body["max_tokens"] = 64_000
        check_nulls(body)
        check_beta_fields(body, received.headers.get("anthropic-beta"))
        for tool in body.get("tools", []):
            tool.setdefault("type", "custom")
        request = read_struct(body, Request, UNKNOWN)
        request.tools = [read_tool(tool, f"$.tools[{index}]") for index, tool in enumerate(request.tools)]
        return request, check_request(request, version), body

    def _answer_message(self, received: Received) -> Reply:
        request, _, body = self._read(received, is_count=False)
        answer = self.decide(read_prompt(request, body))
        if answer.status != 200:
            return self.encode_error(answer.status, f"The answer is an error {answer.status}, as asked.")
        message = encode_message(request, answer, self.make_id)
        if not request.stream:
            reply = self.send_whole(answer, message)
        else:
            error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
            reply = send_stream(encode_events(message), answer, f"event: error\ndata: {json.dumps(error)}\n\n".encode())
        reply.headers = {"request-id": self.make_id("req_"), **reply.headers}
        return reply


def read_tool(tool: Any, path: str) -> Tool | dict[str, Any]:
    if not isinstance(tool, dict) or tool.get("type") != "custom":
        return dict(tool)
    try:
        return read_struct(tool, Tool, UNKNOWN)
    except Refused as refused:
        raise Refused(f"{refused}", path) from None


def read_prompt(request: Request, body: Any) -> Prompt:
    """Return what the model sees of a request."""
    blocks = [block for message in _tail(request.messages) for block in message.blocks()]
    results = [block for block in blocks if isinstance(block, ToolResult)]
    tools = {tool.name: tool.input_schema for tool in request.tools if isinstance(tool, Tool)}
    choice = request.tool_choice
    config = request.output_config
    schema = config.format.schema if config and config.format else None
    inner = [each for result in results if isinstance(result.content, list) for each in result.content]
    return Prompt(
        model=request.model,
        text="\n".join(block.text for block in blocks if isinstance(block, Text)),
        results=tuple(_read_result(result) for result in results),
        media=tuple(media for block in [*blocks, *inner] if (media := _read_media(block))),
        tools=tools,
        forced=tuple(tools) if isinstance(choice, Required) else (choice.name,) if isinstance(choice, Named) else (),
        may_call=not isinstance(choice, Forbidden),
        is_parallel=isinstance(choice, Forbidden) or choice is None or not choice.disable_parallel_tool_use,
        thinks=_thinks(request),
        wants_json=schema is not None,
        schema=schema,
        stop_sequences=tuple(request.stop_sequences),
        is_stream=request.stream,
        body=body,
    )


def _thinks(request: Request) -> bool:
    if request.thinking is None:
        return find_model(request.model).thinks_by_default
    return isinstance(request.thinking, Adaptive | Enabled)


def _tail(messages: list[Message]) -> list[Message]:
    """Return the user's messages behind the last words of the assistant, or before those that are to be continued."""
    ends = [index for index, message in enumerate(messages[:-1]) if message.role == "assistant"]
    tail = messages[ends[-1] + 1 if ends else 0 :]
    return [message for message in tail if message.role == "user"]


def _read_result(result: ToolResult) -> str:
    parts = [Text(text=result.content)] if isinstance(result.content, str) else result.content
    text = " ".join(part.text for part in parts if isinstance(part, Text))
    return f"Error: {text}" if result.is_error else text


def _read_media(block: Block | object) -> Media | None:
    if not isinstance(block, Image | Document):
        return None
    kind = "image" if isinstance(block, Image) else "document"
    match block.source:
        case Base64Source(media_type=media_type, data=data):
            return Media(kind, media_type, len(decode_base64(data) or b""))
        case TextSource(data=data):
            return Media(kind, "text/plain", len(data.encode()))
        case source:
            return Media(kind, getattr(source, "url", type(source).__name__))


def _describe(name: str) -> dict[str, Any]:
    model = find_model(name)
    return {
        "type": "model",
        "id": name,
        "display_name": name.replace("-", " ").title(),
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": {"status": "active"},
        "max_input_tokens": 200_000,
        "max_tokens": model.max_output_tokens,
        "capabilities": {},
    }
