"""What is nearly right is understood, or refused as documented: no format's decoder fails in another way."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from aiproxyd.conversion import Memory, rewrite_request
from aiproxyd.errors import InvalidRequest, UpstreamError, UpstreamGarbage
from aiproxyd.formats import FORMATS
from aiproxyd.formats.base import Format
from aiproxyd.formats.codec import Losses
from aiproxyd.hub import EmbeddingRequest, Embeddings, Request, Text, Turn, Usage
from aiproxyd.splice import apply_edits
from aiproxyd.sse import EventCutter
from tests.formats.crossings import capabilities_of
from tests.formats.mutations import (
    answers_of,
    errors_of,
    models_of,
    mutated,
    mutated_streams,
    requests_of,
)
from tests.formats.test_pairs import ask, open_crossing, read_stream, stream_through

each_format = pytest.mark.parametrize("name", FORMATS)
EMBEDDED = EmbeddingRequest(model="m", inputs=("a", "b"), dimensions=8)
VECTORS = Embeddings(vectors=((0.5, -1.0), (2.0, 0.0)), model="m", usage=Usage(input_tokens=2))
COUNTED = Request(model="m", turns=[Turn("system", (Text("Be brief."),)), Turn("user", (Text("Hello"),))])


def others_of(fmt: Format) -> list[Format]:
    return [other for other in FORMATS.values() if other is not fmt]


@each_format
@given(data=st.data())
def test_a_request_that_is_nearly_right_is_understood_or_refused(name: str, data: st.DataObject) -> None:
    fmt, body = FORMATS[name], data.draw(mutated(requests_of, name))

    try:
        asked = fmt.decode_request(body)
    except InvalidRequest as exc:
        assert exc.message  # noqa: PT017  # not raising is as good
        return
    asked.model = "m"

    for upstream in others_of(fmt):
        try:
            _, _, written = open_crossing(fmt, upstream, asked).encode_request("m")
        except InvalidRequest:
            continue
        assert read_members(written)
        upstream.decode_request(written)


@each_format
@given(data=st.data())
def test_a_request_that_is_nearly_right_is_relayed_or_refused(name: str, data: st.DataObject) -> None:
    fmt, body = FORMATS[name], data.draw(mutated(requests_of, name))

    try:
        fmt.find_models(body)
        fmt.peek(body)
        edited = apply_edits(body, fmt.edits(body, model="other", ask_usage=True))
        asked = fmt.decode_request(edited)
        rewrite_request(
            edited,
            asked,
            fmt,
            capabilities_of(fmt),
            model="m",
            origin="up/m",
            principal="p",
            memory=Memory(),
            losses=Losses(),
        )
    except InvalidRequest as exc:
        assert exc.message  # noqa: PT017  # not raising is as good


@each_format
@given(data=st.data())
def test_an_answer_that_is_nearly_right_is_an_answer_or_an_error(name: str, data: st.DataObject) -> None:
    fmt, body = FORMATS[name], data.draw(mutated(answers_of, name))

    read_or_no_json(fmt, body)
    for caller in others_of(fmt):
        try:
            written, response = open_crossing(caller, fmt, ask()).convert_answer(body)
        except UpstreamError as exc:
            assert msgspec.json.decode(caller.encode_error(exc, "req_1"))  # noqa: PT017
            continue
        caller.decode_response(written)
        assert_countable(response.usage)


def assert_countable(usage: Usage | None) -> None:
    if usage is not None:
        counts = [count for count in msgspec.structs.astuple(usage) if count is not None]
        assert all(isinstance(count, int) and count >= 0 for count in counts), usage


def read_members(body: bytes) -> dict[str, Raw]:
    """Decode no more than the members of *body*: numbers that Python has none for may well stand there."""
    body.decode()
    return msgspec.json.decode(body, type=dict[str, Raw])


def read_or_no_json(fmt: Format, body: bytes) -> None:
    try:
        assert_countable(fmt.read_answer(body).usage)
    except msgspec.DecodeError:
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError, RecursionError)):
            msgspec.json.decode(body)


@each_format
@given(data=st.data(), status=st.sampled_from([400, 401, 403, 404, 413, 429, 500, 529]))
def test_an_error_that_is_nearly_right_is_an_error(name: str, data: st.DataObject, status: int) -> None:
    fmt, body = FORMATS[name], data.draw(mutated(errors_of, name))

    error = fmt.decode_error(status, body)

    assert isinstance(error, UpstreamError)
    assert 0 < len(error.message) <= 2048
    for caller in FORMATS.values():
        assert msgspec.json.decode(caller.encode_error(error, "req_1"))
        assert caller.encode_stream_error(error, "req_1")


@each_format
@given(data=st.data())
def test_a_stream_that_is_nearly_right_is_a_whole_answer_or_fails(name: str, data: st.DataObject) -> None:
    fmt, wire = FORMATS[name], data.draw(mutated_streams(name))

    for caller in others_of(fmt):
        stream = open_crossing(caller, fmt, ask()).open_stream(caller.stream_encoder(ask(), "req-1"))
        written, failure = stream_through(stream, [wire])
        if failure is None:
            read_stream(caller, written, 1)
            assert_countable(stream.usage)
            continue
        with pytest.raises(UpstreamError):
            read_stream(caller, written + stream.encode_failure(failure), 1)


@each_format
@given(data=st.data())
def test_a_stream_that_is_nearly_right_is_relayed_as_it_is(name: str, data: st.DataObject) -> None:
    fmt, wire = FORMATS[name], data.draw(mutated_streams(name))
    tap, cutter = fmt.stream_tap(hide_usage=False), EventCutter()

    fmt.read_stream_error(wire)
    relayed = tap.feed(cutter.feed(wire)) + tap.feed(cutter.take_rest())
    tap.finish()

    assert relayed == wire
    assert_countable(tap.usage)


@each_format
@given(data=st.data())
def test_a_list_of_models_that_is_nearly_right_is_read_or_said_to_be_none(name: str, data: st.DataObject) -> None:
    fmt = FORMATS[name]
    body = data.draw(mutated(models_of, name))

    try:
        cards = fmt.decode_model_list(body)
    except UpstreamGarbage:
        return
    for shown in FORMATS.values():
        assert read_members(shown.encode_model_list(cards, {}))
        assert all(read_members(shown.encode_model(card)) for card in cards)


@pytest.mark.parametrize("name", [name for name, fmt in FORMATS.items() if fmt.counts_tokens])
@given(data=st.data())
def test_a_count_that_is_nearly_right_is_a_count_or_an_error(name: str, data: st.DataObject) -> None:
    fmt = FORMATS[name]
    asked = fmt.encode_count_request(COUNTED, capabilities_of(fmt), Losses())
    assert asked is not None

    with_error(
        lambda body: fmt.decode_count_request(body), data.draw(mutated(lambda _: (asked[1],), name)), InvalidRequest
    )
    count = with_error(fmt.decode_count, data.draw(mutated(lambda _: (fmt.encode_count(31),), name)), UpstreamGarbage)

    assert count is None or (isinstance(count, int) and count >= 0)


@pytest.mark.parametrize("name", [name for name, fmt in FORMATS.items() if fmt.encode_embedding_request(EMBEDDED)])
@given(data=st.data())
def test_embeddings_that_are_nearly_right_are_embeddings_or_an_error(name: str, data: st.DataObject) -> None:
    fmt = FORMATS[name]
    asked = fmt.encode_embedding_request(EMBEDDED)
    assert asked is not None
    path, body = asked

    wanted = with_error(
        lambda body: fmt.decode_embedding_request(body, path),
        data.draw(mutated(lambda _: (body,), name)),
        InvalidRequest,
    )
    told = with_error(
        fmt.decode_embeddings,
        data.draw(mutated(lambda _: (fmt.encode_embeddings(VECTORS, EMBEDDED),), name)),
        UpstreamGarbage,
    )

    for other in FORMATS.values():
        if wanted is not None and (sent := other.encode_embedding_request(wanted)):
            assert msgspec.json.decode(sent[1])
            if told is not None:
                assert msgspec.json.decode(other.encode_embeddings(told, wanted))


def with_error(decode: Any, body: bytes, documented: type[Exception]) -> Any:
    try:
        return decode(body)
    except documented:
        return None
