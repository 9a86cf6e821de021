"""What the demo says: a request in, its answer out, without clock or chance. Pure: no I/O.

The rules are few, so that a client can be tried with them: a tool is called when the prompt has its name, its results
are read out, everything else is echoed. Schemas are answered with a sample.
"""

import math
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET, Raw
from msgspec.structs import replace

from aiproxyd.hub import (
    Block,
    Candidate,
    Delta,
    Event,
    Reasoning,
    Refusal,
    Request,
    Response,
    Start,
    Stop,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
    Usage,
    UsageSeen,
    unfold,
)

CREATED: Final = 1_767_225_600
"""The Unix time that is always told: 2026-01-01."""
MAX_CANDIDATES: Final = 8
PIECE_TOKENS: Final = 3
"""Tokens in one delta of a stream, while that gives no more than MAX_PIECES deltas."""
MAX_PIECES: Final = 1_000

_THOUGHT: Final = "Somebody tries the demo: a friendly answer will do."
_SPARING_DEPTH: Final = 6
"""Schema depth from which a sample leaves out what it may, so that recursive schemas come to an end."""
_MAX_DEPTH: Final = 24
_MAX_NODES: Final = 2_000
_SAMPLE_TEXT: Final = "demo"
_SAMPLES_BY_KIND: Final = {"integer": 1, "number": 1.5, "boolean": True, "null": None}
_SAMPLES_BY_FORMAT: Final = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "demo@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_TOKEN: Final = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")
"""A token: a word or one other sign, with the white space before it. Joined tokens give the text back."""

_Json: TypeAlias = dict[str, Any]


def answer(asked: Request, answer_id: str, call_id: str) -> Response:
    """Return the answer to *asked*; *call_id* begins the ids of its calls.

    Raises:
        JSON_ERRORS: a schema cannot be read.
    """
    calls = _make_calls(asked, call_id)
    text, stop, sequence = ("", "tool", None) if calls else _cut_text(_write_text(asked), asked)
    thoughts = [Reasoning(_THOUGHT)] if _shows_thoughts(asked) else []
    said: list[Block] = [*calls] if calls or not text else [Text(text)]
    candidates = min(max(asked.candidates, 1), MAX_CANDIDATES)
    reasoning_tokens = candidates * _count_blocks(thoughts)
    return Response(
        id=answer_id,
        model=asked.model,
        created=CREATED,
        candidates=(Candidate(blocks=(*thoughts, *said), stop=stop, stop_sequence=sequence),) * candidates,
        usage=Usage(
            input_tokens=count_input(asked),
            cache_read_tokens=0,
            cache_write_tokens=0,
            output_tokens=reasoning_tokens + candidates * _count_blocks(said),
            reasoning_tokens=reasoning_tokens,
        ),
        service_tier="default",
    )


def unfold_in_pieces(response: Response) -> Iterator[Event]:
    """Yield the events that make *response*, words and arguments in pieces; what the input costs is told first."""
    for event in unfold(response):
        if isinstance(event, Delta):
            yield from (Delta(event.candidate, event.key, piece) for piece in _cut_pieces(event.text))
            continue
        yield event
        if isinstance(event, Start) and response.usage is not None:
            yield UsageSeen(replace(response.usage, output_tokens=0, reasoning_tokens=0))


def count_input(asked: Request) -> int:
    """Return the tokens of everything that was said, and of the offered tools."""
    offers = (text for tool in asked.tools for text in (tool.name, bytes(tool.schema or b"").decode()))
    return count_texts(offers) + sum(_count_blocks(turn.blocks) for turn in asked.turns)


def count_texts(texts: Iterable[str]) -> int:
    """Return the tokens of *texts*."""
    return sum(len(_TOKEN.findall(text)) for text in texts)


