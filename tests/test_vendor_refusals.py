"""The scripted vendors refuse what the real ones refuse, and say why."""

import base64
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from multidict import CIMultiDict

from tests.support import Received, Reply
from tests.vendors import KEY, Vendor, anthropic_vendor, gemini_vendor, openai_vendor

PNG = base64.b64encode(b"PNG").decode()
CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CLOSED = {**CITY, "additionalProperties": False}
CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
GEMINI = "/v1beta/models/{}:generateContent"
USER = {"role": "user", "content": "Hi"}
HEADERS = {
    "authorization": f"Bearer {KEY}",
    "x-api-key": KEY,
    "x-goog-api-key": KEY,
    "anthropic-version": "2023-06-01",
}


def post(vendor: Vendor, target: str, body: Any, **headers: str) -> Reply:
    sent = CIMultiDict({**HEADERS, **headers})
    return vendor(Received("POST", target, sent, msgspec.json.encode(body)))


def chat(*messages: Any, **fields: Any) -> tuple[str, Any]:
    return CHAT, {"model": "gpt-4o", "messages": list(messages or [USER]), **fields}


def respond(*items: Any, **fields: Any) -> tuple[str, Any]:
    return RESPONSES, {"model": "gpt-5.4", "input": list(items or [USER]), **fields}


def message(*messages: Any, **fields: Any) -> tuple[str, Any]:
    return MESSAGES, {"model": "claude-sonnet-5", "max_tokens": 100, "messages": list(messages or [USER]), **fields}


def generate(*contents: Any, model: str = "gemini-2.5-flash", **fields: Any) -> tuple[str, Any]:
    return GEMINI.format(model), {"contents": list(contents or [says("Hi")]), **fields}


def says(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "parts": [{"text": text}]}


def calls(*ids: str) -> dict[str, Any]:
    made = [{"id": each, "type": "function", "function": {"name": "f", "arguments": "{}"}} for each in ids]
    return {"role": "assistant", "content": None, "tool_calls": made}


def cites(encrypted_index: str) -> dict[str, Any]:
    source = {"type": "web_search_result_location", "url": "https://a.test", "title": "A", "cited_text": "a"}
    return {"type": "text", "text": "a", "citations": [{**source, "encrypted_index": encrypted_index}]}


def tool(call_id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": "x"}


def uses(*ids: str) -> dict[str, Any]:
    content = [{"type": "tool_use", "id": each, "name": "f", "input": {}} for each in ids]
    return {"role": "assistant", "content": content}


def results(*ids: str, before: tuple[Any, ...] = ()) -> dict[str, Any]:
    return {"role": "user", "content": [*before, *({"type": "tool_result", "tool_use_id": each} for each in ids)]}


def invokes(*names: str, **fields: Any) -> dict[str, Any]:
    return {"role": "model", "parts": [{"functionCall": {"name": name, "args": {}}, **fields} for name in names]}


def responds(*names: str, **fields: Any) -> dict[str, Any]:
    return {"role": "user", "parts": [{"functionResponse": {"name": each, "response": {}, **fields}} for each in names]}


def _image() -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}


FUNCTION = [{"type": "function", "function": {"name": "f", "parameters": CITY}}]
FLAT = [{"type": "function", "name": "f", "parameters": CITY, "strict": False}]
CLAUDE = [{"name": "f", "input_schema": CITY}]
REFERRING: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/A", "description": "x"}},
    "$defs": {"A": CITY},
}
DECLARED = [{"functionDeclarations": [{"name": "f"}, {"name": "g"}]}]
TEXT = {"type": "text", "text": "Hi"}
MARKED = {**TEXT, "cache_control": {"type": "ephemeral"}}
ENABLED = {"type": "enabled", "budget_tokens": 1024}
MANUAL: dict[str, Any] = {"model": "claude-opus-4-5", "max_tokens": 2000, "thinking": ENABLED, "tools": CLAUDE}
CALL_ITEM = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
PLACEHOLDER = base64.b64encode(b"skip_thought_signature_validator").decode()


def config(**fields: Any) -> dict[str, Any]:
    return {"generationConfig": fields}


def thinking(**fields: Any) -> dict[str, Any]:
    return config(thinkingConfig=fields)


def declares(schema: Any, key: str = "parameters") -> dict[str, Any]:
    return {"tools": [{"functionDeclarations": [{"name": "f", key: schema}]}]}


