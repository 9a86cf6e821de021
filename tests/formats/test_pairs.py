"""What holds for each ordered pair of formats, those to come included."""

import importlib
from collections.abc import Iterator
from contextlib import suppress
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import event as count_event
from hypothesis import strategies as st
from msgspec.structs import astuple, replace

from aiproxyd.conversion import Crossing, Memory, StreamCrossing
from aiproxyd.errors import InvalidRequest, UpstreamError
from aiproxyd.formats import FORMATS
from aiproxyd.formats.base import Format
from aiproxyd.formats.codec import Losses
from aiproxyd.hub import (
    Block,
    Candidate,
    Citation,
    Event,
    Folder,
    Media,
    Opaque,
    Reasoning,
    Request,
    Response,
    Seal,
    Text,
    ToolCall,
    ToolResult,
    Turn,
    unfold,
)
from aiproxyd.sse import SSEDecoder
from tests.formats.crossings import capabilities_of, write_document

B = TypeVar("B", bound=Block)
ROOT = Path(__file__).parents[2]
FEW = 60 if settings.get_current_profile_name() == "ci" else 20
"""Examples for each pair: there are twelve of them."""
PAIRS = [(caller, upstream) for caller in FORMATS for upstream in FORMATS if caller != upstream]
PROOFS = {
    "openai-chat": b'"tool_calls"}',
    "openai-responses": b"event: response.completed",
    "anthropic": b"event: message_stop",
    "gemini": b'"finishReason"',
}
"""Stands where a stream is complete, and never before."""
FEWEST_STOPS = 4
"""Stop sequences that any API takes that takes any: https://platform.openai.com/docs/api-reference/chat/create."""
PLAIN_KNOBS = frozenset(("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty", "stop"))
"""Those that are said in the same words everywhere."""
HELLO = [Turn("user", (Text("Hello"),))]
GREETING = Text("Hi there")


def strategies_of(name: str) -> Any:
    return importlib.import_module(f"tests.formats.{name.replace('-', '_')}.strategies")


REQUESTS = {name: strategies_of(name).requests() for name in FORMATS}
RESPONSES = {name: strategies_of(name).responses() for name in FORMATS}


def open_crossing(caller: Format, upstream: Format, asked: Request) -> Crossing:
    capabilities = capabilities_of(upstream)
    return Crossing(asked, caller, upstream, capabilities, origin="up/m", principal="p", memory=Memory())


def ask(candidates: int = 1) -> Request:
    return Request(model="m", turns=HELLO, candidates=candidates, stream=True, logprobs=True)


def stream_through(crossing: StreamCrossing, chunks: list[bytes]) -> tuple[bytes, UpstreamError | None]:
    """Return what a caller gets of an upstream's *chunks*, and why it is not complete."""
    written = [crossing.feed(chunk) for chunk in chunks if not crossing.is_over]
    if not crossing.is_over:
        written.append(crossing.feed_eof())
    failure = crossing.take_failure()
    assert failure is None or isinstance(failure, UpstreamError)
    return b"".join(written), failure


def read_stream(fmt: Format, written: bytes, candidates: int) -> Response:
    decoder, sse, folder = fmt.stream_decoder(candidates), SSEDecoder(), Folder()
    for event in [*sse.feed(written), *sse.feed_eof()]:
        feed_all(folder, decoder.feed(event))
    feed_all(folder, decoder.feed_eof())
    return folder.result()


def feed_all(folder: Folder, events: list[Event]) -> None:
    for event in events:
        folder.feed(event)


def write_stream(fmt: Format, response: Response, asked: Request) -> bytes:
    encoder = fmt.stream_encoder(asked, "req-1")
    return b"".join(map(encoder.feed, unfold(response)))


def essence(response: Response, said: Format, heard: Format) -> list[Any]:
    """Return what of *heard*'s answer in the words of *said* must not depend on whether it came whole.

    That is all but its id, its times, and what opaque blocks hold.
    """
    told = (response.model, response.usage, response.service_tier)
    return [told, *(candidate_essence(candidate, said, heard) for candidate in response.candidates)]


