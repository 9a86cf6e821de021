"""Answers and requests that generateContent carries without loss, as its decoder would return them."""

from itertools import count, pairwise
from typing import TypeVar

import msgspec
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from aiproxyd import hub
from tests.formats.spelling import spell

T = TypeVar("T")

NAMES = st.text("abcXYZ019_.:-", max_size=11).map("a".__add__)
TOKENS = st.integers(0, 10**9)
WORDS = st.text(max_size=20)
SAID = st.text(min_size=1, max_size=20)
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

SIGNATURES = st.sampled_from(["CiQBcsjafCqL0w==", "AAAA", "c2tpcA=="])
SEALS = st.builds(hub.Seal, st.just("gemini"), st.just("signature"), SIGNATURES)
THOUGHTS = st.builds(hub.Reasoning, SAID, st.none() | SEALS) | st.builds(hub.Reasoning, st.just(""), SEALS)
CALLS = st.builds(
    hub.ToolCall,
    id=NAMES,
    name=NAMES,
    arguments=OBJECTS.map(lambda value: spell(bytes(raw(value)).decode())),
    seal=st.none() | SEALS,
)
PICTURES = st.builds(
    hub.Media, kind=st.just("image"), media_type=st.just("image/png"), data=st.sampled_from(["iVBORw0KGgo=", "+/+/"])
)
SERVER_PARTS = st.builds(
    lambda code: hub.Opaque("gemini", "executableCode", raw({"executableCode": {"code": code}})), WORDS
)


@st.composite
def cited_texts(draw: st.DrawFn) -> hub.Text:
    text = draw(SAID)
    bounds = st.integers(0, len(text))
    citations = []
    for number in range(draw(st.integers(0, 2))):
        url, title = f"https://x.test/{number}", draw(SAID)
        start = draw(st.none() | bounds)
        end = draw(st.integers(start, len(text))) if start is not None else None
        chunk = raw({"web": {"uri": url, "title": title}})
        citations.append(hub.Citation(url, title, start=start, end=end, origin="gemini", raw=chunk))
    return hub.Text(text, citations=tuple(citations), seal=draw(st.none() | SEALS))


@st.composite
def answered(draw: st.DrawFn) -> tuple[hub.Block, ...]:
    """Return blocks of which no two neighbours would be read as one; only one text can be cited."""
    blocks: list[hub.Block] = draw(
        st.lists(
            THOUGHTS | CALLS | PICTURES | SERVER_PARTS | st.builds(hub.Text, SAID, seal=st.none() | SEALS), max_size=4
        )
    )
    told_apart = [
        block
        for before, block in pairwise([hub.Refusal(""), *blocks])
        if type(before) is not type(block) or not isinstance(block, hub.Text | hub.Reasoning)
    ]
    if draw(st.booleans()) and not any(isinstance(block, hub.Text) for block in told_apart):
        told_apart.append(draw(cited_texts()))
    return tuple(told_apart)


TOP = st.builds(hub.TokenLogprob, WORDS, st.floats(-99, 0))
LOGPROBS = st.lists(TOP | st.builds(hub.TokenLogprob, WORDS, st.floats(-99, 0), top=tuples(TOP)), max_size=3).map(tuple)
STOPS: st.SearchStrategy[tuple[hub.Stop, str]] = st.sampled_from(
    [
        ("end", ""),
        ("end", "MALFORMED_FUNCTION_CALL"),
        ("length", ""),
        ("refusal", "SAFETY"),
        ("refusal", "RECITATION"),
        ("refusal", "because of that"),
    ]
)


@st.composite
def candidates(draw: st.DrawFn) -> hub.Candidate:
    stop, detail = draw(STOPS)
    return hub.Candidate(blocks=draw(answered()), stop=stop, detail=detail, logprobs=draw(LOGPROBS))


@st.composite
def usages(draw: st.DrawFn) -> hub.Usage:
    reasoning = draw(st.none() | TOKENS)
    return hub.Usage(
        input_tokens=draw(TOKENS),
        cache_read_tokens=draw(st.none() | TOKENS),
        output_tokens=draw(TOKENS) + (reasoning or 0),
        reasoning_tokens=reasoning,
    )


BLOCKED = hub.Candidate(stop="blocked", detail="PROHIBITED_CONTENT")


def responses() -> st.SearchStrategy[hub.Response]:
    return st.builds(
        hub.Response,
        id=NAMES,
        model=NAMES,
        candidates=st.lists(candidates(), min_size=1, max_size=3).map(tuple) | st.just((BLOCKED,)),
        usage=usages(),
    )


# --- Requests

