"""The lists of models, in the shape of whoever asks."""

from typing import Any

import aiohttp
import msgspec
import pytest

from tests.conftest import StartGateway
from tests.support import Reply, Upstream, upstream_section

ENTRY = b'{"id":"m1","object":"model","created":1700000000,"owned_by":"me","x-new":[1.50]}'
LIST = Reply(b'{"object":"list","data":[' + ENTRY + b"]}")
OWN = "[upstream own]\nprovider = openai\nbase-url = http://own.test/v1\nmodels = alpha, beta, gamma, own-*\n"

ANTHROPIC = {"anthropic-version": "2023-06-01"}
GOOGLE = {"x-goog-api-key": "any"}


async def get(http: aiohttp.ClientSession, url: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    async with http.get(url, headers=headers) as response:
        assert response.content_type == "application/json"
        return response.status, msgspec.json.decode(await response.read())


def openai_entry(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "own"}


def anthropic_entry(name: str, created_at: str = "1970-01-01T00:00:00Z") -> dict[str, object]:
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": created_at,
        "lifecycle": "active",
        "capabilities": None,
        "max_input_tokens": None,
        "max_tokens": None,
    }


def gemini_entry(name: str) -> dict[str, object]:
    return {
        "name": f"models/{name}",
        "displayName": name,
        "version": "",
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
    }