OPENAI_REFUSALS = {
    "unknown field": (chat(top_k=1), "Unrecognized request argument supplied: top_k"),
    "unknown key": (chat({**USER, "cache_control": {}}), "$.messages[0].cache_control"),
    "unknown role": (chat({"role": "model", "content": "Hi"}), "$.messages[0].role"),
    "unknown model": (chat(model="claude-sonnet-5"), "does not exist"),
    "no messages": (chat(messages=[]), "$.messages"),
    "call without result": (chat(USER, calls("a"), USER, tools=FUNCTION), "did not have response messages: a"),
    "call with half its results": (chat(USER, calls("a", "b"), tool("a"), tools=FUNCTION), "messages: b"),
    "result without call": (chat(USER, tool("a")), "preceding 'tool_calls'"),
    "result of another call": (chat(USER, calls("a"), tool("b"), tools=FUNCTION), "'tool_call_id' b not found"),
    "image in a tool message": (
        chat(USER, calls("a"), {**tool("a"), "content": [{"type": "image_url", "image_url": {"url": ""}}]}),
        "$.messages[2].content[0]",
    ),
    "long id": (chat(USER, calls("a" * 41), tool("a" * 41), tools=FUNCTION), "maximum length 40"),
    "tool name": (chat(tools=[{"type": "function", "function": {"name": "a.b"}}]), "$.tools[0].function.name"),
    "empty tools": (chat(tools=[]), "$.tools"),
    "tool_choice without tools": (chat(tool_choice="auto"), "$.tool_choice"),
    "parallel_tool_calls without tools": (chat(parallel_tool_calls=True), "$.parallel_tool_calls"),
    "five stops": (chat(stop=list("abcde")), "$.stop"),
    "stop of gpt-5": (chat(model="gpt-5", stop="a"), "'stop' is not supported"),
    "temperature of gpt-5": (chat(model="gpt-5", temperature=0.5), "'temperature' is not supported"),
    "penalty of gpt-5": (chat(model="gpt-5.4", reasoning_effort="none", presence_penalty=1), "'presence_penalty'"),
    "max_tokens of gpt-5": (chat(model="gpt-5", max_tokens=5), "Use 'max_completion_tokens'"),
    "too many tokens": (chat(max_tokens=128_000), "at most 16384"),
    "metadata without store": (chat(metadata={"a": "b"}), "only allowed when 'store' is enabled"),
    "list as an answer": (
        chat(response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}}),
        "schema must be of",
    ),
    "tools of gpt-5.4": (chat(model="gpt-5.4", tools=FUNCTION), "use /v1/responses"),
    "effort of gpt-4o": (chat(reasoning_effort="low"), "$.reasoning_effort"),
    "effort max": (chat(model="gpt-5.4", reasoning_effort="max"), "only supported in /v1/responses"),
    "custom tool of gpt-4o": (
        chat(tools=[{"type": "custom", "custom": {"name": "f"}}]),
        "Custom tools are not supported",
    ),
    "schema name": (
        chat(response_format={"type": "json_schema", "json_schema": {"name": "a b", "schema": CITY}}),
        "$.response_format.json_schema.name",
    ),
    "strict schema": (
        chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": CITY, "strict": True}}),
        "additionalProperties",
    ),
    "json without the word": (chat(response_format={"type": "json_object"}), "must contain the word 'json'"),
    "image type": (
        chat({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AA=="}}]}),
        "unsupported type image/bmp",
    ),
    "stream_options": (chat(stream_options={}), "$.stream_options"),
    "n": (chat(n=0), "$.n"),
    "unknown parameter": (respond(stop="a"), "Unknown parameter: 'stop'"),
    "include_usage": (respond(stream=True, stream_options={"include_usage": True}), "$.stream_options.include_usage"),
    "few tokens": (respond(max_output_tokens=15), "at least 16"),
    "input_text of the assistant": (
        respond(USER, {"role": "assistant", "content": [{"type": "input_text", "text": "Hi"}]}, USER),
        "$.input[1].content[0]",
    ),
    "strict by default": (respond(tools=[{"type": "function", "name": "f", "parameters": CITY}]), "strict schema"),
    "call item without output": (
        respond(USER, CALL_ITEM, USER, tools=FLAT),
        "No tool output found for function call c",
    ),
    "output without call item": (
        respond(USER, {"type": "function_call_output", "call_id": "c", "output": ""}),
        "No tool call found",
    ),
    "item id": (respond(USER, {**CALL_ITEM, "id": "call_1"}), "begins with 'fc'"),
    "foreign encrypted content": (
        respond(USER, {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}, USER),
        "could not be verified",
    ),
    "item_reference": (respond({"type": "item_reference", "id": "rs_1"}, USER), "not found"),
    "previous_response_id": (respond(previous_response_id="resp_1"), "not found"),
}

ANTHROPIC_REFUSALS = {
    "unknown field": (message(n=1), "n: Extra inputs are not permitted"),
    "unknown key": (message({"role": "user", "content": [{**TEXT, "id": "a"}]}), "$.messages[0].content[0].id"),
    "unknown model": (message(model="gpt-4o"), "model: gpt-4o"),
    "null": (message(system=None), "$.system"),
    "no max_tokens": (
        (MESSAGES, {"model": "claude-sonnet-5", "messages": [USER]}),
        "missing required field `max_tokens`",
    ),
    "max_tokens": (message(max_tokens=200_000), "the maximum for claude-sonnet-5"),
    "blank text": (message({"role": "user", "content": " \n"}), "$.messages[0].content"),
    "blank block": (message({"role": "user", "content": [TEXT, {"type": "text", "text": ""}]}), "content[1].text"),
    "blank system": (message(system=[{"type": "text", "text": ""}]), "$.system[0].text"),
    "use without result": (message(USER, uses("a"), USER, tools=CLAUDE), "`tool_use` without `tool_result`"),
    "use at the end": (message(USER, uses("a"), tools=CLAUDE, model="claude-opus-4-5"), "without `tool_result`"),
    "result not first": (message(USER, uses("a"), results("a", before=(TEXT,)), tools=CLAUDE), "must come first"),
    "result without use": (message(results("a"), tools=CLAUDE), "unexpected `tool_use_id`"),
    "two results": (message(USER, uses("a"), results("a", "a"), tools=CLAUDE), "single result"),
    "duplicate ids": (
        message(USER, uses("a"), results("a"), uses("a"), results("a"), tools=CLAUDE),
        "ids must be unique",
    ),
    "id": (message(USER, uses("a:1"), results("a:1"), tools=CLAUDE), "^[a-zA-Z0-9_-]+$"),
    "history without tools": (message(USER, uses("a"), results("a")), "must define tools"),
    "tool name": (message(tools=[{"name": "a.b", "input_schema": CITY}]), "$.tools[0].name"),
    "tool schema": (message(tools=[{"name": "f", "input_schema": {}}]), "input_schema.type"),
    "duplicate tools": (message(tools=CLAUDE * 2), "unique"),
    "tool_choice without tools": (message(tool_choice={"type": "auto"}), "while providing tools"),
    "forced and thinking": (
        message(tools=CLAUDE, tool_choice={"type": "any"}, thinking={"type": "adaptive"}),
        "Thinking may not be enabled",
    ),
    "forced where thinking is the default": (
        message(tools=CLAUDE, tool_choice={"type": "tool", "name": "f"}),
        "Thinking may not be enabled",
    ),
    "forced on the newest": (
        message(model="claude-opus-5-5", tools=CLAUDE, tool_choice={"type": "any"}),
        "does not accept forced",
    ),
    "temperature of 5": (message(temperature=0.5), "temperature: only its default"),
    "temperature above 1": (message(model="claude-opus-4-5", temperature=1.5), "between 0 and 1"),
    "both knobs": (message(model="claude-opus-4-5", temperature=0.5, top_p=0.5), "cannot both be specified"),
    "budget": (message(**{**MANUAL, "max_tokens": 1024}), "greater than thinking.budget_tokens"),
    "small budget": (message(**{**MANUAL, "thinking": {**ENABLED, "budget_tokens": 500}}), "at least 1024"),
    "budget of 5": (message(max_tokens=2000, thinking=ENABLED), "enabled is not supported"),
    "adaptive of 4.5": (message(model="claude-opus-4-5", thinking={"type": "adaptive"}), "adaptive is not supported"),
    "disabled of the newest": (
        message(model="claude-opus-5-5", thinking={"type": "disabled"}),
        "disabled is not supported",
    ),
    "disabled at full effort": (
        message(thinking={"type": "disabled"}, output_config={"effort": "max"}),
        "not supported with effort max",
    ),
    "effort of 4.5": (message(model="claude-haiku-4-5", output_config={"effort": "low"}), "low is not supported"),
    "unsigned turn": (message(USER, uses("a"), results("a"), **MANUAL), "must start with a thinking block"),
    "citation of another vendor": (
        message(USER, {"role": "assistant", "content": [cites("gw1.c")]}, USER),
        "Invalid `encrypted_index`",
    ),
    "unsigned thought": (
        message(USER, {"role": "assistant", "content": [{"type": "thinking", "thinking": "a", "signature": ""}]}, USER),
        "Invalid `signature`",
    ),
    "foreign redacted": (
        message(USER, {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "a"}]}, USER),
        "redacted_thinking",
    ),
    "five marks": (message({"role": "user", "content": [MARKED] * 5}), "Found 5"),
    "assistant first": (message({"role": "assistant", "content": "Hi"}, USER), "first message must use the user role"),
    "system turn of 4.5": (
        message(USER, {"role": "system", "content": "Hi"}, model="claude-opus-4-5"),
        "role 'system' is not supported",
    ),
    "prefill of 4.6": (message(USER, {"role": "assistant", "content": "{"}), "prefill"),
    "image type": (
        message(
            {"role": "user", "content": [{**_image(), "source": {**_image()["source"], "media_type": "image/bmp"}}]}
        ),
        "media_type",
    ),
    "image data": (
        message({"role": "user", "content": [{**_image(), "source": {**_image()["source"], "data": "a_-"}}]}),
        "not valid base64",
    ),
    "blank stop": (message(stop_sequences=["\n"]), "$.stop_sequences[0]"),
    "open schema": (
        message(output_config={"format": {"type": "json_schema", "schema": CITY}}),
        "'additionalProperties' must be explicitly set to false",
    ),
    "schema keyword": (
        message(output_config={"format": {"type": "json_schema", "schema": {"type": "string", "minLength": 1}}}),
        "'minLength' is not supported",
    ),
}

