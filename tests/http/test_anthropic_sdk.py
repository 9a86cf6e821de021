"""The official anthropic SDK as the caller, sync and async: https://github.com/anthropics/anthropic-sdk-python."""

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, cast

import anthropic
import msgspec
import pytest
from anthropic import Anthropic, AsyncAnthropic, beta_async_tool, beta_tool
from anthropic.types import Message, MessageParam, ToolParam

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
    named_event,
    read_into,
    refusal,
    set_stage,
    stream,
    whole,
)
from tests.conftest import StartGateway
from tests.support import Reply, Upstream, upstream_section

Connect = Callable[..., AsyncAnthropic]


@pytest.fixture
def tape() -> Tape:
    return Tape()


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def connect(kind: str, tape: Tape) -> AsyncIterator[Connect]:
    """Make clients: ``connect(url)``."""
    clients: list[AsyncAnthropic] = []

    def make(url: str, **options: Any) -> AsyncAnthropic:
        options = {"base_url": url, "api_key": CALLER_KEY, "max_retries": 0, **options}
        if kind == "async":
            client = AsyncAnthropic(http_client=tape.async_client(), **options)
        else:
            client = cast("AsyncAnthropic", Threaded(lambda: Anthropic(http_client=tape.client(), **options)))
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.close()


@pytest.fixture(params=["demo", "upstream"])
async def stage(request: pytest.FixtureRequest, upstream: Upstream, gateway: StartGateway, tape: Tape) -> Stage:
    return await set_stage(request.param, "anthropic", upstream, gateway, tape)


# What is asked, and what the scripted upstream answers

HI: list[MessageParam] = [{"role": "user", "content": "Hi"}]
TOOLS: list[ToolParam] = [
    {
        "name": name,
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
    for name in RESULTS
]


USAGE = {
    "input_tokens": 9,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 4,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "service_tier": "standard",
}
THINKING = {"type": "thinking", "thinking": "A greeting.", "signature": "EqQBCgIYAhIM"}
CALLS = [{"type": "tool_use", "id": f"toolu_{name}", "name": name, "input": {"city": "Oslo"}} for name in RESULTS]


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value, "citations": None}


def message(*blocks: dict[str, Any]) -> dict[str, Any]:
    """Return a message as Anthropic writes it."""
    return {
        "model": "claude-opus-5-5",
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "content": [THINKING, *blocks],
        "stop_reason": "tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn",
        "stop_sequence": None,
        "usage": {**USAGE, "output_tokens": 12},
    }


