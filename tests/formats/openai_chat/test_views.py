import contextlib

import msgspec
import pytest
from msgspec import Raw

from aiproxyd.formats.openai_chat.views import Chunk, Completion, FirstChunk, decode_loosely, read_raw_usage
from aiproxyd.hub import Usage


def test_what_fits_is_kept_and_what_does_not_is_left_out() -> None:
    data = b"""{"id":7,"model":"m","choices":[
        {"index":1,"delta":{"content":"a","refusal":[],"tool_calls":[{"id":"x","function":{"arguments":{"a":1}}},{"id":5},6]}},
        "none"]}"""

    chunk = decode_loosely(data, FirstChunk)

    assert chunk is not None
    assert (chunk.id, chunk.model) == (None, "m")
    (choice,) = chunk.choices or []
    assert choice.index == 1
    assert choice.delta is not None
    assert (choice.delta.content, choice.delta.refusal) == ("a", None)
    first, second = choice.delta.tool_calls or []
    assert (first.id, second.id) == ("x", None)
    assert first.function is not None
    assert first.function.arguments == '{"a":1}'


def test_what_lacks_the_field_that_it_is_there_for_is_left_out() -> None:
    # Once a TypeError.
    images = b'[{"image_url":{"uri":"a"}},{"image_url":{"url":"b"}},{"image_url":{"url":7}}]'
    data = b'{"choices":[{"delta":{"images":%s}},{"index":"0"}]}' % images

    chunk = decode_loosely(data, Chunk)

    assert chunk is not None
    (choice, _) = chunk.choices or []
    assert choice.delta is not None
    assert [image.image_url and image.image_url.url for image in choice.delta.images or []] == [None, "b", None]


@pytest.mark.parametrize("depth", range(400, 1101, 50))
def test_what_goes_too_deep_is_left_out_at_most(depth: int) -> None:
    nest = b'{"a":' * depth + b"1" + b"}" * depth
    call = b'[{"id":5,"function":{"name":"f","arguments":%b}}]' % nest

    for deep in (b'"refusal":%b' % nest, b'"content":[%b]' % nest, b'"tool_calls":%b' % call):
        with contextlib.suppress(msgspec.DecodeError):
            chunk = decode_loosely(b'{"model":"m","choices":[{"index":"0","delta":{%b}}]}' % deep, FirstChunk)
            assert chunk is not None
            assert chunk.model == "m"


@pytest.mark.parametrize("data", [b"[]", b"null", b'"x"', b"7"])
def test_what_is_no_object_is_nothing(data: bytes) -> None:
    assert decode_loosely(data, Completion) is None


@pytest.mark.parametrize("data", [b"", b"x", b'{"\xff":1}', b"[" * 100_000])
def test_what_is_no_json_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_loosely(data, Chunk)


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (b"null", None),
        (b"[]", None),
        (b"{", None),
        (b"{}", Usage()),
        (
            b'{"prompt_tokens":50,"prompt_tokens_details":{"cached_tokens":20,"cache_write_tokens":10}}',
            Usage(input_tokens=20, cache_read_tokens=20, cache_write_tokens=10),
        ),
        (
            b'{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":20}}',
            Usage(input_tokens=0, cache_read_tokens=20),
        ),
    ],
)
def test_usage_is_read_into_disjoint_buckets(usage: bytes, read: Usage | None) -> None:
    assert read_raw_usage(Raw(usage)) == read
