"""Requests and answers that the format carries without loss."""

from itertools import pairwise

import msgspec
from hypothesis import assume
from hypothesis import strategies as st
from msgspec import Raw

from aiproxyd import hub
from tests.formats.spelling import spell

WORDS = st.text(min_size=1, max_size=20)
NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)
CALL_IDS = st.from_regex(r"[ -~]{1,40}", fullmatch=True)
SEALED = st.from_regex(r"[!-~]{1,30}", fullmatch=True)
BASE64 = st.binary(min_size=1, max_size=20).map(lambda data: msgspec.json.encode(data).decode().strip('"'))
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10)
ARGUMENTS = st.dictionaries(st.text(max_size=8), SCALARS, max_size=3).map(
    lambda value: spell(msgspec.json.encode(value).decode())
)
IMAGES = st.builds(
    hub.Media, kind=st.just("image"), media_type=st.sampled_from(["image/png", "image/jpeg"]), data=BASE64
) | st.builds(hub.Media, kind=st.just("image"), url=st.sampled_from(["https://a.example/b.png", "http://c.example"]))

# --- Answers

CITATIONS = st.builds(
    hub.Citation,
    url=st.sampled_from(["https://a.example", "https://b.example/c?d=é"]),
    title=st.text(max_size=8),
    start=st.integers(0, 5),
    end=st.integers(5, 9),
)
TEXTS = st.builds(hub.Text, WORDS, citations=st.lists(CITATIONS, max_size=2).map(tuple))
SEALED_THOUGHTS = st.builds(
    hub.Reasoning, st.text(max_size=20), st.builds(hub.Seal, st.just("openai-chat"), st.just("signature"), SEALED)
) | st.builds(hub.Reasoning, st.just(""), st.builds(hub.Seal, st.just("openai-chat"), st.just("redacted"), SEALED))
THOUGHTS = st.lists(st.builds(hub.Reasoning, WORDS), max_size=1) | st.lists(SEALED_THOUGHTS, max_size=3)
CALL_SEALS = st.none() | st.builds(hub.Seal, st.just("openai-chat"), st.just("signature"), SEALED)
CALLS = st.builds(hub.ToolCall, id=CALL_IDS, name=NAMES, arguments=ARGUMENTS, seal=CALL_SEALS) | st.builds(
    hub.ToolCall, id=CALL_IDS, name=NAMES, arguments=st.text(max_size=20), is_custom=st.just(True), seal=CALL_SEALS
)
TOKENS = st.builds(
    hub.TokenLogprob,
    WORDS,
    st.floats(-20, 0),
    st.none() | st.lists(st.integers(0, 255), max_size=3).map(tuple),
    st.lists(st.builds(hub.TokenLogprob, WORDS, st.floats(-20, 0)), max_size=2).map(tuple),
)
COUNTS = st.integers(0, 10**6)
USAGES = st.builds(
    hub.Usage,
    input_tokens=COUNTS,
    cache_read_tokens=st.none() | COUNTS,
    cache_write_tokens=st.none() | COUNTS,
    output_tokens=COUNTS,
    reasoning_tokens=st.none() | COUNTS,
)


@st.composite
def candidates(draw: st.DrawFn) -> hub.Candidate:
    thoughts = draw(THOUGHTS)
    text: list[hub.Block] = draw(st.lists(TEXTS, max_size=1))
    refusal: list[hub.Block] = draw(st.lists(st.builds(hub.Refusal, WORDS), max_size=1))
    calls = draw(st.lists(CALLS, max_size=3, unique_by=lambda call: call.id))
    images = draw(st.lists(IMAGES, max_size=2))
    stops: list[hub.Stop] = ["length", "tool", "refusal"] if refusal else ["end", "length", "tool", "refusal"]
    return hub.Candidate(
        blocks=(*thoughts, *text, *refusal, *calls, *images),
        stop=draw(st.sampled_from(stops)),
        logprobs=tuple(draw(st.lists(TOKENS, max_size=2))),
    )


def responses() -> st.SearchStrategy[hub.Response]:
    """Return answers; none has a field that is made up where it is empty."""
    return st.builds(
        hub.Response,
        id=NAMES,
        model=WORDS,
        created=st.integers(1, 2**32),
        candidates=st.lists(candidates(), min_size=1, max_size=3).map(tuple),
        usage=USAGES,
        service_tier=st.sampled_from(["", "default", "priority"]),
    )


# --- Requests

