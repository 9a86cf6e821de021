"""Schemas in Google's spelling, an OpenAPI subset, and as JSON Schema: https://ai.google.dev/api/caching#Schema.

Sans-I/O.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import Raw

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.base import MAX_DIGITS, decode_body, decode_view

_TYPES: Final = {word.upper(): word for word in ("string", "number", "integer", "boolean", "array", "object", "null")}
_DROPPED: Final = frozenset(("nullable", "propertyOrdering", "property_ordering", "example"))
_RENAMED: Final = {"any_of": "anyOf", "ref": "$ref", "defs": "$defs"}
_COUNTS: Final = {
    spelling: camel
    for camel, snake in (
        ("minItems", "min_items"),
        ("maxItems", "max_items"),
        ("minLength", "min_length"),
        ("maxLength", "max_length"),
        ("minProperties", "min_properties"),
        ("maxProperties", "max_properties"),
    )
    for spelling in (camel, snake)
}
"""64-bit numbers, which protobuf writes as strings."""

_SCHEMAS: Final = frozenset(("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"))
_SCHEMA_LISTS: Final = frozenset(("anyOf", "oneOf", "allOf", "prefixItems"))
_SCHEMA_MAPS: Final = frozenset(("properties", "$defs", "definitions", "patternProperties", "dependentSchemas"))

MAX_REMEMBERED: Final = 256
MAX_REMEMBERED_BYTES: Final = 16 * 1024
"""Longest schema that is remembered: agents send the same ones again and again."""

# Callers that write JSON Schema with Google's words for types: Gemini CLI's router does.
_UPPER_TYPE: Final = re.compile(rb'"type"\s*:\s*\[?\s*"[A-Z]')

MAX_EMPTY_BYTES: Final = 256
"""Schemas up to here are looked at closer: they may say nothing but that there are no arguments."""
_EMPTY: Final = {
    "$schema": None,
    "title": None,
    "description": None,
    "type": b'"object"',
    "properties": b"{}",
    "required": b"[]",
    "additionalProperties": b"false",
}
"""What such a schema may hold; None: anything."""
_MARK: Final = re.compile(rb'"\$schema"')
_REFERENCE: Final = re.compile(rb'"\$ref"')

_any: Final = msgspec.json.Decoder()
_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_encode: Final = msgspec.json.Encoder().encode


def from_openapi(raw: Raw) -> Raw:
    """Return the JSON Schema that says what *raw*, a schema in Google's spelling, does.

    Raises:
        InvalidRequest: *raw* is no valid JSON.
    """
    return _cached(raw, _lower_openapi, _remembered_openapi)


def from_json_schema(raw: Raw) -> Raw:
    """Return *raw*, a JSON Schema, with its types in lower case.

    Raises:
        InvalidRequest: *raw* is no valid JSON.
    """
    return _cached(raw, _lower_types, _remembered_types) if _UPPER_TYPE.search(raw) else raw


def write_parameters(raw: Raw) -> Raw | None:
    """Return the schema of a function's arguments as Gemini takes it; None where it says that there are none."""
    if len(raw) <= MAX_EMPTY_BYTES and _is_empty(raw):
        return None
    return write_schema(raw)


def write_schema(raw: Raw) -> Raw:
    """Return a JSON Schema as Gemini takes it.

    Raises:
        InvalidRequest: *raw* refers to other schemas, and is no valid JSON.
    """
    if _REFERENCE.search(raw):
        raw = _cached(raw, _isolate_references, _remembered_isolated)
    fields = decode_view(_fields, raw) if _MARK.search(raw) else None
    if fields is None:
        return raw
    fields.pop("$schema", None)
    return Raw(_encode(fields))


def _is_empty(raw: Raw) -> bool:
    fields = decode_view(_fields, raw)
    return fields is not None and all(
        key in _EMPTY and _EMPTY[key] in (None, bytes(value)) for key, value in fields.items()
    )


