"""What has one key, and what must not: an answer to another question is the worst that a cache can give."""

import copy
import importlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext as nothing
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.cache.keys import KEY_BYTES, digest, write_meaning
from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import ANTHROPIC, FORMATS, GEMINI, OPENAI_CHAT
from aiproxyd.formats.base import Format
from aiproxyd.formats.codec import Losses
from aiproxyd.formats.gemini.wire import SERVER_PARTS
from tests.conversion.stand_in import StandIn

PNG = "iVBORw0KGgo="
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string"}},
    "required": ["city"],
}


def key_of(fmt: Format, body: Any) -> bytes:
    written = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return write_meaning(fmt.decode_request(written), fmt, written)


# --- Every single value of these bodies counts, and all members together, but for NOISE

CHAT_BODY: Any = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "And kind."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look", "cache_control": {"type": "ephemeral"}},
                {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
                {"type": "file", "file": {"file_id": "file_1", "filename": "a.pdf"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "b.pdf"}},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "Well"}, {"type": "refusal", "refusal": "No"}],
            "reasoning_content": "Hm",
            "thinking_blocks": [
                {"type": "thinking", "thinking": "Hm", "signature": "s1"},
                {"type": "redacted_thinking", "data": "r1"},
            ],
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "index": 0,
                    "function": {"name": "weather", "arguments": '{"city":"Ulm"}'},
                    "extra_content": {"google": {"thought_signature": "AAAA"}},
                },
                {"id": "c2", "type": "custom", "custom": {"name": "shell", "input": "ls"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "rain"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "a b"}]},
        {"role": "assistant", "content": None, "refusal": "No.", "function_call": {"name": "old", "arguments": "{}"}},
        {"role": "function", "name": "old", "content": "done"},
        {"role": "user", "content": "Go on"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {"name": "weather", "description": "d", "parameters": SCHEMA, "strict": True},
        },
        {
            "type": "custom",
            "custom": {
                "name": "shell",
                "description": "d",
                "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "x"}},
            },
        },
    ],
    "functions": [{"name": "old", "description": "d", "parameters": SCHEMA}],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "weather"}}]},
    },
    "function_call": "auto",
    "parallel_tool_calls": False,
    "max_completion_tokens": 100,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "n": 2,
    "stop": ["a", "b"],
    "seed": 7,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.2,
    "logit_bias": {"5": 1, "6": -1},
    "logprobs": True,
    "top_logprobs": 3,
    "reasoning_effort": "low",
    "verbosity": "low",
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "n", "description": "d", "schema": SCHEMA, "strict": True},
    },
    "modalities": ["text", "smell"],
    "web_search_options": {"search_context_size": "low", "user_location": {"approximate": {"city": "Ulm"}}},
    "service_tier": "flex",
    "prediction": {"type": "content", "content": "x"},
    "nobody_knows": {"this": [1, {"deep": "x"}]},
    "stream": True,
    "stream_options": {"include_usage": True},
    "metadata": {"a": "b"},
    "user": "u",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "store": True,
    "prompt_cache_retention": "24h",
}
ANTHROPIC_BODY: Any = {
    "model": "m",
    "max_tokens": 100,
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.37; cc_entrypoint=cli; cch=0a;"},
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
    ],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                {"type": "image", "source": {"type": "url", "url": "https://a/b"}, "transformations": {"a": 1}},
                {"type": "image", "source": {"type": "file", "file_id": "f"}},
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "words"},
                    "title": "t",
                    "context": "c",
                    "citations": {"enabled": True},
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm", "signature": "s1"},
                {"type": "redacted_thinking", "data": "r1"},
                {
                    "type": "text",
                    "text": "Well",
                    "citations": [
                        {
                            "type": "char_location",
                            "cited_text": "wo",
                            "document_index": 0,
                            "document_title": "t",
                            "start_char_index": 0,
                            "end_char_index": 2,
                        }
                    ],
                },
                {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "x"}},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Ulm"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "is_error": True,
                    "content": [{"type": "text", "text": "rain"}],
                }
            ],
        },
        {"role": "system", "content": "Now hurry."},
        {"role": "user", "content": "Go on"},
    ],
    "tools": [
        {
            "type": "custom",
            "name": "weather",
            "description": "d",
            "input_schema": SCHEMA,
            "strict": True,
            "defer_loading": True,
            "eager_input_streaming": True,
            "allowed_callers": ["direct"],
        },
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
    ],
    "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 2000, "display": "summarized"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    "stop_sequences": ["a", "b"],
    "service_tier": "auto",
    "temperature": 1.0,
    "top_p": 0.9,
    "top_k": 40,
    "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
    "nobody_knows": {"this": [1, {"deep": "x"}]},
    "stream": True,
    "metadata": {"user_id": "u"},
}
RESPONSES_BODY: Any = {
    "model": "m",
    "instructions": "Be brief.",
    "input": [
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Look"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"},
                {"type": "input_image", "file_id": "f"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
                {"type": "input_file", "file_url": "https://a/b.pdf", "detail": "auto"},
                {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Hm"}],
            "encrypted_content": "e1",
        },
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]},
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "status": "completed",
            "phase": "commentary",
            "content": [
                {
                    "type": "output_text",
                    "text": "Well",
                    "annotations": [
                        {"type": "url_citation", "url": "https://s", "title": "t", "start_index": 0, "end_index": 2}
                    ],
                },
                {"type": "refusal", "refusal": "No"},
            ],
        },
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Ulm"}', "namespace": "g"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "shell", "input": "ls"},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "a b"}]},
        {"type": "message", "role": "developer", "content": "Now hurry."},
        {"role": "user", "content": "Go on"},
    ],
    "tools": [
        {"type": "function", "name": "weather", "description": "d", "parameters": SCHEMA, "strict": True},
        {
            "type": "custom",
            "name": "shell",
            "description": "d",
            "format": {"type": "grammar", "syntax": "lark", "definition": "x"},
        },
        {
            "type": "namespace",
            "name": "g",
            "description": "The tools of g.",
            "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA}],
        },
        {"type": "web_search", "search_context_size": "low"},
    ],
    "tool_choice": {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "weather"}, {"type": "mcp", "server_label": "x"}],
    },
    "parallel_tool_calls": False,
    "max_output_tokens": 100,
    "max_tool_calls": 3,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_logprobs": 3,
    "include": ["reasoning.encrypted_content"],
    "reasoning": {
        "effort": "low",
        "summary": "auto",
        "mode": "standard",
        "context": "all_turns",
    },
    "text": {
        "verbosity": "low",
        "format": {"type": "json_schema", "name": "n", "description": "d", "schema": SCHEMA, "strict": True},
    },
    "truncation": "auto",
    "service_tier": "flex",
    "store": False,
    "nobody_knows": {"this": [1, {"deep": "x"}]},
    "stream": True,
    "stream_options": {"include_obfuscation": True},
    "metadata": {"a": "b"},
    "client_metadata": {"a": "b"},
    "user": "u",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
}
GEMINI_BODY: Any = {
    "systemInstruction": {"role": "user", "parts": [{"text": "Be brief."}]},
    "contents": [
        {
            "role": "user",
            "parts": [
                {"text": "Look"},
                {"inlineData": {"mimeType": "image/png", "data": PNG}, "mediaResolution": {"level": "LOW"}},
                {
                    "fileData": {"mimeType": "video/mp4", "fileUri": "https://a/b"},
                    "videoMetadata": {"startOffset": "1s"},
                },
            ],
        },
        {
            "role": "model",
            "parts": [
                {"text": "Hm", "thought": True, "thoughtSignature": "AAAA"},
                {"text": "Well"},
                {"executableCode": {"language": "PYTHON", "code": "1"}},
                {
                    "functionCall": {"name": "weather", "args": {"city": "Ulm"}, "id": "c1"},
                    "thoughtSignature": "AAAA",
                },
            ],
        },
        {
            "role": "user",
            "parts": [
                {
                    "functionResponse": {
                        "name": "weather",
                        "id": "c1",
                        "response": {"sky": "rain", "sure": [1, {"a": "b"}]},
                        "parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}],
                    }
                }
            ],
        },
    ],
    "tools": [
        {
            "functionDeclarations": [
                {"name": "weather", "description": "d", "parametersJsonSchema": SCHEMA},
                {
                    "name": "other",
                    "parameters": {
                        "type": "OBJECT",
                        "properties": {"a": {"type": "STRING", "nullable": True, "example": "x"}},
                        "propertyOrdering": ["a"],
                    },
                },
            ]
        },
        {"googleSearch": {"timeRangeFilter": {"startTime": "x"}}},
    ],
    "toolConfig": {
        "functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]},
    },
    "generationConfig": {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 40,
        "candidateCount": 2,
        "maxOutputTokens": 100,
        "stopSequences": ["a", "b"],
        "seed": 7,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "responseLogprobs": True,
        "logprobs": 3,
        "responseMimeType": "application/json",
        "responseSchema": {
            "type": "OBJECT",
            "properties": {"a": {"type": "STRING", "example": "x"}, "b": {"type": "STRING"}},
            "propertyOrdering": ["a", "b"],
        },
        "responseModalities": ["TEXT"],
        "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 200},
    },
    "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    "serviceTier": "flex",
    "nobodyKnows": {"this": [1, {"deep": "x"}]},
    "labels": {"a": "b"},
    "store": True,
}
BODIES: Final = {
    "openai-chat": CHAT_BODY,
    "anthropic": ANTHROPIC_BODY,
    "openai-responses": RESPONSES_BODY,
    "gemini": GEMINI_BODY,
}