STRICT = Raw(b'{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false}')
LOOSE = Raw(b'{ "type": "object","properties":{"a":{"type":"string","minLength":1.0}} }')
GRAMMAR = Raw(b'{"type":"grammar","syntax":"lark","definition":"start: \\"a\\""}')
TOOLS = st.one_of(
    st.builds(
        hub.Tool,
        name=NAMES,
        description=st.text(max_size=10),
        schema=st.sampled_from([None, STRICT, LOOSE]),
        is_strict=st.sampled_from([None, False]),
    ),
    st.builds(hub.Tool, name=NAMES, schema=st.just(STRICT), is_strict=st.just(True)),
    st.builds(hub.Tool, name=NAMES, is_custom=st.just(True), grammar=st.sampled_from([None, GRAMMAR])),
)
FILES = st.one_of(
    st.builds(
        hub.Media,
        kind=st.just("document"),
        media_type=st.just("application/pdf"),
        data=BASE64,
        name=st.sampled_from(["a.pdf", "Bericht é.pdf"]),
    ),
    st.builds(hub.Media, kind=st.just("audio"), media_type=st.sampled_from(["audio/wav", "audio/mpeg"]), data=BASE64),
    st.builds(
        hub.Media,
        kind=st.just("image"),
        media_type=st.just("image/webp"),
        data=BASE64,
        detail=st.sampled_from(["low", "auto"]),
    ),
    st.builds(hub.Media, kind=st.just("document"), file_id=NAMES, origin=st.just("openai")),
    IMAGES,
)
OUTPUTS = st.one_of(
    st.none(),
    st.just(hub.OutputFormat()),
    st.builds(
        hub.OutputFormat,
        schema=st.sampled_from([STRICT, LOOSE]),
        name=NAMES,
        description=st.text(max_size=8),
        is_strict=st.sampled_from([None, False]),
    ),
    st.builds(hub.OutputFormat, schema=st.just(STRICT), name=NAMES, is_strict=st.just(True)),
)
CONTROLS = st.one_of(
    st.just(hub.ReasoningControl()),
    st.just(hub.ReasoningControl(mode="off")),
    st.sampled_from(["minimal", "low", "medium", "high", "xhigh", "max"]).map(
        lambda effort: hub.ReasoningControl(mode="on", effort=effort, show=True)  # type: ignore[arg-type]
    ),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[hub.Turn]:
    """Return turns, arranged; texts do not stand side by side."""
    turns = [hub.Turn("system", (hub.Text(words),)) for words in draw(st.lists(WORDS, max_size=1))]
    waiting: list[hub.ToolCall] = []
    numbers = iter(range(100))
    for _ in range(draw(st.integers(1, 3))):
        results: list[hub.Block] = [
            hub.ToolResult(
                call_id=call.id,
                content=tuple(map(hub.Text, draw(st.lists(WORDS, max_size=1)))),
                is_custom=call.is_custom,
            )
            for call in waiting
        ]
        said: list[hub.Block] = draw(st.lists(FILES, max_size=2))
        if not results or draw(st.booleans()):
            said.insert(draw(st.integers(0, len(said))), hub.Text(draw(WORDS)))
        turns.append(hub.Turn("user", (*results, *said)))
        if draw(st.booleans()):
            turns.append(hub.Turn("system", (hub.Text(draw(WORDS)),)))
        waiting = [
            msgspec.structs.replace(call, id=f"call_{next(numbers)}", seal=None)
            for call in draw(st.lists(CALLS, max_size=2))
        ]
        answered: list[hub.Block] = [hub.Text(words) for words in draw(st.lists(WORDS, max_size=1))]
        answered += [hub.Refusal(words) for words in draw(st.lists(WORDS, max_size=1))]
        answered += waiting
        if answered:
            turns.append(hub.Turn("assistant", tuple(answered)))
    arranged = hub.arrange(turns)
    # Several texts and nothing else are written as one.
    pairs = [pair for turn in arranged for pair in pairwise(turn.blocks)]
    assume(not any(isinstance(one, hub.Text) and isinstance(other, hub.Text) for one, other in pairs))
    return arranged


@st.composite
def requests(draw: st.DrawFn) -> hub.Request:
    """Return requests as a caller of this format can say them."""
    stream = draw(st.booleans())
    tools = draw(st.lists(TOOLS, max_size=3, unique_by=lambda tool: tool.name))
    names = tuple(tool.name for tool in tools)
    choices: list[hub.ToolChoice | None] = [None]
    if tools:
        choices += [hub.ToolChoice("auto"), hub.ToolChoice("none"), hub.ToolChoice("required")]
        choices += [hub.ToolChoice("required", names), hub.ToolChoice("auto", names)]
    numbers = st.none() | st.floats(0, 2)
    return hub.Request(
        model=draw(WORDS),
        turns=draw(conversations()),
        tools=tools,
        tool_choice=draw(st.sampled_from(choices)),
        parallel_tool_calls=draw(st.sampled_from([None, True, False])) if tools else None,
        max_output_tokens=draw(st.none() | st.integers(1, 10**6)),
        temperature=draw(numbers),
        top_p=draw(numbers),
        stop=draw(st.lists(WORDS, max_size=4)),
        candidates=draw(st.integers(1, 4)),
        seed=draw(st.none() | st.integers(-(2**31), 2**31)),
        presence_penalty=draw(numbers),
        frequency_penalty=draw(numbers),
        logprobs=draw(st.booleans()),
        top_logprobs=draw(st.none() | st.integers(0, 20)),
        logit_bias=draw(st.none() | st.dictionaries(st.sampled_from(["50256", "11"]), st.floats(-100, 100))),
        reasoning=draw(CONTROLS),
        output=draw(OUTPUTS),
        user=draw(st.text(max_size=8)),
        service_tier=draw(st.sampled_from(["", "flex"])),
        verbosity=draw(st.sampled_from(["", "low"])),
        cache_key=draw(st.text(max_size=8)),
        metadata=draw(st.dictionaries(WORDS, WORDS, max_size=2)),
        stream=stream,
        wants_usage=stream,
    )
