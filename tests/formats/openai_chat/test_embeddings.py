"""OpenAI embeddings, in neutral terms and back."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.errors import InvalidRequest, UpstreamGarbage
from aiproxyd.formats.openai_chat.embeddings import (
    decode_embedding_request,
    decode_embeddings,
    encode_embedding_request,
    encode_embeddings,
)
from aiproxyd.hub import EmbeddingRequest, Embeddings, Usage


def test_one_text_is_read() -> None:
    asked = decode_embedding_request(b'{"model":"m","input":"hello","encoding_format":"base64","user":"u"}')

    assert asked == EmbeddingRequest(model="m", inputs=("hello",), wants_base64=True)


def test_several_texts_are_read_in_their_order() -> None:
    asked = decode_embedding_request(b'{"model":"m","input":["a","b"],"dimensions":2}')

    assert asked == EmbeddingRequest(model="m", inputs=("a", "b"), dimensions=2)


def test_what_nobody_else_knows_is_kept_by_name() -> None:
    asked = decode_embedding_request(b'{"model":"m","input":"a","input_type":"query","truncate":null}')

    assert list(asked.extensions) == ["input_type"]


@pytest.mark.parametrize("tokens", [b"[1,2]", b"[[1,2],[3]]", b'["a",[1]]'])
def test_token_ids_are_refused(tokens: bytes) -> None:
    with pytest.raises(InvalidRequest, match="send the text itself"):
        decode_embedding_request(b'{"model":"m","input":%b}' % tokens)


@given(asked=st.builds(EmbeddingRequest, model=st.text(), inputs=st.lists(st.text(), min_size=1).map(tuple)))
def test_what_is_asked_of_an_upstream_reads_back(asked: EmbeddingRequest) -> None:
    assert decode_embedding_request(encode_embedding_request(asked)) == asked


def test_the_size_of_the_vectors_is_passed_on() -> None:
    body = encode_embedding_request(EmbeddingRequest(model="m", inputs=("a",), dimensions=7))

    assert msgspec.json.decode(body) == {"model": "m", "input": ["a"], "encoding_format": "float", "dimensions": 7}


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
EMBEDDINGS = st.builds(
    Embeddings,
    vectors=st.lists(st.lists(FLOATS).map(tuple)).map(tuple),
    model=st.just("m"),
    usage=st.builds(Usage, input_tokens=st.integers(0, 9)),
)


@given(embeddings=EMBEDDINGS, wants_base64=st.booleans())
def test_an_answer_reads_back_whether_in_digits_or_in_base64(embeddings: Embeddings, wants_base64: bool) -> None:
    asked = EmbeddingRequest(model="m", inputs=(), wants_base64=wants_base64)

    assert decode_embeddings(encode_embeddings(embeddings, asked)) == embeddings


def test_vectors_are_put_into_the_order_of_their_texts() -> None:
    embeddings = decode_embeddings(b'{"data":[{"index":1,"embedding":[2.0]},{"index":0,"embedding":[1.0]}]}')

    assert embeddings == Embeddings(vectors=((1.0,), (2.0,)))


def test_an_answer_names_the_model_that_was_asked_where_the_upstream_named_none() -> None:
    body = encode_embeddings(Embeddings(vectors=((1.0,),)), EmbeddingRequest(model="m", inputs=("a",)))

    assert msgspec.json.decode(body) == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [1.0]}],
        "model": "m",
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"data":[{"embedding":"!"}]}', b'{"data":[{"embedding":"AAA="}]}', b'{"data":[{}]}']
)
def test_what_holds_no_vectors_is_garbage(body: bytes) -> None:
    with pytest.raises(UpstreamGarbage):
        decode_embeddings(body)
