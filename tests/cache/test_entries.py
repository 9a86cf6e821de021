"""What is kept of an answer says as much as the answer did, whole or streamed, in each format."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from aiproxyd import hub
from aiproxyd.cache.entries import MAX_ENTRY_BYTES, Entry, StreamReader, decode_entry, encode_entry, is_good
from aiproxyd.errors import UpstreamCut, UpstreamError, UpstreamGarbage
from aiproxyd.formats import FORMATS, GEMINI
from aiproxyd.formats.base import Format
from aiproxyd.hub import Candidate, Refusal, Request, Response, Text, ToolCall, Usage, unfold

RECORDINGS = Path(__file__).parents[1] / "recordings"
RESPONSES = {
    name: importlib.import_module(f"tests.formats.{name.replace('-', '_')}.strategies").responses() for name in FORMATS
}
EACH_FORMAT = pytest.mark.parametrize("fmt", FORMATS.values(), ids=list(FORMATS))


def ask(response: Response) -> Request:
    candidates = response.candidates
    return Request(model="m", turns=[], candidates=len(candidates), logprobs=True, stream=True, wants_usage=True)


def read_stream(fmt: Format, asked: Request, stream: bytes) -> Response:
    """Return what a reader makes of *stream*, in whatever pieces it comes."""
    said = []
    for size in (len(stream) or 1, 1 if len(stream) < 10_000 else 1000):
        reader = StreamReader(fmt, asked)
        for at in range(0, len(stream), size):
            reader.feed(stream[at : at + size])
        said.append(reader.result())
    assert said[0] == said[1]
    return said[0]


def write_stream(fmt: Format, response: Response) -> bytes:
    encoder = fmt.stream_encoder(ask(response), "req-1")
    return b"".join(map(encoder.feed, unfold(response)))


@EACH_FORMAT
@given(data=st.data())
def test_a_whole_answer_is_kept_as_it_was(fmt: Format, data: st.DataObject) -> None:
    response = data.draw(RESPONSES[fmt.name])
    asked = ask(response)
    first = fmt.decode_response(fmt.encode_response(response, asked))

    assert fmt.decode_response(fmt.encode_response(first, asked)) == first


@EACH_FORMAT
@given(data=st.data())
def test_a_stream_is_kept_as_what_it_says(fmt: Format, data: st.DataObject) -> None:
    response = data.draw(RESPONSES[fmt.name])
    read = read_stream(fmt, ask(response), write_stream(fmt, response))

    assert said(fmt.decode_response(fmt.encode_response(read, ask(response)))) == said(read)
    assert said(read) == said(response)


def said(response: Response) -> Any:
    """Return *response* without what the format may say in several ways."""
    usage = response.usage and replace(response.usage, cache_write_tokens=response.usage.cache_write_tokens or 0)
    return replace(response, candidates=tuple(map(join, response.candidates)), usage=usage)


def join(candidate: Candidate) -> Candidate:
    """Return *candidate* without empty texts."""
    blocks = tuple(block for block in candidate.blocks if not (isinstance(block, Text) and not block.text))
    return replace(candidate, blocks=blocks)


def list_recordings() -> Iterator[tuple[str, str]]:
    for name in FORMATS:
        for case in sorted((RECORDINGS / name).iterdir()):
            if (case / "stream.sse").exists():
                yield name, case.name


@pytest.mark.parametrize(("name", "case"), list(list_recordings()))
def test_a_recorded_stream_is_kept_as_what_it_says(name: str, case: str) -> None:
    fmt, stream = FORMATS[name], (RECORDINGS / name / case / "stream.sse").read_bytes()
    asked = Request(model="m", turns=[], logprobs=True)
    if "error" in case or case == "failed":
        with pytest.raises(UpstreamError):
            read_stream(fmt, asked, stream)
        return

    response = read_stream(fmt, asked, stream)

    kept = fmt.encode_response(response, asked)
    assert said(fmt.decode_response(kept)) == said(response)


@pytest.mark.parametrize(("name", "case"), list(list_recordings()))
def test_what_was_cut_is_not_kept(name: str, case: str) -> None:
    fmt, stream = FORMATS[name], (RECORDINGS / name / case / "stream.sse").read_bytes()
    asked = Request(model="m", turns=[])

    for end in range(0, len(stream) // 2, 97):
        with pytest.raises(UpstreamError):
            read_stream(fmt, asked, stream[:end])


@given(data=st.data())
def test_the_other_stream_of_gemini_says_the_same(data: st.DataObject) -> None:
    response = data.draw(RESPONSES["gemini"])
    encoder = GEMINI.array_encoder(ask(response), "req-1")
    array = b"".join(map(encoder.feed, unfold(response)))

    assert array.startswith(b"[")
    assert read_stream(GEMINI, ask(response), b" \r\n" + array) == read_stream(
        GEMINI, ask(response), write_stream(GEMINI, response)
    )


@pytest.mark.parametrize(
    "stream", [b"[", b'[{"candidates":[]}', b"[]", b"[1]", b'[{"error":{"code":503,"message":"no"}}]', b""]
)
def test_half_an_array_is_not_kept(stream: bytes) -> None:
    with pytest.raises(UpstreamError):
        read_stream(GEMINI, Request(model="m", turns=[]), stream)


def test_events_in_an_order_that_cannot_be_are_not_kept() -> None:
    with pytest.raises((UpstreamCut, UpstreamGarbage)):
        read_stream(FORMATS["anthropic"], Request(model="m", turns=[]), b"event: message_stop\ndata: {}\n\n")


# --- What is worth keeping

CALL = ToolCall(id="c", name="f", arguments="{}")


@pytest.mark.parametrize(
    ("stop", "limit", "good"),
    [
        ("end", None, True),
        ("tool", None, True),
        ("stop_sequence", None, True),
        ("length", None, False),
        ("length", 10, True),
        ("refusal", None, False),
        ("blocked", None, False),
        ("pause", None, False),
        ("context", None, False),
        ("context", 10, False),
    ],
)
def test_only_good_answers_are_kept(stop: hub.Stop, limit: int | None, good: bool) -> None:
    asked = Request(model="m", turns=[], max_output_tokens=limit)

    assert is_good(Response(candidates=(Candidate(blocks=(Text("a"),), stop=stop),)), asked) is good


ASKED = Request(model="m", turns=[])
GOOD = Candidate(blocks=(Text("a"),))


@pytest.mark.parametrize(
    ("candidates", "good"),
    [
        ((GOOD,), True),
        ((GOOD, GOOD), True),
        ((Candidate(blocks=(CALL,), stop="tool"),), True),
        ((GOOD, replace(GOOD, stop="refusal")), False),
        ((GOOD, Candidate()), False),
        ((Candidate(),), False),
        ((), False),
        ((Candidate(blocks=(Refusal("I cannot"),)),), False),
        ((Candidate(blocks=(Text("Well"), Refusal("I cannot"))),), False),
        ((Candidate(blocks=(Text(""),)),), False),
        ((Candidate(blocks=(hub.Reasoning("Hm"),)),), False),
        ((Candidate(blocks=(hub.Reasoning("Hm"), Text("a"))),), True),
        ((Candidate(blocks=(Text(""), CALL), stop="tool"),), True),
        ((Candidate(blocks=(hub.Media(kind="image", data="AA=="),)),), True),
        ((Candidate(blocks=(hub.Opaque("gemini", "executableCode", msgspec.Raw(b"{}")),)),), True),
    ],
)
def test_an_answer_is_good_where_every_candidate_says_something(candidates: tuple[Candidate, ...], good: bool) -> None:
    assert is_good(Response(candidates=candidates), ASKED) is good


# --- How it is kept

ENTRIES = st.builds(
    Entry,
    st.sampled_from(list(FORMATS)),
    st.text(),
    st.text(),
    st.floats(0, 2**33),
    st.floats(0, 2**20),
    st.binary(max_size=16),
    st.binary(max_size=99),
    st.none()
    | st.builds(Usage, input_tokens=st.none() | st.integers(0, 2**53), output_tokens=st.none() | st.integers(0, 2**53)),
)


@given(entry=ENTRIES)
def test_an_entry_comes_back_as_it_was(entry: Entry) -> None:
    assert decode_entry(encode_entry(entry)) == entry


@given(noise=st.binary(max_size=200), entry=ENTRIES, data=st.data())
def test_what_others_have_written_is_told_from_an_entry(noise: bytes, entry: Entry, data: st.DataObject) -> None:
    whole = encode_entry(entry)
    for foreign in (noise, whole[: data.draw(st.integers(0, len(whole) - 1))], msgspec.msgpack.encode({"a": 1})):
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
            decode_entry(foreign)


def test_an_entry_ages_and_never_comes_from_the_future() -> None:
    entry = Entry("gemini", "up", "m", 100.0, 60.0, b"", b"")

    assert (entry.age_s(130.5), entry.age_s(99.0)) == (30.5, 0.0)


def test_a_stream_that_is_too_long_is_no_longer_read() -> None:
    reader = StreamReader(GEMINI, Request(model="m", turns=[]))
    for _ in range(5):
        reader.feed(b'[{"text":"' + b"x" * (MAX_ENTRY_BYTES // 4))

    with pytest.raises(UpstreamGarbage, match="too long"):
        reader.result()


def test_what_is_wrong_with_a_stream_is_told_in_the_end() -> None:
    reader = StreamReader(FORMATS["openai-chat"], Request(model="m", turns=[]))
    for _ in range(3):
        reader.feed(b"data: {oops\n\n")

    with pytest.raises(UpstreamError):
        reader.result()