def candidate_essence(candidate: Candidate, said: Format, heard: Format) -> Any:
    kinds = [type(block) for block in candidate.blocks]
    # Gemini's streams cite at their end, when no text but the last block is still open.
    cites = said.name != "gemini" or (kinds.count(Text) == 1 and kinds[-1] is Text)
    blocks = [block_essence(block, with_citations=cites) for block in candidate.blocks]
    if said.name == "openai-chat" and any(told[0] == "state" for told in blocks):
        # Who reads thoughts with their state passes over those that have none.
        blocks = [told for told in blocks if told[0] != "Reasoning" or told[2]]
    shown = [told for told in blocks if told[0] != "state"]
    if "openai-chat" in (said.name, heard.name):
        # A message has one place for its words, one for thoughts, one for calls: whose comes first it does not say.
        shown = [(kind, join_pieces(kind, told)) for kind, told in by_kind(shown).items()]
    # What belongs to a call or a text is known in a stream when these are over, in a whole answer before.
    state = sorted(told[1] for told in blocks if told[0] == "state")
    return (shown, state, candidate.stop, candidate.stop_sequence, candidate.detail, candidate.logprobs)


def by_kind(blocks: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for kind, *told in sorted(blocks, key=lambda block: block[0]):
        found.setdefault(kind, []).append(told)
    return found


def join_pieces(kind: str, pieces: list[Any]) -> list[Any]:
    """Return *pieces*, of one *kind*, as one where there is no telling where one ends and the next begins."""
    is_sealed = kind == "Reasoning" and any(seal for _, seal in pieces)
    if kind not in ("Text", "Refusal", "Reasoning") or is_sealed:
        return pieces
    return [reduce(add, parts) for parts in zip(*pieces, strict=True)]


def block_essence(block: Block, *, with_citations: bool) -> tuple[Any, ...]:
    match block:
        case Text(text=text, citations=citations):
            # What cites no character of a text may stand in another, empty one.
            cited = (each for each in citations if each.start is None or each.start != each.end)
            return "Text", text, tuple(map(citation_essence, cited)) if with_citations else ()
        case Reasoning(text="", seal=Seal(data=data)):
            return "state", data
        case Reasoning(text=text, seal=seal):
            # The item's id counts the blocks before it.
            return "Reasoning", text, seal.data if seal else ""
        case Opaque(kind=kind):
            return "Opaque", kind
        case _:
            return type(block).__name__, *(value for value in astuple(block) if not isinstance(value, dict))


def citation_essence(citation: Citation) -> tuple[Any, ...]:
    return citation.url, citation.title, citation.cited_text, citation.start, citation.end


def without_custom_calls(response: Response) -> Response:
    """Return *response* as it is given to callers who could not have offered a custom tool."""
    return replace(
        response,
        candidates=tuple(
            replace(candidate, blocks=tuple(block for block in candidate.blocks if not getattr(block, "is_custom", 0)))
            for candidate in response.candidates
        ),
    )


def without_mixed_thoughts(response: Response) -> Response:
    """Return *response* with unsealed thoughts only where there are no others: chat has one field for both."""
    return replace(
        response,
        candidates=tuple(
            replace(candidate, blocks=tuple(block for block in candidate.blocks if not is_bare(block)))
            if any(isinstance(block, Reasoning) and block.seal for block in candidate.blocks)
            else candidate
            for candidate in response.candidates
        ),
    )


def is_bare(block: Block) -> bool:
    return isinstance(block, Reasoning) and block.seal is None


@pytest.mark.parametrize(("caller", "upstream"), PAIRS)
@settings(max_examples=FEW, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_a_caller_can_say_reaches_the_upstream_or_is_refused(
    caller: str, upstream: str, data: st.DataObject
) -> None:
    said, heard = FORMATS[caller], FORMATS[upstream]
    asked = reread(said, data.draw(REQUESTS[caller]))
    crossing = open_crossing(said, heard, asked)

    try:
        path, _, body = crossing.encode_request("m")
    except InvalidRequest as exc:
        count_event("refused")
        assert exc.message  # noqa: PT017  # not raising is as good
        return

    count_event("crossed")
    assert path.startswith("/v1")
    assert_arrived(asked, heard.decode_request(body), crossing, heard)


@pytest.mark.parametrize(("caller", "upstream"), PAIRS)
@settings(max_examples=FEW, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_both_can_say_is_never_refused(caller: str, upstream: str, data: st.DataObject) -> None:
    said, heard = FORMATS[caller], FORMATS[upstream]
    asked = within(reread(said, data.draw(REQUESTS[caller])), said, heard)
    crossing = open_crossing(said, heard, asked)

    _, _, body = crossing.encode_request("m")

    assert_arrived(asked, heard.decode_request(body), crossing, heard)


def reread(said: Format, request: Request) -> Request:
    """Return *request* as it is understood where it is said in the words of *said*."""
    asked = said.decode_request(said.encode_request(request, capabilities_of(said), Losses()))
    asked.model = "m"
    return asked


def within(asked: Request, said: Format, heard: Format) -> Request:
    """Return *asked* without what *heard* has no place for, each of which is refused; a few words stand for media."""
    return replace(
        asked,
        turns=[replace(turn, blocks=tuple(_fit(block, said, heard) for block in turn.blocks)) for turn in asked.turns],
        server_tools=[tool for tool in asked.server_tools if tool.kind in heard.traits.server_tools],
        tool_choice=asked.tool_choice if asked.tools else None,
        candidates=asked.candidates if heard.traits.has_candidates else 1,
        stop=asked.stop[:FEWEST_STOPS],
    )


def _fit(block: Block, said: Format, heard: Format) -> Block:
    match block:
        case ToolResult(content=content):
            return replace(block, content=tuple(_fit(part, said, heard) for part in content))
        case Media():
            return block if _is_carried(block, said, heard) else Text(f"no {block.kind}")
        case _:
            return block


def _is_carried(media: Media, said: Format, heard: Format) -> bool:
    alone = Request(model="m", turns=[Turn("user", (media,))])
    try:
        open_crossing(said, heard, alone).encode_request("m")
    except InvalidRequest:
        return False
    return True


def assert_arrived(asked: Request, arrived: Request, crossing: Crossing, heard: Format) -> None:
    """Assert that *arrived* says what *asked* does, or that it is named what it does not say."""
    said_there = words_of(arrived.turns)
    assert all(text.strip() in said_there for text in texts_of(asked.turns))
    has_custom = heard.traits.has_custom_tools
    assert [read_arguments(call, has_custom=has_custom) for call in blocks_of(arrived, ToolCall)] == [
        read_arguments(call, has_custom=has_custom) for call in blocks_of(asked, ToolCall)
    ]
    assert len(blocks_of(arrived, ToolResult)) == len(blocks_of(asked, ToolResult))
    there = str(arrived.turns)
    assert all(
        media.data in there for media in all_media(asked.turns) if media.data and media.media_type != "text/plain"
    )
    losses = str(crossing.losses.names)
    # What was called before may have to be offered again.
    assert len(arrived.tools) >= len(asked.tools) or "tool" in losses or asked.tool_choice
    # Gemini has 32 bits for it, and longer ones are folded.
    is_long = asked.seed is not None and not -(2**31) <= asked.seed < 2**31
    for knob in sorted(heard.traits.knobs & PLAIN_KNOBS - ({"seed"} if is_long else set())):
        assert getattr(arrived, knob) == getattr(asked, knob) or knob in losses, knob


def texts_of(turns: list[Turn]) -> list[str]:
    return [block.text for turn in turns for block in turn.blocks if isinstance(block, Text)]


def blocks_of(request: Request, kind: type[B]) -> list[B]:
    return [block for turn in request.turns for block in turn.blocks if isinstance(block, kind)]


def read_arguments(call: ToolCall, *, has_custom: bool) -> Any:
    """Return the arguments of *call*; a custom tool's text is a member of an object where there is no other place."""
    if call.is_custom:
        return call.arguments if has_custom else {"input": call.arguments}
    return msgspec.json.decode(call.arguments)


def all_media(turns: list[Turn]) -> Iterator[Media]:
    for block in (block for turn in turns for block in turn.blocks):
        yield from (part for part in getattr(block, "content", (block,)) if isinstance(part, Media))


def words_of(turns: list[Turn]) -> str:
    return "".join(texts_of(turns))


@pytest.mark.parametrize(("caller", "upstream"), PAIRS)
@settings(max_examples=FEW, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_streamed_equals_whole(caller: str, upstream: str, data: st.DataObject) -> None:
    said, heard = FORMATS[caller], FORMATS[upstream]
    response = data.draw(RESPONSES[upstream])
    if not said.traits.has_candidates:
        response = replace(response, candidates=response.candidates[:1])
    if not said.traits.has_custom_tools:
        response = without_custom_calls(response)
    if not said.traits.seals_all_thoughts:
        response = without_mixed_thoughts(response)
    asked = ask(len(response.candidates))

    whole, _ = open_crossing(said, heard, asked).convert_answer(heard.encode_response(response, asked))
    stream = open_crossing(said, heard, asked).open_stream(said.stream_encoder(asked, "req-1"))
    written, failure = stream_through(stream, [write_stream(heard, response, asked)])

    assert failure is None
    streamed = read_stream(said, written, len(response.candidates))
    assert essence(streamed, said, heard) == essence(said.decode_response(whole), said, heard)


@pytest.mark.parametrize(("caller", "upstream"), PAIRS)
@settings(max_examples=FEW)
@given(data=st.data())
def test_a_stream_may_be_cut_into_chunks_anywhere(caller: str, upstream: str, data: st.DataObject) -> None:
    said, heard = FORMATS[caller], FORMATS[upstream]
    response = replace(data.draw(RESPONSES[upstream]), id="r", created=1)
    response = replace(response, candidates=response.candidates[:1])
    wire = write_stream(heard, response, ask())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=4)))
    chunks = [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)]

    stream = open_crossing(said, heard, ask()).open_stream(said.stream_encoder(ask(), "req-1"))
    written, failure = stream_through(stream, chunks)

    assert failure is None
    at_once = open_crossing(said, heard, ask()).open_stream(said.stream_encoder(ask(), "req-1"))
    whole = at_once.feed(wire) + at_once.feed_eof()
    assert essence(read_stream(said, written, 1), said, heard) == essence(read_stream(said, whole, 1), said, heard)


