"""The official google-genai SDK as the caller: https://github.com/googleapis/python-genai.

Its async client speaks through aiohttp where that is installed, else through httpx2: both are tried.
"""

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast
from urllib.parse import quote

import aiohttp
import msgspec
import pytest
from google import genai
from google.genai import errors, types
from google.genai.client import AsyncClient
from yarl import URL

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
    read_into,
    refusal,
    set_stage,
    stream,
    whole,
)
from tests.conftest import StartGateway
from tests.support import Reply, Upstream, upstream_section

Connect = Callable[..., AsyncClient]


@pytest.fixture
def tape() -> Tape:
    return Tape()


@pytest.fixture(params=["sync", "async", "aiohttp"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def connect(kind: str, tape: Tape) -> AsyncIterator[Connect]:
    """Make clients: ``connect(url)``."""
    async with tape.async_client() as async_http, aiohttp.ClientSession() as session:
        with tape.client() as http:
            clients: list[genai.Client] = []

            def make(url: str, *, vertexai: bool = False, key: str = CALLER_KEY, **options: Any) -> AsyncClient:
                options = {"base_url": url, "httpx_client": http, "async_client_args": {"ssl": True}, **options}
                options |= {"aiohttp_client": session} if kind == "aiohttp" else {"httpx_async_client": async_http}
                client = genai.Client(vertexai=vertexai, api_key=key, http_options=types.HttpOptions(**options))
                clients.append(client)
                return client.aio if kind != "sync" else cast("AsyncClient", Threaded(lambda: client))

            yield make
            for client in clients:
                client.close()
                await client.aio.aclose()


@pytest.fixture(params=["demo", "upstream"])
async def stage(
    request: pytest.FixtureRequest, upstream: Upstream, gateway: StartGateway, kind: str, tape: Tape
) -> Stage:
    # aiohttp has no hook that sees a streamed body.
    return await set_stage(request.param, "gemini", upstream, gateway, None if kind == "aiohttp" else tape)


# What is asked, and what the scripted upstream answers


def get_weather(city: str) -> str:
    """Tell the weather."""
    return RESULTS["get_weather"] if city == "Oslo" else ""


def get_time(city: str) -> str:
    """Tell the time."""
    return RESULTS["get_time"] if city == "Oslo" else ""


TOOLS = types.GenerateContentConfig(
    tools=[
        types.Tool(
            function_declarations=[
                types.FunctionDeclaration(
                    name=name,
                    parameters=types.Schema(
                        type=types.Type.OBJECT,
                        properties={"city": types.Schema(type=types.Type.STRING)},
                        required=["city"],
                    ),
                )
                for name in RESULTS
            ]
        )
    ]
)
RUNNABLE = types.GenerateContentConfig(tools=[get_weather, get_time])


PARSED = types.GenerateContentConfig(response_mime_type="application/json", response_schema=City)

CALLS: list[dict[str, Any]] = [
    {"functionCall": {"name": name, "args": {"city": "Oslo"}, "id": f"call-{name}"}, "thoughtSignature": "CiQB"}
    for name in RESULTS
]


def content(*parts: dict[str, Any], is_last: bool = True) -> dict[str, Any]:
    """Return a response as Google writes it."""
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if is_last:
        candidate["finishReason"] = "STOP"
    return {
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": 9,
            "candidatesTokenCount": 12,
            "totalTokenCount": 25,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}],
            "thoughtsTokenCount": 4,
        },
        "modelVersion": "gemini-3-flash",
        "responseId": "aXgB",
    }


def content_stream(*parts: dict[str, Any]) -> Reply:
    """Return the same response in pieces, ended by one that has no text, as Google ends them."""
    return stream(
        *(frame(content(part, is_last=False)) for part in parts),
        frame(content({"text": "", "thoughtSignature": "CiQB"})),
    )


def frame(chunk: dict[str, Any]) -> bytes:
    return b"data: " + encode(chunk) + b"\r\n\r\n"


def halves(text: str) -> list[dict[str, Any]]:
    return [{"text": piece} for piece in cut(text)]


# generateContent


async def test_content_is_generated_whole(stage: Stage, connect: Connect) -> None:
    stage.script(whole(content({"text": HELLO})))

    answer = await connect(stage.url).models.generate_content(model="m", contents="Hi")

    assert answer.text == HELLO
    assert answer.candidates
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    assert answer.usage_metadata
    assert answer.usage_metadata.total_token_count
    stage.assert_bytes_passed_untouched()


