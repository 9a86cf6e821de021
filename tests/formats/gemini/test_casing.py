import time

import msgspec
import pytest
from hypothesis import given

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import GEMINI
from aiproxyd.formats.gemini.casing import to_camel_case
from tests.formats.gemini.strategies import JSON


def test_both_spellings_say_the_same() -> None:
    # As google-genai and pydantic-ai send it, with keys of the caller's own that look like ours.
    mixed = b"""{
        "contents": [
            {"parts": [{"inline_data": {"mime_type": "image/png", "data": "AAAA"}}, {"file_data": {"file_uri": "f"}}]},
            {"role": "model", "parts": [
                {"function_call": {"name": "f", "args": {"mime_type": "x", "a_b": 1.50}}, "thought_signature": "AAAA"}
            ]},
            {"parts": [{"function_response": {
                "name": "f", "response": {"file_data": 1}, "parts": [{"inline_data": {"mime_type": "a/b", "data": ""}}]
            }}]},
            {"parts": [{"text": "x"}]}
        ],
        "system_instruction": {"parts": [{"text": "s"}]},
        "tools": [{"function_declarations": [
            {"name": "f", "parameters_json_schema": {"type": "object", "properties": {"mime_type": {}}}}
        ]}, {"google_search": {}}],
        "tool_config": {"function_calling_config": {"mode": "ANY", "allowed_function_names": ["f"]}},
        "generation_config": {
            "max_output_tokens": 5, "response_mime_type": "application/json", "top_k": 3,
            "response_json_schema": {"properties": {"top_k": {}}},
            "thinking_config": {"thinking_level": "LOW", "include_thoughts": true}
        },
        "safety_settings": [{"a_b": 1}],
        "labels": {"my_label": "x"}
    }"""
    plain = b"""{
        "contents": [
            {"parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}, {"fileData": {"fileUri": "f"}}]},
            {"role": "model", "parts": [
                {"functionCall": {"name": "f", "args": {"mime_type": "x", "a_b": 1.50}}, "thoughtSignature": "AAAA"}
            ]},
            {"parts": [{"functionResponse": {
                "name": "f", "response": {"file_data": 1}, "parts": [{"inlineData": {"mimeType": "a/b", "data": ""}}]
            }}]},
            {"parts": [{"text": "x"}]}
        ],
        "systemInstruction": {"parts": [{"text": "s"}]},
        "tools": [{"functionDeclarations": [
            {"name": "f", "parametersJsonSchema": {"type": "object", "properties": {"mime_type": {}}}}
        ]}, {"googleSearch": {}}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "generationConfig": {
            "maxOutputTokens": 5, "responseMimeType": "application/json", "topK": 3,
            "responseJsonSchema": {"properties": {"top_k": {}}},
            "thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": true}
        },
        "safetySettings": [{"a_b": 1}],
        "labels": {"my_label": "x"}
    }"""

    assert msgspec.json.decode(to_camel_case(mixed)) == msgspec.json.decode(plain)
    assert to_camel_case(plain.replace(b"mime_type", b"a_b").replace(b"top_k", b"a_b").replace(b"file_data", b"a_b"))
    assert b'"a_b": 1.50' in to_camel_case(mixed)
    decoded = GEMINI.decode_request(mixed)
    assert (decoded.turns, decoded.reasoning) == (
        GEMINI.decode_request(plain).turns,
        GEMINI.decode_request(plain).reasoning,
    )


def test_a_body_without_a_second_spelling_is_not_touched() -> None:
    body = b'{ "contents":[{"parts":[{"functionCall":{"args":{"file_path":1,"old_string":2}}}]}]}'

    assert to_camel_case(body) is body


@pytest.mark.parametrize("body", [b'{"mime_type":', b'["mime_type":1]', b'"mime_type":', b'{"mime_type":1}}'])
def test_what_is_no_json_stays_as_it_is(body: bytes) -> None:
    assert to_camel_case(body) == body
    with pytest.raises(InvalidRequest):
        GEMINI.decode_request(body)


@pytest.mark.parametrize(
    "body", [b'{"contents":"mime_type\\":"}', b'{"contents":{"mime_type":1}}', b'[[{"mime_type":1}]]']
)
def test_what_has_another_shape_is_left_to_the_decoder(body: bytes) -> None:
    assert msgspec.json.decode(to_camel_case(body)) in (
        {"contents": 'mime_type":'},
        {"contents": {"mimeType": 1}},
        [[{"mime_type": 1}]],
    )


def test_lists_of_lists_are_not_looked_into_for_each_of_them_would_be_read_again() -> None:
    body = b'{"contents":' + b"[" * 300 + b'{"inline_data":"' + b"x" * 1_000_000 + b'"}' + b"]" * 300 + b"}"
    start_s = time.process_time()

    named = to_camel_case(body)

    assert time.process_time() - start_s < 0.03
    assert named == body


@given(value=JSON)
def test_what_is_the_caller_s_own_stays_as_it_is(value: object) -> None:
    call = {"name": "f", "args": {"mime_type": value, "x": {"generation_config": value}}}
    body = {"contents": [{"parts": [{"functionCall": call}]}]}

    assert msgspec.json.decode(to_camel_case(msgspec.json.encode(body))) == body
