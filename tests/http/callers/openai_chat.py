"""The openai SDK, chat completions."""

import json
from collections.abc import Sequence
from typing import Any

import openai
from openai import OpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionMessage
from typing_extensions import override

from tests.http.callers.view import Answer, Ask, Called, Caller, File, Problem, Result, Tool, Usage, data_url


class ChatCaller(Caller):
    name = "openai-chat"
    errors = (openai.APIError,)

    @override
    def connect(self, url: str) -> OpenAI:
        return OpenAI(base_url=f"{url}/v1", api_key=self.key, max_retries=0, http_client=self.http)

    @override
    def say(self, text: str, *files: File) -> list[Any]:
        if not files:
            return [{"role": "user", "content": text}]
        return [{"role": "user", "content": [{"type": "text", "text": text}, *map(_write_file, files)]}]

    @override
    def answer_calls(self, calls: Sequence[Called], results: Sequence[Result]) -> list[Any]:
        turns: list[Any] = [
            {"role": "tool", "tool_call_id": call.id, "content": result.text}
            for call, result in zip(calls, results, strict=True)
        ]
        files = [file for result in results for file in result.files]
        return turns + (self.say("See what it holds.", *files) if files else [])

    @override
    def create(self, client: Any, model: str, turns: list[Any], ask: Ask) -> Answer:
        return _read(client.chat.completions.create(model=model, messages=_begin(turns, ask), **_write(ask)))

    @override
    def stream(self, client: Any, model: str, turns: list[Any], ask: Ask) -> Answer:
        options = {"stream": True, "stream_options": {"include_usage": True}, **_write(ask)}
        state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
        for chunk in client.chat.completions.create(model=model, messages=_begin(turns, ask), **options):
            for _ in state.handle_chunk(chunk):
                pass
        # What `stream` returns, and for an end by length or filter raises.
        completion: dict[str, Any] = state.current_completion_snapshot.to_dict()
        _leave_out_parsed(completion)
        return _read(ChatCompletion.construct(None, **completion))

    @override
    def explain(self, error: BaseException) -> Problem:
        assert isinstance(error, openai.APIError)
        return Problem(type(error).__name__, getattr(error, "status_code", None), error.message)


def _leave_out_parsed(completion: Any) -> None:
    """Take out what the SDK has put in, and its users have to take out before they send it back."""
    message = completion["choices"][0]["message"]
    message.pop("parsed", None)
    for call in message.get("tool_calls") or []:
        call.pop("index", None)
        call.get("function", {}).pop("parsed_arguments", None)


def _begin(turns: list[Any], ask: Ask) -> list[Any]:
    return [{"role": "system", "content": ask.system}, *turns] if ask.system else turns


def _write(ask: Ask) -> dict[str, Any]:
    options: dict[str, Any] = {"extra_body": dict(ask.fields)}
    if ask.tools:
        options["tools"] = list(map(_write_tool, ask.tools))
    if ask.must_call:
        named = {"type": "function", "function": {"name": ask.must_call}}
        options["tool_choice"] = "required" if ask.must_call == "any" else named
    if ask.effort:
        options["reasoning_effort"] = ask.effort
    if ask.max_tokens is not None:
        options["max_completion_tokens"] = ask.max_tokens
    if ask.stop:
        options["stop"] = list(ask.stop)
    if ask.schema is not None:
        schema = {"name": "answer", "schema": ask.schema, "strict": True}
        options["response_format"] = {"type": "json_schema", "json_schema": schema}
    return options


def _write_tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": f"Runs {tool.name}."}
    if tool.schema is not None:
        function["parameters"] = tool.schema
    return {"type": "function", "function": function}


def _write_file(file: File) -> dict[str, Any]:
    if file.is_image:
        return {"type": "image_url", "image_url": {"url": data_url(file)}}
    return {"type": "file", "file": {"filename": "paper.pdf", "file_data": data_url(file)}}


def _read(completion: ChatCompletion) -> Answer:
    choice, usage = completion.choices[0], completion.usage
    message = choice.message
    calls = [call for call in message.tool_calls or [] if call.type == "function"]
    details = usage.prompt_tokens_details if usage else None
    written = usage.completion_tokens_details if usage else None
    return Answer(
        text=message.content or "",
        thoughts=getattr(message, "reasoning_content", None) or "",
        calls=[Called(call.function.name, json.loads(call.function.arguments), call.id) for call in calls],
        stop=choice.finish_reason,
        refusal=message.refusal or "",
        usage=Usage(
            usage.prompt_tokens if usage else None,
            details.cached_tokens if details else None,
            usage.completion_tokens if usage else None,
            written.reasoning_tokens if written else None,
        ),
        turn=[message],
        bare=[_strip(message)],
        raw=completion,
    )


def _strip(message: ChatCompletionMessage) -> dict[str, Any]:
    bare: dict[str, Any] = {"role": "assistant", "content": message.content}
    if message.tool_calls:
        bare["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in message.tool_calls
            if call.type == "function"
        ]
    return bare