@pytest.mark.parametrize(("caller", "upstream"), PAIRS)
@settings(max_examples=FEW)
@given(data=st.data())
def test_a_stream_that_breaks_off_never_looks_complete(caller: str, upstream: str, data: st.DataObject) -> None:
    said, heard = FORMATS[caller], FORMATS[upstream]
    blocks: tuple[Block, ...] = (GREETING, ToolCall(id="c1", name="f", arguments='{"a":1}'))
    response = Response(id="r", model="m", candidates=(Candidate(blocks=blocks, stop="tool"),))
    wire = write_stream(heard, response, ask())
    end = data.draw(st.integers(0, wire.rindex(PROOFS[upstream]) - 1))

    stream = open_crossing(said, heard, ask()).open_stream(said.stream_encoder(ask(), "req-1"))
    written, failure = stream_through(stream, [wire[:end]])

    assert isinstance(failure, UpstreamError)
    with_error = written + stream.encode_failure(failure)
    with pytest.raises(UpstreamError):
        read_stream(said, with_error, 1)


@pytest.mark.parametrize(("caller", "upstream"), PAIRS)
@settings(max_examples=FEW)
@given(noise=st.binary(max_size=300), data=st.data())
def test_noise_in_a_stream_ends_in_an_error_or_a_whole_answer(
    caller: str, upstream: str, noise: bytes, data: st.DataObject
) -> None:
    said, heard = FORMATS[caller], FORMATS[upstream]
    wire = bytearray(
        write_stream(heard, Response(id="r", model="m", candidates=(Candidate(blocks=(GREETING,)),)), ask())
    )
    at = data.draw(st.integers(0, len(wire)))
    wire[at : at + data.draw(st.integers(0, 30))] = noise

    stream = open_crossing(said, heard, ask()).open_stream(said.stream_encoder(ask(), "req-1"))
    written, failure = stream_through(stream, [bytes(wire)])

    if failure is None:
        read_stream(said, written, 1)