def message_stream(*blocks: dict[str, Any]) -> Reply:
    """Return the same message in pieces."""
    complete = message(*blocks)
    begun: dict[str, Any] = {"content": [], "stop_reason": None, "usage": {**USAGE, "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {**complete, **begun}}]
    for index, block in enumerate(complete["content"]):
        empty, deltas = take_apart(block)
        events.append({"type": "content_block_start", "index": index, "content_block": {**block, **empty}})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    ending = {"stop_reason": complete["stop_reason"], "stop_sequence": None}
    events.insert(2, {"type": "ping"})
    events.append({"type": "message_delta", "delta": ending, "usage": {"output_tokens": 12}})
    events.append({"type": "message_stop"})
    return stream(*map(named_event, events))


def take_apart(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return how a block differs when it is opened, and the deltas that fill it."""
    match block["type"]:
        case "tool_use":
            written = msgspec.json.encode(block["input"]).decode()
            return {"input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in ("", *cut(written))]
        case "thinking":
            return {"thinking": "", "signature": ""}, [
                {"type": "thinking_delta", "thinking": block["thinking"]},
                {"type": "signature_delta", "signature": block["signature"]},
            ]
        case _:
            return {"text": ""}, [{"type": "text_delta", "text": part} for part in cut(block["text"])]


def read_text(answer: Any) -> str:
    return "".join(block.text for block in answer.content if block.type == "text")


# Messages


async def test_a_message_is_answered_whole(stage: Stage, connect: Connect) -> None:
    stage.script(whole(message(text(HELLO))))

    answer = await connect(stage.url).messages.create(model="m", max_tokens=99, messages=HI)

    assert read_text(answer) == HELLO
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens > 0
    stage.assert_bytes_passed_untouched()


async def test_a_message_is_streamed(stage: Stage, connect: Connect) -> None:
    stage.script(message_stream(text(HELLO)))

    events = [
        event
        async for event in await connect(stage.url).messages.create(model="m", max_tokens=99, messages=HI, stream=True)
    ]

    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    assert "".join(delta.text for delta in deltas if delta.type == "text_delta") == HELLO
    assert events[0].type == "message_start"
    assert events[-1].type == "message_stop"
    stage.assert_bytes_passed_untouched()


async def test_the_stream_helper_puts_a_message_together(stage: Stage, connect: Connect) -> None:
    stage.script(message_stream(text(HELLO)))

    async with connect(stage.url).messages.stream(model="m", max_tokens=99, messages=HI) as events:
        pieces = [piece async for piece in events.text_stream]
        answer = await events.get_final_message()

    assert "".join(pieces) == read_text(answer) == HELLO
    assert answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 1
    stage.assert_bytes_passed_untouched()


async def create(client: AsyncAnthropic, messages: list[MessageParam]) -> Message:
    return await client.messages.create(model="m", max_tokens=99, messages=messages, tools=TOOLS)


async def stream_helper(client: AsyncAnthropic, messages: list[MessageParam]) -> Message:
    async with client.messages.stream(model="m", max_tokens=99, messages=messages, tools=TOOLS) as events:
        return await events.get_final_message()


@pytest.mark.parametrize(
    ("ask", "replies"),
    [
        (create, [whole(message(*CALLS)), whole(message(text(USED_BOTH)))]),
        (stream_helper, [message_stream(*CALLS), message_stream(text(USED_BOTH))]),
    ],
)
async def test_a_message_calls_two_tools_and_uses_what_they_say(
    ask: Callable[[AsyncAnthropic, list[MessageParam]], Awaitable[Message]],
    replies: list[Reply],
    stage: Stage,
    connect: Connect,
) -> None:
    stage.script(*replies)
    client = connect(stage.url)
    messages: list[MessageParam] = [{"role": "user", "content": ASK_BOTH}]

    called = await ask(client, messages)
    calls = [block for block in called.content if block.type == "tool_use"]
    messages.append({"role": "assistant", "content": called.content})
    messages.append(
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": call.id, "content": RESULTS[call.name]} for call in calls
            ],
        }
    )
    answer = await ask(client, messages)

    assert called.stop_reason == "tool_use"
    assert [(call.name, call.input) for call in calls] == [
        ("get_weather", {"city": "Oslo"}),
        ("get_time", {"city": "Oslo"}),
    ]
    assert len({call.id for call in calls}) == 2
    assert read_text(answer) == USED_BOTH
    stage.assert_bytes_passed_untouched()


@beta_tool
def get_weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: Where.
    """
    return RESULTS["get_weather"] if city == "Oslo" else ""


@beta_tool
def get_time(city: str) -> str:
    """Tell the time.

    Args:
        city: Where.
    """
    return RESULTS["get_time"] if city == "Oslo" else ""


@beta_async_tool(name="get_weather", description="Tell the weather.")
async def get_weather_async(city: str) -> str:
    return RESULTS["get_weather"] if city == "Oslo" else ""


@beta_async_tool(name="get_time", description="Tell the time.")
async def get_time_async(city: str) -> str:
    return RESULTS["get_time"] if city == "Oslo" else ""


RUNNABLE: dict[str, list[Any]] = {"sync": [get_weather, get_time], "async": [get_weather_async, get_time_async]}

THREAD_REFUSAL = {
    "type": "error",
    "error": {
        "type": "invalid_request_error",
        "message": "thread: not here",
        "details": {"error_code": "thread_unsupported_request", "unsupported": ["thread"]},
    },
}


@pytest.mark.parametrize(
    ("is_stream", "replies"),
    [
        (False, [whole(message(*CALLS)), whole(message(text(USED_BOTH)))]),
        (True, [message_stream(*CALLS), message_stream(text(USED_BOTH))]),
    ],
    ids=["whole", "streamed"],
)
async def test_the_tool_runner_goes_on_without_a_thread(
    is_stream: Any, replies: list[Reply], kind: str, stage: Stage, connect: Connect, tape: Tape
) -> None:
    stage.script(refusal(400, THREAD_REFUSAL), *replies)

    runner = connect(stage.url).beta.messages.tool_runner(
        model="m",
        max_tokens=99,
        messages=[{"role": "user", "content": ASK_BOTH}],
        tools=RUNNABLE[kind],
        stream=is_stream,
    )
    answer = await runner.until_done()

    assert read_text(answer) == USED_BOTH
    assert [b'"thread"' in body for body in tape.sent] == [True, False, False]
    stage.assert_bytes_passed_untouched()


async def parse(client: AsyncAnthropic) -> City | None:
    answer = await client.messages.parse(
        model="m", max_tokens=99, messages=[{"role": "user", "content": ASK_CITY}], output_format=City
    )
    return answer.parsed_output


async def parse_stream(client: AsyncAnthropic) -> City | None:
    async with client.messages.stream(
        model="m", max_tokens=99, messages=[{"role": "user", "content": ASK_CITY}], output_format=City
    ) as events:
        return (await events.get_final_message()).parsed_output


@pytest.mark.parametrize(
    ("ask", "reply"), [(parse, whole(message(text(OSLO)))), (parse_stream, message_stream(text(OSLO)))]
)
async def test_an_answer_is_parsed_into_the_class_that_was_asked_for(
    ask: Callable[[AsyncAnthropic], Awaitable[City | None]], reply: Reply, stage: Stage, connect: Connect
) -> None:
    stage.script(reply)

    city = await ask(connect(stage.url))

    assert city == City(city="Oslo", degrees=1)
    stage.assert_bytes_passed_untouched()


# Counting and models


async def test_tokens_are_counted(stage: Stage, connect: Connect) -> None:
    stage.script(whole({"input_tokens": 2}))

    count = await connect(stage.url).messages.count_tokens(model="m", messages=[{"role": "user", "content": "one two"}])

    assert count.input_tokens == 2
    stage.assert_bytes_passed_untouched()


def model_entry(name: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": name.title(),
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 128000,
        "max_tokens": 128000,
    }


def model_list(*names: str) -> Reply:
    page = {"has_more": False, "first_id": names[0], "last_id": names[-1]}
    return whole({"data": [model_entry(name) for name in names], **page})


async def test_the_models_are_listed_and_looked_up(stage: Stage, connect: Connect) -> None:
    stage.script(model_list("demo"))
    client = connect(stage.url)

    listed = [model async for model in client.models.list()]
    found = await client.models.retrieve("demo")

    assert listed == [found]
    assert (found.id, found.type, found.lifecycle) == ("demo", "model", "active")
    assert found.created_at == datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(anthropic.NotFoundError, match="available: demo"):
        await client.models.retrieve("none")


@pytest.mark.parametrize(
    ("cursor", "expected"),
    [
        ({}, ["a", "b", "c", "d", "e"]),
        ({"after_id": "b"}, ["c", "d", "e"]),
        ({"before_id": "d"}, ["b", "c", "a"]),
    ],
)
async def test_the_models_are_listed_page_by_page(
    cursor: dict[str, str],
    expected: list[str],
    upstream: Upstream,
    gateway: StartGateway,
    connect: Connect,
    tape: Tape,
) -> None:
    upstream.script(model_list("a", "b", "c", "d", "e"))
    running = await gateway(upstream_section(upstream, "anthropic"))

    listed = [model async for model in connect(running.url).models.list(limit=2, extra_query=cursor)]

    assert [model.to_dict(mode="json") for model in listed] == [model_entry(name) for name in expected]
    assert len(tape.received) == (len(expected) + 1) // 2


# Keys


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": CALLER_KEY},
        {"api_key": None, "auth_token": CALLER_KEY},
        {"api_key": None, "default_headers": {"X-Api-Key": CALLER_KEY}},
    ],
    ids=["api_key", "auth_token", "x-api-key"],
)
async def test_the_key_opens_and_stays_here(
    options: dict[str, Any], upstream: Upstream, gateway: StartGateway, connect: Connect
) -> None:
    upstream.script(whole(message(text(HELLO))))
    running = await gateway(KEY_SECTION + upstream_section(upstream, "anthropic"))

    answer = await connect(running.url, **options).messages.create(model="good-1", max_tokens=99, messages=HI)

    assert read_text(answer) == HELLO
    assert "principal=alice" in running.log()
    assert CALLER_KEY not in running.log()
    assert upstream.received[0].headers["x-api-key"] == "sk-upstream"
    assert "Authorization" not in upstream.received[0].headers
    assert_unseen(CALLER_KEY, upstream)


# Failures


async def test_a_wrong_key_is_refused(gateway: StartGateway, connect: Connect) -> None:
    running = await gateway(KEY_SECTION, "--demo")

    with pytest.raises(anthropic.AuthenticationError, match="not a key of the gateway") as caught:
        await connect(running.url, api_key="sk-wrong").messages.create(model="m", max_tokens=99, messages=HI)

    assert caught.value.type == "authentication_error"
    assert caught.value.request_id


async def test_a_model_outside_the_keys_models_is_refused(gateway: StartGateway, connect: Connect) -> None:
    running = await gateway(KEY_SECTION, "--demo")

    with pytest.raises(anthropic.PermissionDeniedError, match="may not use the model 'bad'"):
        await connect(running.url).messages.create(model="bad", max_tokens=99, messages=HI)


async def test_an_unknown_model_is_not_found(upstream: Upstream, gateway: StartGateway, connect: Connect) -> None:
    upstream.script(model_list("claude"))
    running = await gateway(upstream_section(upstream, "anthropic"), "--demo")

    with pytest.raises(anthropic.NotFoundError, match="there is no model 'none' here; available: claude, demo"):
        await connect(running.url).messages.create(model="none", max_tokens=99, messages=HI)


async def test_a_body_of_the_wrong_shape_is_a_bad_request(stage: Stage, connect: Connect) -> None:
    with pytest.raises(anthropic.BadRequestError, match=r"Expected `str`, got `int` - at `\$\.model`") as caught:
        await connect(stage.url).messages.create(model="m", max_tokens=99, messages=HI, extra_body={"model": 5})

    assert caught.value.type == "invalid_request_error"


async def test_a_body_that_is_too_large_is_refused(gateway: StartGateway, connect: Connect) -> None:
    running = await gateway("", "--demo", "--max-body-bytes", "1000")
    messages: list[MessageParam] = [{"role": "user", "content": "x" * 1000}]

    with pytest.raises(anthropic.RequestTooLargeError, match="longer than 1000 bytes") as caught:
        await connect(running.url).messages.create(model="m", max_tokens=99, messages=messages)

    assert caught.value.status_code == 413


UPSTREAM_ERROR = {"type": "error", "error": {"type": "api_error", "message": "so it is"}, "request_id": "req_1"}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, anthropic.BadRequestError),
        (402, anthropic.PaymentRequiredError),
        (403, anthropic.PermissionDeniedError),
        (404, anthropic.NotFoundError),
        (409, anthropic.ConflictError),
        (413, anthropic.RequestTooLargeError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (503, anthropic.ServiceUnavailableError),
        (529, anthropic.OverloadedError),
    ],
)
async def test_an_upstreams_refusal_raises_what_it_would_without_the_gateway(
    status: int,
    expected: type[anthropic.APIStatusError],
    upstream: Upstream,
    gateway: StartGateway,
    connect: Connect,
) -> None:
    headers = {"anthropic-ratelimit-requests-remaining": "0", "request-id": "req_1"}
    upstream.script(refusal(status, UPSTREAM_ERROR, **headers))
    running = await gateway(upstream_section(upstream, "anthropic"))

    with pytest.raises(expected) as caught:
        await connect(running.url).messages.create(model="m", max_tokens=99, messages=HI)

    assert caught.value.status_code == status
    assert caught.value.body == UPSTREAM_ERROR
    assert caught.value.request_id == "req_1"
    assert caught.value.response.headers["anthropic-ratelimit-requests-remaining"] == "0"


