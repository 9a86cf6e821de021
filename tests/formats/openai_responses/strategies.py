"""What the Responses API carries without loss, as hypothesis draws it."""

import base64
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import Raw

from aiproxyd import hub
from tests.formats.spelling import spell

NAME = "openai-responses"


def raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


WORDS = st.text(max_size=12)
SOME_WORDS = st.text(min_size=1, max_size=12)
NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
OBJECTS = st.dictionaries(WORDS, st.none() | st.booleans() | st.integers(-9, 9) | WORDS, max_size=3)
COUNTS = st.integers(0, 2**40)


# --- Answers


@st.composite
def citations(draw: st.DrawFn) -> hub.Citation:
    url, title = draw(SOME_WORDS), draw(WORDS)
    start, end = draw(COUNTS), draw(COUNTS)
    fields = {"type": "url_citation", "url": url, "title": title, "start_index": start, "end_index": end}
    return hub.Citation(url, title, "", start, end, NAME, raw(fields))


TEXTS = st.builds(hub.Text, WORDS, citations=st.lists(citations(), max_size=2).map(tuple))
REFUSALS = st.builds(hub.Refusal, WORDS)
SEARCHES = st.builds(
    lambda number: hub.Opaque(
        NAME, "web_search_call", raw({"id": f"ws_{number}", "type": "web_search_call", "status": "completed"})
    ),
    st.integers(0, 9),
)


@st.composite
def calls(draw: st.DrawFn) -> hub.ToolCall:
    is_custom = draw(st.booleans())
    return hub.ToolCall(
        id=draw(st.from_regex(r"[ -~]{1,20}", fullmatch=True)),
        name=draw(NAMES),
        arguments=draw(WORDS) if is_custom else spell(msgspec.json.encode(draw(OBJECTS)).decode()),
        is_custom=is_custom,
        namespace=draw(st.just("") | NAMES),
    )


def _logprobs(depth: int) -> st.SearchStrategy[hub.TokenLogprob]:
    return st.builds(
        hub.TokenLogprob,
        WORDS,
        st.floats(-9, 0),
        st.lists(st.integers(0, 255), max_size=3).map(tuple),
        st.lists(_logprobs(depth - 1), max_size=2).map(tuple) if depth else st.just(()),
    )


@st.composite
def candidates(draw: st.DrawFn, blocks: st.SearchStrategy[hub.Block]) -> hub.Candidate:
    said = draw(st.lists(blocks, max_size=5))
    is_refused = any(isinstance(block, hub.Refusal) for block in said)
    has_text = any(isinstance(block, hub.Text) for block in said)
    return hub.Candidate(
        blocks=tuple(said),
        stop=draw(st.sampled_from(["refusal", "length"] if is_refused else ["end", "length", "refusal"])),
        logprobs=tuple(draw(st.lists(_logprobs(1), max_size=3))) if has_text else (),
    )


def responses(
    reasoning: st.SearchStrategy[hub.Reasoning] | None = None,
) -> st.SearchStrategy[hub.Response]:
    """Answers that come back equal, whole and streamed.

    A thought with a seal of OpenAI's own is not among them unless it is asked for: the id of its item is only known
    when the stream has begun with another.
    """
    thoughts = st.builds(hub.Reasoning, WORDS) if reasoning is None else reasoning
    blocks: st.SearchStrategy[hub.Block] = st.one_of(TEXTS, REFUSALS, thoughts, calls(), SEARCHES)
    return st.builds(
        hub.Response,
        id=SOME_WORDS,
        model=SOME_WORDS,
        created=COUNTS.map(lambda count: count % 10**10),
        candidates=st.tuples(candidates(blocks)),
        usage=st.builds(
            hub.Usage,
            input_tokens=COUNTS,
            cache_read_tokens=COUNTS,
            cache_write_tokens=COUNTS,
            output_tokens=COUNTS,
            reasoning_tokens=COUNTS,
        ),
        service_tier=WORDS,
    )


# --- Requests

BASE64 = st.binary(min_size=1, max_size=9).map(lambda data: base64.b64encode(data).decode())
DETAILS = st.sampled_from(["", "low", "high", "original"])
URLS = NAMES.map(lambda name: f"https://example.org/{name}")
MEDIA = st.one_of(
    st.builds(hub.Media, kind=st.just("image"), media_type=st.just("image/png"), data=BASE64, detail=DETAILS),
    st.builds(hub.Media, kind=st.just("image"), url=URLS, detail=DETAILS),
    st.builds(hub.Media, kind=st.just("image"), file_id=NAMES, origin=st.just("openai"), detail=DETAILS),
    st.builds(hub.Media, kind=st.just("document"), media_type=st.just("application/pdf"), data=BASE64, name=SOME_WORDS),
    st.builds(hub.Media, kind=st.just("document"), url=URLS),
    st.builds(hub.Media, kind=st.just("document"), file_id=NAMES, origin=st.just("openai")),
)
PLAIN_TEXTS = st.builds(hub.Text, SOME_WORDS)
SEALS = st.builds(hub.Seal, st.just(NAME), st.just("encrypted"), SOME_WORDS, WORDS) | st.builds(
    hub.Seal, st.just(NAME), st.just("plain"), st.just(""), WORDS
)
SEALED = st.builds(hub.Reasoning, WORDS, SEALS)