def make_vector(text: str, dimensions: int) -> tuple[float, ...]:
    """Return the unit vector of *text*, of 32-bit floats made of SHA-256: equal texts, equal vectors."""
    key = text.encode()
    digests = (sha256(number.to_bytes(4) + key).digest() for number in range(-(-dimensions // 32)))
    raw = [byte - 127.5 for byte in b"".join(digests)[:dimensions]]
    length = math.hypot(*raw)
    return tuple(array("f", [value / length for value in raw]))


def _count_blocks(blocks: Iterable[Block]) -> int:
    return count_texts(text for block in blocks for text in _find_texts(block))


def _find_texts(block: Block) -> tuple[str, ...]:
    match block:
        case Text(text=text) | Refusal(text=text) | Reasoning(text=text):
            return (text,)
        case ToolCall(name=name, arguments=arguments):
            return (name, arguments)
        case ToolResult():
            return (_read_result(block),)
        case _:
            return ()


def _dumps(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _cut_pieces(text: str) -> list[str]:
    tokens = _TOKEN.findall(text)
    size = max(PIECE_TOKENS, -(-len(tokens) // MAX_PIECES))
    return ["".join(tokens[start : start + size]) for start in range(0, len(tokens), size)]


# --- What was asked


class _Prompt(NamedTuple):
    """What the user said last."""

    text: str = ""
    attachments: int = 0
    wish: str = ""
    """Its last text: programs put what they know themselves before what the user wrote, and that may name any tool."""


def _find_prompt(turns: Sequence[Turn]) -> _Prompt:
    """Return the newest prompt that says something."""
    for turn in reversed(turns):
        blocks = [block for block in turn.blocks if not isinstance(block, ToolResult)]
        if turn.role == "user" and blocks:
            texts = [block.text for block in blocks if isinstance(block, Text)]
            return _Prompt("\n".join(texts), len(blocks) - len(texts), texts[-1] if texts else "")
    return _Prompt()


def _find_results(turns: Sequence[Turn]) -> list[str]:
    """Return the tool results that end the conversation, oldest first; system turns do not count."""
    last = next((turn for turn in reversed(turns) if turn.role != "system"), None)
    return [_read_result(block) for block in (last.blocks if last else ()) if isinstance(block, ToolResult)]


def _read_result(result: ToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, Text))


def _shows_thoughts(asked: Request) -> bool:
    # A mere wish to see them is no sign: openai-chat cannot say it, and so has it always.
    return asked.reasoning.mode == "on" and asked.reasoning.show is not False


# --- What is said


def _make_calls(asked: Request, call_id: str) -> list[ToolCall]:
    """Call the first tool where one is required, else each that the user names; none once a tool has answered."""
    choice = asked.tool_choice
    if (choice and choice.mode == "none") or _find_results(asked.turns):
        return []
    wish = _find_prompt(asked.turns).wish
    tools = [tool for tool in asked.tools if tool.name and not tool.is_custom]
    if choice and choice.names is not None:
        tools = [tool for tool in tools if tool.name in choice.names]
    is_required = choice is not None and choice.mode == "required"
    if not is_required:
        tools = [tool for tool in tools if re.search(rf"(?<![\w-]){re.escape(tool.name)}(?![\w-])", wish)]
    most = 1 if is_required or asked.parallel_tool_calls is False else len(tools)
    return [_make_call(tool, wish, f"{call_id}{number}") for number, tool in enumerate(tools[:most])]


def _make_call(tool: Tool, wish: str, call_id: str) -> ToolCall:
    sample = _make_sample(tool.schema, wish) if tool.schema is not None else None
    arguments = _dumps(sample if isinstance(sample, dict) else {})
    return ToolCall(id=call_id, name=tool.name, arguments=arguments, namespace=tool.namespace)


def _write_text(asked: Request) -> str:
    """Return the text of an answer without calls, in the form that was asked for."""
    prompt, results = _find_prompt(asked.turns), _find_results(asked.turns)
    if asked.output is not None and asked.output.schema is not None:
        return _dumps(_make_sample(asked.output.schema, prompt.wish))
    if results:
        text = f"The tool answered: {', '.join(results)}"
    else:
        plural = "" if prompt.attachments == 1 else "s"
        attached = f" (with {prompt.attachments} attachment{plural})" if prompt.attachments else ""
        text = f"Hello from the aiproxyd demo. You said: {prompt.text}{attached}"
    return text if asked.output is None else _dumps({"answer": text})


def _cut_text(text: str, asked: Request) -> tuple[str, Stop, str | None]:
    """Cut *text* at the first stop sequence and at the token limit; say why it ends, and with which sequence."""
    stop: Stop = "end"
    hits = [(text.find(sequence), sequence) for sequence in asked.stop if sequence and sequence in text]
    position, sequence = min(hits, default=(len(text), None))
    if sequence is not None:
        text, stop = text[:position], "stop_sequence"
    tokens, limit = _TOKEN.findall(text), asked.max_output_tokens
    if limit is not None and len(tokens) > limit:
        return "".join(tokens[: max(limit, 0)]), "length", None
    return text, stop, sequence


# --- Samples of schemas


def _make_sample(schema: Raw, wish: str) -> object:
    """Return an instance of *schema*, with the values that the user wishes."""
    root = msgspec.json.decode(schema)
    return _Sampler(root, wish).sample(root)


class _Sampler:
    """Makes a sample instance of one JSON schema; one per schema, bounded in depth and in nodes."""

    def __init__(self, root: object, wish: str) -> None:
        self._root = root
        self._wish = wish
        self._nodes_left = _MAX_NODES

    def sample(self, schema: object, name: str = "", depth: int = 0) -> object:
        """Return an instance of *schema*, the value of the property *name*."""
        self._nodes_left -= 1
        if self._nodes_left < 0 or depth > _MAX_DEPTH:
            return None
        if not isinstance(schema, dict):
            return _SAMPLE_TEXT
        given = self._find_given(schema, name)
        if given is not UNSET:
            return given
        if "$ref" in schema:
            return self.sample(self._look_up(schema["$ref"]), name, depth + 1)
        branch = _pick_branch(schema, is_sparing=depth >= _SPARING_DEPTH)
        return self._make_by_kind(schema, name, depth) if branch is UNSET else self.sample(branch, name, depth + 1)

    def _find_given(self, schema: _Json, name: str) -> object:
        """Return the value that the schema states or the user asks for, UNSET where it is free."""
        values, asked = schema.get("enum"), self._find_asked(name)
        if "const" in schema:
            return schema["const"]
        if isinstance(values, list) and values:
            return asked if asked in values else values[0]
        if asked is not None and _find_kind(schema) == "string":
            return asked
        return schema.get("default", UNSET)

    def _find_asked(self, name: str) -> str | None:
        """Return VALUE where the user wrote ``name=VALUE``, without the end of a sentence."""
        found = re.search(rf"(?<!\w){re.escape(name)}=([^\s,;]+)", self._wish) if name else None
        return found[1].rstrip(".!?") if found else None

    def _look_up(self, ref: object) -> object:
        """Follow a JSON pointer into the schema's own root; None where it leads nowhere."""
        target = self._root
        for step in str(ref).removeprefix("#").split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, dict) else None
        return target

    def _make_by_kind(self, schema: _Json, name: str, depth: int) -> object:
        kind = _find_kind(schema)
        if kind == "object":
            return self._make_object(schema, depth)
        if kind == "array":
            return [] if depth >= _SPARING_DEPTH else [self.sample(schema.get("items"), name, depth + 1)]
        text = _SAMPLES_BY_FORMAT.get(str(schema.get("format")), _SAMPLE_TEXT)
        return _SAMPLES_BY_KIND.get(kind, text)

    def _make_object(self, schema: _Json, depth: int) -> _Json:
        declared, required = schema.get("properties"), schema.get("required")
        properties = declared if isinstance(declared, dict) else {}
        names = [str(key) for key in required] if isinstance(required, list) else []
        if not names and depth < _SPARING_DEPTH:
            names = [*properties]  # where it says what it needs, more would be a guess: tools refuse wrong options
        return {name: self.sample(properties.get(name), name, depth + 1) for name in dict.fromkeys(names)}


def _pick_branch(schema: _Json, *, is_sparing: bool) -> object:
    """Return the alternative to take, UNSET where *schema* offers none."""
    offers = (schema.get(key) for key in ("anyOf", "oneOf", "allOf"))
    branches = next((offer for offer in offers if isinstance(offer, list) and offer), None)
    if branches is None:
        return UNSET
    null = {"type": "null"}
    return null if is_sparing and null in branches else branches[0]


def _find_kind(schema: _Json) -> str:
    kinds = schema.get("type")
    names = [str(kind) for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind is not None]
    implied = "object" if "properties" in schema else "array" if "items" in schema else "string"
    return next((name for name in names if name != "null"), names[0] if names else implied)