async def test_an_upstreams_401_is_not_the_callers(upstream: Upstream, gateway: StartGateway, connect: Connect) -> None:
    error = {"type": "authentication_error", "message": "invalid x-api-key sk-up"}
    upstream.script(refusal(401, {"type": "error", "error": error}))
    running = await gateway(upstream_section(upstream, "anthropic"))

    with pytest.raises(anthropic.InternalServerError, match="refused the gateway's credential") as caught:
        await connect(running.url).messages.create(model="m", max_tokens=99, messages=HI)

    assert caught.value.status_code == 502
    assert "sk-up" not in str(caught.value)


async def test_an_answer_that_is_cut_is_no_answer(upstream: Upstream, gateway: StartGateway, connect: Connect) -> None:
    upstream.script(Reply(encode(message(text(HELLO))), cut=True))
    running = await gateway(upstream_section(upstream, "anthropic"))

    with pytest.raises(anthropic.InternalServerError, match="cut the connection") as caught:
        await connect(running.url).messages.create(model="m", max_tokens=99, messages=HI)

    assert caught.value.status_code == 502


async def test_the_sdk_tries_again_when_the_upstream_asks_for_it(
    upstream: Upstream, gateway: StartGateway, connect: Connect
) -> None:
    upstream.script(refusal(429, UPSTREAM_ERROR, **{"retry-after-ms": "1"}), whole(message(text(HELLO))))
    running = await gateway(upstream_section(upstream, "anthropic"))

    answer = await connect(running.url, max_retries=1).messages.create(model="m", max_tokens=99, messages=HI)

    assert read_text(answer) == HELLO
    assert len(upstream.received) == 2