SCHEMAS = st.lists(NAMES, min_size=1, max_size=3, unique=True).map(
    lambda names: raw({"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names})
)
MEDIA = st.one_of(
    PICTURES,
    st.builds(
        hub.Media,
        kind=st.sampled_from(["image", "audio", "video"]),
        media_type=st.just(""),
        data=st.just("iVBORw0KGgo="),
    ).map(lambda media: replace(media, media_type=f"{media.kind}/x")),
    st.builds(hub.Media, kind=st.just("document"), media_type=st.just("application/pdf"), data=st.just("JVBERi0=")),
    st.builds(hub.Media, kind=st.just("document"), media_type=st.just("text/plain"), data=SAID),
    st.builds(
        hub.Media,
        kind=st.just("image"),
        media_type=st.just("image/png"),
        file_id=NAMES.map("files/".__add__),
        origin=st.just("gemini"),
    ),
)
TEXTS = st.builds(hub.Text, SAID)
SEALED_TEXTS = st.builds(hub.Text, SAID, seal=st.none() | SEALS)
SEALED_THOUGHTS = st.builds(hub.Reasoning, WORDS, SEALS)
RESULT_TEXTS = SAID | OBJECTS.map(lambda value: bytes(raw(value)).decode())


@st.composite
def results(draw: st.DrawFn, call: hub.ToolCall) -> hub.ToolResult:
    content: list[hub.Text | hub.Media] = [hub.Text(text) for text in draw(st.lists(RESULT_TEXTS, max_size=1))]
    content += draw(tuples(MEDIA, 2))
    return hub.ToolResult(call_id=call.id, name=call.name, content=tuple(content), is_error=draw(st.booleans()))


@st.composite
def turns(draw: st.DrawFn) -> list[hub.Turn]:
    """Return a conversation; each of its calls is answered."""
    made: list[hub.Turn] = []
    if draw(st.booleans()):
        made.append(hub.Turn("system", (draw(TEXTS), *draw(tuples(TEXTS)))))
    waiting: list[hub.ToolCall] = []
    numbers = count()
    for _ in range(draw(st.integers(0, 2))):
        made.append(hub.Turn("user", (*[draw(results(call)) for call in waiting], draw(TEXTS), *draw(tuples(MEDIA)))))
        waiting = [replace(call, id=f"{call.id}{next(numbers)}") for call in draw(st.lists(CALLS, max_size=2))]
        made.append(hub.Turn("assistant", (*draw(tuples(SEALED_THOUGHTS, 2)), draw(SEALED_TEXTS), *waiting)))
    made.append(hub.Turn("user", (*[draw(results(call)) for call in waiting], *draw(tuples(MEDIA)), draw(TEXTS))))
    return made


SEARCH = hub.ServerTool("web_search", "gemini", Raw(b'{"googleSearch":{}}'))
CODE = hub.ServerTool("codeExecution", "gemini", Raw(b'{"codeExecution":{}}'))


@st.composite
def requests(draw: st.DrawFn) -> hub.Request:
    names = draw(st.lists(NAMES, max_size=3, unique=True))
    choices = [hub.ToolChoice(mode) for mode in ("auto", "none", "required")]
    choices += [hub.ToolChoice(mode, tuple(names)) for mode in ("auto", "required")]
    logprobs = draw(st.booleans())
    return hub.Request(
        model="",
        turns=draw(turns()),
        tools=[hub.Tool(name=name, description=draw(WORDS), schema=draw(st.none() | SCHEMAS)) for name in names],
        server_tools=draw(st.sampled_from([[], [SEARCH], [SEARCH, CODE]])),
        tool_choice=draw(st.none() | st.sampled_from(choices)) if names else None,
        max_output_tokens=draw(st.none() | st.integers(1, 65536)),
        temperature=draw(st.none() | st.floats(0, 2)),
        top_p=draw(st.none() | st.floats(0, 1)),
        top_k=draw(st.none() | st.integers(1, 40)),
        stop=draw(st.lists(SAID, max_size=5)),
        candidates=draw(st.integers(1, 8)),
        seed=draw(st.none() | st.integers(-(2**31), 2**31 - 1)),
        presence_penalty=draw(st.none() | st.floats(-2, 2)),
        frequency_penalty=draw(st.none() | st.floats(-2, 2)),
        logprobs=logprobs,
        top_logprobs=draw(st.none() | st.integers(0, 20)) if logprobs else None,
        output=draw(st.none() | st.builds(hub.OutputFormat, schema=st.none() | SCHEMAS)),
        service_tier=draw(st.sampled_from(["", "default", "flex", "priority"])),
    )
