"""Answers and requests that the Messages API carries without loss, as its decoder would return them."""

from itertools import count
from typing import TypeVar

import msgspec
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from aiproxyd import hub
from tests.formats.spelling import spell

T = TypeVar("T")

NAMES = st.text("abcXYZ019_-", min_size=1, max_size=12)
TOKENS = st.integers(0, 10**9)
WORDS = st.text(max_size=20)
SAID = WORDS.filter(lambda text: bool(text.strip()))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(WORDS, JSON, max_size=3)


def tuples(elements: st.SearchStrategy[T], max_size: int = 3) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(elements, max_size=max_size).map(tuple)


def raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


# --- Answers


@st.composite
def citations(draw: st.DrawFn) -> hub.Citation:
    url, title, cited = draw(SAID), draw(SAID), draw(WORDS)
    web = {
        "type": "web_search_result_location",
        "url": url,
        "title": title,
        "cited_text": cited,
        "encrypted_index": "E",
    }
    page = {
        "type": "page_location",
        "cited_text": cited,
        "document_index": 0,
        "document_title": title,
        "start_page_number": 1,
        "end_page_number": 2,
    }
    is_web = draw(st.booleans())
    return hub.Citation(
        url=url if is_web else "", title=title, cited_text=cited, origin="anthropic", raw=raw(web if is_web else page)
    )


