import msgspec
import pytest
from hypothesis import given
from msgspec import Raw

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.gemini.schemas import (
    MAX_REMEMBERED_BYTES,
    from_json_schema,
    from_openapi,
    write_parameters,
    write_schema,
)
from tests.formats.gemini.strategies import JSON


def lower(schema: object) -> object:
    return msgspec.json.decode(from_openapi(Raw(msgspec.json.encode(schema))))


@pytest.mark.parametrize(
    ("openapi", "json_schema"),
    [
        ({"type": "STRING", "example": "x"}, {"type": "string"}),
        ({"type": "string"}, {"type": "string"}),
        ({"type": "STRING", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "STRING", "nullable": False}, {"type": "string"}),
        (
            {"type": "STRING", "nullable": True, "enum": ["a"], "format": "enum"},
            {"type": ["string", "null"], "enum": ["a", None], "format": "enum"},
        ),
        ({"anyOf": [{"type": "INTEGER"}], "nullable": True}, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        ({"ref": "#/defs/A", "nullable": True}, {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]}),
        ({"defs": {"A": {"type": "NUMBER"}}, "ref": 5}, {"$defs": {"A": {"type": "number"}}, "$ref": 5}),
        ({"type": "TYPE_UNSPECIFIED", "title": "t"}, {"title": "t"}),
        (
            {"type": "ARRAY", "items": {"type": "BOOLEAN"}, "minItems": "1", "max_items": 3, "maxLength": "many"},
            {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3, "maxLength": "many"},
        ),
        ({"minItems": "9" * 5000}, {"minItems": "9" * 5000}),
        (
            {
                "type": "OBJECT",
                "properties": {"type": {"type": "STRING"}, "nullable": {"type": "STRING"}, "x": True},
                "propertyOrdering": ["type"],
                "required": ["type"],
                "additionalProperties": False,
                "default": {"type": "STRING", "example": 1},
                "enum": ["STRING"],
            },
            {
                "type": "object",
                "properties": {"type": {"type": "string"}, "nullable": {"type": "string"}, "x": True},
                "required": ["type"],
                "additionalProperties": False,
                "default": {"type": "STRING", "example": 1},
                "enum": ["STRING"],
            },
        ),
        (
            {"type": 5, "anyOf": {"type": "STRING"}, "properties": 5},
            {"type": 5, "anyOf": {"type": "STRING"}, "properties": 5},
        ),
        ("STRING", "STRING"),
    ],
)
def test_google_s_spelling_becomes_json_schema(openapi: object, json_schema: object) -> None:
    assert lower(openapi) == json_schema


@given(schema=JSON)
def test_any_json_is_taken_for_a_schema(schema: object) -> None:
    lower(schema)


def test_types_of_a_json_schema_are_written_in_lower_case() -> None:
    # Gemini CLI's router asks for its answer so.
    schema = Raw(b'{"type":["STRING",5,"custom"],"nullable":true,"properties":{"a":{"type":"OBJECT","x":1.50}}}')

    assert msgspec.json.decode(from_json_schema(schema)) == {
        "type": ["string", 5, "custom"],
        "nullable": True,
        "properties": {"a": {"type": "object", "x": 1.5}},
    }


def test_a_json_schema_stays_as_it_is() -> None:
    schema = Raw(b'{ "type":"object","default": 1.50 }')

    assert from_json_schema(schema) is schema


def test_a_long_schema_is_not_remembered() -> None:
    long = Raw(b'{"type":"STRING","title":"%s"}' % (b"x" * MAX_REMEMBERED_BYTES))

    assert msgspec.json.decode(from_openapi(long))["type"] == "string"


def test_a_schema_that_is_nested_too_deep_is_refused() -> None:
    refusals: set[str] = set()
    for depth in range(800, 1000):
        try:
            from_openapi(Raw(b'{"items":' * depth + b"{}" + b"}" * depth))
        except InvalidRequest as exc:
            refusals.add(exc.message)

    # Some are as deep as they can be read, and deeper than they can be walked through.
    assert "the schema is nested too deep" in refusals


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        (b'{"type":"object"}', None),
        (b'{"type":"object","properties":{},"required":[],"additionalProperties":false,"$schema":"x"}', None),
        (b"{}", None),
        (b'{"type":"object","additionalProperties":true}', b'{"type":"object","additionalProperties":true}'),
        (b'{"type":"object","anyOf":[]}', b'{"type":"object","anyOf":[]}'),
        (b'{"type":"object","properties":{ "a":{}}}', b'{"type":"object","properties":{ "a":{}}}'),
        (b'{"$schema":"x","properties":{"$schema":1.50}}', b'{"properties":{"$schema":1.50}}'),
        (b'{"properties":{"$schema":{}}}', b'{"properties":{"$schema":{}}}'),
        (b"[]", b"[]"),
    ],
)
def test_a_schema_that_asks_for_nothing_is_left_out(schema: bytes, written: bytes | None) -> None:
    result = write_parameters(Raw(schema))

    assert (bytes(result) if result is not None else None) == written


def test_a_long_schema_keeps_every_byte_but_the_name_of_its_language() -> None:
    rest = b'{ "title":"' + b"x" * 300 + b'" }'

    assert bytes(write_parameters(Raw(rest)) or b"") == rest
    assert bytes(write_schema(Raw(rest.replace(b"{", b'{"$schema":"x",')))) == rest.replace(b" ", b"")
    assert bytes(write_schema(Raw(b'["$schema"]'))) == b'["$schema"]'


def test_a_reference_stands_alone() -> None:
    described = {"$ref": "#/$defs/A", "description": "Where to."}
    schema = {
        "type": "object",
        "properties": {"$ref": {"type": "string"}, "to": described, "many": {"type": "array", "items": described}},
        "$defs": {"A": {"type": "string", "default": {"$ref": "a", "b": 1}}, "B": {"$ref": "#/$defs/A"}},
    }

    written = msgspec.json.decode(write_schema(Raw(msgspec.json.encode(schema))))

    alone = {"description": "Where to.", "anyOf": [{"$ref": "#/$defs/A"}]}
    properties = {"$ref": {"type": "string"}, "to": alone, "many": {"type": "array", "items": alone}}
    assert written == schema | {"properties": properties}


def test_the_root_may_refer_to_its_own_definitions() -> None:
    schema = Raw(b'{"$ref":"#/$defs/A","title":"A","$defs":{"A":{"type":"object"}}}')

    assert (
        bytes(write_schema(schema)) == b'{"title":"A","$defs":{"A":{"type":"object"}},"anyOf":[{"$ref":"#/$defs/A"}]}'
    )


@pytest.mark.parametrize(
    "schema", [b'{"items":{"$ref":"#"}}', b'{"$ref":"#/$defs/A","title":"A","anyOf":[{}]}', b'["$ref"]']
)
def test_a_reference_that_stands_alone_or_cannot_stays_as_it_is(schema: bytes) -> None:
    assert bytes(write_schema(Raw(schema))) == schema


def test_a_schema_with_references_and_numbers_that_nobody_can_read_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="Number out of range"):
        write_schema(Raw(b'{"$ref":"#","minimum":1e999}'))
