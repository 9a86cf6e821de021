import msgspec
import pytest
from hypothesis import given
from msgspec import Raw

from aiproxyd.formats import GEMINI
from aiproxyd.formats.gemini.usage import UsageMetadata, merge_metadata, read_usage, write_usage
from aiproxyd.hub import Usage
from tests.formats.gemini.strategies import usages


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (b"null", None),
        (b"[]", None),
        (b'{"promptTokenCount":"5"}', None),
        (
            b'{"promptTokenCount":5,"candidatesTokenCount":2,"totalTokenCount":7}',
            Usage(input_tokens=5, output_tokens=2),
        ),
        (b'{"promptTokenCount":5}', Usage(input_tokens=5, output_tokens=0)),
        (
            b'{"promptTokenCount":50,"cachedContentTokenCount":30,"candidatesTokenCount":2,"totalTokenCount":52}',
            Usage(input_tokens=20, cache_read_tokens=30, output_tokens=2),
        ),
        (
            b'{"promptTokenCount":5,"cachedContentTokenCount":30}',
            Usage(input_tokens=0, cache_read_tokens=30, output_tokens=0),
        ),
        (
            b'{"promptTokenCount":5,"candidatesTokenCount":2,"thoughtsTokenCount":9,"totalTokenCount":16}',
            Usage(input_tokens=5, output_tokens=11, reasoning_tokens=9),
        ),
        # Thoughts counted among the candidates.
        (
            b'{"promptTokenCount":5,"candidatesTokenCount":11,"thoughtsTokenCount":9,"totalTokenCount":16}',
            Usage(input_tokens=5, output_tokens=11, reasoning_tokens=9),
        ),
        (
            b'{"promptTokenCount":5,"toolUsePromptTokenCount":3,"candidatesTokenCount":2,"totalTokenCount":10}',
            Usage(input_tokens=8, output_tokens=2),
        ),
        (
            b'{"promptTokenCount":5,"thoughtsTokenCount":9,"totalTokenCount":14}',
            Usage(input_tokens=5, output_tokens=9, reasoning_tokens=9),
        ),
        (b'{"promptTokenCount":5,"totalTokenCount":14}', Usage(input_tokens=5, output_tokens=9)),
        (b'{"promptTokenCount":5,"totalTokenCount":3}', Usage(input_tokens=5, output_tokens=0)),
        (
            b'{"promptTokenCount":5,"candidatesTokenCount":2,"thoughtsTokenCount":9}',
            Usage(input_tokens=5, output_tokens=11, reasoning_tokens=9),
        ),
    ],
)
def test_usage_is_read_into_disjoint_buckets(usage: bytes, read: Usage | None) -> None:
    answer = b'{"candidates":[{"finishReason":"STOP"}],"usageMetadata":' + usage + b"}"
    tap, array_tap = GEMINI.stream_tap(hide_usage=False), GEMINI.array_tap()

    tap.feed(event(answer))
    array_tap.feed(b"[" + answer + b"]")
    array_tap.finish()

    assert GEMINI.read_answer(answer).usage == read
    # A misshapen usage does not make a complete stream look cut.
    assert (tap.usage, tap.is_complete) == (read, True)
    assert (array_tap.usage, array_tap.is_complete) == (read, True)


@given(usage=usages())
def test_usage_is_read_as_it_was_written(usage: Usage) -> None:
    assert read_usage(Raw(msgspec.json.encode(write_usage(usage)))) == usage


def test_what_is_not_known_is_written_as_zero() -> None:
    assert msgspec.json.decode(msgspec.json.encode(write_usage(None))) == {
        "promptTokenCount": 0,
        "candidatesTokenCount": 0,
        "totalTokenCount": 0,
    }


def test_what_was_written_to_a_cache_counts_as_prompt() -> None:
    written = write_usage(Usage(input_tokens=1, cache_read_tokens=20, cache_write_tokens=300, output_tokens=5))

    assert (written.prompt_token_count, written.cached_content_token_count, written.total_token_count) == (321, 20, 326)


def test_counts_that_are_left_out_keep_their_value() -> None:
    first = UsageMetadata(prompt_token_count=100, cached_content_token_count=40, thoughts_token_count=7)

    assert merge_metadata(None, first) is first
    assert merge_metadata(first, UsageMetadata(candidates_token_count=20)) == UsageMetadata(
        prompt_token_count=100, cached_content_token_count=40, thoughts_token_count=7, candidates_token_count=20
    )
    assert merge_metadata(first, UsageMetadata(prompt_token_count=101)) == UsageMetadata(prompt_token_count=101)
