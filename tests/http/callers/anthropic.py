"""The anthropic SDK."""

from collections.abc import Sequence
from typing import Any

import anthropic
from anthropic import Anthropic
from anthropic.types import Message
from typing_extensions import override

from tests.http.callers.view import (
    Answer,
    Ask,
    Called,
    Caller,
    File,
    Problem,
    Result,
    Tool,
    Usage,
    thinks_by_budget,
)

MAX_TOKENS = 4096
BUDGET_TOKENS = 2048


class AnthropicCaller(Caller):
    name = "anthropic"
    errors = (anthropic.APIError,)

    @override
    def connect(self, url: str) -> Anthropic:
        return Anthropic(base_url=url, api_key=self.key, max_retries=0, http_client=self.http)

    @override
    def say(self, text: str, *files: File) -> list[Any]:
        if not files:
            return [{"role": "user", "content": text}]
        return [{"role": "user", "content": [*map(_write_file, files), {"type": "text", "text": text}]}]

    @override
    def answer_calls(self, calls: Sequence[Called], results: Sequence[Result]) -> list[Any]:
        blocks = [_write_result(call, result) for call, result in zip(calls, results, strict=True)]
        return [{"role": "user", "content": blocks}]

    @override
    def create(self, client: Any, model: str, turns: list[Any], ask: Ask) -> Answer:
        return _read(client.messages.create(model=model, messages=turns, **_write(ask, model)))

    @override
    def stream(self, client: Any, model: str, turns: list[Any], ask: Ask) -> Answer:
        with client.messages.stream(model=model, messages=turns, **_write(ask, model)) as events:
            return _read(events.get_final_message())

    @override
    def explain(self, error: BaseException) -> Problem:
        assert isinstance(error, anthropic.APIError)
        return Problem(type(error).__name__, getattr(error, "status_code", None), error.message)


def _write(ask: Ask, model: str) -> dict[str, Any]:
    options: dict[str, Any] = {"extra_body": dict(ask.fields), "max_tokens": ask.max_tokens or MAX_TOKENS}
    if ask.system:
        options["system"] = ask.system
    if ask.tools:
        options["tools"] = list(map(_write_tool, ask.tools))
    if ask.must_call:
        options["tool_choice"] = {"type": "any"} if ask.must_call == "any" else {"type": "tool", "name": ask.must_call}
    if ask.stop:
        options["stop_sequences"] = list(ask.stop)
    config: dict[str, Any] = {}
    if ask.effort and thinks_by_budget(model):
        options["thinking"] = {"type": "enabled", "budget_tokens": BUDGET_TOKENS}
    elif ask.effort:
        options["thinking"] = {"type": "adaptive", "display": "summarized"}
        config["effort"] = ask.effort
    if ask.schema is not None:
        config["format"] = {"type": "json_schema", "schema": ask.schema}
    return options | ({"output_config": config} if config else {})


def _write_tool(tool: Tool) -> dict[str, Any]:
    schema = tool.schema or {"type": "object", "properties": {}}
    return {"name": tool.name, "description": f"Runs {tool.name}.", "input_schema": schema}


def _write_file(file: File) -> dict[str, Any]:
    source = {"type": "base64", "media_type": file.media_type, "data": file.data}
    return {"type": "image" if file.is_image else "document", "source": source}


def _write_result(call: Called, result: Result) -> dict[str, Any]:
    content: Any = result.text
    if result.files:
        content = [{"type": "text", "text": result.text}, *map(_write_file, result.files)]
    return {"type": "tool_result", "tool_use_id": call.id, "content": content, "is_error": result.is_error}


def _read(message: Message) -> Answer:
    usage = message.usage
    details = getattr(usage, "output_tokens_details", None)
    return Answer(
        text="".join(block.text for block in message.content if block.type == "text"),
        thoughts="".join(block.thinking for block in message.content if block.type == "thinking"),
        calls=[Called(block.name, block.input, block.id) for block in message.content if block.type == "tool_use"],
        stop=str(message.stop_reason),
        refusal=(message.stop_details.explanation or "") if message.stop_details else "",
        usage=Usage(
            usage.input_tokens,
            usage.cache_read_input_tokens,
            usage.output_tokens,
            details.thinking_tokens if details else None,
        ),
        turn=[{"role": "assistant", "content": message.content}],
        bare=[{"role": "assistant", "content": [bare for block in message.content if (bare := _strip(block))]}],
        raw=message,
    )


def _strip(block: Any) -> dict[str, Any] | None:
    match block.type:
        case "text":
            return {"type": "text", "text": block.text}
        case "tool_use":
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": block.input}
        case _:
            return None
