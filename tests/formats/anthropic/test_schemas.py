"""JSON Schemas as Anthropic takes them."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from msgspec import Raw

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.anthropic.schemas import close_root, restrict
from tests.formats.anthropic.strategies import SCHEMAS


def restricted(schema: Any) -> Any:
    return msgspec.json.decode(restrict(Raw(msgspec.json.encode(schema))))


def closed(schema: Any) -> Any:
    return msgspec.json.decode(close_root(Raw(msgspec.json.encode(schema)), "f"))


def test_a_tool_without_arguments_has_an_empty_object() -> None:
    assert bytes(close_root(None, "f")) == b'{"type":"object","properties":{}}'


def test_the_schema_of_an_object_is_left_as_it_is() -> None:
    schema = Raw(b'{ "x-order": 1.50, "type": "object" }')

    assert bytes(close_root(schema, "f")) == b'{ "x-order": 1.50, "type": "object" }'


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        (b'{"properties":{"n":{"const":1e2}}}', b'{"type":"object","properties":{"n":{"const":1e2}}}'),
        (b'{"type":null,"title":"t"}', b'{"type":"object","title":"t"}'),
        (b"{}", b'{"type":"object"}'),
    ],
)
def test_the_root_of_a_tool_is_an_object(schema: bytes, sent: bytes) -> None:
    assert bytes(close_root(Raw(schema), "f")) == sent


@pytest.mark.parametrize("schema", [b"true", b"[]", b'"object"'])
def test_a_schema_that_is_no_object_is_refused(schema: bytes) -> None:
    with pytest.raises(InvalidRequest, match="the parameters of the tool 'f' are no JSON Schema object"):
        close_root(Raw(schema), "f")


def test_a_combination_at_the_root_of_a_tool_is_told_in_words() -> None:
    schema = {
        "type": "object",
        "description": "Move",
        "properties": {"to": {"type": "string"}},
        "required": ["to"],
        "oneOf": [{"properties": {"to": {}, "by": {"type": "integer"}}, "required": ["by"]}, {"$ref": "#/$defs/a"}, 7],
        "allOf": [{"properties": {"at": {"type": "integer"}}, "required": ["at", "to"]}],
    }

    assert closed(schema) == {
        "type": "object",
        "description": 'Move\n\n{"oneOf":[{"properties":{"to":{},"by":{"type":"integer"}},"required":["by"]},'
        '{"$ref":"#/$defs/a"},7],"allOf":[{"properties":{"at":{"type":"integer"}},"required":["at","to"]}]}',
        "properties": {"to": {"type": "string"}, "by": {"type": "integer"}, "at": {"type": "integer"}},
        "required": ["to", "at"],
    }


def test_a_combination_that_is_none_is_told_as_well() -> None:
    assert closed({"anyOf": "x", "properties": 5}) == {
        "type": "object",
        "properties": {},
        "required": [],
        "description": '{"anyOf":"x"}',
    }


@given(schema=SCHEMAS)
def test_a_schema_that_can_be_enforced_is_left_as_it_is(schema: Raw) -> None:
    assert restrict(schema) == schema


def test_objects_are_closed_however_deep_they_are() -> None:
    inner = {"type": "object", "properties": {}}
    closed_inner = {**inner, "additionalProperties": False}

    assert restricted(
        {
            "$defs": {"a": inner},
            "definitions": {"b": inner},
            "type": ["object", "null"],
            "properties": {"c": {"type": "array", "items": inner}, "d": {"anyOf": [inner, {"allOf": [inner]}]}},
            "required": ["c"],
        }
    ) == {
        "$defs": {"a": closed_inner},
        "definitions": {"b": closed_inner},
        "type": ["object", "null"],
        "properties": {
            "c": {"type": "array", "items": closed_inner},
            "d": {"anyOf": [closed_inner, {"allOf": [closed_inner]}]},
        },
        "required": ["c"],
        "additionalProperties": False,
    }


def test_what_cannot_be_enforced_is_told_the_model() -> None:
    assert restricted(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "properties": {
                "n": {"type": "integer", "minimum": 1, "maximum": 9, "description": "How many"},
                "s": {"type": "string", "maxLength": 5, "pattern": "^a", "format": "color", "default": "a"},
                "l": {"type": "array", "items": True, "minItems": 2, "uniqueItems": True, "prefixItems": [{}]},
            },
        }
    ) == {
        "properties": {
            "n": {"type": "integer", "description": 'How many\n\n{"minimum":1,"maximum":9}'},
            "s": {
                "type": "string",
                "default": "a",
                "description": '{"maxLength":5,"pattern":"^a","format":"color"}',
            },
            "l": {
                "type": "array",
                "description": '{"items":true,"minItems":2,"uniqueItems":true,"prefixItems":[{}]}',
            },
        },
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({"oneOf": [{"type": "null"}]}, {"anyOf": [{"type": "null"}]}),
        (
            {"oneOf": [{}], "anyOf": [{"type": "null"}]},
            {"anyOf": [{"type": "null"}], "description": '{"oneOf":[{}]}'},
        ),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        ({"format": 5}, {"description": '{"format":5}'}),
        ({"type": "array", "items": {}, "minItems": 1}, {"type": "array", "items": {}, "minItems": 1}),
        ({"minItems": [1]}, {"description": '{"minItems":[1]}'}),
        ({"anyOf": 5, "properties": 5}, {"description": '{"anyOf":5,"properties":5}', "additionalProperties": False}),
        ({"enum": ["a"], "const": "a"}, {"enum": ["a"], "const": "a"}),
        ({"$ref": "#/$defs/a", "minimum": 1}, {"$ref": "#/$defs/a"}),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"minimum": 1}}},
            {"$ref": "#/$defs/a", "$defs": {"a": {"description": '{"minimum":1}'}}},
        ),
        (
            {"type": "object", "additionalProperties": {"type": "string"}},
            {
                "type": "object",
                "additionalProperties": False,
                "description": '{"additionalProperties":{"type":"string"}}',
            },
        ),
        ({"type": "object", "additionalProperties": True}, {"type": "object", "additionalProperties": False}),
        ({"anyOf": [True], "description": 5, "not": {}}, {"anyOf": [True], "description": '{"not":{}}'}),
        ({"minimum": 10**30}, {"description": '{"minimum":1000000000000000000000000000000}'}),
    ],
)
def test_each_keyword_has_its_way(schema: object, sent: object) -> None:
    assert restricted(schema) == sent


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (b"true", "has to be an object"),
        (b'{"a":"\xff"}', "cannot be read"),
        (b'{"items":' * 900 + b"{}" + b"}" * 900, "cannot be read"),
    ],
)
def test_what_is_no_schema_is_refused(schema: bytes, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        restrict(Raw(schema))