async def test_content_is_streamed(stage: Stage, connect: Connect) -> None:
    stage.script(content_stream(*halves(HELLO)))

    chunks = [
        chunk async for chunk in await connect(stage.url).models.generate_content_stream(model="m", contents="Hi")
    ]

    assert "".join(chunk.text or "" for chunk in chunks) == HELLO
    assert chunks[-1].candidates
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP
    stage.assert_bytes_passed_untouched()


async def test_vertex_paths_are_served_too(gateway: StartGateway, connect: Connect) -> None:
    running = await gateway("", "--demo")

    answer = await connect(running.url, vertexai=True).models.generate_content(model="m", contents="Hi")

    assert answer.text == HELLO
    assert "/v1beta1/publishers/google/models/m:generateContent" in running.log()


async def generate(client: AsyncClient, contents: list[types.Content], config: Any) -> list[types.Part]:
    answer = await client.models.generate_content(
        model="m", contents=cast("list[types.ContentUnion]", contents), config=config
    )
    return answer.parts or []


async def generate_stream(client: AsyncClient, contents: list[types.Content], config: Any) -> list[types.Part]:
    chunks = await client.models.generate_content_stream(
        model="m", contents=cast("list[types.ContentUnion]", contents), config=config
    )
    return [part async for chunk in chunks for part in chunk.parts or []]


Generate = Callable[[AsyncClient, list[types.Content], Any], Awaitable[list[types.Part]]]


def read_text(parts: list[types.Part]) -> str:
    return "".join(part.text or "" for part in parts)


@pytest.mark.parametrize(
    ("ask", "replies"),
    [
        (generate, [whole(content(*CALLS)), whole(content({"text": USED_BOTH}))]),
        (generate_stream, [content_stream(*CALLS), content_stream(*halves(USED_BOTH))]),
    ],
)
async def test_a_model_calls_two_tools_and_uses_what_they_say(
    ask: Generate, replies: list[Reply], stage: Stage, connect: Connect
) -> None:
    stage.script(*replies)
    client = connect(stage.url)
    contents = [types.Content(role="user", parts=[types.Part(text=ASK_BOTH)])]

    called = await ask(client, contents, TOOLS)
    calls = [part.function_call for part in called if part.function_call]
    results = [
        types.FunctionResponse(id=call.id, name=call.name, response={"output": RESULTS[call.name or ""]})
        for call in calls
    ]
    contents.append(types.Content(role="model", parts=called))
    contents.append(types.Content(role="user", parts=[types.Part(function_response=result) for result in results]))
    answer = await ask(client, contents, TOOLS)

    assert [(call.name, call.args) for call in calls] == [
        ("get_weather", {"city": "Oslo"}),
        ("get_time", {"city": "Oslo"}),
    ]
    assert len({call.id for call in calls}) == 2
    assert read_text(answer) == USED_BOTH
    stage.assert_bytes_passed_untouched()


async def chat(client: AsyncClient) -> str:
    return (await client.chats.create(model="m", config=RUNNABLE).send_message(ASK_BOTH)).text or ""


async def chat_stream(client: AsyncClient) -> str:
    chunks = await client.chats.create(model="m", config=RUNNABLE).send_message_stream(ASK_BOTH)
    return "".join([chunk.text or "" async for chunk in chunks if not chunk.function_calls])


@pytest.mark.parametrize(
    ("ask", "replies"),
    [
        (chat, [whole(content(*CALLS)), whole(content({"text": USED_BOTH}))]),
        (chat_stream, [content_stream(*CALLS), content_stream(*halves(USED_BOTH))]),
    ],
)
async def test_a_chat_runs_the_functions_it_was_given(
    ask: Callable[[AsyncClient], Awaitable[str]], replies: list[Reply], stage: Stage, connect: Connect
) -> None:
    stage.script(*replies)

    text = await ask(connect(stage.url))

    assert text == USED_BOTH
    stage.assert_bytes_passed_untouched()


async def test_a_chat_sends_what_was_said_before(upstream: Upstream, gateway: StartGateway, connect: Connect) -> None:
    upstream.script(whole(content({"text": HELLO})), whole(content({"text": "Hello again"})))
    running = await gateway(upstream_section(upstream, "gemini"))
    conversation = connect(running.url).chats.create(model="m")

    answers = [(await conversation.send_message(text)).text for text in ("Hi", "Hi again")]

    assert answers == [HELLO, "Hello again"]
    said = msgspec.json.decode(upstream.received[1].body)["contents"]
    assert [(turn["role"], turn["parts"][0]["text"]) for turn in said] == [
        ("user", "Hi"),
        ("model", HELLO),
        ("user", "Hi again"),
    ]