@pytest.mark.parametrize(("caller", "upstream"), PAIRS)
@settings(max_examples=FEW)
@given(noise=st.binary(max_size=200))
def test_noise_as_a_whole_answer_is_an_error_or_an_answer(caller: str, upstream: str, noise: bytes) -> None:
    said, heard = FORMATS[caller], FORMATS[upstream]

    try:
        body, _ = open_crossing(said, heard, ask()).convert_answer(noise)
    except UpstreamError:
        return

    said.decode_response(body)


@pytest.mark.parametrize("name", FORMATS)
@given(noise=st.binary(max_size=200))
def test_noise_as_a_request_is_refused_or_understood(name: str, noise: bytes) -> None:
    with suppress(InvalidRequest):
        FORMATS[name].decode_request(noise)


def recordings() -> Iterator[tuple[str, Path]]:
    for name in FORMATS:
        for case in sorted((ROOT / "tests" / "recordings" / name).iterdir()):
            yield name, case


@pytest.mark.parametrize("caller", FORMATS)
@pytest.mark.parametrize(("upstream", "case"), list(recordings()), ids=lambda value: getattr(value, "name", value))
def test_every_recording_reaches_every_format(upstream: str, case: Path, caller: str) -> None:
    said, heard = FORMATS[caller], FORMATS[upstream]
    if said is heard or not (case / "stream.sse").exists():
        return
    wire = (case / "stream.sse").read_bytes()

    stream = open_crossing(said, heard, ask()).open_stream(said.stream_encoder(ask(), "req-1"))
    written, failure = stream_through(stream, [wire])

    if failure is None:
        read_stream(said, written, 1)
    else:
        with pytest.raises(UpstreamError):
            read_stream(said, written + stream.encode_failure(failure), 1)


def test_nothing_is_lost_in_silence() -> None:
    assert [line for line in write_document() if "LOST" in line] == []


def test_the_document_says_what_was_measured() -> None:
    assert (ROOT / "docs" / "formats.md").read_text() == "\n".join(write_document()) + "\n"
