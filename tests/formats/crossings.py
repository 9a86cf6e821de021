"""What survives each crossing from one format to another: measured, and written to docs/formats.md.

A feature is a request (or an answer) in neutral terms and a way to see it there. It is written in the caller's format,
read, carried over, written in the upstream's format and read again: what is still seen then has survived. What has not
must have been named as dropped, or refused, or be among what nobody misses.

``python -m tests.formats.crossings > docs/formats.md`` writes the document.
"""

import base64
import sys
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from msgspec import Raw
from msgspec.structs import replace

from aiproxyd.capabilities import Capabilities
from aiproxyd.conversion import Crossing, Memory
from aiproxyd.conversion.outbound import NOTE
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import FORMATS
from aiproxyd.formats.base import Format
from aiproxyd.formats.codec import Losses
from aiproxyd.hub import (
    Block,
    CacheMark,
    Candidate,
    Citation,
    Media,
    OutputFormat,
    Reasoning,
    ReasoningControl,
    Refusal,
    Request,
    Response,
    Seal,
    ServerTool,
    Text,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
    Usage,
)

PNG: Final = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(24)).decode()
PDF: Final = base64.b64encode(b"%PDF-1.7 nothing else").decode()
WAV: Final = base64.b64encode(b"RIFF....WAVEfmt ").decode()
SCHEMA: Final = Raw(
    b'{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}'
)
ABLE: Final = Capabilities(
    max_output_tokens=64000,
    reasoning="effort",
    efforts=("minimal", "low", "medium", "high", "xhigh", "max"),
    has_custom_tools=True,
    fetches_urls=True,
    has_max_completion_tokens=True,
    has_developer_role=True,
)
"""A model that takes whatever its format can say: what is measured is the formats."""
REASONING_OF: Final = {"anthropic": "adaptive", "gemini": "level"}

KEPT, DROPPED, REFUSED, LEFT_OUT, NOTED, NONE, LOST = "yes", "dropped", "refused", "left out", "noted", "-", "LOST"


class Feature(NamedTuple):
    """Something that a request may say."""

    name: str
    request: Request
    is_there: Callable[[Request], bool]
    is_hint: bool = False
    """Nobody misses it."""


class AnswerFeature(NamedTuple):
    """Something that an answer may say."""

    name: str
    response: Response
    is_there: Callable[[Response], bool]
    is_hint: bool = False


def ask(*blocks: Block, **fields: object) -> Request:
    return replace(Request(model="m", turns=[Turn("user", blocks or (Text("Hello"),))]), **fields)


def blocks_of(request: Request) -> list[Block]:
    return [block for turn in request.turns for block in turn.blocks]


def has_block(fits: Callable[[Block], bool]) -> Callable[[Request], bool]:
    return lambda request: any(map(fits, blocks_of(request)))


def says(**fields: object) -> Callable[[Request], bool]:
    return lambda request: all(getattr(request, name) == value for name, value in fields.items())


TOOL: Final = Tool(name="weather", description="The weather of a city.", schema=SCHEMA)
CALL: Final = ToolCall(id="call_1", name="weather", arguments='{"city":"Oslo"}')
OTHER_CALL: Final = ToolCall(id="call_2", name="weather", arguments='{"city":"Rome"}')


def loop(*content: Text | Media, is_error: bool = False) -> Request:
    result = ToolResult(call_id="call_1", name="weather", content=content, is_error=is_error)
    turns = [Turn("user", (Text("Weather?"),)), Turn("assistant", (CALL,)), Turn("user", (result,))]
    return Request(model="m", turns=turns, tools=[TOOL])


def has_result(fits: Callable[[ToolResult], bool]) -> Callable[[Request], bool]:
    return has_block(lambda block: isinstance(block, ToolResult) and fits(block))