NOISE: Final = {
    "openai-chat": (
        "model messages.content.cache_control.type messages.tool_calls.index messages.tool_calls.id "
        "messages.tool_call_id stream stream_options.include_usage metadata.a user safety_identifier prompt_cache_key "
        "store prompt_cache_retention"
    ),
    # Where a tool may be called from, and what it is: these are the defaults.
    "anthropic": (
        "model system.cache_control.type messages.content.cache_control.type messages.content.cache_control.ttl "
        "messages.content.id messages.content.tool_use_id thinking.display tools.type tools.allowed_callers "
        "stream metadata.user_id"
    ),
    # Ids of items mean something where they are stored, and what is given here is all there.
    "openai-responses": (
        "model input.id input.status input.call_id input.summary.type input.content.type tools.description "
        "reasoning.mode store stream stream_options.include_obfuscation metadata.a client_metadata.a user "
        "safety_identifier prompt_cache_key prompt_cache_retention"
    ),
    # The role of the user needs no word; a schema goes with no other type.
    "gemini": (
        "systemInstruction.role contents.role contents.parts.functionCall.id contents.parts.functionResponse.id "
        "contents.parts.functionResponse.name generationConfig.responseMimeType generationConfig.responseModalities "
        "labels.a store"
    ),
}
"""Members that change nothing about the answer: who asks, how, and what for."""
DEFAULTS: Final = frozenset(("type", "role", "content", "arguments", "description", "detail"))
"""Last names of members that may be left out where they say what is understood without them."""

Path = tuple[str | int, ...]


def list_leaves(value: Any, at: Path = ()) -> Iterator[tuple[Path, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not isinstance(value, dict | list):
        yield at, value
    for name, each in inner:
        yield from list_leaves(each, (*at, name))


def list_objects(value: Any, at: Path = ()) -> Iterator[Path]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if isinstance(value, dict):
        yield at
    for name, each in inner:
        yield from list_objects(each, (*at, name))


def put(body: Any, at: Path, value: Any) -> Any:
    changed = inner = copy.deepcopy(body)
    for name in at[:-1]:
        inner = inner[name]
    inner[at[-1]] = value
    return changed


def drop(body: Any, at: Path) -> Any:
    changed = inner = copy.deepcopy(body)
    for name in at[:-1]:
        inner = inner[name]
    del inner[at[-1]]
    return changed


def change(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return -value - 1
        case _:
            return f"x{value or ''}"


def name_place(at: Path) -> str:
    return ".".join(name for name in at if isinstance(name, str))


def is_noise(fmt: Format, at: Path) -> bool:
    return name_place(at) in NOISE[fmt.name].split()


def try_key(fmt: Format, body: Any) -> bytes | None:
    """Return the key of *body*; None where it is refused, so that no answer to it is kept."""
    try:
        return key_of(fmt, body)
    except InvalidRequest:
        return None


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda fmt: fmt.name)
def test_every_value_counts(fmt: Format) -> None:
    body = BODIES[fmt.name]
    key = key_of(fmt, body)
    changed = {at: try_key(fmt, put(body, at, change(value))) for at, value in list_leaves(body)}
    dropped = {at: try_key(fmt, drop(body, at)) for at, _ in list_leaves(body)}

    assert {at for at, other in changed.items() if other == key and not is_noise(fmt, at)} == set()
    forgotten = {at for at, other in dropped.items() if other == key and not is_noise(fmt, at)}
    assert {at for at in forgotten if at[-1] not in DEFAULTS} == set()


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("value", [1, {"deep": 1}, False, True, "", "x", [], [1]], ids=repr)
def test_a_member_that_nobody_knows_counts_wherever_it_stands(fmt: Format, value: object) -> None:
    body = BODIES[fmt.name]
    key = key_of(fmt, body)

    for at in list_objects(body):
        place = name_place(at)
        is_label = place in ("metadata", "client_metadata", "labels", "stream_options") or place.endswith(
            "cache_control"
        )
        if not is_label and (at or value not in ("", [], False)):
            assert try_key(fmt, put(body, (*at, "nobody_knows_this"), value)) != key, place


WILD: Final[list[tuple[str, Path, Any]]] = [
    ("openai-chat", ("messages", 0, "name"), "boss"),
    ("openai-chat", ("max_tokens",), 90),
    ("anthropic", ("tools", 0, "input_examples"), [{"city": "Ulm"}]),
    (
        "anthropic",
        ("messages", 0, "content", 0),
        {
            "type": "document",
            "source": {"type": "content", "content": [{"type": "text", "text": "words"}]},
            "title": "t",
            "context": "c",
            "citations": {"enabled": True},
        },
    ),
    (
        "anthropic",
        ("messages", 0, "content", 0),
        {
            "type": "search_result",
            "source": "https://s",
            "title": "t",
            "content": [{"type": "text", "text": "found"}],
            "citations": {"enabled": True},
        },
    ),
    ("anthropic", ("messages", 2, "content", 0, "content", 0), {"type": "tool_reference", "tool_name": "w"}),
    ("openai-responses", ("tools", 0, "defer_loading"), True),
    ("openai-responses", ("tools", 2, "description"), "Those of g"),
    (
        "openai-responses",
        ("input", 0),
        {"type": "additional_tools", "tools": [{"type": "function", "name": "late", "parameters": SCHEMA}]},
    ),
    ("gemini", ("toolConfig", "retrievalConfig"), {"languageCode": "de"}),
    ("gemini", ("generationConfig", "mediaResolution"), "MEDIA_RESOLUTION_LOW"),
    ("gemini", ("generationConfig", "nobodyKnowsThat"), {"this": 1}),
]


@pytest.mark.parametrize(("name", "at", "value"), WILD, ids=lambda value: str(value)[:60])
def test_what_a_decoder_puts_in_other_words_counts_as_it_was_written(name: str, at: Path, value: Any) -> None:
    fmt = FORMATS[name]
    body = put(BODIES[name], at, value)
    key = key_of(fmt, body)

    assert key != key_of(fmt, BODIES[name])
    for inner, said in list_leaves(value, at):
        assert try_key(fmt, put(body, inner, change(said))) != key, inner
    for noise in NOISE[name].split():
        if noise in body:
            assert key_of(fmt, put(body, (noise,), change(body[noise]))) == key or noise in ("model", "store")


SAME_WORDS: Final = [
    # A text of its own and what stands for a document, a search result or a reference to a tool.
    (
        {"type": "document", "source": {"type": "content", "content": "words"}, "title": "t"},
        [{"type": "text", "text": "t"}, {"type": "text", "text": "words"}],
    ),
    (
        {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "x"}]},
        [{"type": "text", "text": "t\ns\n\nx"}],
    ),
]


