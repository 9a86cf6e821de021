"""What a scripted vendor is asked and what it answers, whatever its format. No I/O."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

INPUT_TOKENS, CACHED_TOKENS, OUTPUT_TOKENS, REASONING_TOKENS = 100, 40, 20, 5
"""What every answer costs. Input includes the cached tokens; output the reasoning ones, of which an answer without a
thought has none."""
RETRY_AFTER_S = 7
LOGPROB = -0.25


@dataclass(frozen=True)
class Media:
    """An image, a document or a sound that the model sees."""

    kind: str
    media_type: str
    size_bytes: int | None = None
    """None: it stands at a URL."""


@dataclass(frozen=True)
class Prompt:
    """A request, as the model sees it."""

    model: str
    text: str = ""
    """What the user said behind the last words of the assistant."""
    results: tuple[str, ...] = ()
    """What the tools answered there."""
    media: tuple[Media, ...] = ()
    """What is to be seen there, in results too."""
    tools: Mapping[str, Any] = field(default_factory=dict)
    """Schemas of the arguments by name; None for a tool that takes free text."""
    forced: tuple[str, ...] = ()
    """One of these is to be called."""
    may_call: bool = True
    is_parallel: bool = True
    thinks: bool = False
    wants_json: bool = False
    schema: Any = None
    """JSON Schema of the answer, where there is one."""
    stop_sequences: tuple[str, ...] = ()
    is_stream: bool = False
    body: Any = None
    """The request itself."""


@dataclass(frozen=True)
class Call:
    """A tool that is to be run."""

    name: str
    arguments: str
    """JSON text, or free text for a tool that takes that."""


@dataclass(frozen=True)
class Answer:
    """What the model says."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    thought: str = ""
    hides_thought: bool = False
    """Only the vendor can read it, where it has a block for that."""
    refusal: str = ""
    stop: Literal["end", "length", "stop sequence"] = "end"
    status: int = 200
    """Anything else is an error instead of an answer."""
    breaks: Literal["", "error", "cut"] = ""
    """How the answer breaks off half-way."""


Decide = Callable[[Prompt], Answer]


def decide(prompt: Prompt) -> Answer:
    """Answer what the user's last words ask for; the docstring of the package has the list."""
    if prompt.results:
        return Answer(text=_quote_results(prompt))
    if match := re.search(r"\berror (\d{3})\b", prompt.text):
        return Answer(status=int(match[1]))
    if _asks(prompt, "refuse"):
        return Answer(refusal="I cannot help with that.")
    calls = _choose_calls(prompt)
    thought = f"Thinking about: {prompt.text}" if prompt.thinks and (calls or _asks(prompt, "think")) else ""
    return Answer(
        text="" if calls else _choose_text(prompt),
        calls=calls,
        thought=thought,
        hides_thought=_asks(prompt, "redacted"),
        stop=_choose_stop(prompt),
        breaks="cut" if _asks(prompt, "cut") else "error" if "error mid-stream" in prompt.text else "",
    )


def _asks(prompt: Prompt, word: str) -> bool:
    return re.search(rf"\b{word}\b", prompt.text) is not None


def _quote_results(prompt: Prompt) -> str:
    text = "The tools said: " + ", ".join(prompt.results) + describe_media(prompt)
    return f"{text}. You said: {prompt.text}" if prompt.text else text


def describe_media(prompt: Prompt) -> str:
    """Name what is to be seen: `` I saw an image (image/png, 68 bytes).``."""
    seen = [
        f" I saw {'an' if media.kind[0] in 'aeiou' else 'a'} {media.kind} "
        f"({media.media_type}, {'by URL' if media.size_bytes is None else f'{media.size_bytes} bytes'})."
        for media in prompt.media
    ]
    return "".join(seen)


def _choose_text(prompt: Prompt) -> str:
    if prompt.wants_json:
        return json.dumps(make_sample(prompt.schema) if prompt.schema else {"said": prompt.text})
    return f"You said: {prompt.text}{describe_media(prompt)}"


def _choose_stop(prompt: Prompt) -> Literal["end", "length", "stop sequence"]:
    if _asks(prompt, "long"):
        return "length"
    return "stop sequence" if "stop sequence" in prompt.text and prompt.stop_sequences else "end"


def _choose_calls(prompt: Prompt) -> tuple[Call, ...]:
    if not prompt.may_call:
        return ()
    calls = [
        Call(name, _read_arguments(prompt.text[match.end() :], prompt.tools[name]))
        for match in re.finditer(r"\bcall ([A-Za-z_][\w.:-]*)", prompt.text)
        if (name := _find_tool(match[1].rstrip(".:"), prompt.tools))
    ]
    if prompt.forced and not [call for call in calls if call.name in prompt.forced]:
        calls = [Call(prompt.forced[0], _read_arguments("", prompt.tools[prompt.forced[0]]))]
    return tuple(calls if prompt.is_parallel else calls[:1])


def _find_tool(name: str, tools: Mapping[str, Any]) -> str | None:
    """Return the tool of that name, or the one whose name was made from it for a narrower charset."""
    if name in tools:
        return name
    start = re.sub(r"\W", "_", name)[:40]
    return next((tool for tool in tools if tool.startswith(start)), None)


def _read_arguments(rest: str, schema: Any) -> str:
    value: Any = make_sample(schema) if schema is not None else "text"
    if rest.startswith(" with "):
        value = json.JSONDecoder().raw_decode(rest.removeprefix(" with "))[0]
    return value if schema is None and isinstance(value, str) else json.dumps(value)


def make_sample(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """Return a value that fits *schema*, of JSON Schema or of OpenAPI."""
    root = schema if root is None else root
    if not isinstance(schema, dict) or depth > 8:
        return None
    if "$ref" in schema:
        target = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return make_sample(target, root, depth + 1)
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return make_sample(schema[key][0], root, depth + 1)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    return _sample_of_type(schema, root, depth)


def _sample_of_type(schema: Mapping[str, Any], root: Any, depth: int) -> Any:
    kind = schema.get("type", "object")
    match str(kind[0] if isinstance(kind, list) else kind).lower():
        case "object":
            return {key: make_sample(value, root, depth + 1) for key, value in schema.get("properties", {}).items()}
        case "array":
            return [make_sample(schema.get("items", {"type": "string"}), root, depth + 1)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return "text"
