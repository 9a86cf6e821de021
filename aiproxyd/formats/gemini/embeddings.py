"""Gemini embedContent and batchEmbedContents: https://ai.google.dev/api/embeddings. Sans-I/O."""

from typing import Final

import msgspec
from msgspec import Raw, Struct

from aiproxyd.errors import InvalidRequest, UpstreamGarbage
from aiproxyd.formats.base import NULL, decode_body, decode_view
from aiproxyd.formats.gemini.usage import UsageMetadata
from aiproxyd.hub import EmbeddingRequest, Embeddings, Usage


class _Part(Struct):
    text: str | None = None


class _Content(Struct):
    parts: list[_Part] = []


class _One(Struct):
    content: _Content
    camel_dimensions: int | None = msgspec.field(default=None, name="outputDimensionality")
    snake_dimensions: int | None = msgspec.field(default=None, name="output_dimensionality")

    @property
    def dimensions(self) -> int | None:
        return self.camel_dimensions if self.camel_dimensions is not None else self.snake_dimensions


class _Batch(Struct):
    requests: list[Raw]


class _Vector(Struct):
    values: list[float]


class _Answer(Struct, rename="camel"):
    embeddings: list[_Vector]
    usage_metadata: Raw = NULL
    """Left out by most models."""


_one: Final = msgspec.json.Decoder(_One)
_batch: Final = msgspec.json.Decoder(_Batch)
_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_answer: Final = msgspec.json.Decoder(_Answer)
_metadata: Final = msgspec.json.Decoder(UsageMetadata)
_KNOWN: Final = frozenset(("model", "content", "outputDimensionality", "output_dimensionality"))


def decode_embedding_request(body: bytes, *, is_single: bool) -> EmbeddingRequest:
    """Decode a caller's request, that of ``:embedContent`` where *is_single*; the path names the model.

    Raises:
        InvalidRequest: it is none, or its parts are not only text, or differ in what they ask for.
    """
    bodies = [body] if is_single else [bytes(raw) for raw in decode_body(_batch, body).requests]
    requests = [decode_body(_one, one) for one in bodies]
    dimensions = {request.dimensions for request in requests}
    if len(dimensions) > 1:
        raise InvalidRequest("this model's API takes one outputDimensionality for all texts", param="$.requests")
    extensions = {
        name: raw
        for one in bodies
        for name, raw in decode_body(_fields, one).items()
        if name not in _KNOWN and raw != NULL
    }
    return EmbeddingRequest(
        model="",
        inputs=tuple(map(_to_text, requests)),
        dimensions=dimensions.pop() if dimensions else None,
        is_single=is_single,
        extensions=extensions,
    )


def encode_embedding_request(request: EmbeddingRequest) -> bytes:
    """Return the body of the ``:batchEmbedContents`` that asks an upstream."""
    model = f"models/{request.model}"
    size = {} if request.dimensions is None else {"outputDimensionality": request.dimensions}
    return msgspec.json.encode(
        {"requests": [{"model": model, "content": {"parts": [{"text": text}]}, **size} for text in request.inputs]}
    )


def decode_embeddings(body: bytes) -> Embeddings:
    """Decode an upstream's answer; mostly it says nothing about usage.

    Raises:
        UpstreamGarbage: it is none.
    """
    answer = decode_view(_answer, body)
    if answer is None:
        raise UpstreamGarbage("the upstream's answer holds no embeddings")
    metadata = decode_view(_metadata, answer.usage_metadata)
    tokens = metadata.prompt_token_count if metadata is not None else None
    return Embeddings(
        vectors=tuple(tuple(vector.values) for vector in answer.embeddings),
        usage=None if tokens is None else Usage(input_tokens=tokens),
    )


def encode_embeddings(embeddings: Embeddings, asked: EmbeddingRequest) -> bytes:
    """Return the answer to *asked*."""
    vectors = [{"values": vector} for vector in embeddings.vectors]
    if asked.is_single:
        return msgspec.json.encode({"embedding": vectors[0] if vectors else {"values": []}})
    return msgspec.json.encode({"embeddings": vectors})


def _to_text(request: _One) -> str:
    texts = [part.text for part in request.content.parts if part.text is not None]
    if len(texts) < len(request.content.parts):
        raise InvalidRequest("only text can be turned into vectors by this model", param="$.content.parts")
    return "\n".join(texts)
