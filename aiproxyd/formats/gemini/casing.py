"""Field names in either spelling. Sans-I/O.

Google's JSON parser takes ``generation_config`` for ``generationConfig``, as every protobuf parser does
(https://protobuf.dev/programming-guides/json/), and its SDK for Python mixes both in one body. Names inside arguments,
results, schemas and labels are the caller's own and stay as they are.
"""

import re
from typing import Final

import msgspec
from msgspec import Raw

from aiproxyd.splice import JSON_ERRORS

_Level = dict[str, "_Level"]
"""The objects, or lists of objects, inside an object of the protocol, by field; what is missing is not looked into."""

_LEAF: Final[_Level] = {}
_MEDIA: Final[_Level] = {"inlineData": _LEAF, "fileData": _LEAF}
_PART: Final[_Level] = _MEDIA | {"functionCall": _LEAF, "functionResponse": {"parts": _MEDIA}}
_CONTENT: Final[_Level] = _PART | {"parts": _PART}
_TOOL: Final[_Level] = {"functionDeclarations": _LEAF, "googleSearch": _LEAF, "googleSearchRetrieval": _LEAF}
_BODY: Final[_Level] = {
    "contents": _CONTENT,
    "systemInstruction": _CONTENT,
    "tools": _TOOL,
    "toolConfig": {"functionCallingConfig": _LEAF},
    "generationConfig": {"thinkingConfig": _LEAF},
}

_NAMES: Final = re.findall(
    r"\w+",
    """
    system_instruction tool_config generation_config safety_settings cached_content continuation_token service_tier
    inline_data file_data mime_type file_uri function_call function_response thought_signature executable_code
    code_execution_result tool_call tool_response video_metadata media_resolution part_metadata
    function_declarations parameters_json_schema response_json_schema google_search google_search_retrieval
    code_execution url_context file_search google_maps computer_use mcp_servers enterprise_web_search
    function_calling_config allowed_function_names retrieval_config
    candidate_count max_output_tokens stop_sequences presence_penalty frequency_penalty response_logprobs
    response_mime_type response_schema response_modalities response_format speech_config image_config top_p top_k
    thinking_config include_thoughts thinking_budget thinking_level
    """,
)
"""Every field with a second spelling that matters to us."""

# Callers' own names with an underscore are many; where none ends like one of these, nothing has to be taken apart.
_HINT: Final = re.compile(rb'_(?:%s)"\s*:' % b"|".join(sorted({name.partition("_")[2].encode() for name in _NAMES})))
_UNDERSCORE: Final = re.compile("_([a-z])")

_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_items: Final = msgspec.json.Decoder(list[Raw])
_encode: Final = msgspec.json.Encoder().encode


def to_camel_case(body: bytes) -> bytes:
    """Return the body of a request with all names of the protocol in camel case; what is no JSON stays as it is."""
    if not _HINT.search(body):
        return body
    try:
        return bytes(_rename(Raw(body.strip()), _BODY))
    except JSON_ERRORS:
        return body


def _rename(raw: Raw, level: _Level) -> Raw:
    """Return *raw*, an object or a list of objects, with the names of *level*; lists in lists stay as they are."""
    if bytes(memoryview(raw)[:1]) == b"[" and _HINT.search(raw):
        return Raw(_encode([_rename_object(item, level) for item in _items.decode(raw)]))
    return _rename_object(raw, level)


def _rename_object(raw: Raw, level: _Level) -> Raw:
    if bytes(memoryview(raw)[:1]) != b"{" or not _HINT.search(raw):
        return raw
    return Raw(_encode(dict(_rename_field(key, value, level) for key, value in _fields.decode(raw).items())))


def _rename_field(name: str, value: Raw, level: _Level) -> tuple[str, Raw]:
    name = _UNDERSCORE.sub(lambda match: match[1].upper(), name)
    return name, _rename(value, level[name]) if name in level else value