async def test_the_sdk_does_not_try_again_when_the_upstream_says_that_it_is_no_use(
    upstream: Upstream, gateway: StartGateway, connect: Connect
) -> None:
    upstream.script(refusal(429, UPSTREAM_ERROR, **{"x-should-retry": "false"}))
    running = await gateway(upstream_section(upstream, "anthropic"))

    with pytest.raises(anthropic.RateLimitError):
        await connect(running.url, max_retries=1).messages.create(model="m", max_tokens=99, messages=HI)

    assert len(upstream.received) == 1


async def read_events(client: AsyncAnthropic) -> AsyncIterator[str]:
    async for event in await client.messages.create(model="m", max_tokens=99, messages=HI, stream=True):
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            yield event.delta.text


async def read_texts(client: AsyncAnthropic) -> AsyncIterator[str]:
    async with client.messages.stream(model="m", max_tokens=99, messages=HI) as events:
        async for piece in events.text_stream:
            yield piece


@BREAKS
@pytest.mark.parametrize("read", [read_events, read_texts])
async def test_a_stream_that_breaks_off_raises(
    read: Callable[[AsyncAnthropic], AsyncIterator[str]],
    end: Break,
    upstream: Upstream,
    gateway: StartGateway,
    connect: Connect,
) -> None:
    upstream.script(break_off(message_stream(text(HELLO)), 8, end))
    running = await gateway(upstream_section(upstream, "anthropic"))
    seen = io.StringIO()

    with pytest.raises(anthropic.APIStatusError, match=end.message) as caught:
        await read_into(seen, read(connect(running.url)))

    assert seen.getvalue() == HELLO[: len(HELLO) // 2]
    assert caught.value.type == "api_error"


async def test_a_stream_that_begins_with_an_error_raises_it_as_a_refusal(
    upstream: Upstream, gateway: StartGateway, connect: Connect
) -> None:
    error = {"type": "overloaded_error", "message": "Overloaded"}
    upstream.script(stream(named_event({"type": "error", "error": error})))
    running = await gateway(upstream_section(upstream, "anthropic"))

    with pytest.raises(anthropic.OverloadedError, match="Overloaded"):
        await anext(read_events(connect(running.url)))