async def test_an_answer_is_parsed_into_the_class_that_was_asked_for(stage: Stage, connect: Connect) -> None:
    stage.script(whole(content({"text": OSLO})))

    answer = await connect(stage.url).models.generate_content(model="m", contents=ASK_CITY, config=PARSED)

    assert answer.parsed == City(city="Oslo", degrees=1)
    stage.assert_bytes_passed_untouched()


async def test_an_answer_of_a_given_shape_is_streamed(stage: Stage, connect: Connect) -> None:
    stage.script(content_stream(*halves(OSLO)))
    contents = [types.Content(role="user", parts=[types.Part(text=ASK_CITY)])]

    parts = await generate_stream(connect(stage.url), contents, PARSED)

    assert City.model_validate_json(read_text(parts)) == City(city="Oslo", degrees=1)
    stage.assert_bytes_passed_untouched()


# Counting, embeddings, models


async def test_tokens_are_counted(stage: Stage, connect: Connect) -> None:
    stage.script(whole({"totalTokens": 2, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 2}]}))

    count = await connect(stage.url).models.count_tokens(model="m", contents="one two")

    assert count.total_tokens == 2
    stage.assert_bytes_passed_untouched()


def texts(*contents: str) -> Any:
    """Return a list that is not of str alone: where Pillow is installed, the SDK takes no other for one of its own."""
    return list(contents)


async def test_texts_are_embedded(stage: Stage, connect: Connect) -> None:
    stage.script(whole({"embeddings": [{"values": [0.6, 0.8]}, {"values": [0.6, 0.8]}]}))

    answer = await connect(stage.url).models.embed_content(
        model="m", contents=texts("a", "a"), config=types.EmbedContentConfig(output_dimensionality=2)
    )

    vectors = [embedding.values or [] for embedding in answer.embeddings or []]
    assert [len(vector) for vector in vectors] == [2, 2]
    assert vectors[0] == vectors[1]
    assert sum(number * number for number in vectors[0]) == pytest.approx(1)
    stage.assert_bytes_passed_untouched()


async def test_an_alias_is_replaced_in_each_request_of_a_batch(
    upstream: Upstream, gateway: StartGateway, connect: Connect
) -> None:
    upstream.script(whole({"embeddings": [{"values": [1.0]}, {"values": [1.0]}]}))
    running = await gateway(upstream_section(upstream, "gemini") + "[model m]\ntargets = up/gemini-embedding-001\n")

    await connect(running.url).models.embed_content(model="m", contents=texts("a", "b"))

    assert upstream.received[0].target == "/v1/models/gemini-embedding-001:batchEmbedContents"
    requests = msgspec.json.decode(upstream.received[0].body)["requests"]
    assert [request["model"] for request in requests] == ["models/gemini-embedding-001"] * 2


def model_list(*names: str) -> Reply:
    return whole({"models": [{"name": f"models/{name}", "version": "1", "inputTokenLimit": 128000} for name in names]})


async def test_the_models_are_listed_and_looked_up(stage: Stage, connect: Connect) -> None:
    stage.script(model_list("demo"))
    client = connect(stage.url)

    listed = [model async for model in await client.models.list()]
    found = await client.models.get(model="demo")

    assert [model.name for model in listed] == ["models/demo"]
    assert found.name == "models/demo"
    with pytest.raises(errors.ClientError, match="available: demo") as caught:
        await client.models.get(model="none")
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")


async def test_the_models_are_listed_page_by_page(upstream: Upstream, gateway: StartGateway, connect: Connect) -> None:
    upstream.script(model_list("a", "b", "c", "d", "e"))
    running = await gateway(upstream_section(upstream, "gemini"))

    listed = [
        model async for model in await connect(running.url).models.list(config=types.ListModelsConfig(page_size=2))
    ]

    assert [model.name for model in listed] == ["models/a", "models/b", "models/c", "models/d", "models/e"]
    assert {model.input_token_limit for model in listed} == {128000}
    assert running.log().count("GET /v1/models ") == 3


# Names of models


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("tuned/llama3:8b", "tuned/llama3:8b"),
        ("модель", "модель"),
        ("a b", "a b"),
        ("x%2Fy%3A8b", "x/y:8b"),
        ("models/m", "m"),
    ],
)
async def test_the_name_of_a_model_may_hold_anything(
    written: str, name: str, gateway: StartGateway, connect: Connect
) -> None:
    running = await gateway("", "--demo")

    answer = await connect(running.url).models.generate_content(model=written, contents="Hi")

    assert answer.model_version == name


