"""What a request means, as the key of its answer: the same in every format that can say it. Sans-I/O."""

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple, TypeAlias, assert_never

import msgspec
from msgspec import Raw

from aiproxyd.formats.base import Format
from aiproxyd.hub import (
    Block,
    Citation,
    Media,
    Opaque,
    OutputFormat,
    Reasoning,
    Refusal,
    Request,
    Seal,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from aiproxyd.splice import JSON_ERRORS

KEY_BYTES: Final = 16
VERSION: Final = 2
"""Of what follows; entries of another one, which outlive us in Redis, are not found."""

_Plain: TypeAlias = Any
"""Of what JSON can be written."""

# Not as msgpack, which has no words for numbers beyond 64 bits: callers write such seeds.
_encode: Final = msgspec.json.Encoder().encode
_members: Final = msgspec.json.Decoder(dict[str, Raw])
_any_json: Final = msgspec.json.Decoder()

_LABELS: Final = re.compile(r"(?:\s*[\w-]+=[\w.:/-]*(?:;|\Z))*\s*")
"""What stands behind the beginning of a text that says nothing; one with words behind it does say something."""


class _Call(NamedTuple):
    """A call of the conversation."""

    number: int
    name: str


class _Calls:
    """Numbers the calls of one conversation, whose ids differ from caller to caller and may come again."""

    def __init__(self) -> None:
        self._count = 0
        self._by_id: dict[str, _Call] = {}

    def add(self, call: ToolCall) -> int:
        """Return the number of *call*."""
        self._count += 1
        self._by_id[call.id] = _Call(self._count, call.name)
        return self._count

    def find(self, result: ToolResult) -> _Call:
        """Return the call that *result* answers."""
        return self._by_id.get(result.call_id, _NO_CALL)


_NO_CALL: Final = _Call(0, "")
_ESCAPED_QUOTE: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0022")


def digest(*parts: bytes) -> bytes:
    """Return KEY_BYTES that stand for *parts* and for no others."""
    hashed = blake2b(digest_size=KEY_BYTES)
    for part in parts:
        hashed.update(len(part).to_bytes(8, "big"))
        hashed.update(part)
    return hashed.digest()


def write_meaning(asked: Request, fmt: Format, body: bytes) -> bytes:
    """Return what *asked*, decoded by *fmt* from *body*, means.

    Left out is what changes nothing about the answer: who asks, how the answer is to be sent, labels, and hints for the
    vendor's prompt cache. Where *body* says anything that only its own format understands, all of it counts as it was
    written as well: rather one answer too many than a wrong one. The order of members counts in what is only carried:
    models answer in the order that a schema has.
    """
    return _encode(
        (
            VERSION,
            _write_turns(asked.turns, fmt),
            [_write_tool(tool) for tool in asked.tools],
            [(tool.kind, tool.origin, _write_raw(tool.raw)) for tool in asked.server_tools],
            _write_choice(asked.tool_choice),
            asked.parallel_tool_calls is not False,
            (asked.max_output_tokens, asked.temperature, asked.top_p, asked.top_k, asked.stop),
            (asked.candidates, asked.seed, asked.presence_penalty, asked.frequency_penalty),
            (asked.logprobs, asked.top_logprobs, sorted((asked.logit_bias or {}).items())),
            asked.reasoning,
            _write_output(asked.output),
            (asked.service_tier, asked.verbosity),
            _write_own(fmt, body),
        )
    )


def _write_own(fmt: Format, body: bytes) -> _Plain:
    """Return what *body* says beyond a ``Request``: nothing, or all of it."""
    text = _compact(body)
    if text is None:
        return fmt.name, Raw(body)
    if fmt.is_plain(text) and not _hides_words(text, fmt):
        return ()
    members = _members.decode(text)
    return fmt.name, sorted(
        (name, raw) for name, raw in members.items() if name != "model" and name not in fmt.volatile_fields
    )


def _hides_words(body: bytes, fmt: Format) -> bool:
    """Tell whether a text that seems to say nothing has words behind its beginning."""
    return any(
        not _LABELS.fullmatch(found[1].decode(errors="replace").replace("\\n", "\n"))
        for begin in fmt.volatile_texts
        for found in re.finditer(re.escape(begin.encode()) + rb'([^"]*)', body)
    )


def _write_turns(turns: Iterable[Turn], fmt: Format) -> _Plain:
    calls = _Calls()
    written: list[_Plain] = []
    for turn in turns:
        is_system = turn.role == "system"
        blocks = [
            _write_block(block, calls)
            for block in turn.blocks
            if not (is_system and type(block) is Text and _says_nothing(block.text, fmt))
        ]
        if blocks:
            written.append((turn.role, turn.phase, blocks))
    return written


def _says_nothing(text: str, fmt: Format) -> bool:
    return any(text.startswith(begin) and _LABELS.fullmatch(text, len(begin)) for begin in fmt.volatile_texts)


def _write_block(block: Block, calls: _Calls) -> _Plain:
    """Return what *block* means, behind *calls*."""
    match block:
        case Text(text=text, seal=None, citations=()):
            return text
        case Text(text=text, seal=seal, citations=citations):
            return "text", text, _write_seal(seal), list(map(_write_citation, citations))
        case Refusal(text=text):
            return "refusal", text
        case Media():
            return _write_media(block)
        case Reasoning(text=text, seal=seal):
            return "reasoning", text, _write_seal(seal)
        case ToolCall() | ToolResult():
            return _write_call(block, calls)
        case Opaque(origin=origin, kind=kind, raw=raw):
            return "opaque", origin, kind, _write_raw(raw)
        case _ as never:
            assert_never(never)


def _write_citation(citation: Citation) -> _Plain:
    place = (citation.start, citation.end)
    return citation.url, citation.title, citation.cited_text, place, citation.origin, _write_raw(citation.raw)


def _write_media(media: Media) -> _Plain:
    place = (media.data, media.url, media.file_id, media.origin)
    told = (media.name, media.context, media.detail, media.has_citations)
    return media.kind, media.media_type, place, told, _write_fields(media.extensions)


def _write_call(block: ToolCall | ToolResult, calls: _Calls) -> _Plain:
    if isinstance(block, ToolCall):
        number = calls.add(block)
        said = block.arguments if block.is_custom else _write_arguments(block.arguments)
        return "call", number, block.name, block.namespace, block.is_custom, said, _write_seal(block.seal)
    call = calls.find(block)
    name = block.name if block.name != call.name else ""
    content = [_write_block(part, calls) for part in block.content]
    return "result", call.number, name, block.is_custom, block.is_error, content


def _write_seal(seal: Seal | None) -> _Plain:
    return (seal.origin, seal.kind, seal.data, seal.holder) if seal is not None else None


def _write_tool(tool: Tool) -> _Plain:
    schema = _write_schema(tool.schema)
    shape = (
        None if schema == _NO_ARGUMENTS else schema,
        bool(tool.is_strict),
        tool.is_custom,
        _write_raw(tool.grammar),
    )
    return tool.name, tool.namespace, tool.description, shape


def _write_choice(choice: ToolChoice | None) -> _Plain:
    return (choice.mode, choice.names) if choice is not None and choice != ToolChoice("auto") else None


def _write_output(output: OutputFormat | None) -> _Plain:
    return output and (_write_schema(output.schema), output.name, output.description, output.is_strict)


def _write_fields(fields: Mapping[str, Raw]) -> Sequence[_Plain]:
    return [(name, _write_raw(raw)) for name, raw in sorted(fields.items())]


def _write_arguments(arguments: str) -> _Plain:
    """Return the *arguments* of a call, an object in some formats and its text in others."""
    compact = _compact(arguments.encode(errors="surrogatepass"))
    return arguments if compact is None else (Raw(compact),)


def _write_raw(raw: Raw | None) -> _Plain:
    """Return *raw* in one layout."""
    return Raw(_compact(bytes(raw)) or raw) if raw else None


def _write_schema(raw: Raw | None) -> _Plain:
    """Return *raw*, a schema, in one spelling: models answer in the order of its properties, and in no other of it."""
    try:
        return _arrange(_any_json.decode(raw)) if raw else None
    except JSON_ERRORS:
        return raw


def _arrange(value: _Plain, *, is_ordered: bool = False) -> _Plain:
    if isinstance(value, list):
        return list(map(_arrange, value))
    if not isinstance(value, dict):
        return value
    members = value.items() if is_ordered else sorted(value.items())
    return {"": [(name, _arrange(each, is_ordered=name == "properties" and not is_ordered)) for name, each in members]}


def _compact(text: bytes) -> bytes | None:
    """Return *text* in one spelling; None where it has no other.

    It may be no JSON, go too deep or too far to be read, or hold a member twice: of those one is read, and that is not
    the same one everywhere.
    """
    try:
        compact = _encode(_any_json.decode(text))
    except JSON_ERRORS:
        return None
    # What is missing had quotes around its name.
    return compact if compact.count(b'"') == _count_quotes(text) else None


def _count_quotes(text: bytes) -> int:
    """Return how many quotes there are in *text*, however they are written."""
    return text.count(b'"') + (len(_ESCAPED_QUOTE.findall(text)) if rb"\u0022" in text else 0)


_NO_ARGUMENTS: Final = _arrange({"type": "object", "properties": {}})