@pytest.mark.parametrize(("block", "texts"), SAME_WORDS)
def test_what_only_reads_the_same_is_not_the_same(block: object, texts: list[object]) -> None:
    asked: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [block]}]}

    assert (
        ANTHROPIC.decode_request(msgspec.json.encode(asked)).turns
        == ANTHROPIC.decode_request(msgspec.json.encode(put(asked, ("messages", 0, "content"), texts))).turns
    )
    assert key_of(ANTHROPIC, asked) != key_of(ANTHROPIC, put(asked, ("messages", 0, "content"), texts))


HELLO: Final[Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ASK_CLAUDE: Final[Any] = HELLO | {"max_tokens": 9}
ASK_GEMINI: Final[Any] = {"contents": [{"parts": [{"text": "hi"}]}]}


def thinking(**config: object) -> Any:
    return ASK_CLAUDE | {"thinking": config}


def limited(mode: str, **config: object) -> Any:
    tools = [{"functionDeclarations": [{"name": "f"}]}]
    return ASK_GEMINI | {"tools": tools, "toolConfig": {"functionCallingConfig": {"mode": mode, **config}}}


def shaped(schema: object) -> Any:
    return ASK_GEMINI | {"generationConfig": {"responseMimeType": "application/json", "responseSchema": schema}}


ORDERED: Final[Any] = {"type": "OBJECT", "properties": {"a": {"type": "STRING"}, "b": {"type": "STRING"}}}
DIFFERENT: Final[list[tuple[Format, Any, Any]]] = [
    (ANTHROPIC, thinking(type="adaptive", display="updates"), thinking(type="adaptive", display="summarized")),
    (ANTHROPIC, thinking(type="adaptive"), thinking(type="between_tools")),
    (GEMINI, limited("AUTO"), limited("VALIDATED")),
    (GEMINI, limited("AUTO"), limited("validated")),
    (GEMINI, shaped(ORDERED | {"propertyOrdering": ["a", "b"]}), shaped(ORDERED | {"propertyOrdering": ["b", "a"]})),
    (GEMINI, shaped(ORDERED | {"property_ordering": ["a", "b"]}), shaped(ORDERED | {"property_ordering": ["b", "a"]})),
    (GEMINI, shaped(ORDERED), shaped(ORDERED | {"properties": dict(reversed(ORDERED["properties"].items()))})),
    # The answer to the deprecated field has another shape.
    (
        OPENAI_CHAT,
        HELLO | {"functions": [{"name": "f"}]},
        HELLO | {"tools": [{"type": "function", "function": {"name": "f"}}]},
    ),
    (OPENAI_CHAT, HELLO | {"max_tokens": 5, "max_completion_tokens": 9}, HELLO | {"max_completion_tokens": 9}),
    (OPENAI_CHAT, HELLO | {"seed": 2**70}, HELLO | {"seed": 2**70 + 1}),
    (OPENAI_CHAT, HELLO | {"x": 2**70}, HELLO | {"x": 2**70 + 1}),
]


@pytest.mark.parametrize(("fmt", "one", "other"), DIFFERENT)
def test_these_are_not_the_same(fmt: Format, one: Any, other: Any) -> None:
    assert key_of(fmt, one) != key_of(fmt, other)


def test_the_members_of_a_schema_may_stand_in_any_order_but_for_its_properties() -> None:
    def offered(schema: Any) -> Any:
        return HELLO | {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}

    properties = {"properties": {"a": {"type": "string", "enum": ["x"]}}, "type": "object"}
    schema = {"type": "object", "properties": {"a": properties, "properties": {"type": "string", "anyOf": [{}]}}}
    anew = {"a": dict(reversed(properties.items())), "properties": {"anyOf": [{}], "type": "string"}}
    turned = {"properties": anew, "type": "object"}
    swapped = schema | {"properties": {"properties": {"type": "string", "anyOf": [{}]}, "a": properties}}

    assert key_of(OPENAI_CHAT, offered(turned)) == key_of(OPENAI_CHAT, offered(schema))
    assert key_of(OPENAI_CHAT, offered(swapped)) != key_of(OPENAI_CHAT, offered(schema))
    assert key_of(OPENAI_CHAT, offered({"maximum": 1})) != key_of(OPENAI_CHAT, offered({"maximum": 2}))
    far, farther = (msgspec.json.encode(offered({"a": "b"})).replace(b'"b"', number) for number in (b"1e999", b"2e999"))
    assert key_of(OPENAI_CHAT, far) != key_of(OPENAI_CHAT, farther)


@pytest.mark.parametrize("member", [b"1e999", b"[" * 900 + b"]" * 900, b'{"a":' * 5000 + b"1" + b"}" * 5000])
def test_what_cannot_be_read_counts_as_it_was_written(member: bytes) -> None:
    def write(member: bytes) -> bytes:
        return msgspec.json.encode(HELLO)[:-1] + b',"x":' + member + b"}"

    with pytest.raises(InvalidRequest) if len(member) > 5000 else nothing():
        key = key_of(OPENAI_CHAT, write(member))
        assert key != key_of(OPENAI_CHAT, write(member.replace(b"1", b"2").replace(b"[]", b"[2]")))
        assert key == key_of(OPENAI_CHAT, write(member))


BILLED: Final = "x-anthropic-billing-header:"


def system(*texts: str) -> Any:
    return ASK_CLAUDE | {"system": [{"type": "text", "text": text} for text in texts]}


@pytest.mark.parametrize(
    "line",
    ["", " cc_version=2.1.330.abc", " cc_version=2.1.37; cc_entrypoint=cli; cch=00f;", " cc_entrypoint=sdk-py; \n"],
)
def test_the_line_of_an_accountant_does_not_count(line: str) -> None:
    plain = key_of(ANTHROPIC, system("Be brief."))

    assert key_of(ANTHROPIC, system(BILLED + line, "Be brief.")) == plain
    late = [[*HELLO["messages"], {"role": "system", "content": BILLED + text}] for text in (line, " a=b;")]
    assert len({key_of(ANTHROPIC, ASK_CLAUDE | {"messages": messages}) for messages in late}) == 1


@pytest.mark.parametrize("line", [" lie", " a=b;\nLie to them.", " a=b; lie;", "a=b;c"])
def test_words_behind_the_line_of_an_accountant_do(line: str) -> None:
    plain = key_of(ANTHROPIC, system("Be brief."))

    assert key_of(ANTHROPIC, system(BILLED + line, "Be brief.")) != plain
    assert key_of(ANTHROPIC, ASK_CLAUDE | {"system": BILLED + line}) != key_of(ANTHROPIC, ASK_CLAUDE)
    # Where the vendor never wrote such lines, they are the caller's words.
    said = [{"role": "system", "content": f"{BILLED} a=b;"}, *HELLO["messages"]]
    assert key_of(OPENAI_CHAT, HELLO | {"messages": said}) != key_of(OPENAI_CHAT, HELLO)


# --- One question in four formats


def function(name: str = "f", schema: object = SCHEMA) -> dict[str, Any]:
    """Return the tool in each format."""
    told = {"name": name, "description": "d"}
    return {
        "openai-chat": {"type": "function", "function": told | {"parameters": schema}},
        "anthropic": told | {"input_schema": schema},
        "openai-responses": {"type": "function", **told, "parameters": schema, "strict": False},
        "gemini": {"functionDeclarations": [told | {"parametersJsonSchema": schema}]},
    }


def offer(*choices: Any) -> tuple[dict[str, Any], ...]:
    tools = function()
    fields = ({"tools": [tools[name]]} for name in BODIES)
    named = zip(fields, ("tool_choice", "tool_choice", "tool_choice", "toolConfig"), choices or [None] * 4, strict=True)
    return tuple(
        HI[name] | field | ({key: choice} if choice else {})
        for name, (field, key, choice) in zip(BODIES, named, strict=True)
    )


def ask(*fields: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return tuple(HI[name] | field for name, field in zip(BODIES, fields, strict=True))


def mode(word: str, **names: object) -> dict[str, Any]:
    return {"functionCallingConfig": {"mode": word, **names}}


HI: Final[dict[str, Any]] = {
    "openai-chat": HELLO,
    "anthropic": HELLO,
    "openai-responses": {"model": "m", "input": "hi"},
    "gemini": ASK_GEMINI,
}
USER: Final[Any] = {"role": "user", "content": "hi"}
PART: Final[Any] = {"role": "user", "parts": [{"text": "hi"}]}
SEEN: Final = f"data:image/png;base64,{PNG}"
IMAGES: Final[Any] = (
    [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": SEEN}}],
    [
        {"type": "text", "text": "What?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
    ],
    [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": SEEN, "detail": "auto"}],
    [{"text": "What?"}, {"inlineData": {"mimeType": "image/png", "data": PNG}}],
)
ARGUMENTS: Final = '{"city": "Ulm", "unit": "C"}'
OBJECT: Final = {"city": "Ulm", "unit": "C"}
ROUND_TRIP: Final[Any] = (
    [
        USER,
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [{"id": "call_9", "type": "function", "function": {"name": "f", "arguments": ARGUMENTS}}],
        },
        {"role": "tool", "tool_call_id": "call_9", "content": "rain"},
        {"role": "user", "content": "So?"},
    ],
    [
        USER,
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "toolu_1", "name": "f", "input": OBJECT},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"},
                {"type": "text", "text": "So?", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ],
    [
        USER,
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
        {"type": "function_call", "id": "fc_1", "call_id": "call_x", "name": "f", "arguments": ARGUMENTS},
        {"type": "function_call_output", "call_id": "call_x", "output": "rain"},
        {"role": "user", "content": [{"type": "input_text", "text": "So?"}]},
    ],
    [
        PART,
        {"role": "model", "parts": [{"text": "Let me see."}, {"functionCall": {"name": "f", "args": OBJECT}}]},
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": "f", "response": {"output": "rain"}}}, {"text": "So?"}],
        },
    ],
)
OTHER: Final = {
    "gemini": {
        "function_declarations": [
            {"name": "f", "description": "d", "parameters_json_schema": SCHEMA | {"additionalProperties": False}}
        ]
    }
}
CROSSED: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    "a text": ask({}, {}, {}, {}),
    "a text in parts": ask(
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}]},
        {"contents": [PART]},
    ),
    "orders": ask(
        {"messages": [{"role": "system", "content": "Be brief."}, USER]},
        {"system": [{"type": "text", "text": "Be brief."}]},
        {"instructions": "Be brief."},
        {"systemInstruction": {"parts": [{"text": "Be brief."}]}},
    ),
    "a conversation": ask(
        {"messages": [USER, {"role": "assistant", "content": "yo"}, USER]},
        {"messages": [USER, {"role": "assistant", "content": "yo"}, USER]},
        {"input": [USER, {"role": "assistant", "content": "yo"}, USER]},
        {"contents": [PART, {"role": "model", "parts": [{"text": "yo"}]}, PART]},
    ),
    "an image": ask(
        *({"messages": [{"role": "user", "content": image}]} for image in IMAGES[:2]),
        {"input": [{"role": "user", "content": IMAGES[2]}]},
        {"contents": [{"parts": IMAGES[3]}]},
    ),
    "a tool": offer(),
    "any tool": offer("required", {"type": "any"}, "required", mode("ANY")),
    "no tool": offer("none", {"type": "none"}, "none", mode("NONE")),
    "a tool if need be": offer("auto", {"type": "auto"}, "auto", mode("AUTO")),
    "this tool": offer(
        {"type": "function", "function": {"name": "f"}},
        {"type": "tool", "name": "f"},
        {"type": "function", "name": "f"},
        mode("ANY", allowedFunctionNames=["f"]),
    ),
    "what a tool has said": ask(
        {"messages": ROUND_TRIP[0]}, {"messages": ROUND_TRIP[1]}, {"input": ROUND_TRIP[2]}, {"contents": ROUND_TRIP[3]}
    ),
    "a length": ask(
        {"max_tokens": 50}, {"max_tokens": 50}, {"max_output_tokens": 50}, {"generationConfig": {"maxOutputTokens": 50}}
    ),
    "a temperature": ask(
        {"temperature": 0},
        {"temperature": 0.0},
        {"temperature": 0},
        {"generation_config": {"temperature": 0, "top_p": None}},
    ),
    "a tool in Google's other spelling": tuple(
        HI[name] | {"tools": [tool]}
        for name, tool in (function(schema=SCHEMA | {"additionalProperties": False}) | OTHER).items()
    ),
    "a share": ask({"top_p": 0.5}, {"top_p": 0.5}, {"top_p": 0.5}, {"generationConfig": {"topP": 0.5}}),
    "labels": ask(
        {"user": "a", "stream": True, "stream_options": {"include_usage": True}, "metadata": {"b": "c"}, "store": True},
        {"metadata": {"user_id": "b"}, "cache_control": {"type": "ephemeral"}},
        {"safety_identifier": "c", "prompt_cache_key": "d", "stream": True, "metadata": {"b": "c"}, "store": False},
        {"labels": {"a": "b"}, "safetySettings": []},
    ),
    "no thoughts, but for Claude, who can think less": ask(
        {"reasoning_effort": "none"},
        {"thinking": {"type": "disabled"}},
        {"reasoning": {"effort": "none"}},
        {"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}},
    ),
}
SHAPED: Final[Any] = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
APART: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    # Two have a name for it that the model sees, one is always strict, and one never says so.
    "a shape": ask(
        {"response_format": SHAPED},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}},
        {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}},
    ),
    # Whether thoughts are shown, and to whom, is part of it.
    "some thoughts": ask(
        {"reasoning_effort": "low"},
        {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "low"}},
        {"reasoning": {"effort": "low"}},
        {"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW"}}},
    ),
}
"""What is not quite the same in all formats, by what they say beside it."""


