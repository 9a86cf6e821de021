"""The official openai SDK as the caller, sync and async: https://github.com/openai/openai-python."""

import io
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

import msgspec
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionFunctionToolParam, ChatCompletionMessageParam
from openai.types.responses import FunctionToolParam, Response, ResponseInputItemParam

from tests.answers import (
    ASK_BOTH,
    ASK_CITY,
    BREAKS,
    CALLER_KEY,
    HELLO,
    KEY_SECTION,
    OSLO,
    RESULTS,
    USED_BOTH,
    Break,
    City,
    Stage,
    Tape,
    Threaded,
    assert_unseen,
    break_off,
    cut,
    encode,
    event,
    named_event,
    read_into,
    refusal,
    set_stage,
    stream,
    whole,
)
from tests.conftest import StartGateway
from tests.support import Reply, Upstream, upstream_section

Connect = Callable[..., AsyncOpenAI]


@pytest.fixture
def tape() -> Tape:
    return Tape()


@pytest.fixture(params=["sync", "async"])
async def connect(request: pytest.FixtureRequest, tape: Tape) -> AsyncIterator[Connect]:
    """Make clients: ``connect(url)``."""
    clients: list[AsyncOpenAI] = []

    def make(url: str, **options: Any) -> AsyncOpenAI:
        options = {"base_url": f"{url}/v1", "api_key": CALLER_KEY, "max_retries": 0, **options}
        if request.param == "async":
            clients.append(AsyncOpenAI(http_client=tape.async_client(), **options))
        else:
            clients.append(cast("AsyncOpenAI", Threaded(lambda: OpenAI(http_client=tape.client(), **options))))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


@pytest.fixture(params=["demo", "upstream"])
async def stage(request: pytest.FixtureRequest, upstream: Upstream, gateway: StartGateway, tape: Tape) -> Stage:
    return await set_stage(request.param, "openai", upstream, gateway, tape)


# What is asked, and what the scripted upstream answers

HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]
CITY_SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
ARGUMENTS = '{"city":"Oslo"}'
CHAT_TOOLS: list[ChatCompletionFunctionToolParam] = [
    {"type": "function", "function": {"name": name, "strict": True, "parameters": CITY_SCHEMA}} for name in RESULTS
]
TOOLS: list[FunctionToolParam] = [
    {"type": "function", "name": name, "strict": True, "parameters": CITY_SCHEMA} for name in RESULTS
]


CHAT_USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 12,
    "total_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 2, "accepted_prediction_tokens": 0},
}
CALLS = [
    {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": ARGUMENTS}} for name in RESULTS
]


def chat(text: str | None = None, calls: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return a completion as OpenAI writes it."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    if calls:
        message["tool_calls"] = calls
    finish = "tool_calls" if calls else "stop"
    return {
        "id": "chatcmpl-CkQ",
        "object": "chat.completion",
        "created": 1767225600,
        "model": "gpt-5-mini-2025-08-07",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": CHAT_USAGE,
        "service_tier": "default",
        "system_fingerprint": None,
    }


def chat_stream(text: str | None = None, calls: Sequence[dict[str, Any]] = ()) -> Reply:
    """Return the same completion in pieces, with the padding that OpenAI adds to each."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None if calls else "", "refusal": None}]
    deltas += [{"content": piece} for piece in (cut(text) if text else ())]
    for index, call in enumerate(calls):
        function = call["function"]
        deltas.append({"tool_calls": [{"index": index, **call, "function": {**function, "arguments": ""}}]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in cut(function["arguments"])
        ]
    head = {key: value for key, value in chat().items() if key not in ("choices", "usage")}
    head |= {"object": "chat.completion.chunk", "obfuscation": "Gx3"}
    finish = {"index": 0, "delta": {}, "finish_reason": "tool_calls" if calls else "stop"}
    choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None} for delta in deltas]
    return stream(
        *(event({**head, "choices": [choice], "usage": None}) for choice in [*choices, finish]),
        event({**head, "choices": [], "usage": CHAT_USAGE}),
        b"data: [DONE]\n\n",
    )


REASONING = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAAAAB"}
RESPONSE_CALLS = [
    {
        "id": f"fc_{name}",
        "type": "function_call",
        "status": "completed",
        "arguments": ARGUMENTS,
        "call_id": f"call_{name}",
        "name": name,
    }
    for name in RESULTS
]


def message_item(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    return {"id": "msg_1", "type": "message", "status": "completed", "content": [part], "role": "assistant"}


def response(*items: dict[str, Any]) -> dict[str, Any]:
    """Return a response as OpenAI writes it."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1767225600,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": "gpt-5-mini-2025-08-07",
        "output": [REASONING, *items],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": "medium", "summary": None},
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 9,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens": 12,
            "output_tokens_details": {"reasoning_tokens": 2},
            "total_tokens": 21,
        },
        "user": None,
        "metadata": {},
    }


