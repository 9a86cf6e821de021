"""The google-genai SDK."""

import base64
from collections.abc import Sequence
from typing import Any

from google import genai
from google.genai import errors, types
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

BUDGET_TOKENS = 2048


class GeminiCaller(Caller):
    name = "gemini"
    errors = (errors.APIError,)

    @override
    def connect(self, url: str) -> genai.Client:
        options = types.HttpOptions(base_url=url, httpx_client=self.http)
        return genai.Client(vertexai=False, api_key=self.key, http_options=options)

    @override
    def say(self, text: str, *files: File) -> list[Any]:
        return [types.Content(role="user", parts=[types.Part(text=text), *map(_write_file, files)])]

    @override
    def answer_calls(self, calls: Sequence[Called], results: Sequence[Result]) -> list[Any]:
        parts = [_write_result(call, result) for call, result in zip(calls, results, strict=True)]
        return [types.Content(role="user", parts=parts)]

    @override
    def create(self, client: Any, model: str, turns: list[Any], ask: Ask) -> Answer:
        response = client.models.generate_content(model=model, contents=turns, config=_write(ask, model))
        return _read([response])

    @override
    def stream(self, client: Any, model: str, turns: list[Any], ask: Ask) -> Answer:
        chunks = client.models.generate_content_stream(model=model, contents=turns, config=_write(ask, model))
        return _read(list(chunks))

    @override
    def explain(self, error: BaseException) -> Problem:
        assert isinstance(error, errors.APIError)
        return Problem(type(error).__name__, error.code, str(error.message))


def _write(ask: Ask, model: str) -> types.GenerateContentConfig:
    config = types.GenerateContentConfig(http_options=types.HttpOptions(extra_body=dict(ask.fields)))
    config.automatic_function_calling = types.AutomaticFunctionCallingConfig(disable=True)
    if ask.system:
        config.system_instruction = ask.system
    if ask.tools:
        config.tools = [types.Tool(function_declarations=list(map(_write_tool, ask.tools)))]
    if ask.must_call:
        names = None if ask.must_call == "any" else [ask.must_call]
        calling = types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=names)
        config.tool_config = types.ToolConfig(function_calling_config=calling)
    if ask.effort:
        config.thinking_config = types.ThinkingConfig(include_thoughts=True)
        if thinks_by_budget(model):
            config.thinking_config.thinking_budget = BUDGET_TOKENS
        else:
            config.thinking_config.thinking_level = types.ThinkingLevel(ask.effort.upper())
    config.max_output_tokens = ask.max_tokens
    config.stop_sequences = list(ask.stop) or None
    if ask.schema is not None:
        config.response_mime_type, config.response_json_schema = "application/json", ask.schema
    return config


def _write_tool(tool: Tool) -> types.FunctionDeclaration:
    return types.FunctionDeclaration(
        name=tool.name, description=f"Runs {tool.name}.", parameters_json_schema=tool.schema
    )


def _write_file(file: File) -> types.Part:
    return types.Part(inline_data=types.Blob(mime_type=file.media_type, data=base64.b64decode(file.data)))


def _write_result(call: Called, result: Result) -> types.Part:
    parts = [
        types.FunctionResponsePart(
            inline_data=types.FunctionResponseBlob(mime_type=file.media_type, data=base64.b64decode(file.data))
        )
        for file in result.files
    ]
    response = types.FunctionResponse(
        id=call.id or None,
        name=call.name,
        response={"error" if result.is_error else "output": result.text},
        parts=parts or None,
    )
    return types.Part(function_response=response)


def _read(chunks: list[types.GenerateContentResponse]) -> Answer:
    contents = [
        candidate.content
        for chunk in chunks
        for candidate in chunk.candidates or []
        if candidate.content and candidate.content.parts
    ]
    parts = [part for content in contents for part in content.parts or []]
    finishes = [each for chunk in chunks for each in chunk.candidates or [] if each.finish_reason]
    feedback = [chunk.prompt_feedback for chunk in chunks if chunk.prompt_feedback]
    usages = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    usage = usages[-1] if usages else None
    calls = [part.function_call for part in parts if part.function_call]
    stop = str(finishes[-1].finish_reason.value) if finishes and finishes[-1].finish_reason else ""
    return Answer(
        text="".join(part.text for part in parts if part.text and not part.thought),
        thoughts="".join(part.text for part in parts if part.text and part.thought),
        calls=[Called(call.name or "", call.args or {}, call.id or "") for call in calls],
        stop=stop or (f"blocked/{feedback[0].block_reason}" if feedback else ""),
        refusal=(finishes[-1].finish_message or "") if finishes else "",
        usage=Usage(
            usage.prompt_token_count if usage else None,
            usage.cached_content_token_count if usage else None,
            usage.candidates_token_count if usage else None,
            usage.thoughts_token_count if usage else None,
        ),
        # What the SDK's own chats keep of a stream: the contents of all chunks, one after the other.
        turn=list(contents),
        bare=[types.Content(role="model", parts=[bare for part in parts if (bare := _strip(part))])],
        raw=chunks,
    )


def _strip(part: types.Part) -> types.Part | None:
    if part.function_call:
        return types.Part(function_call=part.function_call)
    return types.Part(text=part.text) if part.text and not part.thought else None
