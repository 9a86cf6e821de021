"""What upstreams answer that is no answer, and what callers are to make of it."""

import json
from typing import Any, NamedTuple

from tests.http.matrix import FLASH, GPT_5, LOCAL, OPUS, Cell, Stage
from tests.support import Reply
from tests.vendors.scene import RETRY_AFTER_S

CELLS = (LOCAL, GPT_5, OPUS, FLASH)
"""One for each format that an upstream speaks."""
KEY = "sk-upstream"
LEAKS = {
    "openai-organization": "leak-org",
    "openai-project": "leak-project",
    "anthropic-organization-id": "leak-org",
    "x-request-id": "leak-id",
    "request-id": "leak-id",
    "cf-ray": "leak-ray",
    "set-cookie": "leak=1",
    "x-ratelimit-remaining-tokens": "1234567",
    "anthropic-ratelimit-tokens-remaining": "1234567",
}
"""What a vendor says of itself and of our account."""


def refusal(cell: Cell, status: int, message: str, code: str = "foreign_code") -> Reply:
    """Return an error as the vendor of *cell* words it."""
    error: dict[str, Any] = {"type": "foreign_type", "message": message}
    match cell.format:
        case "anthropic":
            body: dict[str, Any] = {"type": "error", "error": error, "request_id": "leak-id"}
        case "gemini":
            error = {"code": status, "message": message, "status": "FOREIGN_STATUS"}
            if status in (429, 503, 529):
                retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{RETRY_AFTER_S}s"}
                error["details"] = [retry, {"@type": "type.googleapis.com/google.rpc.Help", "links": "leak"}]
            body = {"error": error}
        case _:
            body = {"error": {**error, "param": None, "code": code}}
    is_told = status in (429, 503, 529) and cell.format != "gemini"
    headers = LEAKS | ({"retry-after": str(RETRY_AFTER_S)} if is_told else {})
    return Reply(json.dumps(body).encode(), status, headers=headers)


def script(stage: Stage, cell: Cell, reply: Reply) -> None:
    stage.expects_refusals = True
    stage.upstreams[cell.upstream].respond(lambda received: reply)


def read_error(stage: Stage, name: str) -> dict[str, Any]:
    """Return the error object of the last answer, which has the shape of the caller's format and no other."""
    body = json.loads(stage.callers[name].received)
    if name == "anthropic":
        assert body.keys() == {"type", "error", "request_id"}
        assert body["type"] == "error"
        assert body["error"].keys() <= {"type", "message", "details"}
    elif name == "gemini":
        assert body.keys() == {"error"}
        assert body["error"].keys() <= {"code", "message", "status", "details"}
    else:
        assert body.keys() == {"error"}
        assert body["error"].keys() == {"type", "message", "param", "code"}
    error: dict[str, Any] = body["error"]
    return error


class Expected(NamedTuple):
    status: int
    openai: str
    """Class of the exception."""
    openai_type: str
    anthropic: str
    anthropic_type: str
    gemini: str
    """Status word."""
    gemini_status: int = 0
    """Where it is another."""

    def problem(self, name: str) -> tuple[str, int, str]:
        """Return class, status, and the format's word for it."""
        match name:
            case "anthropic":
                return self.anthropic, self.status, self.anthropic_type
            case "gemini":
                status = self.gemini_status or self.status
                return "ClientError" if status < 500 else "ServerError", status, self.gemini
            case _:
                return self.openai, self.status, self.openai_type


INVALID = "invalid_request_error"
EXPECTED = {
    400: Expected(400, "BadRequestError", INVALID, "BadRequestError", INVALID, "INVALID_ARGUMENT"),
    401: Expected(502, "InternalServerError", "server_error", "InternalServerError", "api_error", "INTERNAL"),
    402: Expected(
        402, "APIStatusError", "insufficient_quota", "PaymentRequiredError", "billing_error", "RESOURCE_EXHAUSTED", 429
    ),
    403: Expected(
        403,
        "PermissionDeniedError",
        "permission_error",
        "PermissionDeniedError",
        "permission_error",
        "PERMISSION_DENIED",
    ),
    404: Expected(404, "NotFoundError", INVALID, "NotFoundError", "not_found_error", "NOT_FOUND"),
    408: Expected(
        504, "InternalServerError", "server_error", "GatewayTimeoutError", "timeout_error", "DEADLINE_EXCEEDED"
    ),
    409: Expected(409, "ConflictError", INVALID, "ConflictError", "conflict_error", "ABORTED"),
    413: Expected(413, "APIStatusError", INVALID, "ContentTooLargeError", "request_too_large", "INVALID_ARGUMENT"),
    422: Expected(400, "BadRequestError", INVALID, "BadRequestError", INVALID, "INVALID_ARGUMENT"),
    429: Expected(
        429, "RateLimitError", "rate_limit_error", "RateLimitError", "rate_limit_error", "RESOURCE_EXHAUSTED"
    ),
    500: Expected(500, "InternalServerError", "server_error", "InternalServerError", "api_error", "INTERNAL"),
    503: Expected(
        503, "InternalServerError", "server_error", "ServiceUnavailableError", "overloaded_error", "UNAVAILABLE"
    ),
    504: Expected(
        504, "InternalServerError", "server_error", "GatewayTimeoutError", "timeout_error", "DEADLINE_EXCEEDED"
    ),
    529: Expected(
        503, "InternalServerError", "server_error", "ServiceUnavailableError", "overloaded_error", "UNAVAILABLE"
    ),
}
TYPE_KEYS = {"openai-chat": "type", "openai-responses": "type", "anthropic": "type", "gemini": "status"}


TOO_LONG = {
    LOCAL: "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
    GPT_5: "Your input exceeds the context window of this model. Please adjust your input and try again.",
    OPUS: "prompt is too long: 210000 tokens > 200000 maximum",
    FLASH: "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
}