@pytest.mark.parametrize("bodies", CROSSED.values(), ids=list(CROSSED))
def test_a_question_has_one_key_in_all_formats(bodies: tuple[dict[str, Any], ...]) -> None:
    keys = {name: key_of(FORMATS[name], body) for name, body in zip(BODIES, bodies, strict=True)}

    assert len(set(keys.values())) == 1, keys


def test_questions_that_are_not_the_same_have_keys_of_their_own() -> None:
    keys = {name: key_of(OPENAI_CHAT, bodies[0]) for name, bodies in CROSSED.items()}
    alike = [{"a text", "a text in parts", "labels"}, {"a tool", "a tool if need be"}]

    for one in keys:
        for other in keys:
            is_alike = one == other or any({one, other} <= names for names in alike)
            assert (keys[one] == keys[other]) is is_alike, (one, other)


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("a shape", ["openai-chat openai-responses"]),
        ("some thoughts", ["openai-chat anthropic", "openai-responses gemini"]),
    ],
)
def test_a_question_that_formats_put_differently_has_several_keys(name: str, pairs: list[str]) -> None:
    keys = {fmt: key_of(FORMATS[fmt], body) for fmt, body in zip(BODIES, APART[name], strict=True)}

    assert {fmt: [other for other in keys if keys[other] == keys[fmt]] for fmt in keys} == {
        fmt: next((pair.split() for pair in pairs if fmt in pair.split()), [fmt]) for fmt in keys
    }


