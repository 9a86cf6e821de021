"""Gemini embeddings, in neutral terms and back."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.errors import InvalidRequest, UpstreamGarbage
from aiproxyd.formats.gemini.embeddings import (
    decode_embedding_request,
    decode_embeddings,
    encode_embedding_request,
    encode_embeddings,
)
from aiproxyd.hub import EmbeddingRequest, Embeddings, Usage


def test_a_single_text_is_read() -> None:
    body = b'{"content":{"parts":[{"text":"a"},{"text":"b"}]},"outputDimensionality":3,"taskType":"QUERY","title":null}'

    asked = decode_embedding_request(body, is_single=True)

    assert (asked.inputs, asked.dimensions, asked.is_single) == (("a\nb",), 3, True)
    assert list(asked.extensions) == ["taskType"]


def test_a_batch_is_read_in_either_spelling() -> None:
    one = b'{"model":"models/m","content":{"parts":[{"text":"a"}]},"output_dimensionality":3}'
    other = b'{"model":"models/m","content":{"parts":[{"text":"b"}]},"outputDimensionality":3}'

    asked = decode_embedding_request(b'{"requests":[%b,%b]}' % (one, other), is_single=False)

    assert asked == EmbeddingRequest(model="", inputs=("a", "b"), dimensions=3)


def test_vectors_of_several_sizes_are_refused() -> None:
    one, other = b'{"content":{"parts":[]},"outputDimensionality":3}', b'{"content":{"parts":[]}}'

    with pytest.raises(InvalidRequest, match="one outputDimensionality"):
        decode_embedding_request(b'{"requests":[%b,%b]}' % (one, other), is_single=False)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="only text"):
        decode_embedding_request(b'{"content":{"parts":[{"inlineData":{}}]}}', is_single=True)


@given(inputs=st.lists(st.text(), min_size=1).map(tuple), dimensions=st.none() | st.integers(1, 9))
def test_what_is_asked_of_an_upstream_reads_back(inputs: tuple[str, ...], dimensions: int | None) -> None:
    asked = EmbeddingRequest(model="", inputs=inputs, dimensions=dimensions)

    assert decode_embedding_request(encode_embedding_request(asked), is_single=False) == asked


def test_an_empty_batch_is_read() -> None:
    assert decode_embedding_request(b'{"requests":[]}', is_single=False) == EmbeddingRequest(model="", inputs=())


def test_an_answer_reads_back() -> None:
    embeddings = Embeddings(vectors=((1.0, 2.0), (3.0, 4.0)))

    body = encode_embeddings(embeddings, EmbeddingRequest(model="m", inputs=("a", "b")))

    assert decode_embeddings(body) == embeddings


@pytest.mark.parametrize(
    ("metadata", "usage"),
    [
        (b'{"promptTokenCount":7}', Usage(input_tokens=7)),
        (b'{"promptTokenCount":"7"}', None),
        (b"{}", None),
        (b"5", None),
        (b"null", None),
    ],
)
def test_what_an_answer_cost_is_read_where_it_is_said(metadata: bytes, usage: Usage | None) -> None:
    body = b'{"embeddings":[{"values":[1.0]}],"usageMetadata":' + metadata + b"}"

    assert decode_embeddings(body) == Embeddings(vectors=((1.0,),), usage=usage)


@pytest.mark.parametrize(("vectors", "values"), [(((1.0, 2.0),), [1.0, 2.0]), ((), [])])
def test_a_single_text_gets_a_single_vector(vectors: tuple[tuple[float, ...], ...], values: list[float]) -> None:
    body = encode_embeddings(Embeddings(vectors=vectors), EmbeddingRequest(model="m", inputs=("a",), is_single=True))

    assert msgspec.json.decode(body) == {"embedding": {"values": values}}


def test_what_holds_no_vectors_is_garbage() -> None:
    with pytest.raises(UpstreamGarbage):
        decode_embeddings(b'{"error":{}}')
