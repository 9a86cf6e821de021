"""JSON Schemas as the Messages API takes them: https://docs.anthropic.com/en/docs/build-with-claude/structured-outputs.

Sans-I/O.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.anthropic.wire import encode
from aiproxyd.formats.base import NULL, decode_view
from aiproxyd.splice import JSON_ERRORS

EMPTY: Final = Raw(b'{"type":"object","properties":{}}')
"""Of a tool that takes no arguments."""

_MAPS: Final = frozenset(("properties", "$defs", "definitions"))
_LISTS: Final = frozenset(("anyOf", "allOf"))
_KEPT: Final = frozenset(
    ("type", "enum", "const", "required", "title", "description", "default", "additionalProperties")
)
_FORMATS: Final = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
)
_MEANINGLESS: Final = frozenset(("$schema", "$id", "$comment"))


class _Root(Struct):
    type: Raw = NULL
    anyOf: Raw = NULL  # noqa: N815
    oneOf: Raw = NULL  # noqa: N815
    allOf: Raw = NULL  # noqa: N815


class _Branch(Struct):
    properties: dict[str, Raw] = {}
    required: list[str] = []


_root: Final = msgspec.json.Decoder(_Root)
_members: Final = msgspec.json.Decoder(dict[str, Raw])
_branch: Final = msgspec.json.Decoder(_Branch)
_branches: Final = msgspec.json.Decoder(list[Raw])
_any: Final = msgspec.json.Decoder()
_string: Final = msgspec.json.Decoder(str)


def close_root(schema: Raw | None, tool: str) -> Raw:
    """Return the schema of *tool*'s arguments with the root that the API demands: an object that is no combination.

    Raises:
        InvalidRequest: it is no JSON Schema object.
    """
    if schema is None:
        return EMPTY
    try:
        root = _root.decode(schema)
        is_combined = not (root.anyOf is NULL and root.oneOf is NULL and root.allOf is NULL)
        if bytes(root.type) == b'"object"' and not is_combined:
            return schema
        members = _members.decode(schema)
    except JSON_ERRORS as exc:
        raise InvalidRequest(f"the parameters of the tool {tool!r} are no JSON Schema object: {exc}") from exc
    members = {"type": Raw(b'"object"')} | {key: value for key, value in members.items() if key != "type"}
    return Raw(encode(_take_apart(members) if is_combined else members))


def _take_apart(members: dict[str, Raw]) -> dict[str, Raw]:
    """Return the root without its combinations: the properties of all branches, and the rest in words.

    The API answers 400 to them, although not to those further down:
    https://github.com/anthropics/claude-code/issues/40075.
    """
    told = {key: members.pop(key) for key in ("anyOf", "oneOf", "allOf") if key in members}
    own = decode_view(_branch, encode(members)) or _Branch()
    properties, required = own.properties, own.required
    for key, combined in told.items():
        for raw in decode_view(_branches, combined) or ():
            branch = decode_view(_branch, raw) or _Branch()
            properties = branch.properties | properties
            required = required + [name for name in branch.required if key == "allOf" and name not in required]
    description = decode_view(_string, members.get("description", NULL))
    words = "\n\n".join(filter(None, (description, encode(told).decode())))
    return members | {
        "properties": Raw(encode(properties)),
        "required": Raw(encode(required)),
        "description": Raw(encode(words)),
    }


def restrict(schema: Raw) -> Raw:
    """Return *schema* in that part of JSON Schema that Anthropic can enforce.

    Objects are closed, and what cannot be enforced is told the model in the description.

    Raises:
        InvalidRequest: it is no object, or nested too deeply.
    """
    try:
        node = _any.decode(schema)
        if not isinstance(node, dict):
            raise InvalidRequest("a JSON Schema has to be an object")
        return Raw(encode(_restrict(node)))
    except JSON_ERRORS as exc:
        raise InvalidRequest(f"a JSON Schema cannot be read: {exc}") from exc


def _restrict(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        # A reference stands alone, but for the definitions of the root.
        return {key: _restrict_member(key, value) for key, value in node.items() if key in _MAPS or key == "$ref"}
    restricted: dict[str, Any] = {}
    told: dict[str, Any] = {}
    for key, value in node.items():
        name = "anyOf" if key == "oneOf" and "anyOf" not in node else key
        if _is_enforced(name, value):
            restricted[name] = _restrict_member(name, value)
        elif name not in _MEANINGLESS:
            told[key] = value
    if _is_object(node):
        bound = restricted.get("additionalProperties")
        if isinstance(bound, dict):
            told["additionalProperties"] = bound
        restricted["additionalProperties"] = False
    return _tell(restricted, told)


def _is_enforced(key: str, value: Any) -> bool:
    match key:
        case "format":
            return value in _FORMATS if isinstance(value, str) else False
        case "minItems":
            return value in (0, 1)
        case "items":
            return isinstance(value, dict)
        case "anyOf" | "allOf":
            return isinstance(value, list)
        case "properties" | "$defs" | "definitions":
            return isinstance(value, dict)
        case _:
            return key in _KEPT


def _restrict_member(key: str, value: Any) -> Any:
    if key in _MAPS and isinstance(value, dict):
        return {name: _restrict(node) for name, node in value.items()}
    if key in _LISTS:
        return [_restrict(node) for node in value]
    return _restrict(value) if key == "items" else value


def _is_object(node: dict[str, Any]) -> bool:
    kind = node.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or (kind is None and "properties" in node)


def _tell(restricted: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    if told:
        description = restricted.get("description")
        words = [description] if isinstance(description, str) and description else []
        restricted["description"] = "\n\n".join((*words, encode(told).decode()))
    return restricted