def test_a_digest_stands_for_its_parts_and_for_no_others() -> None:
    assert len(digest()) == len(digest(b"a", b"b")) == KEY_BYTES
    assert digest(b"a", b"b") == digest(b"a", b"b")
    assert len({digest(), digest(b""), digest(b"", b""), digest(b"ab"), digest(b"a", b"b"), digest(b"b", b"a")}) == 6


# --- However it is spelt


REQUESTS: Final = {
    name: importlib.import_module(f"tests.formats.{name.replace('-', '_')}.strategies").requests() for name in FORMATS
}
LABELS: Final[dict[str, Any]] = {
    "openai-chat": {"user": "z", "metadata": {"z": "z"}, "stream": True, "prompt_cache_key": "z", "store": True}
    | {"stream_options": {"include_usage": True}, "safety_identifier": "z"},
    "anthropic": {"metadata": {"user_id": "z"}, "stream": True},
    "openai-responses": {"safety_identifier": "z", "metadata": {"z": "z"}, "stream": True, "prompt_cache_key": "z"},
    "gemini": {"labels": {"z": "z"}},
}
CALL_IDS: Final = frozenset(("id", "tool_call_id", "tool_use_id", "call_id"))
MARKS: Final = frozenset(("cache_control", "prompt_cache_breakpoint"))
TURNS: Final = frozenset(("messages", "input", "contents"))
AS_WRITTEN: Final = frozenset(
    (
        "parameters",
        "input_schema",
        "schema",
        "parametersJsonSchema",
        "responseJsonSchema",
        "input",
        "args",
        "response",
        "web_search_options",
    )
)


def encode(fmt: Format, drawn: Any) -> Any:
    return msgspec.json.decode(fmt.encode_request(drawn, Capabilities(), Losses()))


def respell(value: Any, is_turn: bool = False, is_free: bool = True) -> Any:
    """Return *value* with its members the other way round, other ids of calls, and without marks."""
    if isinstance(value, list):
        return [respell(each, is_turn, is_free) for each in value]
    if not isinstance(value, dict) or not is_free:
        return value
    written: dict[str, Any] = {}
    is_server = value.get("type") not in (None, *PLAIN_TYPES) or any(name in SERVER_PARTS for name in value)
    if is_server:
        return value
    for name, inner in reversed(value.items()):
        if name in MARKS:
            pass
        elif is_turn and name in CALL_IDS and isinstance(inner, str):
            written[name] = f"z{inner}"
        else:
            is_held = name in AS_WRITTEN and isinstance(inner, dict)
            written[name] = respell(inner, is_turn or name in TURNS, not is_held)
    return written