GEMINI_REFUSALS = {
    "unknown field": (generate(metadata={}), 'Unknown name "metadata"'),
    "unknown key": (generate({**says("Hi"), "name": "a"}), "$.contents[0].name"),
    "unknown model": (generate(model="gpt-4o"), "not found"),
    "role": (generate(says("Hi", "assistant")), "valid role"),
    "no parts": (generate({"role": "user", "parts": []}), "parts must not be empty"),
    "empty part": (generate({"role": "user", "parts": [{}]}), "one initialized field"),
    "count of responses": (
        generate(says("Hi"), invokes("f", "g"), responds("f"), tools=DECLARED),
        "number of function response parts is equal",
    ),
    "call without response": (generate(says("Hi"), invokes("f"), says("Hi"), tools=DECLARED), "(0, 1)"),
    "response with text": (
        generate(says("Hi"), invokes("f"), {"role": "user", "parts": responds("f")["parts"] + [{"text": "Hi"}]}),
        "share their content with text",
    ),
    "response name": (generate(says("Hi"), invokes("f"), responds("g"), tools=DECLARED), "names of function responses"),
    "id for 2.x": (generate(says("Hi"), invokes("f"), responds("f", id="a")), 'Unknown name "id"'),
    "unsigned call": (
        generate(says("Hi"), invokes("f"), responds("f"), model="gemini-3-pro"),
        "missing a thought_signature",
    ),
    "foreign signature": (
        generate(says("Hi"), invokes("f", thoughtSignature="AAAA"), responds("f"), model="gemini-3-pro"),
        "Corrupted thought signature",
    ),
    "signature": (generate(says("Hi"), invokes("f", thoughtSignature="!"), responds("f")), "Base64 decoding failed"),
    "budget and level": (generate(**thinking(thinkingBudget=1, thinkingLevel="LOW")), "only one of"),
    "level of 2.5": (generate(**thinking(thinkingLevel="LOW")), "level LOW is not supported"),
    "budget of 3": (generate(model="gemini-3-pro", **thinking(thinkingBudget=1)), "budget is not supported"),
    "no budget of pro": (generate(model="gemini-2.5-pro", **thinking(thinkingBudget=0)), "between 128 and 32768"),
    "penalty of 3": (generate(model="gemini-3-pro", **config(presencePenalty=1)), "Penalty is not enabled"),
    "max tokens": (generate(**config(maxOutputTokens=128_000)), "to 65537 (exclusive)"),
    "six stops": (generate(**config(stopSequences=list("abcdef"))), "must not exceed 5"),
    "schema key": (generate(**declares({**CLOSED})), 'Unknown name "additionalProperties"'),
    "schema type": (generate(**declares({"type": "object", "properties": {"a": {}}})), "properties.a.type"),
    "type list": (generate(**declares({"type": ["object", "null"]})), "cannot start list"),
    "no properties": (generate(**declares({"type": "object", "properties": {}})), "should be non-empty"),
    "reference with siblings": (
        generate(**declares(REFERRING, "parametersJsonSchema")),
        "no other properties may be set, but for those with a $: ['description'] (at "
        "$.tools[0].functionDeclarations[0].parametersJsonSchema.properties.a)",
    ),
    "reference to nothing": (
        generate(**config(responseMimeType="application/json", responseJsonSchema={"items": {"$ref": "#/$defs/B"}})),
        "responseJsonSchema.items.$ref",
    ),
    "type of JSON Schema": (
        generate(**declares({"type": "object", "properties": {"a": {"type": "STRING"}}}, "parametersJsonSchema")),
        "'STRING'",
    ),
    "function name": (generate(tools=[{"functionDeclarations": [{"name": "1a"}]}]), "Invalid function name"),
    "names for AUTO": (
        generate(tools=DECLARED, toolConfig={"functionCallingConfig": {"allowedFunctionNames": ["f"]}}),
        "mode is ANY",
    ),
    "schema without type": (generate(**config(responseJsonSchema=CITY)), "needs response_mime_type"),
    "URL": (
        generate(
            {"parts": [{"fileData": {"fileUri": "https://x.test/a.png", "mimeType": "image/png"}}]},
            model="gemini-2.0-flash",
        ),
        "does not fetch URLs",
    ),
}

