"""What holds for each ordered pair of formats, those to come included."""

import importlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from aiproxyd.conversion import Crossing, Memory, StreamCrossing
from aiproxyd.errors import InvalidRequest, UpstreamError
from aiproxyd.formats import FORMATS
from aiproxyd.formats.base import Format
from aiproxyd.formats.codec import Losses
from aiproxyd.hub import (
    Block,
    Candidate,
    Event,
    Folder,
    Reasoning,
    Request,
    Response,
    Text,
    ToolCall,
    Turn,
    unfold,
)
from aiproxyd.sse import SSEDecoder
from tests.formats.crossings import capabilities_of, write_document

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


def essence(response: Response) -> list[Any]:
    """Return what of an answer must not depend on whether it came whole: not its times, and not the order of blocks
    that a stream may have had to change."""
    return [
        (
            "".join(block.text for block in candidate.blocks if isinstance(block, Text)),
            thoughts_of(candidate),
            sorted(block.seal.data for block in candidate.blocks if isinstance(block, Reasoning) and block.seal),
            [(block.name, block.arguments) for block in candidate.blocks if isinstance(block, ToolCall)],
            candidate.stop,
        )
        for candidate in response.candidates
    ]


def thoughts_of(candidate: Candidate) -> str:
    """Return the thoughts; beside sealed ones, chat's extension fields have no room for others."""
    thoughts = [block for block in candidate.blocks if isinstance(block, Reasoning)]
    is_sealed = any(thought.seal for thought in thoughts)
    return "".join(thought.text for thought in thoughts if thought.seal or not is_sealed)


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
    request = data.draw(REQUESTS[caller])
    asked = said.decode_request(said.encode_request(request, capabilities_of(said), Losses()))
    asked.model = "m"
    crossing = open_crossing(said, heard, asked)

    try:
        path, _, body = crossing.encode_request("m")
    except InvalidRequest:
        return

    arrived = heard.decode_request(body)
    assert path.startswith("/v1")
    said_there = words_of(arrived.turns)
    texts = [block.text for turn in asked.turns for block in turn.blocks if isinstance(block, Text)]
    assert all(text.strip() in said_there for text in texts)
    # What was called before may have to be offered again.
    assert len(arrived.tools) >= len(asked.tools) or "tool" in str(crossing.losses.names) or asked.tool_choice


def words_of(turns: list[Turn]) -> str:
    return "".join(block.text for turn in turns for block in turn.blocks if isinstance(block, Text))


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
    assert essence(streamed) == essence(said.decode_response(whole))


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
    assert essence(read_stream(said, written, 1)) == essence(
        read_stream(said, at_once.feed(wire) + at_once.feed_eof(), 1)
    )


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