PLAIN_TYPES: Final = (
    "text",
    "image",
    "document",
    "tool_use",
    "tool_result",
    "thinking",
    "redacted_thinking",
    "function",
    "custom",
    "message",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "input_text",
    "input_image",
    "input_file",
    "output_text",
    "refusal",
    "image_url",
    "file",
    "enabled",
    "adaptive",
    "disabled",
    "auto",
    "any",
    "tool",
    "none",
    "json_schema",
    "json_object",
    "base64",
    "url",
)


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda fmt: fmt.name)
@given(data=st.data())
def test_the_same_in_another_spelling_has_the_same_key(fmt: Format, data: st.DataObject) -> None:
    body = encode(fmt, data.draw(REQUESTS[fmt.name]))
    # Where all of the body counts, its members' order does too.
    is_whole = b'"%s",' % fmt.name.encode() in key_of(fmt, body)
    spelt = (body if is_whole else respell(body)) | LABELS[fmt.name]
    written = msgspec.json.encode(spelt)
    # What a function of Gemini's has answered is a text for others, as it stands.
    indented = written if b'"response":' in written else msgspec.json.format(written, indent=3)

    assert key_of(fmt, indented) == key_of(fmt, body)


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda fmt: fmt.name)
@given(data=st.data())
def test_whatever_is_changed_in_a_request_has_another_key(fmt: Format, data: st.DataObject) -> None:
    body = encode(fmt, data.draw(REQUESTS[fmt.name]))
    at, value = data.draw(st.sampled_from(list(list_leaves(body))))
    if (
        name_place(at).split(".")[-1] in (*CALL_IDS, *MARKS, "ttl", "type")
        or is_noise(fmt, at)
        or at[0] in LABELS[fmt.name]
    ):
        return

    assert try_key(fmt, put(body, at, change(value))) != key_of(fmt, body), at


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda fmt: fmt.name)
@given(data=st.data())
def test_two_requests_have_one_key_where_they_read_alike_and_nowhere_else(fmt: Format, data: st.DataObject) -> None:
    one, other = (encode(fmt, data.draw(REQUESTS[fmt.name])) for _ in range(2))

    def strip(body: Any) -> Any:
        return {name: value for name, value in body.items() if name not in (*LABELS[fmt.name], "model")}

    if strip(one) == strip(other):
        assert key_of(fmt, one) == key_of(fmt, other)
    if key_of(fmt, one) == key_of(fmt, other):
        assert sort_all(respell(strip(one))) == sort_all(respell(strip(other)))


def sort_all(value: Any) -> Any:
    return msgspec.json.encode(value, order="deterministic")


# --- Places: a member that is read in one is not read in another

ONE_TEXT: Final = {"role": "user", "content": "hi"}
CHAT_TOOL: Final[Any] = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True},
}
PLAIN_BODIES: Final[dict[str, Any]] = {
    "openai-chat": {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "And kind."}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look", "cache_control": {"type": "ephemeral"}},
                    {"type": "image_url", "image_url": {"url": SEEN, "detail": "low"}},
                ],
            },
            {
                "role": "assistant",
                "content": "Well",
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": ARGUMENTS}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
            {"role": "assistant", "content": [{"type": "text", "text": "Rain"}]},
            {"role": "user", "content": "So?"},
        ],
        "tools": [CHAT_TOOL],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "max_completion_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "n": 2,
        "stop": ["a", "b"],
        "seed": 7,
        "reasoning_effort": "low",
        "verbosity": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "description": "d", "schema": SCHEMA, "strict": True},
        },
        "user": "u",
    },
    "anthropic": {
        "model": "m",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                    {"type": "image", "source": {"type": "url", "url": "https://a/b"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Well"},
                    {"type": "tool_use", "id": "c1", "name": "f", "input": OBJECT},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "c1",
                        "is_error": True,
                        "content": [{"type": "text", "text": "rain"}],
                    }
                ],
            },
            {"role": "system", "content": "Now hurry."},
            {"role": "user", "content": "So?"},
        ],
        "tools": [{"type": "custom", "name": "f", "description": "d", "input_schema": SCHEMA, "strict": True}],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
        "stop_sequences": ["a", "b"],
        "temperature": 1.0,
        "top_p": 0.9,
        "top_k": 40,
        "metadata": {"user_id": "u"},
    },
    "openai-responses": {
        "model": "m",
        "instructions": "Be brief.",
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Look"},
                    {"type": "input_image", "image_url": SEEN, "detail": "low"},
                ],
            },
            {
                "type": "message",
                "role": "assistant",
                "id": "msg_1",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Well", "annotations": []}],
            },
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": ARGUMENTS},
            {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "rain"}]},
            {"type": "message", "role": "developer", "content": "Now hurry."},
            {"role": "user", "content": "So?"},
        ],
        "tools": [{"type": "function", "name": "f", "description": "d", "parameters": SCHEMA, "strict": True}],
        "tool_choice": {"type": "function", "name": "f"},
        "parallel_tool_calls": False,
        "max_output_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {
            "verbosity": "low",
            "format": {"type": "json_schema", "name": "n", "description": "d", "schema": SCHEMA, "strict": True},
        },
        "store": False,
    },
    "gemini": {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Look"}, {"inlineData": {"mimeType": "image/png", "data": PNG}}]},
            {
                "role": "model",
                "parts": [{"text": "Well"}, {"functionCall": {"name": "f", "args": OBJECT, "id": "c1"}}],
            },
            {
                "role": "user",
                "parts": [{"functionResponse": {"name": "f", "id": "c1", "response": {"output": "rain"}}}],
            },
            {"role": "model", "parts": [{"text": "Rain"}]},
            {"parts": [{"text": "So?"}]},
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "f", "description": "d", "parametersJsonSchema": SCHEMA},
                    {
                        "name": "g",
                        "parameters": {
                            "type": "OBJECT",
                            "properties": {
                                "a": {"type": "STRING", "nullable": True, "enum": ["x"]},
                                "b": {"type": "ARRAY", "items": {"type": "INTEGER"}},
                            },
                            "required": ["a"],
                        },
                    },
                ]
            }
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 40,
            "maxOutputTokens": 100,
            "stopSequences": ["a", "b"],
            "seed": 7,
            "responseMimeType": "application/json",
            "responseJsonSchema": SCHEMA,
            "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 200},
        },
        "labels": {"a": "b"},
    },
}
"""Requests that say nothing but what every format can; each kind of place that there is in such is in them."""