REFUSALS = [
    *(pytest.param(openai_vendor, *case, id=f"openai: {name}") for name, case in OPENAI_REFUSALS.items()),
    *(pytest.param(anthropic_vendor, *case, id=f"anthropic: {name}") for name, case in ANTHROPIC_REFUSALS.items()),
    *(pytest.param(gemini_vendor, *case, id=f"gemini: {name}") for name, case in GEMINI_REFUSALS.items()),
]


@pytest.mark.parametrize(("make", "request_", "message"), REFUSALS)
def test_a_request_is_refused(make: Callable[[], Vendor], request_: tuple[str, Any], message: str) -> None:
    vendor: Vendor = make()

    reply = post(vendor, *request_)

    assert reply.status in (400, 404)
    assert message in str(msgspec.json.decode(reply.body)["error"])
    assert message in vendor.refusals[0]


ACCEPTED: list[Any] = [
    pytest.param(openai_vendor, chat(model="gpt-5.4", tools=FUNCTION, reasoning_effort="none"), id="effort none"),
    pytest.param(
        openai_vendor,
        respond(USER, CALL_ITEM, USER, {"type": "function_call_output", "call_id": "c", "output": ""}, tools=FLAT),
        id="late output",
    ),
    pytest.param(
        anthropic_vendor, message(USER, {"role": "assistant", "content": "{"}, model="claude-opus-4-5"), id="prefill"
    ),
    pytest.param(anthropic_vendor, message(USER, {"role": "system", "content": "Hi"}), id="late system"),
    pytest.param(anthropic_vendor, message(USER, uses("a"), results("a"), tools=CLAUDE), id="results"),
    pytest.param(
        gemini_vendor,
        generate(says("Hi"), invokes("f", thoughtSignature=PLACEHOLDER), responds("f"), model="gemini-3-pro"),
        id="placeholder",
    ),
    pytest.param(gemini_vendor, generate(generation_config={"max_output_tokens": 5}), id="snake case"),
]


@pytest.mark.parametrize(("make", "request_"), ACCEPTED)
def test_a_request_is_taken(make: Callable[[], Vendor], request_: tuple[str, Any]) -> None:
    reply = post(make(), *request_)

    assert (reply.status, reply.body[:0]) == (200, b"")


def test_the_newest_version_of_anthropic_takes_no_sampling() -> None:
    target, body = message(model="claude-opus-4-5", temperature=1)

    assert post(anthropic_vendor(), target, body).status == 200
    assert post(anthropic_vendor(), target, body, **{"anthropic-version": "2026-10-21"}).status == 400
    assert post(anthropic_vendor(), target, body, **{"anthropic-version": "2027-01-01"}).status == 400


def test_a_bad_key_is_refused_in_the_vendors_own_way() -> None:
    vendors: list[tuple[Vendor, tuple[str, Any]]] = [
        (openai_vendor(key="other"), chat()),
        (anthropic_vendor(key="other"), message()),
        (gemini_vendor(key="other"), generate()),
    ]

    replies = [post(vendor, *request) for vendor, request in vendors]

    assert [reply.status for reply in replies] == [401, 401, 400]
    assert b"API_KEY_INVALID" in replies[2].body