@pytest.mark.parametrize("prefix", ["/v1/models", "/v1beta/models", "/v1alpha/models"])
@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("tuned/llama3:8b", "tuned/llama3:8b"),
        ("tuned%2Fllama3%3A8b", "tuned/llama3:8b"),
        ("%D0%BC%2B1", "%D0%BC%2B1"),
        ("100%25", "100%25"),
        ("a%20b%3Fc%23d", "a%20b%3Fc%23d"),
        ("alias", "vendor/%D0%BC:8b"),
    ],
)
async def test_the_name_of_a_model_reaches_the_upstream_quoted(
    prefix: str, path: str, target: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(whole(content({"text": HELLO})))
    running = await gateway(upstream_section(upstream, "gemini") + "[model alias]\ntargets = up/vendor/м:8b\n")

    url = URL(f"{running.url}{prefix}/{path}:generateContent", encoded=True)
    async with http.post(url, data=b'{"contents":[]}') as response:
        assert response.status == 200

    assert upstream.received[0].target == f"{prefix}/{target}:generateContent"


@pytest.mark.parametrize("path", ["../files", "a/../b", "..%2Ffiles", "a%2F%2E%2E%2Fb"])
async def test_the_name_of_a_model_does_not_climb(
    path: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(whole(content({"text": HELLO})))
    running = await gateway(upstream_section(upstream, "gemini"))

    url = URL(f"{running.url}/v1beta/models/{path}:generateContent", encoded=True)
    async with http.post(url, data=b'{"contents":[]}') as response:
        error = msgspec.json.decode(await response.read())["error"]

    assert (response.status, error["status"]) == (400, "INVALID_ARGUMENT")
    assert upstream.received == []


# Keys


async def test_the_google_key_opens_and_stays_here(upstream: Upstream, gateway: StartGateway, connect: Connect) -> None:
    upstream.script(whole(content({"text": HELLO})))
    running = await gateway(KEY_SECTION + upstream_section(upstream, "gemini"))

    answer = await connect(running.url).models.generate_content(model="good-1", contents="Hi")

    assert answer.text == HELLO
    assert "principal=alice" in running.log()
    assert CALLER_KEY not in running.log()
    assert upstream.received[0].headers["x-goog-api-key"] == "sk-upstream"
    assert_unseen(CALLER_KEY, upstream)


@pytest.mark.parametrize(
    "query", [f"key={CALLER_KEY}&alt=json", f"alt=json&k%65y={quote(CALLER_KEY)}"], ids=["plain", "quoted"]
)
async def test_a_key_in_the_query_opens_and_stays_here(
    query: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(whole(content({"text": HELLO})))
    running = await gateway(KEY_SECTION + upstream_section(upstream, "gemini"))

    url = URL(f"{running.url}/v1beta/models/m:generateContent?{query}", encoded=True)
    async with http.post(url, data=b'{"contents":[]}') as response:
        assert response.status == 200

    assert upstream.received[0].target == "/v1beta/models/m:generateContent?alt=json"
    assert CALLER_KEY not in running.log()
    assert_unseen(CALLER_KEY, upstream)


# Failures


@pytest.mark.parametrize(
    ("key", "model", "code", "status", "message"),
    [
        ("sk-wrong", "m", 401, "UNAUTHENTICATED", "not a key of the gateway"),
        (CALLER_KEY, "bad", 403, "PERMISSION_DENIED", "may not use the model 'bad'"),
        (CALLER_KEY, "good-1", 404, "NOT_FOUND", "there is no model 'good-1' here; available: m"),
    ],
)
async def test_who_may_not_or_asks_for_what_is_not_there_is_told_so(
    key: str,
    model: str,
    code: int,
    status: str,
    message: str,
    upstream: Upstream,
    gateway: StartGateway,
    connect: Connect,
) -> None:
    upstream.script(model_list("m"))
    running = await gateway(KEY_SECTION + upstream_section(upstream, "gemini"), "--demo")

    with pytest.raises(errors.ClientError, match=message) as caught:
        await connect(running.url, key=key).models.generate_content(model=model, contents="Hi")

    assert (caught.value.code, caught.value.status) == (code, status)


async def test_a_body_of_the_wrong_shape_is_a_bad_request(gateway: StartGateway, connect: Connect) -> None:
    running = await gateway("", "--demo")

    with pytest.raises(errors.ClientError, match="Expected `array`, got `int`") as caught:
        await connect(running.url, extra_body={"contents": 5}).models.generate_content(model="m", contents="Hi")

    assert (caught.value.code, caught.value.status) == (400, "INVALID_ARGUMENT")


async def test_a_body_that_is_too_large_is_refused(gateway: StartGateway, connect: Connect) -> None:
    running = await gateway("", "--demo", "--max-body-bytes", "1000")

    with pytest.raises(errors.ClientError, match="longer than 1000 bytes") as caught:
        await connect(running.url).models.generate_content(model="m", contents="x" * 1000)

    assert (caught.value.code, caught.value.status) == (413, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("status", "word", "expected"),
    [
        (400, "INVALID_ARGUMENT", errors.ClientError),
        (403, "PERMISSION_DENIED", errors.ClientError),
        (404, "NOT_FOUND", errors.ClientError),
        (429, "RESOURCE_EXHAUSTED", errors.ClientError),
        (500, "INTERNAL", errors.ServerError),
        (503, "UNAVAILABLE", errors.ServerError),
    ],
)
async def test_an_upstreams_refusal_raises_what_it_would_without_the_gateway(
    status: int,
    word: str,
    expected: type[errors.APIError],
    upstream: Upstream,
    gateway: StartGateway,
    connect: Connect,
) -> None:
    body = {"error": {"code": status, "message": "so it is", "status": word, "details": []}}
    upstream.script(refusal(status, body))
    running = await gateway(upstream_section(upstream, "gemini"))

    with pytest.raises(expected) as caught:
        await connect(running.url).models.generate_content(model="m", contents="Hi")

    assert (caught.value.code, caught.value.status) == (status, word)
    assert caught.value.details == body


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "UNAUTHENTICATED"), (400, "API_KEY_INVALID")], ids=["401", "400 API_KEY_INVALID"]
)
async def test_an_upstreams_refusal_of_our_key_is_not_the_callers(
    status: int, reason: str, upstream: Upstream, gateway: StartGateway, connect: Connect
) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}]
    upstream.script(refusal(status, {"error": {"code": status, "message": "sk-upstream", "details": details}}))
    running = await gateway(upstream_section(upstream, "gemini"))

    with pytest.raises(errors.ServerError, match="refused the gateway's credential") as caught:
        await connect(running.url).models.generate_content(model="m", contents="Hi")

    assert (caught.value.code, caught.value.status) == (502, "INTERNAL")
    assert "sk-upstream" not in str(caught.value)