def response_stream(*items: dict[str, Any]) -> Reply:
    """Return the same response in pieces."""
    complete = response(*items)
    begun = {**complete, "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [
        {"type": f"response.{step}", "response": begun} for step in ("created", "in_progress")
    ]
    for index, item in enumerate(complete["output"]):
        place = {"item_id": item["id"], "output_index": index}
        opened, pieces = take_apart(item)
        events.append({"type": "response.output_item.added", "output_index": index, "item": {**item, **opened}})
        events += [{"type": f"response.{kind}", **place, **fields} for kind, fields in pieces]
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": "response.completed", "response": complete})
    return stream(*(named_event({**each, "sequence_number": number}) for number, each in enumerate(events)))


def take_apart(item: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """Return how an item differs when it is opened, and the events that fill it."""
    if item["type"] == "function_call":
        deltas = [("function_call_arguments.delta", {"delta": piece}) for piece in cut(item["arguments"])]
        done = {"arguments": item["arguments"], "name": item["name"]}
        return {"status": "in_progress", "arguments": ""}, [*deltas, ("function_call_arguments.done", done)]
    if item["type"] != "message":
        return {}, []
    part, at = item["content"][0], {"content_index": 0}
    return {"status": "in_progress", "content": []}, [
        ("content_part.added", {**at, "part": {**part, "text": ""}}),
        *(("output_text.delta", {**at, "delta": piece, "logprobs": []}) for piece in cut(part["text"])),
        ("output_text.done", {**at, "text": part["text"], "logprobs": []}),
        ("content_part.done", {**at, "part": part}),
    ]


# Chat


async def test_a_chat_is_answered_whole(stage: Stage, connect: Connect) -> None:
    stage.script(whole(chat(HELLO)))

    completion = await connect(stage.url).chat.completions.create(model="m", messages=HI)

    assert completion.choices[0].message.content == HELLO
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    stage.assert_bytes_passed_untouched()


async def test_a_chat_is_streamed(stage: Stage, connect: Connect) -> None:
    stage.script(chat_stream(HELLO))

    chunks = [
        chunk
        async for chunk in await connect(stage.url).chat.completions.create(
            model="m", messages=HI, stream=True, stream_options={"include_usage": True}
        )
    ]

    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == HELLO
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"
    assert chunks[-1].usage
    stage.assert_bytes_passed_untouched()


async def create_chat(client: AsyncOpenAI, messages: list[ChatCompletionMessageParam]) -> ChatCompletion:
    return await client.chat.completions.create(model="m", messages=messages, tools=CHAT_TOOLS)


async def stream_chat(client: AsyncOpenAI, messages: list[ChatCompletionMessageParam]) -> ChatCompletion:
    async with client.chat.completions.stream(
        model="m", messages=messages, tools=CHAT_TOOLS, stream_options={"include_usage": True}
    ) as events:
        return await events.get_final_completion()


@pytest.mark.parametrize(
    ("ask", "replies"),
    [
        (create_chat, [whole(chat(calls=CALLS)), whole(chat(USED_BOTH))]),
        (stream_chat, [chat_stream(calls=CALLS), chat_stream(USED_BOTH)]),
    ],
)
async def test_a_chat_calls_two_tools_and_uses_what_they_say(
    ask: Callable[[AsyncOpenAI, list[ChatCompletionMessageParam]], Awaitable[ChatCompletion]],
    replies: list[Reply],
    stage: Stage,
    connect: Connect,
) -> None:
    stage.script(*replies)
    client = connect(stage.url)
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": ASK_BOTH}]

    message = (await ask(client, messages)).choices[0].message
    calls = [call for call in message.tool_calls or [] if call.type == "function"]
    messages.append(cast("ChatCompletionMessageParam", message))
    messages += [{"role": "tool", "tool_call_id": call.id, "content": RESULTS[call.function.name]} for call in calls]
    answer = await ask(client, messages)

    assert [(call.function.name, call.function.arguments) for call in calls] == [
        ("get_weather", ARGUMENTS),
        ("get_time", ARGUMENTS),
    ]
    assert len({call.id for call in calls}) == 2
    assert answer.choices[0].message.content == USED_BOTH
    stage.assert_bytes_passed_untouched()


async def parse_chat(client: AsyncOpenAI) -> City | None:
    completion = await client.chat.completions.parse(
        model="m", messages=[{"role": "user", "content": ASK_CITY}], response_format=City
    )
    return completion.choices[0].message.parsed


async def parse_chat_stream(client: AsyncOpenAI) -> City | None:
    async with client.chat.completions.stream(
        model="m",
        messages=[{"role": "user", "content": ASK_CITY}],
        response_format=City,
        stream_options={"include_usage": True},
    ) as events:
        return (await events.get_final_completion()).choices[0].message.parsed


async def parse_response(client: AsyncOpenAI) -> City | None:
    return (await client.responses.parse(model="m", input=ASK_CITY, text_format=City)).output_parsed


async def parse_response_stream(client: AsyncOpenAI) -> City | None:
    async with client.responses.stream(model="m", input=ASK_CITY, text_format=City) as events:
        return (await events.get_final_response()).output_parsed


@pytest.mark.parametrize(
    ("ask", "reply"),
    [
        (parse_chat, whole(chat(OSLO))),
        (parse_chat_stream, chat_stream(OSLO)),
        (parse_response, whole(response(message_item(OSLO)))),
        (parse_response_stream, response_stream(message_item(OSLO))),
    ],
)
async def test_an_answer_is_parsed_into_the_class_that_was_asked_for(
    ask: Callable[[AsyncOpenAI], Awaitable[City | None]], reply: Reply, stage: Stage, connect: Connect
) -> None:
    stage.script(reply)

    city = await ask(connect(stage.url))

    assert city == City(city="Oslo", degrees=1)
    stage.assert_bytes_passed_untouched()


# Responses


async def test_a_response_is_answered_whole(stage: Stage, connect: Connect) -> None:
    stage.script(whole(response(message_item(HELLO))))

    answer = await connect(stage.url).responses.create(model="m", input="Hi")

    assert answer.output_text == HELLO
    assert answer.status == "completed"
    stage.assert_bytes_passed_untouched()


async def test_a_response_is_streamed(stage: Stage, connect: Connect) -> None:
    stage.script(response_stream(message_item(HELLO)))

    events = [event async for event in await connect(stage.url).responses.create(model="m", input="Hi", stream=True)]

    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == HELLO
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == HELLO
    stage.assert_bytes_passed_untouched()


async def create_response(client: AsyncOpenAI, items: list[ResponseInputItemParam]) -> Response:
    return await client.responses.create(model="m", input=items, tools=TOOLS)


async def stream_response(client: AsyncOpenAI, items: list[ResponseInputItemParam]) -> Response:
    async with client.responses.stream(model="m", input=items, tools=TOOLS) as events:
        return await events.get_final_response()


@pytest.mark.parametrize(
    ("ask", "replies"),
    [
        (create_response, [whole(response(*RESPONSE_CALLS)), whole(response(message_item(USED_BOTH)))]),
        (stream_response, [response_stream(*RESPONSE_CALLS), response_stream(message_item(USED_BOTH))]),
    ],
)
async def test_a_response_calls_two_tools_and_uses_what_they_say(
    ask: Callable[[AsyncOpenAI, list[ResponseInputItemParam]], Awaitable[Response]],
    replies: list[Reply],
    stage: Stage,
    connect: Connect,
) -> None:
    stage.script(*replies)
    client = connect(stage.url)
    items: list[ResponseInputItemParam] = [{"role": "user", "content": ASK_BOTH}]

    output = (await ask(client, items)).output
    calls = [item for item in output if item.type == "function_call"]
    items += [cast("ResponseInputItemParam", item.to_dict()) for item in output]
    for call in calls:
        items.append({"type": "function_call_output", "call_id": call.call_id, "output": RESULTS[call.name]})
    answer = await ask(client, items)

    assert [(call.name, call.arguments) for call in calls] == [("get_weather", ARGUMENTS), ("get_time", ARGUMENTS)]
    assert len({call.call_id for call in calls}) == 2
    assert answer.output_text == USED_BOTH
    stage.assert_bytes_passed_untouched()


async def test_the_input_tokens_of_a_response_are_counted(stage: Stage, connect: Connect) -> None:
    stage.script(whole({"object": "response.input_tokens", "input_tokens": 2}))

    count = await connect(stage.url).responses.input_tokens.count(model="m", input="one two")

    assert count.input_tokens == 2
    stage.assert_bytes_passed_untouched()


# Embeddings and models


@pytest.mark.parametrize(
    ("options", "written"), [({}, "AACAPwAAAAA="), ({"encoding_format": "float"}, [1.0, 0.0])], ids=["base64", "float"]
)
async def test_texts_are_embedded(options: Any, written: object, stage: Stage, connect: Connect) -> None:
    rows = [{"object": "embedding", "index": index, "embedding": written} for index in range(2)]
    usage = {"prompt_tokens": 2, "total_tokens": 2}
    stage.script(whole({"object": "list", "data": rows, "model": "text-embedding-3-small", "usage": usage}))

    answer = await connect(stage.url).embeddings.create(model="m", input=["a", "a"], dimensions=2, **options)

    vectors = [row.embedding for row in answer.data]
    assert [len(vector) for vector in vectors] == [2, 2]
    assert vectors[0] == vectors[1]
    assert sum(number * number for number in vectors[0]) == pytest.approx(1)
    stage.assert_bytes_passed_untouched()


async def test_the_models_are_listed_and_looked_up(stage: Stage, connect: Connect) -> None:
    entry = {"id": "demo", "object": "model", "created": 1767225600, "owned_by": "aiproxyd"}
    stage.script(whole({"object": "list", "data": [entry]}))
    client = connect(stage.url)

    listed = [model async for model in client.models.list()]
    found = await client.models.retrieve("demo")

    assert [model.to_dict() for model in listed] == [entry]
    assert found.to_dict() == entry
    with pytest.raises(openai.NotFoundError, match="available: demo"):
        await client.models.retrieve("none")


@pytest.mark.parametrize("name", ["llama3:8b", "vendor/llama3:latest", "модель", 'a b"c?d#e%25'])
async def test_the_name_of_a_model_may_hold_anything(
    name: str, upstream: Upstream, gateway: StartGateway, connect: Connect
) -> None:
    entry = {"id": name, "object": "model", "created": 1767225600, "owned_by": "them"}
    upstream.script(whole({"object": "list", "data": [entry]}), whole(chat(HELLO)))
    running = await gateway(upstream_section(upstream, "openai"))
    client = connect(running.url)

    found = await client.models.retrieve(name)
    await client.chat.completions.create(model=name, messages=HI)

    assert found.to_dict() == entry
    assert msgspec.json.decode(upstream.received[1].body)["model"] == name


# Keys


async def test_the_bearer_key_opens_and_stays_here(upstream: Upstream, gateway: StartGateway, connect: Connect) -> None:
    upstream.script(whole(chat(HELLO)))
    running = await gateway(KEY_SECTION + upstream_section(upstream, "openai"))

    completion = await connect(running.url).chat.completions.create(model="good-1", messages=HI)

    assert completion.choices[0].message.content == HELLO
    assert "principal=alice" in running.log()
    assert CALLER_KEY not in running.log()
    assert upstream.received[0].headers["Authorization"] == "Bearer sk-upstream"
    assert_unseen(CALLER_KEY, upstream)


# Failures


async def test_a_wrong_key_is_refused(gateway: StartGateway, connect: Connect) -> None:
    running = await gateway(KEY_SECTION, "--demo")

    with pytest.raises(openai.AuthenticationError, match="not a key of the gateway") as caught:
        await connect(running.url, api_key="sk-wrong").chat.completions.create(model="m", messages=HI)

    assert caught.value.code == "invalid_api_key"
    assert caught.value.request_id


async def test_a_model_outside_the_keys_models_is_refused(gateway: StartGateway, connect: Connect) -> None:
    running = await gateway(KEY_SECTION, "--demo")

    with pytest.raises(openai.PermissionDeniedError, match="may not use the model 'bad'"):
        await connect(running.url).responses.create(model="bad", input="Hi")


async def test_an_unknown_model_is_not_found(upstream: Upstream, gateway: StartGateway, connect: Connect) -> None:
    upstream.script(whole({"object": "list", "data": []}))
    running = await gateway(upstream_section(upstream, "openai"), "--demo")

    with pytest.raises(openai.NotFoundError, match="there is no model 'none' here; available: demo") as caught:
        await connect(running.url).chat.completions.create(model="none", messages=HI)

    assert caught.value.code == "model_not_found"


async def test_a_body_of_the_wrong_shape_is_a_bad_request(stage: Stage, connect: Connect) -> None:
    with pytest.raises(openai.BadRequestError, match="Expected `str`, got `int`") as caught:
        await connect(stage.url).chat.completions.create(model="m", messages=HI, extra_body={"model": 5})

    assert caught.value.param == "model"


async def test_a_body_that_is_too_large_is_refused(gateway: StartGateway, connect: Connect) -> None:
    running = await gateway("", "--demo", "--max-body-bytes", "1000")

    with pytest.raises(openai.APIStatusError, match="longer than 1000 bytes") as caught:
        await connect(running.url).responses.create(model="m", input="x" * 1000)

    assert caught.value.status_code == 413
    assert caught.value.code == "request_too_large"


UPSTREAM_ERROR = {"error": {"message": "so it is", "type": "some_error", "param": None, "code": "some_code"}}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, openai.BadRequestError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
async def test_an_upstreams_refusal_raises_what_it_would_without_the_gateway(
    status: int, expected: type[openai.APIStatusError], upstream: Upstream, gateway: StartGateway, connect: Connect
) -> None:
    headers = {"x-ratelimit-limit-requests": "60", "retry-after": "Fri, 31 Dec 2027 23:59:59 GMT"}
    upstream.script(refusal(status, UPSTREAM_ERROR, **headers))
    running = await gateway(upstream_section(upstream, "openai"))

    with pytest.raises(expected) as caught:
        await connect(running.url).chat.completions.create(model="m", messages=HI)

    assert caught.value.status_code == status
    assert caught.value.body == UPSTREAM_ERROR["error"]
    assert {name: caught.value.response.headers[name] for name in headers} == headers


async def test_an_upstreams_401_is_not_the_callers(upstream: Upstream, gateway: StartGateway, connect: Connect) -> None:
    upstream.script(refusal(401, {"error": {"message": "Incorrect API key provided: sk-up****", "type": "x"}}))
    running = await gateway(upstream_section(upstream, "openai"))

    with pytest.raises(openai.InternalServerError, match="refused the gateway's credential") as caught:
        await connect(running.url).chat.completions.create(model="m", messages=HI)

    assert caught.value.status_code == 502
    assert "sk-up" not in str(caught.value)


async def test_an_answer_that_is_cut_is_no_answer(upstream: Upstream, gateway: StartGateway, connect: Connect) -> None:
    upstream.script(Reply(encode(chat(HELLO)), cut=True))
    running = await gateway(upstream_section(upstream, "openai"))

    with pytest.raises(openai.InternalServerError, match="cut the connection") as caught:
        await connect(running.url).chat.completions.create(model="m", messages=HI)

    assert caught.value.status_code == 502


async def test_the_sdk_tries_again_when_the_upstream_asks_for_it(
    upstream: Upstream, gateway: StartGateway, connect: Connect
) -> None:
    upstream.script(refusal(429, UPSTREAM_ERROR, **{"retry-after-ms": "1"}), whole(chat(HELLO)))
    running = await gateway(upstream_section(upstream, "openai"))

    completion = await connect(running.url, max_retries=1).chat.completions.create(model="m", messages=HI)

    assert completion.choices[0].message.content == HELLO
    assert len(upstream.received) == 2


async def test_the_sdk_does_not_try_again_when_the_upstream_says_that_it_is_no_use(
    upstream: Upstream, gateway: StartGateway, connect: Connect
) -> None:
    upstream.script(refusal(429, UPSTREAM_ERROR, **{"x-should-retry": "false"}))
    running = await gateway(upstream_section(upstream, "openai"))

    with pytest.raises(openai.RateLimitError):
        await connect(running.url, max_retries=1).chat.completions.create(model="m", messages=HI)

    assert len(upstream.received) == 1


async def read_chat(client: AsyncOpenAI) -> AsyncIterator[str]:
    async for chunk in await client.chat.completions.create(model="m", messages=HI, stream=True):
        yield chunk.choices[0].delta.content or ""


async def read_chat_events(client: AsyncOpenAI) -> AsyncIterator[str]:
    async with client.chat.completions.stream(model="m", messages=HI) as events:
        async for each in events:
            yield each.delta if each.type == "content.delta" else ""


async def read_response(client: AsyncOpenAI) -> AsyncIterator[str]:
    async for each in await client.responses.create(model="m", input="Hi", stream=True):
        yield each.delta if each.type == "response.output_text.delta" else ""


async def read_response_events(client: AsyncOpenAI) -> AsyncIterator[str]:
    async with client.responses.stream(model="m", input="Hi") as events:
        async for each in events:
            yield each.delta if each.type == "response.output_text.delta" else ""


@BREAKS
@pytest.mark.parametrize(
    ("read", "reply", "count"),
    [
        (read_chat, chat_stream(HELLO), 2),
        (read_chat_events, chat_stream(HELLO), 2),
        (read_response, response_stream(message_item(HELLO)), 7),
        (read_response_events, response_stream(message_item(HELLO)), 7),
    ],
)
async def test_a_stream_that_breaks_off_raises(
    read: Callable[[AsyncOpenAI], AsyncIterator[str]],
    reply: Reply,
    count: int,
    end: Break,
    upstream: Upstream,
    gateway: StartGateway,
    connect: Connect,
) -> None:
    upstream.script(break_off(reply, count, end))
    running = await gateway(upstream_section(upstream, "openai"))
    seen = io.StringIO()

    with pytest.raises(openai.APIError, match=end.message) as caught:
        await read_into(seen, read(connect(running.url)))

    assert seen.getvalue() == HELLO[: len(HELLO) // 2]
    assert caught.value.code == "upstream_cut"


@pytest.mark.parametrize("read", [read_chat, read_response])
async def test_a_stream_that_begins_with_an_error_raises_it_as_a_refusal(
    read: Callable[[AsyncOpenAI], AsyncIterator[str]], upstream: Upstream, gateway: StartGateway, connect: Connect
) -> None:
    error = {"message": "slow down", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}
    upstream.script(stream(named_event({"type": "error", "error": error})))
    running = await gateway(upstream_section(upstream, "openai"))

    with pytest.raises(openai.RateLimitError, match="slow down"):
        await anext(read(connect(running.url)))