CACHE_MARKS: Final = ({"type": "ephemeral"}, {"type": "ephemeral", "ttl": "5m"}, {"type": "ephemeral", "ttl": "1h"})
SAYS_NOTHING: Final[dict[str, dict[str, tuple[Any, ...]]]] = {
    "openai-chat": {
        "messages.content.cache_control": CACHE_MARKS,
        "messages.cache_control": CACHE_MARKS,
        "tools.cache_control": CACHE_MARKS,
        "tools.function.cache_control": CACHE_MARKS,
        "messages.tool_calls.id": ("c1",),
        "messages.tool_call_id": ("c1",),
        "messages.content": ("",),
        "tools.function.description": ("",),
        "tools.function.parameters": ({"type": "object", "properties": {}},),
        "tools.function.strict": (False,),
        "tool_choice": ("auto",),
        "parallel_tool_calls": (True,),
        "response_format": ({"type": "text"},),
        "n": (1,),
    },
    "anthropic": {
        "system.cache_control": CACHE_MARKS,
        "messages.content.cache_control": CACHE_MARKS,
        "messages.content.content.cache_control": CACHE_MARKS,
        "tools.cache_control": CACHE_MARKS,
        "messages.content.id": ("c1",),
        "messages.content.tool_use_id": ("c1",),
        "messages.content.content": ("",),
        "messages.content.is_error": (False,),
        "messages.content.caller": ({"type": "direct"},),
        "tools.type": ("custom",),
        "tools.description": ("",),
        "tools.input_schema": ({"type": "object", "properties": {}},),
        "tools.strict": (False,),
        "tool_choice": ({"type": "auto"},),
        "tool_choice.disable_parallel_tool_use": (False,),
    },
    "openai-responses": {
        # Ids mean something where items are stored, and what is given here is all there.
        "input.id": (),
        "input.status": ("completed",),
        "input.type": ("message",),
        "input.call_id": ("c1",),
        "input.output": ("",),
        "input.content.detail": ("auto",),
        "input.output.detail": ("auto",),
        "tools.description": ("",),
        "tools.parameters": ({"type": "object", "properties": {}},),
        "tool_choice": ("auto",),
        "parallel_tool_calls": (True,),
        "text.format": ({"type": "text"},),
    },
    "gemini": {
        "systemInstruction.role": ("user", "system"),
        "contents.role": ("user",),
        "contents.parts.functionCall.id": (),
        "contents.parts.functionCall.args": ({},),
        "contents.parts.functionResponse.id": (),
        "tools.functionDeclarations.description": ("",),
        ".nullable": (False,),
        "toolConfig.functionCallingConfig": ({"mode": "AUTO"},),
        "generationConfig.responseMimeType": ("text/plain",),
    },
}
"""By place, or by a dot and a name where schemas are nested, the values that say no more than nothing does there, next
to null, an empty list and an object of such; ``()``: any. They are defaults, marks for the prompt cache, and ids that
only tell calls apart."""
EMPTY: Final[tuple[Any, ...]] = (None, [], {})


def reduce_body(fmt: Format, value: Any, place: str = "") -> Any:
    """Return *value* without what says nothing there, and in one of the spellings that mean the same."""
    if isinstance(value, list):
        return [reduce_body(fmt, each, place) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, dict):
        return value
    reduced: dict[str, Any] = {}
    for name, each in value.items():
        at = f"{place}.{name}".removeprefix(".")
        is_held = isinstance(each, dict) and name in AS_WRITTEN and (fmt is not GEMINI or name != "parameters")
        inner = each if is_held else reduce_body(fmt, respell_text(name, each), at)
        if not (says_nothing(fmt, name, at, inner) or (not place and is_label(fmt, name))):
            reduced[name] = inner
    return reduced


def says_nothing(fmt: Format, name: str, at: str, value: Any) -> bool:
    silent = SAYS_NOTHING[fmt.name].get(at, SAYS_NOTHING[fmt.name].get(f".{name}"))
    return silent == () or any(is_same(value, each) for each in (*EMPTY, *(silent or ())))


def is_label(fmt: Format, name: str) -> bool:
    return name == "model" or name in fmt.volatile_fields


def is_same(one: Any, other: Any) -> bool:
    """Tell whether both are the same JSON; to Python, True is 1."""
    return bool(sort_all(one) == sort_all(other))


def respell_text(name: str, value: Any) -> Any:
    """Return *value* as the one of several spellings that formats have for one thing."""
    match name, value:
        case (
            ("content" | "output" | "system"),
            [{"type": "text" | "input_text" | "output_text", "text": text, **more}],
        ):
            return (
                value if set(more) - {"annotations", "logprobs", "cache_control"} or more.get("annotations") else text
            )
        case "stop", str(text):
            return [text]
        case "role", "developer":
            return "system"
        case _:
            return value


def find_names(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        for each in value:
            yield from find_names(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            yield name, each
            yield from find_names(each)


FOREIGN: Final[dict[str, tuple[Any, ...]]] = {
    "cachedContent": ("c",),
    "caller": ({"type": "direct"}, {"type": "code_execution_20250825", "tool_id": "t"}),
    "candidateCount": (2,),
    "chat_template_kwargs": ({"enable_thinking": False},),
    "citations": ({"enabled": True},),
    "enable_thinking": (False,),
    "include_reasoning": (True,),
    "max_tokens": (50,),
    "min_p": (0.1,),
    "output_format": ({"type": "json_schema", "schema": SCHEMA},),
    "reasoning_content": ("Hm",),
    "refusal": ("No",),
    "responseSchema": ({"type": "OBJECT"},),
    "schema": ({"a": 1}, {"a": 2}),
    "thinking_budget": (0, 8000),
    "thought": (True,),
    "title": ("t",),
    "nobody_knows_this": (1,),
}
POOL: Final[dict[str, list[Any]]] = {}
for _name, _value in [
    *((name, value) for body in (*BODIES.values(), *PLAIN_BODIES.values()) for name, value in find_names(body)),
    *((name, value) for bodies in CROSSED.values() for body in bodies for name, value in find_names(body)),
    *((name, value) for name, values in FOREIGN.items() for value in values),
]:
    _values = POOL.setdefault(_name, [])
    # The line of an accountant has tests of its own.
    if len(_values) < 6 and BILLED not in str(_value) and not any(is_same(_value, each) for each in _values):
        _values.append(_value)
COMMON: Final[tuple[Any, ...]] = ("", "x", 1, True, False, None, [], {}, {"x": 1}, [1])


def check_change(fmt: Format, body: Any, key: bytes, at: Path, value: Any) -> None:
    changed = put(body, at, value)
    if try_key(fmt, changed) == key:
        assert is_same(reduce_body(fmt, changed), reduce_body(fmt, body)), (at, value)


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda fmt: fmt.name)
def test_a_plain_request_has_nothing_of_its_format(fmt: Format) -> None:
    for body in (PLAIN_BODIES[fmt.name], *(bodies[list(BODIES).index(fmt.name)] for bodies in CROSSED.values())):
        assert b'"%s",' % fmt.name.encode() not in key_of(fmt, body), body


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda fmt: fmt.name)
def test_any_member_at_any_place_counts_or_is_known_to_say_nothing(fmt: Format) -> None:
    body = PLAIN_BODIES[fmt.name]
    key = key_of(fmt, body)

    for inside in list_objects(body):
        if not (inside and is_label(fmt, str(inside[0]))):
            for number, (name, values) in enumerate(POOL.items()):
                for value in (values[0], COMMON[number % len(COMMON)]):
                    check_change(fmt, body, key, (*inside, name), value)


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from((0.0, 1.0, 0.5)) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(sorted(POOL)), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda fmt: fmt.name)
@given(data=st.data())
def test_whatever_is_put_into_a_plain_request_counts_or_is_known_to_say_nothing(
    fmt: Format, data: st.DataObject
) -> None:
    body = data.draw(st.sampled_from([PLAIN_BODIES[fmt.name], *(by_name(fmt, each) for each in CROSSED.values())]))
    key = key_of(fmt, body)
    name = data.draw(st.sampled_from(sorted(POOL)) | st.text(max_size=5))
    at = (*data.draw(st.sampled_from(list(list_objects(body)))), name)
    value = data.draw(JSON | st.sampled_from((*POOL.get(name, ()), *COMMON)))

    if not is_label(fmt, str(at[0])):
        check_change(fmt, body, key, at, value)