@st.composite
def exchanges(draw: st.DrawFn, number: int) -> list[hub.Turn]:
    """Draw what the assistant says, and what its caller answers."""
    called = [
        msgspec.structs.replace(call, id=f"call_{number}_{index}")
        for index, call in enumerate(draw(st.lists(calls(), max_size=2)))
    ]
    said = draw(st.lists(st.one_of(TEXTS.filter(lambda text: bool(text.text)), REFUSALS, SEALED, SEARCHES), max_size=3))
    results = [
        hub.ToolResult(
            call_id=call.id,
            content=tuple(draw(st.lists(st.one_of(PLAIN_TEXTS, MEDIA), max_size=2))),
            is_custom=call.is_custom,
        )
        for call in called
    ]
    phase = draw(st.sampled_from(["", "commentary", "final_answer"]))
    return [
        hub.Turn("assistant", tuple(draw(st.lists(PLAIN_TEXTS, max_size=1))), phase),
        hub.Turn("assistant", (*said, *called)),
        hub.Turn("user", (*results, *draw(st.lists(st.one_of(PLAIN_TEXTS, MEDIA), max_size=2)))),
        hub.Turn("system", tuple(draw(st.lists(PLAIN_TEXTS, max_size=1)))),
    ]


@st.composite
def conversations(draw: st.DrawFn) -> list[hub.Turn]:
    turns = [hub.Turn("system", (draw(PLAIN_TEXTS),))] if draw(st.booleans()) else []
    turns.append(hub.Turn("user", (draw(st.one_of(PLAIN_TEXTS, MEDIA)),)))
    for number in range(draw(st.integers(0, 2))):
        turns += draw(exchanges(number))
    return hub.arrange(turns)


@st.composite
def tools(draw: st.DrawFn) -> list[hub.Tool]:
    names = draw(st.lists(NAMES, unique=True, max_size=4))
    namespaces = sorted(draw(st.sampled_from(["", "a", "b"])) for _ in names)
    return [draw(_tool(name, namespace)) for name, namespace in zip(names, namespaces, strict=True)]


@st.composite
def _tool(draw: st.DrawFn, name: str, namespace: str) -> hub.Tool:
    description = draw(WORDS)
    if draw(st.booleans()):
        grammar = draw(st.none() | WORDS)
        fields = {"type": "grammar", "syntax": "lark", "definition": grammar}
        return hub.Tool(
            name=name,
            description=description,
            is_custom=True,
            grammar=None if grammar is None else raw(fields),
            namespace=namespace,
        )
    is_strict = draw(st.booleans())
    return hub.Tool(
        name=name, description=description, schema=draw(_schemas(is_strict)), is_strict=is_strict, namespace=namespace
    )


@st.composite
def _schemas(draw: st.DrawFn, is_strict: bool) -> Raw:
    properties = {name: {"type": "string"} for name in draw(st.lists(WORDS, unique=True, max_size=3))}
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return raw(schema | {"required": list(properties), "additionalProperties": False} if is_strict else schema)


@st.composite
def choices(draw: st.DrawFn, names: list[str]) -> hub.ToolChoice:
    some = tuple(draw(st.lists(st.sampled_from(names), unique=True, max_size=2))) if names else ()
    if not some:
        return draw(st.sampled_from([hub.ToolChoice("auto"), hub.ToolChoice("none"), hub.ToolChoice("required")]))
    return draw(st.sampled_from([hub.ToolChoice("auto", some), hub.ToolChoice("required", some)]))


@st.composite
def outputs(draw: st.DrawFn) -> hub.OutputFormat | None:
    if draw(st.booleans()):
        return draw(st.sampled_from([None, hub.OutputFormat()]))
    is_strict = draw(st.none() | st.booleans())
    schema = draw(_schemas(bool(is_strict)))
    return hub.OutputFormat(schema=schema, name=draw(NAMES), description=draw(WORDS), is_strict=is_strict)


SHOWN = st.none() | st.just(True)
EFFORTS = st.sampled_from(["minimal", "low", "medium", "high", "xhigh", "max"])
CONTROLS = st.one_of(
    st.builds(hub.ReasoningControl, show=SHOWN),
    st.just(hub.ReasoningControl(mode="off")),
    st.builds(hub.ReasoningControl, mode=st.just("on"), effort=EFFORTS, show=SHOWN),
)


@st.composite
def requests(draw: st.DrawFn) -> hub.Request:
    """Requests that come back equal but for what an answer is to echo, to a model that reasons by efforts."""
    offered = draw(tools())
    hosted = draw(
        st.lists(
            st.sampled_from(
                [
                    hub.ServerTool(
                        "web_search",
                        NAME,
                        raw({"type": "web_search", "search_context_size": "low"}),
                        ("search_context_size",),
                    ),
                    hub.ServerTool(
                        "tool_search", NAME, raw({"type": "tool_search", "execution": "client"}), ("execution",)
                    ),
                ]
            ),
            max_size=2,
        )
    )
    has_logprobs = draw(st.booleans())
    return hub.Request(
        model=draw(WORDS),
        turns=draw(conversations()),
        tools=offered,
        server_tools=hosted,
        tool_choice=draw(st.none() | choices([tool.name for tool in offered])) if offered or hosted else None,
        parallel_tool_calls=draw(st.none() | st.booleans()),
        max_output_tokens=draw(st.none() | st.integers(16, 10**6)),
        temperature=draw(st.none() | st.floats(0, 2)),
        top_p=draw(st.none() | st.floats(0, 1)),
        logprobs=has_logprobs,
        top_logprobs=draw(st.none() | st.integers(0, 20)) if has_logprobs else None,
        reasoning=draw(CONTROLS),
        output=draw(outputs()),
        user=draw(WORDS),
        service_tier=draw(WORDS),
        verbosity=draw(WORDS),
        cache_key=draw(WORDS),
        metadata=draw(st.dictionaries(WORDS, WORDS, max_size=2)),
        stream=draw(st.booleans()),
    )