SIGNATURES = st.builds(hub.Seal, st.just("anthropic"), st.just("signature"), SAID)
REDACTIONS = st.builds(hub.Seal, st.just("anthropic"), st.just("redacted"), SAID)
THOUGHTS = st.builds(hub.Reasoning, WORDS, st.none() | SIGNATURES) | st.builds(hub.Reasoning, st.just(""), REDACTIONS)
CALLS = st.builds(
    hub.ToolCall, id=NAMES, name=NAMES, arguments=OBJECTS.map(lambda value: spell(bytes(raw(value)).decode()))
)
SERVER_CALLS = OBJECTS.map(
    lambda value: hub.Opaque(
        "anthropic",
        "server_tool_use",
        raw({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": value}),
    )
)
SERVER_RESULTS = WORDS.map(
    lambda title: hub.Opaque(
        "anthropic",
        "web_search_tool_result",
        raw(
            {
                "type": "web_search_tool_result",
                "tool_use_id": "srvtoolu_1",
                "content": [
                    {"type": "web_search_result", "title": title, "url": "https://a", "encrypted_content": "E"}
                ],
            }
        ),
    )
)
ANSWERED = st.one_of(
    st.builds(hub.Text, WORDS, citations=tuples(citations(), 2)), THOUGHTS, CALLS, SERVER_CALLS, SERVER_RESULTS
)
USAGES = st.builds(
    hub.Usage,
    input_tokens=TOKENS,
    cache_read_tokens=st.none() | TOKENS,
    cache_write_tokens=st.none() | TOKENS,
    output_tokens=TOKENS,
    reasoning_tokens=st.none() | TOKENS,
)


@st.composite
def candidates(draw: st.DrawFn) -> hub.Candidate:
    stops: list[hub.Stop] = ["end", "length", "tool", "stop_sequence", "refusal", "pause", "context"]
    stop = draw(st.sampled_from(stops))
    return hub.Candidate(
        blocks=draw(tuples(ANSWERED, 4)),
        stop=stop,
        stop_sequence=draw(SAID) if stop == "stop_sequence" else None,
        detail=draw(WORDS) if stop == "refusal" else "",
    )


def responses() -> st.SearchStrategy[hub.Response]:
    return st.builds(
        hub.Response,
        id=NAMES,
        model=NAMES,
        candidates=st.tuples(candidates()),
        usage=USAGES,
        service_tier=st.sampled_from(["", "default", "priority", "batch"]),
    )


# --- Requests

SCHEMAS = st.dictionaries(NAMES, st.sampled_from(["string", "integer", "boolean"]), max_size=3).map(
    lambda properties: raw(
        {
            "type": "object",
            "properties": {name: {"type": kind} for name, kind in properties.items()},
            "required": list(properties),
            "additionalProperties": False,
        }
    )
)
MEDIA = st.one_of(
    st.builds(
        hub.Media,
        kind=st.just("image"),
        media_type=st.sampled_from(["image/png", "image/jpeg", "image/gif", "image/webp"]),
        data=st.just("iVBORw0KGgo="),
        extensions=st.sampled_from([{}, {"transformations": Raw(b'{"oversized_image":"error"}')}]),
    ),
    st.builds(hub.Media, kind=st.just("image"), url=NAMES),
    st.builds(hub.Media, kind=st.just("image"), file_id=NAMES, origin=st.just("anthropic")),
    st.builds(
        hub.Media,
        kind=st.just("document"),
        media_type=st.just("application/pdf"),
        data=st.sampled_from(["JVBERi0=", "JVBERi0xLjc="]),
        name=WORDS,
        context=WORDS,
        has_citations=st.booleans(),
    ),
    st.builds(
        hub.Media,
        kind=st.just("document"),
        media_type=st.just("text/plain"),
        data=NAMES,
        name=WORDS,
        context=WORDS,
        has_citations=st.booleans(),
    ),
    st.builds(hub.Media, kind=st.just("document"), media_type=st.just("application/pdf"), url=NAMES, name=WORDS),
    st.builds(hub.Media, kind=st.just("document"), file_id=NAMES, origin=st.just("anthropic")),
)
TEXTS = st.builds(hub.Text, SAID)
MARKS = st.none() | st.builds(hub.CacheMark, st.sampled_from(["5m", "1h"]))


@st.composite
def results(draw: st.DrawFn, call_id: str) -> hub.ToolResult:
    content = draw(tuples(TEXTS | MEDIA))
    return hub.ToolResult(call_id=call_id, content=content, is_error=bool(content) and draw(st.booleans()))


@st.composite
def turns(draw: st.DrawFn) -> list[hub.Turn]:
    """Return a conversation; each of its calls is answered."""
    made: list[hub.Turn] = []
    if draw(st.booleans()):
        mark = draw(MARKS)
        rest = draw(tuples(TEXTS)) if mark else ()
        made.append(hub.Turn("system", (*rest, hub.Text(draw(SAID), cache=mark))))
    waiting: list[hub.ToolCall] = []
    numbers = count()
    for _ in range(draw(st.integers(0, 2))):
        made.append(
            hub.Turn("user", (*[draw(results(call.id)) for call in waiting], draw(TEXTS), *draw(tuples(MEDIA))))
        )
        if draw(st.booleans()):
            made.append(hub.Turn("system", (draw(TEXTS),)))
        waiting = [replace(call, id=f"{call.id}{next(numbers)}") for call in draw(st.lists(CALLS, max_size=2))]
        thoughts = [thought for thought in draw(st.lists(THOUGHTS, max_size=2)) if thought.seal is not None]
        made.append(hub.Turn("assistant", (*thoughts, draw(TEXTS), *waiting)))
    last = hub.Text(draw(SAID), cache=draw(MARKS))
    made.append(hub.Turn("user", (*[draw(results(call.id)) for call in waiting], *draw(tuples(MEDIA)), last)))
    return made


@st.composite
def requests(draw: st.DrawFn) -> hub.Request:
    names = draw(st.lists(NAMES, max_size=3, unique=True))
    tools = [
        hub.Tool(
            name=name, description=draw(WORDS), schema=draw(SCHEMAS), is_strict=draw(st.sampled_from([None, True]))
        )
        for name in names
    ]
    choices = [hub.ToolChoice("auto"), hub.ToolChoice("required"), *(hub.ToolChoice("required", (n,)) for n in names)]
    choice = draw(st.none() | st.just(hub.ToolChoice("none")) | st.sampled_from(choices)) if tools else None
    return hub.Request(
        model=draw(NAMES),
        turns=draw(turns()),
        tools=[replace(tools[0], cache=draw(MARKS)), *tools[1:]] if tools else [],
        server_tools=draw(st.sampled_from([[], [SEARCH]])),
        tool_choice=choice,
        parallel_tool_calls=draw(st.sampled_from([None, False])) if choice and choice.mode != "none" else None,
        max_output_tokens=draw(st.integers(1, 200_000)),
        temperature=draw(st.none() | st.floats(0, 1)),
        top_p=draw(st.none() | st.floats(0, 1)),
        top_k=draw(st.none() | st.integers(1, 500)),
        stop=draw(st.lists(SAID, max_size=2)),
        reasoning=draw(st.sampled_from(CONTROLS)),
        output=draw(st.none() | st.builds(hub.OutputFormat, schema=SCHEMAS, is_strict=st.just(True))),
        user=draw(st.sampled_from(["", "user_7", '{"session_id":"a-b"}'])),
        service_tier=draw(st.sampled_from(["", "auto", "default"])),
        stream=draw(st.booleans()),
    )


SEARCH = hub.ServerTool(
    "web_search", "anthropic", Raw(b'{"type":"web_search_20260318","name":"web_search","max_uses":3}'), ("max_uses",)
)
CONTROLS = [
    hub.ReasoningControl(),
    hub.ReasoningControl(mode="off"),
    hub.ReasoningControl(mode="on", show=True),
    hub.ReasoningControl(mode="on", effort="xhigh", show=True),
    hub.ReasoningControl(mode="on", effort="low", show=False),
]