async def test_openai_callers_get_the_upstreams_own_entries(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(LIST)
    running = await gateway(upstream_section(upstream, "openai") + OWN + "[model fast]\ntargets = own/alpha\n")

    async with http.get(f"{running.url}/v1/models") as response:
        body = await response.read()

    assert response.status == 200
    assert ENTRY in body
    assert msgspec.json.decode(body) == {
        "object": "list",
        "data": [
            openai_entry("fast") | {"owned_by": "aiproxyd"},
            msgspec.json.decode(ENTRY),
            openai_entry("alpha"),
            openai_entry("beta"),
            openai_entry("gamma"),
        ],
    }


async def test_anthropic_callers_get_their_shape_on_the_same_path(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(LIST)
    running = await gateway(upstream_section(upstream, "openai"))

    status, answer = await get(http, f"{running.url}/v1/models", ANTHROPIC)

    assert status == 200
    assert answer == {
        "data": [anthropic_entry("m1", "2023-11-14T22:13:20Z")],
        "has_more": False,
        "first_id": "m1",
        "last_id": "m1",
    }


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1beta/models", {}),
        ("/v1alpha/models", {}),
        ("/v1/models", GOOGLE),
        ("/v1/models", {"x-goog-api-client": "genai"}),
        ("/v1beta1/publishers/google/models", {}),
    ],
)
async def test_gemini_callers_get_their_shape_by_path_or_header(
    path: str, headers: dict[str, str], upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(LIST)
    running = await gateway(upstream_section(upstream, "openai"))

    status, answer = await get(http, running.url + path, headers)

    assert (status, answer) == (200, {"models": [gemini_entry("m1")]})


@pytest.mark.parametrize(
    ("provider", "path", "headers", "body", "asked"),
    [
        (
            "anthropic",
            "/v1/models",
            ANTHROPIC,
            b'{"data":[{"type":"model","id":"claude-x","created_at":"2026-01-02T03:04:05Z","new":1.0}],"has_more":false}',
            "/v1/models?limit=1000",
        ),
        (
            "gemini",
            "/v1beta/models",
            {},
            b'{"models":[{"name":"models/gemini-x","inputTokenLimit":1.0,"new":[]}]}',
            "/v1beta/models?pageSize=1000",
        ),
    ],
)
async def test_callers_of_the_upstreams_format_get_its_entries_unchanged(
    provider: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    asked: str,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    upstream.script(Reply(body))
    running = await gateway(upstream_section(upstream, provider))

    async with http.get(running.url + path, headers=headers) as response:
        answer = await response.read()

    assert body[body.index(b"[") + 1 : body.rindex(b"}]") + 1] in answer
    assert [request.target for request in upstream.received] == [asked]


async def test_other_callers_see_the_names_of_anthropic_and_gemini_models(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.respond(
        lambda request: Reply(
            b'{"models":[{"name":"models/gemini-x"}]}'
            if "beta" in request.target
            else b'{"data":[{"id":"claude-x","created_at":"2026-01-02T03:04:05Z"}]}'
        )
    )
    running = await gateway(upstream_section(upstream, "anthropic", "a") + upstream_section(upstream, "gemini", "g"))

    _, answer = await get(http, f"{running.url}/v1/models")

    assert answer["data"] == [
        {"id": "claude-x", "object": "model", "created": 1767323045, "owned_by": "anthropic"},
        {"id": "gemini-x", "object": "model", "created": 0, "owned_by": "google"},
    ]


# One model.


@pytest.mark.parametrize("name", ["alpha", "own-7", "own-qwen3:8b", "own/vendor/x:latest", "own%2Fvendor%2Fx"])
async def test_one_model_is_shown_to_openai_callers(
    name: str, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(OWN)

    status, answer = await get(http, f"{running.url}/v1/models/{name}")

    assert status == 200
    assert answer["id"] == name.replace("%2F", "/")
    assert answer["object"] == "model"


async def test_one_model_is_shown_to_anthropic_and_gemini_callers(
    gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(OWN)

    anthropic = await get(http, f"{running.url}/v1/models/alpha", ANTHROPIC)
    gemini = await get(http, f"{running.url}/v1beta/models/alpha")
    sdk = await get(http, f"{running.url}/v1beta/models/models/alpha")
    vertex = await get(http, f"{running.url}/v1beta1/publishers/google/models/alpha")

    assert anthropic == (200, anthropic_entry("alpha"))
    assert gemini == sdk == vertex == (200, gemini_entry("alpha"))


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        (
            "/v1/models/nope",
            {},
            {
                "error": {
                    "message": "there is no model 'nope' here; available: alpha, beta, gamma",
                    "type": "invalid_request_error",
                    "param": "model",
                    "code": "model_not_found",
                }
            },
        ),
        (
            "/v1/models/nope",
            {**ANTHROPIC, "x-request-id": "req-7"},
            {
                "type": "error",
                "error": {
                    "type": "not_found_error",
                    "message": "there is no model 'nope' here; available: alpha, beta, gamma",
                },
                "request_id": "req-7",
            },
        ),
        (
            "/v1beta/models/nope",
            {},
            {
                "error": {
                    "code": 404,
                    "message": "there is no model 'nope' here; available: alpha, beta, gamma",
                    "status": "NOT_FOUND",
                }
            },
        ),
    ],
)
async def test_an_unknown_model_is_refused_in_the_callers_shape(
    path: str, headers: dict[str, str], expected: object, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(OWN)

    status, answer = await get(http, running.url + path, headers)

    assert (status, answer) == (404, expected)


# Pages.


@pytest.mark.parametrize(
    ("query", "names", "has_more"),
    [
        ("", ["alpha", "beta", "gamma"], False),
        ("?limit=2", ["alpha", "beta"], True),
        ("?limit=3", ["alpha", "beta", "gamma"], False),
        ("?limit=2&after_id=beta", ["gamma"], False),
        ("?limit=1&after_id=alpha", ["beta"], True),
        ("?after_id=gamma", [], False),
        ("?limit=1&before_id=gamma", ["beta"], True),
        ("?limit=2&before_id=gamma", ["alpha", "beta"], False),
        ("?before_id=alpha", [], False),
    ],
)
async def test_anthropic_callers_page_by_id(
    query: str, names: list[str], has_more: bool, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(OWN)

    status, answer = await get(http, f"{running.url}/v1/models{query}", ANTHROPIC)

    assert status == 200
    assert [entry["id"] for entry in answer["data"]] == names
    assert answer["has_more"] is has_more
    assert (answer["first_id"], answer["last_id"]) == ((names[0], names[-1]) if names else (None, None))


@pytest.mark.parametrize(
    ("query", "names", "token"),
    [
        ("", ["alpha", "beta", "gamma"], None),
        ("?pageSize=2", ["alpha", "beta"], "2"),
        ("?pageSize=2&pageToken=2", ["gamma"], None),
        ("?pageSize=3", ["alpha", "beta", "gamma"], None),
        ("?pageToken=9", [], None),
    ],
)
async def test_gemini_callers_page_by_token(
    query: str, names: list[str], token: str | None, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(OWN)

    status, answer = await get(http, f"{running.url}/v1beta/models{query}")

    assert status == 200
    assert [entry["name"] for entry in answer["models"]] == [f"models/{name}" for name in names]
    assert answer.get("nextPageToken") == token


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=x", "limit=%D9%A3", "after_id=nope", "before_id=nope"])
async def test_a_page_that_makes_no_sense_is_refused(
    query: str, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(OWN)

    status, answer = await get(http, f"{running.url}/v1/models?{query}", ANTHROPIC)

    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["message"].startswith(query.partition("=")[0])


# Keys and failures.


async def test_a_key_sees_the_models_that_it_may_use(gateway: StartGateway, http: aiohttp.ClientSession) -> None:
    digest = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"  # foo
    running = await gateway(f"{OWN}[key kid]\nsecret = sha256:{digest}\nmodels = a*, own-1\n")
    headers = {"Authorization": "Bearer foo"}

    _, models = await get(http, f"{running.url}/v1/models", headers)
    hidden, _ = await get(http, f"{running.url}/v1/models/beta", headers)
    hidden_by_pattern, _ = await get(http, f"{running.url}/v1/models/own-2", headers)
    shown, _ = await get(http, f"{running.url}/v1/models/own-1", headers)

    assert [entry["id"] for entry in models["data"]] == ["alpha"]
    assert (hidden, hidden_by_pattern, shown) == (404, 404, 200)


async def test_an_upstream_that_is_down_hides_only_its_own_models(
    gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(f"{OWN}[upstream down]\nprovider = openai\nbase-url = http://127.0.0.1:9/v1\n")

    status, answer = await get(http, f"{running.url}/v1/models")

    assert status == 200
    assert [entry["id"] for entry in answer["data"]] == ["alpha", "beta", "gamma"]


async def test_a_key_limited_to_models_cannot_call_others(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    digest = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"  # foo
    running = await gateway(
        upstream_section(upstream, "openai") + f"[key kid]\nsecret = sha256:{digest}\nmodels = gpt-5*\n"
    )

    async with http.post(
        f"{running.url}/v1/chat/completions",
        data=b'{"model":"gpt-4","messages":[]}',
        headers={"Authorization": "Bearer foo"},
    ) as response:
        answer = msgspec.json.decode(await response.read())

    assert response.status == 403
    assert answer["error"]["message"] == "the key kid may not use the model 'gpt-4'"
    assert answer["error"]["type"] == "permission_error"
    assert upstream.received == []
