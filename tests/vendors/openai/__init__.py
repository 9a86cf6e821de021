"""A scripted OpenAI: chat completions, Responses, token counts, embeddings, models. No I/O."""

import base64
import json
import struct
from typing import Any, Final

from typing_extensions import override

from tests.support import Received, Reply
from tests.vendors.openai import chat, chat_rules, chat_wire, responses, responses_rules, responses_wire
from tests.vendors.openai.rules import Model, find_model
from tests.vendors.scene import INPUT_TOKENS
from tests.vendors.vendor import Refused, Strict, Vendor, read_struct, retry_after, send_stream, words

ERROR_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
ERROR_CODES: Final = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
MODELS: Final = ("gpt-4o", "gpt-5.4", "gpt-5-mini")
OVERLOADED: Final = {
    "message": "The server is overloaded.",
    "type": "server_error",
    "param": None,
    "code": "server_error",
}
COUNTED: Final = words(
    "model input instructions tools tool_choice parallel_tool_calls previous_response_id conversation reasoning "
    "text truncation personality"
)


class _Embeddings(Strict):
    model: str
    input: str | list[str | int | list[int]]
    dimensions: int = 8
    encoding_format: str = "float"
    user: str | None = None


class OpenAIVendor(Vendor):
    is_imitation = False
    """Another server that speaks chat completions, and takes some things that OpenAI does not."""

    @override
    def answer(self, received: Received) -> Reply:
        if received.headers.get("authorization") != f"Bearer {self.key}":
            raise Refused("Incorrect API key provided.", status=401, code="invalid_api_key")
        path = received.target.partition("?")[0]
        match received.method, path.removeprefix("/v1/").split("/"):
            case "POST", ["chat", "completions"]:
                reply = self._answer_chat(received)
            case "POST", ["responses"]:
                reply = self._answer_response(received)
            case "POST", ["responses", "input_tokens"]:
                reply = self._count_tokens(received)
            case "POST", ["embeddings"]:
                reply = self._embed(received)
            case "GET", ["models"]:
                reply = Reply(json.dumps({"object": "list", "data": [_describe(name) for name in MODELS]}).encode())
            case "GET", ["models", name]:
                reply = Reply(json.dumps(_describe(find_model(name).name)).encode())
            case _:
                raise Refused(f"Invalid URL ({received.method} {path})", status=404, code="unknown_url")
        reply.headers = {"x-request-id": self.make_id("req_"), **reply.headers}
        return reply

    @override
    def encode_error(self, status: int, message: str, code: str = "") -> Reply:
        kind = ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        path = message.rpartition("(at ")[2].rstrip(")").removeprefix("$.") if "(at " in message else None
        error = {"message": message, "type": kind, "param": path, "code": code or ERROR_CODES.get(status)}
        headers = {"x-request-id": self.make_id("req_"), **retry_after(status)}
        return Reply(json.dumps({"error": error}).encode(), status, headers=headers)

    def _answer_chat(self, received: Received) -> Reply:
        body = self.read_body(received)
        for name in body.keys() - set(chat_wire.Request.__struct_fields__):
            raise Refused(f"Unrecognized request argument supplied: {name}", f"$.{name}")
        request = read_struct(body, chat_wire.Request, "Unknown parameter: '{}'.")
        model = chat_rules.check_request(request, is_imitation=self.is_imitation)
        answer = self.decide(chat.read_prompt(request, model, body))
        if answer.status != 200:
            return self.encode_error(answer.status, f"The answer is an error {answer.status}, as asked.")
        completion = chat.encode_completion(request, answer, self.make_id)
        if not request.stream:
            return self.send_whole(answer, completion)
        error = b"data: " + json.dumps({"error": OVERLOADED}).encode() + b"\n\n"
        return send_stream(chat.encode_chunks(request, completion), answer, error)

    def _read_response(self, received: Received) -> tuple[responses_wire.Request, Model, Any]:
        body = self.read_body(received)
        if isinstance(body.get("input"), str):
            body["input"] = [{"role": "user", "content": body["input"]}]
        for item in body.get("input") or []:
            if isinstance(item, dict) and "role" in item:
                item.setdefault("type", "message")
        request = read_struct(body, responses_wire.Request, "Unknown parameter: '{}'.")
        return request, responses_rules.check_request(request), body

    def _answer_response(self, received: Received) -> Reply:
        request, model, body = self._read_response(received)
        answer = self.decide(responses.read_prompt(request, model, body))
        if answer.status != 200:
            return self.encode_error(answer.status, f"The answer is an error {answer.status}, as asked.")
        response = responses.encode_response(request, answer, self.make_id)
        if not request.stream:
            return self.send_whole(answer, response)
        failed = {**response, "status": "failed", "output": [], "usage": None}
        failed["error"] = {"code": "server_error", "message": OVERLOADED["message"]}
        event = {"type": "response.failed", "sequence_number": 10_000, "response": failed}
        return send_stream(responses.encode_events(response), answer, responses.encode_event(event))

    def _count_tokens(self, received: Received) -> Reply:
        for name in json.loads(received.body).keys() - COUNTED:
            raise Refused(f"Unknown parameter: '{name}'.", f"$.{name}")
        self._read_response(received)
        return Reply(json.dumps({"object": "response.input_tokens", "input_tokens": INPUT_TOKENS}).encode())

    def _embed(self, received: Received) -> Reply:
        request = read_struct(self.read_body(received), _Embeddings, "Unrecognized request argument supplied: {}")
        if not request.model.startswith("text-embedding-"):
            find_model(request.model)
            raise Refused(f"The model `{request.model}` does not embed.", "$.model", status=403)
        many = isinstance(request.input, list) and not (request.input and isinstance(request.input[0], int))
        inputs = request.input if isinstance(request.input, list) and many else [request.input]
        if not inputs or "" in inputs:
            raise Refused("'$.input' is invalid: it cannot be empty.", "$.input")
        data = [
            {"object": "embedding", "index": index, "embedding": _encode_vector(index, request)}
            for index in range(len(inputs))
        ]
        usage = {"prompt_tokens": INPUT_TOKENS, "total_tokens": INPUT_TOKENS}
        return Reply(json.dumps({"object": "list", "data": data, "model": request.model, "usage": usage}).encode())


def _encode_vector(index: int, request: _Embeddings) -> object:
    vector = [1 / (index + place + 1) for place in range(request.dimensions)]
    if request.encoding_format == "base64":
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return vector


def _describe(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": chat.CREATED, "owned_by": "openai"}
