"""The openai SDK, Responses."""

import json
from collections.abc import Sequence
from typing import Any

import openai
from openai import OpenAI
from openai.types.responses import Response
from typing_extensions import override

from tests.http.callers.view import Answer, Ask, Called, Caller, File, Problem, Result, Tool, Usage, data_url


class ResponsesCaller(Caller):
    name = "openai-responses"
    errors = (openai.APIError,)

    @override
    def connect(self, url: str) -> OpenAI:
        return OpenAI(base_url=f"{url}/v1", api_key=self.key, max_retries=0, http_client=self.http)

    @override
    def say(self, text: str, *files: File) -> list[Any]:
        if not files:
            return [{"role": "user", "content": text}]
        return [{"role": "user", "content": [{"type": "input_text", "text": text}, *map(_write_file, files)]}]

    @override
    def answer_calls(self, calls: Sequence[Called], results: Sequence[Result]) -> list[Any]:
        return [
            {"type": "function_call_output", "call_id": call.id, "output": _write_output(result)}
            for call, result in zip(calls, results, strict=True)
        ]

    @override
    def create(self, client: Any, model: str, turns: list[Any], ask: Ask) -> Answer:
        return _read(client.responses.create(model=model, input=turns, **_write(ask)))

    @override
    def stream(self, client: Any, model: str, turns: list[Any], ask: Ask) -> Answer:
        response = None
        with client.responses.stream(model=model, input=turns, **_write(ask)) as events:
            for event in events:
                response = getattr(event, "response", None)  # get_final_response takes only a completed one
        assert response is not None
        return _read(response)

    @override
    def explain(self, error: BaseException) -> Problem:
        assert isinstance(error, openai.APIError)
        return Problem(type(error).__name__, getattr(error, "status_code", None), error.message)


def _write(ask: Ask) -> dict[str, Any]:
    options: dict[str, Any] = {"extra_body": dict(ask.fields), "store": False}
    if ask.system:
        options["instructions"] = ask.system
    if ask.tools:
        options["tools"] = list(map(_write_tool, ask.tools))
    if ask.must_call:
        options["tool_choice"] = "required" if ask.must_call == "any" else {"type": "function", "name": ask.must_call}
    if ask.effort:
        options["reasoning"] = {"effort": ask.effort, "summary": "auto"}
        options["include"] = ["reasoning.encrypted_content"]
    if ask.max_tokens is not None:
        options["max_output_tokens"] = ask.max_tokens
    if ask.schema is not None:
        options["text"] = {"format": {"type": "json_schema", "name": "answer", "schema": ask.schema, "strict": True}}
    return options


def _write_tool(tool: Tool) -> dict[str, Any]:
    schema = tool.schema or {"type": "object", "properties": {}}
    return {
        "type": "function",
        "name": tool.name,
        "description": f"Runs {tool.name}.",
        "parameters": schema,
        "strict": False,
    }


def _write_file(file: File) -> dict[str, Any]:
    if file.is_image:
        return {"type": "input_image", "image_url": data_url(file), "detail": "auto"}
    return {"type": "input_file", "filename": "paper.pdf", "file_data": data_url(file)}


def _write_output(result: Result) -> Any:
    if not result.files:
        return result.text
    return [{"type": "input_text", "text": result.text}, *map(_write_file, result.files)]


def _read(response: Response) -> Answer:
    usage = response.usage
    thoughts = [item for item in response.output if item.type == "reasoning"]
    messages = [item for item in response.output if item.type == "message"]
    refusals = [part.refusal for item in messages for part in item.content if part.type == "refusal"]
    reason = response.incomplete_details.reason if response.incomplete_details else None
    return Answer(
        text=response.output_text,
        thoughts="\n\n".join(part.text for item in thoughts for part in item.summary),
        calls=[call for item in response.output if (call := _read_call(item))],
        stop=f"{response.status}/{reason}" if reason else str(response.status),
        refusal="".join(refusals),
        usage=Usage(
            usage.input_tokens if usage else None,
            usage.input_tokens_details.cached_tokens if usage else None,
            usage.output_tokens if usage else None,
            usage.output_tokens_details.reasoning_tokens if usage else None,
        ),
        turn=list(response.output),
        bare=[bare for item in response.output for bare in _strip(item)],
        raw=response,
    )


def _read_call(item: Any) -> Called | None:
    match item.type:
        case "function_call":
            return Called(item.name, json.loads(item.arguments), item.call_id)
        case "custom_tool_call":
            return Called(item.name, item.input, item.call_id)
        case _:
            return None


def _strip(item: Any) -> list[dict[str, Any]]:
    match item.type:
        case "message":
            return [{"role": "assistant", "content": "".join(getattr(part, "text", "") for part in item.content)}]
        case "function_call":
            names = ("type", "call_id", "name", "arguments")
            return [{name: getattr(item, name) for name in names}]
        case _:
            return []