def _cached(raw: Raw, convert: Callable[[bytes], Raw], remembered: Callable[[bytes], Raw]) -> Raw:
    text = bytes(raw)
    try:
        return remembered(text) if len(text) <= MAX_REMEMBERED_BYTES else convert(text)
    except RecursionError as exc:
        raise InvalidRequest("the schema is nested too deep") from exc


def _lower_openapi(text: bytes) -> Raw:
    return Raw(_encode(_lower(decode_body(_any, text), _lower_openapi_words)))


def _lower_types(text: bytes) -> Raw:
    return Raw(_encode(_lower(decode_body(_any, text), _lower_type)))


def _isolate_references(text: bytes) -> Raw:
    schema = decode_body(_any, text)
    isolated = _lower(schema, _isolate_reference)
    return Raw(text if isolated == schema else _encode(isolated))


_remembered_openapi: Final = lru_cache(maxsize=MAX_REMEMBERED)(_lower_openapi)
_remembered_types: Final = lru_cache(maxsize=MAX_REMEMBERED)(_lower_types)
_remembered_isolated: Final = lru_cache(maxsize=MAX_REMEMBERED)(_isolate_references)


def _lower(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Return *schema* with *change* made to it and all schemas inside; what is no schema stays as it is."""
    if not isinstance(schema, dict):
        return schema
    lowered = change(schema)
    for key, value in lowered.items():
        if key in _SCHEMAS:
            lowered[key] = _lower(value, change)
        elif key in _SCHEMA_LISTS and isinstance(value, list):
            lowered[key] = [_lower(item, change) for item in value]
        elif key in _SCHEMA_MAPS and isinstance(value, dict):
            lowered[key] = {name: _lower(item, change) for name, item in value.items()}
    return lowered


def _lower_type(schema: dict[str, Any]) -> dict[str, Any]:
    match schema.get("type"):
        case str(word):
            return schema | {"type": _TYPES.get(word, word)}
        case [*words]:
            return schema | {"type": [_TYPES.get(word, word) if isinstance(word, str) else word for word in words]}
        case _:
            return dict(schema)


def _lower_openapi_words(schema: dict[str, Any]) -> dict[str, Any]:
    lowered: dict[str, Any] = {}
    for key, value in _lower_type(schema).items():
        if key in _COUNTS:
            lowered[_COUNTS[key]] = _to_number(value)
        elif key not in _DROPPED:
            lowered[_RENAMED.get(key, key)] = value
    if lowered.get("type") == "TYPE_UNSPECIFIED":
        del lowered["type"]
    if isinstance(lowered.get("$ref"), str):
        lowered["$ref"] = lowered["$ref"].replace("#/defs/", "#/$defs/")
    return _make_nullable(lowered) if schema.get("nullable") is True else lowered


def _isolate_reference(schema: dict[str, Any]) -> dict[str, Any]:
    """Return *schema* with a reference that has others than ``$...`` beside it as the only one of its choices.

    The API refuses those, which are what Pydantic makes of a described field of another model:
    https://ai.google.dev/api/generate-content#FIELDS.response_json_schema.
    """
    if "$ref" not in schema or "anyOf" in schema or all(key.startswith("$") for key in schema):
        return dict(schema)
    rest = {key: value for key, value in schema.items() if key != "$ref"}
    return rest | {"anyOf": [{"$ref": schema["$ref"]}]}


def _to_number(count: Any) -> Any:
    is_number = isinstance(count, str) and count.isdecimal() and len(count) <= MAX_DIGITS
    return int(count) if is_number else count


def _make_nullable(schema: dict[str, Any]) -> dict[str, Any]:
    match schema:
        case {"type": str(word)}:
            nullable = schema | {"type": [word, "null"]}
        case {"anyOf": [*choices]}:
            return schema | {"anyOf": [*choices, {"type": "null"}]}
        case _:
            return {"anyOf": [schema, {"type": "null"}]}
    if isinstance(schema.get("enum"), list):
        nullable["enum"] = [*schema["enum"], None]
    return nullable