FEATURES: Final = (
    Feature("text", ask(Text("Hello")), has_block(lambda block: block == Text("Hello"))),
    Feature(
        "system instructions",
        Request(model="m", turns=[Turn("system", (Text("Be brief."),)), Turn("user", (Text("Hello"),))]),
        lambda request: request.turns[0] == Turn("system", (Text("Be brief."),)),
    ),
    Feature(
        "system turn in mid-conversation",
        Request(
            model="m",
            turns=[
                Turn("user", (Text("Hello"),)),
                Turn("system", (Text("Be brief."),)),
                Turn("assistant", (Text("Hi"),)),
                Turn("user", (Text("Bye"),)),
            ],
        ),
        lambda request: (
            any(turn.role == "system" for turn in request.turns[1:])
            or has_block(lambda block: block == Text(NOTE + "Be brief."))(request)
        ),
    ),
    Feature(
        "image in base64",
        ask(Text("Look"), Media(kind="image", media_type="image/png", data=PNG)),
        has_block(lambda block: isinstance(block, Media) and block.data == PNG and block.kind == "image"),
    ),
    Feature(
        "image at a URL",
        ask(Text("Look"), Media(kind="image", url="https://example.org/a.png")),
        has_block(lambda block: isinstance(block, Media) and block.url == "https://example.org/a.png"),
    ),
    Feature(
        "image detail",
        ask(Text("Look"), Media(kind="image", media_type="image/png", data=PNG, detail="low")),
        has_block(lambda block: isinstance(block, Media) and block.detail == "low"),
        is_hint=True,
    ),
    Feature(
        "PDF",
        ask(Text("Read"), Media(kind="document", media_type="application/pdf", data=PDF, name="a.pdf")),
        has_block(lambda block: isinstance(block, Media) and block.data == PDF),
    ),
    Feature(
        "text document",
        ask(Text("Read"), Media(kind="document", media_type="text/plain", data="Some words", name="a.txt")),
        lambda request: "Some words" in str(request.turns) or "U29tZSB3b3Jkcw==" in str(request.turns),
    ),
    Feature(
        "audio",
        ask(Text("Listen"), Media(kind="audio", media_type="audio/wav", data=WAV)),
        has_block(lambda block: isinstance(block, Media) and block.kind == "audio" and block.data == WAV),
    ),
    Feature(
        "video",
        ask(Text("Watch"), Media(kind="video", media_type="video/mp4", data=WAV)),
        has_block(lambda block: isinstance(block, Media) and block.kind == "video"),
    ),
    Feature(
        "tools",
        ask(tools=[TOOL]),
        lambda request: (
            [(tool.name, tool.description) for tool in request.tools] == [("weather", "The weather of a city.")]
            and request.tools[0].schema is not None
        ),
    ),
    Feature(
        "custom (free text) tool",
        ask(tools=[Tool(name="patch", is_custom=True)]),
        lambda request: [tool.name for tool in request.tools] == ["patch"],
    ),
    Feature(
        "parallel tool calls and their results",
        Request(
            model="m",
            turns=[
                Turn("user", (Text("Weather?"),)),
                Turn("assistant", (CALL, OTHER_CALL)),
                Turn(
                    "user",
                    (
                        ToolResult(call_id="call_1", name="weather", content=(Text("rain"),)),
                        ToolResult(call_id="call_2", name="weather", content=(Text("sun"),)),
                    ),
                ),
            ],
            tools=[TOOL],
        ),
        lambda request: (
            [block.content[0] for block in blocks_of(request) if isinstance(block, ToolResult)]
            == [Text("rain"), Text("sun")]
            and [block.arguments for block in blocks_of(request) if isinstance(block, ToolCall)]
            == ['{"city":"Oslo"}', '{"city":"Rome"}']
        ),
    ),
    Feature(
        "tool result that is an error",
        loop(Text("no such city"), is_error=True),
        has_result(lambda result: result.is_error or result.content == (Text("Error: no such city"),)),
    ),
    Feature(
        "image in a tool result",
        loop(Text("see"), Media(kind="image", media_type="image/png", data=PNG)),
        lambda request: PNG in str(request.turns),
    ),
    Feature(
        "tool choice: a certain tool",
        ask(tools=[TOOL, replace(TOOL, name="other")], tool_choice=ToolChoice("required", ("weather",))),
        lambda request: request.tool_choice == ToolChoice("required", ("weather",)),
    ),
    Feature(
        "tool choice: some of the tools",
        ask(
            tools=[TOOL, replace(TOOL, name="second"), replace(TOOL, name="third")],
            tool_choice=ToolChoice("required", ("weather", "second")),
        ),
        lambda request: (
            request.tool_choice is not None
            and request.tool_choice.mode == "required"
            and set(request.tool_choice.names or [tool.name for tool in request.tools]) == {"weather", "second"}
        ),
    ),
    Feature(
        "tool choice: none",
        ask(tools=[TOOL], tool_choice=ToolChoice("none")),
        lambda request: request.tool_choice == ToolChoice("none"),
    ),
    Feature(
        "no parallel tool calls",
        ask(tools=[TOOL], parallel_tool_calls=False),
        lambda request: request.parallel_tool_calls is False,
    ),
    Feature(
        "web search",
        ask(tools=[TOOL], server_tools=[ServerTool("web_search", "", Raw(b"{}"))]),
        lambda request: [tool.kind for tool in request.server_tools] == ["web_search"],
    ),
    Feature("output limit", ask(max_output_tokens=500), lambda request: request.max_output_tokens == 500),
    Feature("temperature", ask(temperature=0.5), says(temperature=0.5)),
    Feature("top_p", ask(top_p=0.5), says(top_p=0.5)),
    Feature("top_k", ask(top_k=40), says(top_k=40)),
    Feature("stop sequences", ask(stop=["END"]), says(stop=["END"])),
    Feature("several candidates", ask(candidates=2), says(candidates=2)),
    Feature("seed", ask(seed=7), says(seed=7)),
    Feature("penalties", ask(presence_penalty=0.5, frequency_penalty=0.5), says(presence_penalty=0.5)),
    Feature("logprobs", ask(logprobs=True, top_logprobs=2), says(logprobs=True)),
    Feature("logit bias", ask(logit_bias={"50256": -100.0}), says(logit_bias={"50256": -100.0})),
    Feature(
        "reasoning effort",
        ask(reasoning=ReasoningControl(mode="on", effort="high", show=True)),
        lambda request: request.reasoning.mode == "on" and request.reasoning.effort == "high",
    ),
    Feature(
        "reasoning off",
        ask(reasoning=ReasoningControl(mode="off")),
        lambda request: request.reasoning.mode == "off",
    ),
    Feature(
        "structured output",
        ask(output=OutputFormat(schema=SCHEMA, name="place")),
        lambda request: request.output is not None and b'"city"' in bytes(request.output.schema or b""),
    ),
    Feature(
        "JSON output without a schema",
        ask(output=OutputFormat()),
        lambda request: request.output is not None or "JSON" in str(request.turns),
    ),
    Feature("verbosity", ask(verbosity="low"), says(verbosity="low"), is_hint=True),
    Feature("user", ask(user="u-1"), says(user="u-1"), is_hint=True),
    Feature("metadata", ask(metadata={"a": "b"}), says(metadata={"a": "b"}), is_hint=True),
    Feature("service tier", ask(service_tier="priority"), lambda request: bool(request.service_tier), is_hint=True),
    Feature(
        "prompt cache mark",
        ask(Text("Hello", cache=CacheMark("1h"))),
        has_block(lambda block: isinstance(block, Text) and block.cache is not None),
        is_hint=True,
    ),
    Feature("prompt cache key", ask(cache_key="k"), says(cache_key="k"), is_hint=True),
)