def by_name(fmt: Format, bodies: Sequence[Any]) -> Any:
    return bodies[list(BODIES).index(fmt.name)]


def with_part(**more: object) -> Any:
    return HELLO | {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", **more}]}]}


def with_tool(**more: object) -> Any:
    return HELLO | {"tools": [CHAT_TOOL | {"function": CHAT_TOOL["function"] | more}]}


ASK_RESPONSES: Final[Any] = {"model": "m", "input": "hi"}


def offered(**more: object) -> Any:
    return ASK_RESPONSES | {"tools": [{"type": "function", "name": "f", "parameters": SCHEMA, **more}]}


TOLD_APART: Final[list[tuple[Format, list[Any]]]] = [
    (OPENAI_CHAT, [HELLO | {"response_format": {"type": "json_object", "schema": {"a": each}}} for each in (1, 2)]),
    (OPENAI_CHAT, [HELLO, *(HELLO | {"thinking": {"type": each}} for each in ("enabled", "disabled"))]),
    (OPENAI_CHAT, [HELLO, *(HELLO | {"thinking_budget": each} for each in (0, 8000))]),
    (OPENAI_CHAT, [HELLO, *(HELLO | {"reasoning": {"effort": each}} for each in ("low", "high"))]),
    (OPENAI_CHAT, [HELLO, *(HELLO | {"reasoning": {"max_tokens": each}} for each in (100, 9000))]),
    (OPENAI_CHAT, [HELLO, *(HELLO | {"format": each} for each in ("json", "text"))]),
    (OPENAI_CHAT, [HELLO, *(HELLO | {"messages": [ONE_TEXT | {"name": each}]} for each in ("a", "b"))]),
    (
        OPENAI_CHAT,
        [HELLO, *(HELLO | {"messages": [{"role": "system", "content": "s", "name": n}, ONE_TEXT]} for n in "ab")],
    ),
    (
        OPENAI_CHAT,
        [with_tool(), *(with_tool(input_schema={"a": each}) for each in (1, 2)), with_tool(response={"a": 1})],
    ),
    (OPENAI_CHAT, [with_part(), with_part(id="a"), with_part(id="b"), with_part(thinking="x")]),
    # An empty word of the assistant's is a turn to the model.
    (
        OPENAI_CHAT,
        [HELLO | {"messages": [ONE_TEXT, ONE_TEXT]}]
        + [HELLO | {"messages": [ONE_TEXT, {"role": "assistant", "content": each}, ONE_TEXT]} for each in ("", "x")],
    ),
    (FORMATS["openai-responses"], [ASK_RESPONSES, *(ASK_RESPONSES | {"seed": each} for each in (1, 2))]),
    (FORMATS["openai-responses"], [ASK_RESPONSES, *(ASK_RESPONSES | {"top_k": each} for each in (1, 2))]),
    (
        FORMATS["openai-responses"],
        [ASK_RESPONSES, *(ASK_RESPONSES | {"reasoning_effort": each} for each in ("low", "high"))],
    ),
    # Who does not say so is held to strictness.
    (FORMATS["openai-responses"], [offered(), offered(strict=False), offered(strict=True)]),
    (ANTHROPIC, [ASK_CLAUDE, *(ASK_CLAUDE | {"seed": each} for each in (1, 2))]),
    # Which is shown of a thought unless it is said depends on the model.
    (ANTHROPIC, [thinking(type="adaptive"), thinking(type="adaptive", display="summarized")]),
    (GEMINI, [ASK_GEMINI, *(ASK_GEMINI | {"seed": each} for each in (1, 2))]),
    (GEMINI, [ASK_GEMINI | {"generationConfig": {"topK": each}} for each in (40, 40.5)]),
    (
        GEMINI,
        [
            ASK_GEMINI | {"contents": [{"parts": [{"text": "hi"} | each]}]}
            for each in ({}, {"inlineData": {"data": PNG, "mimeType": "image/png"}})
        ],
    ),
]


@pytest.mark.parametrize(("fmt", "bodies"), TOLD_APART)
def test_what_is_read_elsewhere_only_counts_as_it_was_written(fmt: Format, bodies: list[Any]) -> None:
    keys = [key_of(fmt, body) for body in bodies]

    assert len(set(keys)) == len(bodies)


ASKED_TWICE: Final = [
    b'{"model":"m","temperature":%d,"temperature":1,"messages":[{"role":"user","content":"hi"}]}',
    b'{"model":"m","temperature":1,"messages":[{"role":"user","content":"%d","content":"hi"}]}',
    b'{"model":"m","x":{"a":%d,"a":2},"messages":[{"role":"user","content":"hi"}]}',
    b'{"model":"m","temperature":1,"messages":[{"role":"user","content":"hi"},{"role":"assistant","tool_calls":'
    rb'[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":%d,\"a\":2}"}}]}]}',
    # As many quotes in other letters as the second member takes away.
    b'{"model":"m","temperature":%d,"temperature":1,"messages":[{"role":"user","content":"\\u0022\\u0022"}]}',
]


@pytest.mark.parametrize("body", ASKED_TWICE)
def test_of_a_member_that_stands_twice_both_count(body: bytes) -> None:
    # Which of them is meant is anyone's guess, and upstreams do not agree.
    assert key_of(OPENAI_CHAT, body % 1) != key_of(OPENAI_CHAT, body % 3)


def test_words_in_other_letters_are_the_same_words() -> None:
    hidden = msgspec.json.encode(system(f"{BILLED} lie", "Be brief.")).replace(b"x-anth", rb"\u0078-anth")
    shown = msgspec.json.encode(HELLO | {"messages": [USER | {"content": r'hi, "you" \u0022 \ there'}]})
    # As the clients of .NET write quotes.
    spelt = shown.replace(rb"\"", rb"\u0022").replace(b'"hi', rb'"\u0068i')

    assert key_of(ANTHROPIC, hidden) != key_of(ANTHROPIC, system("Be brief."))
    assert spelt != shown
    assert key_of(OPENAI_CHAT, spelt) == key_of(OPENAI_CHAT, shown)
    assert b'"openai-chat",' not in key_of(OPENAI_CHAT, spelt)


class Quiet(StandIn):
    """A format that does not tell what is plain in it."""

    name = "quiet"


def test_where_nothing_is_known_to_be_plain_all_counts_as_it_was_written() -> None:
    asked = OPENAI_CHAT.decode_request(msgspec.json.encode(HELLO))
    keys = {write_meaning(asked, Quiet(), body) for body in (b'{"a":1}', b'{"a": 1}', b'{"a":2}')}

    assert len(keys) == 2
