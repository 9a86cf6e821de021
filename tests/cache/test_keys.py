"""What has one key, and what must not: an answer to another question is the worst that a cache can give."""

import copy
import importlib
from collections.abc import Iterator
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
        "openai-responses": {"type": "function", **told, "parameters": schema},
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
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
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