def answer(*blocks: Block, **fields: object) -> Response:
    candidate = replace(Candidate(blocks=blocks or (Text("Hi"),)), **fields)
    return Response(id="r1", model="m", candidates=(candidate,), usage=Usage(input_tokens=3, output_tokens=2))


def in_answer(fits: Callable[[Block], bool]) -> Callable[[Response], bool]:
    return lambda response: any(map(fits, response.candidates[0].blocks)) if response.candidates else False


def stopped(*stops: str) -> Callable[[Response], bool]:
    return lambda response: response.candidates[0].stop in stops


USAGE: Final = Usage(input_tokens=10, cache_read_tokens=4, cache_write_tokens=0, output_tokens=9, reasoning_tokens=5)

ANSWERS: Final = (
    AnswerFeature("text", answer(Text("Hi")), in_answer(lambda block: block == Text("Hi"))),
    AnswerFeature(
        "tool calls",
        answer(CALL, OTHER_CALL, stop="tool"),
        lambda response: (
            [(block.name, block.arguments) for block in response.candidates[0].blocks if isinstance(block, ToolCall)]
            == [("weather", '{"city":"Oslo"}'), ("weather", '{"city":"Rome"}')]
        ),
    ),
    AnswerFeature(
        "thoughts",
        answer(Reasoning("Hm.", Seal("ORIGIN", "signature", "c2lnbmF0dXJl")), Text("Hi")),
        in_answer(lambda block: isinstance(block, Reasoning) and block.text == "Hm."),
    ),
    AnswerFeature(
        "opaque state of a thought",
        answer(Reasoning("Hm.", Seal("ORIGIN", "signature", "c2lnbmF0dXJl")), Text("Hi")),
        in_answer(lambda block: isinstance(block, Reasoning) and block.seal is not None),
    ),
    AnswerFeature(
        "refusal",
        answer(Refusal("I will not."), stop="refusal"),
        lambda response: "I will not." in str(response) and response.candidates[0].stop in ("refusal", "end"),
    ),
    AnswerFeature(
        "citation of a page",
        answer(Text("Hi", citations=(Citation(url="https://example.org", title="A page"),))),
        in_answer(lambda block: isinstance(block, Text) and bool(block.citations)),
        is_hint=True,
    ),
    AnswerFeature(
        "image",
        answer(Media(kind="image", media_type="image/png", data=PNG)),
        in_answer(lambda block: isinstance(block, Media) and block.data == PNG),
    ),
    AnswerFeature("stop: end", answer(stop="end"), stopped("end")),
    AnswerFeature("stop: length", answer(stop="length"), stopped("length")),
    AnswerFeature(
        "stop: a tool",
        answer(CALL, stop="tool"),
        # Responses and Gemini say so by the call alone.
        lambda response: response.candidates[0].stop in ("tool", "end") and "ToolCall" in str(response),
    ),
    AnswerFeature(
        "stop: a stop sequence", answer(stop="stop_sequence", stop_sequence="END"), stopped("stop_sequence", "end")
    ),
    AnswerFeature("stop: refusal or safety", answer(stop="refusal"), stopped("refusal")),
    AnswerFeature("stop: context full", answer(stop="context"), stopped("context", "length")),
    AnswerFeature("stop: pause", answer(stop="pause"), stopped("pause", "length")),
    AnswerFeature(
        "logprobs",
        answer(logprobs=(TokenLogprob("Hi", -0.5),)),
        lambda response: bool(response.candidates[0].logprobs),
        is_hint=True,
    ),
    AnswerFeature(
        "usage",
        replace(answer(), usage=USAGE),
        lambda response: (
            response.usage is not None and response.usage.total_input_tokens == 14 and response.usage.output_tokens == 9
        ),
    ),
    AnswerFeature(
        "usage: cached and reasoning tokens",
        replace(answer(), usage=USAGE),
        lambda response: (
            response.usage is not None
            and response.usage.cache_read_tokens == 4
            and response.usage.reasoning_tokens == 5
        ),
    ),
)