async def test_an_answer_that_is_cut_is_no_answer(upstream: Upstream, gateway: StartGateway, connect: Connect) -> None:
    upstream.script(Reply(encode(content({"text": HELLO})), cut=True))
    running = await gateway(upstream_section(upstream, "gemini"))

    with pytest.raises(errors.ServerError, match="cut the connection") as caught:
        await connect(running.url).models.generate_content(model="m", contents="Hi")

    assert caught.value.code == 502


async def test_the_sdk_tries_again_where_it_is_told_to(
    upstream: Upstream, gateway: StartGateway, connect: Connect
) -> None:
    body = {"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}
    upstream.script(refusal(429, body, **{"retry-after": "1"}), whole(content({"text": HELLO})))
    running = await gateway(upstream_section(upstream, "gemini"))
    patience = types.HttpRetryOptions(attempts=2, initial_delay=0.01, jitter=0.0)

    answer = await connect(running.url, retry_options=patience).models.generate_content(model="m", contents="Hi")

    assert answer.text == HELLO
    assert len(upstream.received) == 2


async def read(client: AsyncClient) -> AsyncIterator[str]:
    async for chunk in await client.models.generate_content_stream(model="m", contents="Hi"):
        yield chunk.text or ""


async def read_chat(client: AsyncClient) -> AsyncIterator[str]:
    async for chunk in await client.chats.create(model="m").send_message_stream("Hi"):
        yield chunk.text or ""


@BREAKS
@pytest.mark.parametrize("reader", [read, read_chat])
async def test_a_stream_that_breaks_off_raises(
    reader: Callable[[AsyncClient], AsyncIterator[str]],
    end: Break,
    upstream: Upstream,
    gateway: StartGateway,
    connect: Connect,
) -> None:
    upstream.script(break_off(content_stream(*halves(HELLO)), 1, end))
    running = await gateway(upstream_section(upstream, "gemini"))
    seen = io.StringIO()

    with pytest.raises(errors.ServerError, match=end.message) as caught:
        await read_into(seen, reader(connect(running.url)))

    assert seen.getvalue() == HELLO[: len(HELLO) // 2]
    assert caught.value.code == 502


async def test_a_stream_that_begins_with_an_error_raises_it_as_a_refusal(
    upstream: Upstream, gateway: StartGateway, connect: Connect
) -> None:
    upstream.script(stream(frame({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}})))
    running = await gateway(upstream_section(upstream, "gemini"))

    with pytest.raises(errors.ServerError, match="overloaded") as caught:
        await anext(read(connect(running.url)))

    assert (caught.value.code, caught.value.status) == (503, "UNAVAILABLE")
