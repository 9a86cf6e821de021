"""The scripted vendors satisfy the official SDKs."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic import AsyncAnthropic
from google import genai
from google.genai import errors as genai_errors
from google.genai import types
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.support import Upstream
from tests.vendors import (
    KEY,
    AnthropicVendor,
    GeminiVendor,
    OpenAIVendor,
    anthropic_vendor,
    gemini_vendor,
    openai_vendor,
)

PNG = base64.b64encode(b"\x89PNG-and-more").decode()
CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NAMES = ("get_weather", "get_time")
ASK_BOTH = 'think, then call get_weather with {"city":"Oslo"} and call get_time'


class City(BaseModel):
    city: str
    degrees: int


# OpenAI


@pytest.fixture
async def openai_sdk(upstream: Upstream) -> AsyncIterator[tuple[AsyncOpenAI, OpenAIVendor]]:
    vendor = openai_vendor()
    upstream.respond(vendor)
    async with AsyncOpenAI(
        base_url=f"{upstream.url}/v1", api_key=KEY, max_retries=0, http_client=httpx2.AsyncClient(trust_env=False)
    ) as client:
        yield client, vendor


CHAT_TOOLS: Any = [{"type": "function", "function": {"name": name, "parameters": CITY}} for name in NAMES]
TOOLS: Any = [{"type": "function", "name": name, "parameters": CITY, "strict": False} for name in NAMES]


async def test_openai_chat_calls_tools_and_quotes_them(openai_sdk: tuple[AsyncOpenAI, OpenAIVendor]) -> None:
    client, vendor = openai_sdk
    messages: list[Any] = [{"role": "user", "content": ASK_BOTH}]

    async with client.chat.completions.stream(
        model="gpt-4o", messages=messages, tools=CHAT_TOOLS, stream_options={"include_usage": True}
    ) as stream:
        first = await stream.get_final_completion()
    message = first.choices[0].message
    messages.append(message.model_dump(include={"role", "content", "tool_calls"}))
    messages[-1]["tool_calls"] = [
        {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": "{}"}}
        for call in message.tool_calls or []
    ]
    messages += [
        {"role": "tool", "tool_call_id": call.id, "content": f"{call.function.name} is fine"}
        for call in message.tool_calls or []
    ]
    second = await client.chat.completions.create(model="gpt-4o", messages=messages, tools=CHAT_TOOLS)

    assert [call.function.name for call in message.tool_calls or []] == list(NAMES)
    assert [call.function.arguments for call in message.tool_calls or []] == ['{"city": "Oslo"}', '{"city": "text"}']
    assert first.usage is not None
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (100, 20)
    assert second.choices[0].message.content == "The tools said: get_weather is fine, get_time is fine"
    assert vendor.refusals == []


async def test_openai_chat_does_what_is_asked(openai_sdk: tuple[AsyncOpenAI, OpenAIVendor]) -> None:
    client, _ = openai_sdk
    image: Any = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}

    async def ask(text: str, **options: Any) -> Any:
        content: Any = [{"type": "text", "text": text}, *options.pop("parts", [])]
        answer = await client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": content}], **options
        )
        return answer.choices

    parsed = await client.chat.completions.parse(
        model="gpt-4o", messages=[{"role": "user", "content": "json"}], response_format=City
    )

    assert (await ask("Hi", parts=[image]))[0].message.content == "You said: Hi I saw an image (image/png, 13 bytes)."
    assert [choice.message.content for choice in await ask("Hi", n=2)] == ["You said: Hi", "You said: Hi (2)"]
    assert (await ask("long"))[0].finish_reason == "length"
    assert (await ask("refuse"))[0].message.refusal == "I cannot help with that."
    assert (await ask("Hi", logprobs=True))[0].logprobs.content[0].logprob == -0.25
    assert parsed.choices[0].message.parsed == City(city="text", degrees=1)


async def test_openai_responses_reason_call_tools_and_quote_them(
    openai_sdk: tuple[AsyncOpenAI, OpenAIVendor],
) -> None:
    client, vendor = openai_sdk
    items: list[Any] = [{"role": "user", "content": ASK_BOTH}]
    options: Any = {"model": "gpt-5.4", "tools": TOOLS, "store": False, "reasoning": {"summary": "auto"}}

    async with client.responses.stream(input=items, **options) as stream:
        first = await stream.get_final_response()
    items += [item.model_dump(exclude_none=True) for item in first.output]
    for item in items:
        item.pop("parsed_arguments", None)
    items += [
        {"type": "function_call_output", "call_id": item.call_id, "output": [_input_image(), _input_text(item.name)]}
        for item in first.output
        if item.type == "function_call"
    ]
    second = await client.responses.create(input=items, **options)

    assert [item.type for item in first.output] == ["reasoning", "function_call", "function_call"]
    assert first.usage is not None
    assert first.usage.output_tokens_details.reasoning_tokens == 5
    seen = " I saw an image (image/png, 13 bytes)." * 2
    assert second.output_text == f"The tools said: get_weather, get_time{seen}"
    assert vendor.refusals == []


def _input_image() -> dict[str, str]:
    return {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"}


def _input_text(text: str) -> dict[str, str]:
    return {"type": "input_text", "text": text}


async def test_openai_responses_do_what_is_asked(openai_sdk: tuple[AsyncOpenAI, OpenAIVendor]) -> None:
    client, _ = openai_sdk

    parsed = await client.responses.parse(model="gpt-5.4", input="json", text_format=City)
    short = await client.responses.create(model="gpt-5.4", input="long")
    async with client.responses.stream(model="gpt-5.4", input="refuse") as stream:
        refused = await stream.get_final_response()
    counted = await client.responses.input_tokens.count(model="gpt-5.4", input="Hi")
    embedded = await client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])

    assert parsed.output_parsed == City(city="text", degrees=1)
    assert (short.status, short.incomplete_details and short.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )
    assert refused.output[-1].model_dump()["content"][0]["refusal"] == "I cannot help with that."
    assert counted.input_tokens == 100
    assert [len(each.embedding) for each in embedded.data] == [8, 8]
    assert [model.id async for model in client.models.list()] == ["gpt-4o", "gpt-5.4", "gpt-5-mini"]


async def test_openai_fails_as_asked(openai_sdk: tuple[AsyncOpenAI, OpenAIVendor]) -> None:
    client, _ = openai_sdk

    async def stream_chat(text: str) -> str:
        seen = ""
        chunks = await client.chat.completions.create(
            model="gpt-4o", stream=True, messages=[{"role": "user", "content": text}]
        )
        async for chunk in chunks:
            seen += chunk.choices[0].delta.content or ""
        return seen

    with pytest.raises(openai.RateLimitError) as limited:
        await client.responses.create(model="gpt-5.4", input="error 429")
    assert limited.value.response.headers["retry-after"] == "7"
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "error 500"}])
    with pytest.raises(openai.APIError, match="overloaded"):
        await stream_chat("error mid-stream")
    with pytest.raises((openai.APIConnectionError, httpx2.HTTPError)):
        await stream_chat("cut")
    events = [
        event.type
        async for event in await client.responses.create(model="gpt-5.4", input="error mid-stream", stream=True)
    ]
    assert "response.output_text.delta" in events
    assert events[-1] == "response.failed"


# Anthropic


@pytest.fixture
async def anthropic_sdk(upstream: Upstream) -> AsyncIterator[tuple[AsyncAnthropic, AnthropicVendor]]:
    vendor = anthropic_vendor()
    upstream.respond(vendor)
    async with AsyncAnthropic(
        base_url=upstream.url, api_key=KEY, max_retries=0, http_client=httpx2.AsyncClient(trust_env=False)
    ) as client:
        yield client, vendor


CLAUDE_TOOLS: Any = [{"name": name, "input_schema": CITY} for name in NAMES]


@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        ("claude-opus-4-5", {"type": "enabled", "budget_tokens": 1024}),
        ("claude-sonnet-5", {"type": "adaptive"}),
        ("claude-sonnet-5", {"type": "adaptive", "display": "summarized"}),
    ],
)
async def test_anthropic_thinks_calls_tools_and_quotes_them(
    anthropic_sdk: tuple[AsyncAnthropic, AnthropicVendor], model: str, thinking: Any
) -> None:
    client, vendor = anthropic_sdk
    messages: list[Any] = [{"role": "user", "content": ASK_BOTH}]
    options: Any = {"model": model, "max_tokens": 2000, "thinking": thinking, "tools": CLAUDE_TOOLS}

    async with client.messages.stream(messages=messages, **options) as stream:
        first = await stream.get_final_message()
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": block.name}, _image()]}
        for block in first.content
        if block.type == "tool_use"
    ]
    content = [block.model_dump(exclude_none=True) for block in first.content]
    messages += [{"role": "assistant", "content": content}, {"role": "user", "content": results}]
    second = await client.messages.create(messages=messages, **options)

    assert [block.type for block in first.content] == ["thinking", "tool_use", "tool_use"]
    assert bool(content[0]["thinking"]) is (thinking != {"type": "adaptive"})
    assert (first.usage.input_tokens, first.usage.cache_read_input_tokens, first.usage.output_tokens) == (60, 40, 20)
    seen = " I saw an image (image/png, 13 bytes)." * 2
    assert second.content[0].model_dump()["text"] == f"The tools said: get_weather, get_time{seen}"
    assert vendor.refusals == []


def _image() -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}


async def test_anthropic_does_what_is_asked(anthropic_sdk: tuple[AsyncAnthropic, AnthropicVendor]) -> None:
    client, _ = anthropic_sdk

    async def ask(text: str, **options: Any) -> anthropic.types.Message:
        options = {"max_tokens": 100, **options}
        answer: anthropic.types.Message = await client.messages.create(
            model="claude-sonnet-5", messages=[{"role": "user", "content": text}], **options
        )
        return answer

    parsed = await client.messages.parse(
        model="claude-sonnet-5", max_tokens=9, messages=[{"role": "user", "content": "json"}], output_format=City
    )

    assert parsed.parsed_output == City(city="text", degrees=1)
    assert [block.type for block in (await ask("think redacted")).content] == ["redacted_thinking", "text"]
    assert (await ask("refuse")).stop_reason == "refusal"
    assert (await ask("long")).stop_reason == "max_tokens"
    assert (await ask("stop sequence", stop_sequences=["END"])).stop_sequence == "END"
    assert (await ask("Hi", max_tokens=0)).content == []
    counted = await client.messages.count_tokens(model="claude-sonnet-5", messages=[{"role": "user", "content": "Hi"}])
    assert counted.input_tokens == 100
    assert "claude-opus-4-5" in [model.id async for model in client.models.list()]


async def test_anthropic_fails_as_asked(anthropic_sdk: tuple[AsyncAnthropic, AnthropicVendor]) -> None:
    client, _ = anthropic_sdk

    async def stream(text: str) -> str:
        message: Any = {"role": "user", "content": text}
        async with client.messages.stream(model="claude-sonnet-5", max_tokens=9, messages=[message]) as stream:
            return await stream.get_final_text()

    with pytest.raises(anthropic.APIStatusError) as overloaded:
        await stream("error 529")
    assert overloaded.value.response.headers["retry-after"] == "7"
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        await stream("error mid-stream")
    with pytest.raises((anthropic.APIConnectionError, httpx2.HTTPError)):
        await stream("cut")


# Gemini


@pytest.fixture
async def gemini_sdk(upstream: Upstream) -> AsyncIterator[tuple[Any, GeminiVendor]]:
    vendor = gemini_vendor()
    upstream.respond(vendor)
    async with httpx2.AsyncClient(trust_env=False) as http:
        options: Any = {"base_url": upstream.url, "httpx_async_client": http}
        client = genai.Client(api_key=KEY, http_options=types.HttpOptions(**options))
        yield client.aio, vendor
        client.close()
        await client.aio.aclose()


DECLARATIONS: Any = [types.FunctionDeclaration(name=name, parameters_json_schema=CITY) for name in NAMES]


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3-pro-preview"])
async def test_gemini_thinks_calls_tools_and_quotes_them(gemini_sdk: tuple[Any, GeminiVendor], model: str) -> None:
    client, vendor = gemini_sdk
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=DECLARATIONS)],
        thinking_config=types.ThinkingConfig(include_thoughts=True),
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    contents = [types.Content(role="user", parts=[types.Part(text=ASK_BOTH)])]

    parts: list[types.Part] = []
    async for chunk in await client.models.generate_content_stream(model=model, contents=contents, config=config):
        parts += chunk.candidates[0].content.parts
    calls = [part.function_call for part in parts if part.function_call]
    contents.append(types.Content(role="model", parts=[part for part in parts if part.text != ""]))
    responses = [
        types.Part(function_response=types.FunctionResponse(id=call.id, name=call.name, response={"output": call.name}))
        for call in calls
    ]
    contents.append(types.Content(role="user", parts=responses))
    second = await client.models.generate_content(model=model, contents=contents, config=config)

    assert "".join(part.text for part in parts if part.thought and part.text) == f"Thinking about: {ASK_BOTH}"
    assert [call.name for call in calls] == list(NAMES)
    assert all(call.id is not None for call in calls) is model.startswith("gemini-3")
    assert second.text == "The tools said: get_weather, get_time"
    assert second.usage_metadata.total_token_count == 120
    assert vendor.refusals == []


async def test_gemini_does_what_is_asked(gemini_sdk: tuple[Any, GeminiVendor]) -> None:
    client, vendor = gemini_sdk

    async def ask(text: str, **config: Any) -> types.GenerateContentResponse:
        answer: types.GenerateContentResponse = await client.models.generate_content(
            model="gemini-2.5-flash", contents=text, config=types.GenerateContentConfig(**config)
        )
        return answer

    image = types.Part.from_bytes(data=b"\xff\xfe\xfd", mime_type="image/png")
    seen = await client.models.generate_content(model="gemini-2.5-flash", contents=["Hi", image])
    parsed = await ask("json", response_mime_type="application/json", response_schema=City)
    two = await ask("Hi", candidate_count=2)
    embedded = await client.models.embed_content(model="gemini-embedding-001", contents=["a", "b"])
    counted = await client.models.count_tokens(model="gemini-2.5-flash", contents="Hi")

    assert seen.text == "You said: Hi I saw an image (image/png, 3 bytes)."
    assert parsed.parsed == City(city="text", degrees=1)
    assert len(two.candidates or []) == 2
    assert _finish(await ask("refuse")) == "SAFETY"
    assert _finish(await ask("long")) == "MAX_TOKENS"
    assert len(embedded.embeddings) == 2
    assert counted.total_tokens == 100
    assert vendor.refusals == []


def _finish(response: types.GenerateContentResponse) -> str:
    assert response.candidates
    assert response.candidates[0].finish_reason
    return str(response.candidates[0].finish_reason.value)


async def test_gemini_fails_as_asked(gemini_sdk: tuple[Any, GeminiVendor]) -> None:
    client, _ = gemini_sdk

    async def stream(text: str) -> None:
        async for _ in await client.models.generate_content_stream(model="gemini-2.5-flash", contents=text):
            await asyncio.sleep(0)

    with pytest.raises(genai_errors.ClientError) as limited:
        await stream("error 429")
    assert limited.value.details["error"]["details"][0]["retryDelay"] == "7s"
    with pytest.raises(genai_errors.APIError, match="overloaded"):
        await stream("error mid-stream")
    with pytest.raises(Exception, match=r"(?i)payload|closed|connection|disconnect"):
        await stream("cut")