def capabilities_of(fmt: Format) -> Capabilities:
    # Gemini's levels have none that stands for no thinking at all.
    return replace(ABLE, reasoning=REASONING_OF.get(fmt.name, "effort"), can_stop_reasoning=fmt.name != "gemini")


def measure(feature: Feature, caller: Format, upstream: Format) -> str:
    """Return what becomes of *feature* between the two."""
    try:
        written = caller.encode_request(feature.request, capabilities_of(caller), Losses())
        read = caller.decode_request(written)
    except InvalidRequest:
        return NONE
    read.model = "m"
    if not feature.is_there(read):
        return NONE
    if caller is upstream:
        return KEPT
    crossing = Crossing(
        read, caller, upstream, capabilities_of(upstream), origin="up/m", principal="p", memory=Memory()
    )
    try:
        _, _, body = crossing.encode_request("m")
    except InvalidRequest:
        return REFUSED
    arrived = upstream.decode_request(body)
    if feature.is_there(arrived):
        return KEPT
    if crossing.losses.names:
        return DROPPED
    return LEFT_OUT if feature.is_hint else LOST


def measure_answer(feature: AnswerFeature, upstream: Format, caller: Format) -> str:
    """Return what becomes of *feature* between the two, on the way back."""
    response = _answer_with_origin(feature.response, upstream.name)
    asked = ask(tools=[TOOL], logprobs=True)
    written = upstream.encode_response(response, asked)
    if not feature.is_there(upstream.decode_response(written)):
        return NONE
    if caller is upstream:
        return KEPT
    crossing = Crossing(
        asked, caller, upstream, capabilities_of(upstream), origin="up/m", principal="p", memory=Memory()
    )
    crossing.encode_request("m")
    body, _ = crossing.convert_answer(written)
    arrived = caller.decode_response(body)
    if feature.is_there(arrived):
        return KEPT
    if "cannot carry" in str(arrived):
        return NOTED
    return LEFT_OUT if feature.is_hint else LOST


