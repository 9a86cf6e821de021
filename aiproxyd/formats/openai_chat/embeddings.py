"""OpenAI Embeddings: https://platform.openai.com/docs/api-reference/embeddings. Sans-I/O."""

import base64
import binascii
import sys
from array import array
from typing import Final

import msgspec
from msgspec import Raw, Struct

from aiproxyd.errors import InvalidRequest, UpstreamGarbage
from aiproxyd.formats.base import NULL, Tokens, decode_body, decode_view
from aiproxyd.hub import EmbeddingRequest, Embeddings, Usage


class _Request(Struct):
    model: str
    input: str | list[str | int | list[int]]
    dimensions: int | None = None
    encoding_format: str | None = None


class _Usage(Struct):
    prompt_tokens: Tokens | None = None


class _Entry(Struct):
    embedding: list[float] | str
    index: int = 0


class _Answer(Struct):
    data: list[_Entry]
    model: str = ""
    usage: _Usage | None = None


_request: Final = msgspec.json.Decoder(_Request)
_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_answer: Final = msgspec.json.Decoder(_Answer)
_KNOWN: Final = frozenset((*_Request.__struct_fields__, "user"))


def decode_embedding_request(body: bytes) -> EmbeddingRequest:
    """Decode a caller's request.

    Raises:
        InvalidRequest: it is none, or its texts come as the tokens of one vendor.
    """
    request = decode_body(_request, body)
    inputs = [request.input] if isinstance(request.input, str) else request.input
    texts = tuple(text for text in inputs if isinstance(text, str))
    if len(texts) < len(inputs):
        raise InvalidRequest(
            "token ids mean something to OpenAI's models only: send the text itself to this model", param="$.input"
        )
    return EmbeddingRequest(
        model=request.model,
        inputs=texts,
        dimensions=request.dimensions,
        wants_base64=request.encoding_format == "base64",
        extensions={
            name: raw for name, raw in decode_body(_fields, body).items() if name not in _KNOWN and raw != NULL
        },
    )


def encode_embedding_request(request: EmbeddingRequest) -> bytes:
    """Return the body that asks an upstream."""
    body: dict[str, object] = {"model": request.model, "input": request.inputs, "encoding_format": "float"}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    return msgspec.json.encode(body)


def decode_embeddings(body: bytes) -> Embeddings:
    """Decode an upstream's answer; floats and base64 are understood.

    Raises:
        UpstreamGarbage: it is none.
    """
    answer = decode_view(_answer, body)
    if answer is None:
        raise UpstreamGarbage("the upstream's answer holds no embeddings")
    entries = sorted(answer.data, key=lambda entry: entry.index)
    tokens = answer.usage.prompt_tokens if answer.usage else None
    return Embeddings(
        vectors=tuple(tuple(_to_floats(entry.embedding)) for entry in entries),
        model=answer.model,
        usage=None if tokens is None else Usage(input_tokens=tokens),
    )


def encode_embeddings(embeddings: Embeddings, asked: EmbeddingRequest) -> bytes:
    """Return the answer to *asked*."""
    tokens = embeddings.usage.total_input_tokens if embeddings.usage else 0
    data = [
        {"object": "embedding", "index": index, "embedding": _to_base64(vector) if asked.wants_base64 else vector}
        for index, vector in enumerate(embeddings.vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    model = embeddings.model or asked.model
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": usage})


def _to_base64(vector: tuple[float, ...]) -> str:
    floats = array("f", vector)
    if sys.byteorder == "big":  # pragma: no cover
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode()


def _to_floats(embedding: list[float] | str) -> list[float]:
    if not isinstance(embedding, str):
        return embedding
    floats = array("f")
    try:
        floats.frombytes(base64.b64decode(embedding, validate=True))
    except (ValueError, binascii.Error) as exc:
        raise UpstreamGarbage("the upstream's embeddings are no base64 of floats") from exc
    if sys.byteorder == "big":  # pragma: no cover
        floats.byteswap()
    return floats.tolist()