def _answer_with_origin(response: Response, origin: str) -> Response:
    candidates = tuple(
        replace(candidate, blocks=tuple(_seal(block, origin) for block in candidate.blocks))
        for candidate in response.candidates
    )
    return replace(response, candidates=candidates)


def _seal(block: Block, origin: str) -> Block:
    if isinstance(block, Reasoning) and block.seal is not None:
        return replace(block, seal=replace(block.seal, origin=origin))
    return block


HEAD: Final = """# What survives a crossing

Where a caller and its upstream speak one format, the bytes pass as they are, and everything survives. This table is
about the other pairs. It is measured by the tests (`python -m tests.formats.crossings`), for a model that takes all
that its API can say; what single models refuse comes on top (`aiproxyd/capabilities.json`).

- **yes**: it arrives, in the words of the other API.
- **dropped**: the other API has no place for it; it is named in the header `x-aiproxyd-dropped` and in the log, and
  with `--strict-conversion` refused.
- **refused**: without it the request would mean something else, so the answer is a 400 that says what is in the way.
- **noted**: the answer says in words what the caller's API cannot carry.
- **left out**: a hint or a label that changes nothing about the answer.
- **-**: the caller's API cannot say it in the first place.
"""


def write_document() -> Iterator[str]:
    """Yield the lines of docs/formats.md."""
    yield from HEAD.splitlines()
    for caller in FORMATS.values():
        others = [fmt for fmt in FORMATS.values() if fmt is not caller]
        yield ""
        yield f"## Callers of {caller.name}"
        yield ""
        yield f"| what the request says | {' | '.join(f'to {fmt.name}' for fmt in others)} |"
        yield "| --- |" + " --- |" * len(others)
        for feature in FEATURES:
            cells = [measure(feature, caller, upstream) for upstream in others]
            if set(cells) != {NONE}:
                yield f"| {feature.name} | {' | '.join(cells)} |"
        yield ""
        yield f"| what the answer says | {' | '.join(f'from {fmt.name}' for fmt in others)} |"
        yield "| --- |" + " --- |" * len(others)
        for back in ANSWERS:
            cells = [measure_answer(back, upstream, caller) for upstream in others]
            if set(cells) != {NONE}:
                yield f"| {back.name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(write_document()) + "\n")
