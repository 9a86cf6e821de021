"""Gemini generateContent: https://ai.google.dev/api/generate-content. Sans-I/O.

The Python SDK and Gemini CLI read streams with a pattern, not an SSE parser: a comment, an ``event:`` line or
``[DONE]`` breaks them, so nothing but ``data: {...}`` is ever written here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec
from typing_extensions import override

from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import ProxyError, UpstreamError
from aiproxyd.formats.base import Format, Peek, StreamTap, Tapped, find_model_members, quote_model, read_name
from aiproxyd.formats.codec import Losses, StreamDecoder, StreamEncoder, Traits
from aiproxyd.formats.conversations import Conversations
from aiproxyd.formats.gemini import answers, counting, embeddings, errors, models, plain, requests, taps
from aiproxyd.formats.gemini.settings import MAX_CANDIDATES
from aiproxyd.formats.gemini.stream_decoder import GeminiStreamDecoder, decode_response
from aiproxyd.formats.gemini.stream_encoder import GeminiArrayEncoder, GeminiStreamEncoder, encode_stream_error
from aiproxyd.formats.gemini.taps import MAX_ARRAY_TAP_BYTES, ArrayTap, SSETap
from aiproxyd.formats.gemini.wire import NAME
from aiproxyd.hub import EmbeddingRequest, Embeddings, ModelCard, Request, Response
from aiproxyd.splice import Edit

__all__ = ("MAX_ARRAY_TAP_BYTES", "Gemini")


class Gemini(Format):
    """The ``gemini`` format."""

    name = NAME
    telling_headers = ("x-goog-fieldmask",)
    volatile_fields = frozenset(("labels", "store"))
    counts_tokens = True
    conversations = Conversations("contents", orders=("systemInstruction", "system_instruction"))
    marks = (b"gw1", b"Z3cxL")
    members: ClassVar[Mapping[str, tuple[str, ...]]] = {"turns": ("contents",)}
    # Gemini CLI reads an error event as an empty chunk and ends with exit code 0; only a cut connection stops it.
    stream_error_closes = True
    traits = Traits(
        output_schema="$.generationConfig.responseSchema",
        has_assistant_media=True,
        seals_all_thoughts=True,
        knobs=frozenset(
            (
                "frequency_penalty",
                "logprobs",
                "presence_penalty",
                "seed",
                "service_tier",
                "stop",
                "temperature",
                "top_k",
                "top_p",
            )
        ),
        tool_name=re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]*"),
        max_tool_name_chars=128,
        call_id=re.compile(r"[ -~]+"),
        has_candidates=True,
        has_finish_details=True,
        has_result_media=True,
        seals_on=frozenset(("reasoning", "call", "text")),
        wants_user_first=True,
        tool_subsets=frozenset(("auto", "required")),
        server_tools=frozenset(("web_search",)),
    )

    @override
    def peek(self, body: bytes) -> Peek:
        return taps.peek(body)

    @override
    def edits(self, body: bytes, *, model: str | None, ask_usage: bool) -> list[Edit]:
        if model is None:
            return []
        value = msgspec.json.encode(f"models/{model}")
        return [Edit(*span, value) for span in taps.find_model_spans(body)]

    @override
    def find_models(self, body: bytes) -> list[str]:
        find_model_members(body)
        return [read_name(body, span).removeprefix("models/") for span in taps.find_model_spans(body)]

    @override
    def encode_error(self, error: ProxyError, request_id: str) -> bytes:
        return errors.encode_error(error)

    @override
    def error_status(self, error: ProxyError) -> int:
        return 429 if error.status == 402 else error.status  # Google's clients know of no 402

    @override
    def encode_stream_error(self, error: ProxyError, request_id: str) -> bytes:
        return encode_stream_error(error)

    @override
    def decode_error(self, status: int, body: bytes) -> UpstreamError:
        return errors.decode_error(status, body)

    @override
    def read_answer(self, body: bytes) -> Tapped:
        return taps.read_answer(body)

    @override
    def stream_tap(self, *, hide_usage: bool = False, candidates: int = 1) -> StreamTap:
        return SSETap(candidates)

    def array_tap(self, candidates: int = 1) -> StreamTap:
        """Return a tap for the stream without ``alt=sse``, a JSON array of the same objects."""
        return ArrayTap(candidates)

    @override
    def read_stream_error(self, block: bytes) -> UpstreamError | None:
        return taps.read_stream_error(block)

    @override
    def decode_count_request(self, body: bytes) -> Request:
        return self.decode_request(counting.unwrap_count(body))

    @override
    def encode_count_request(
        self, request: Request, capabilities: Capabilities, losses: Losses
    ) -> tuple[str, bytes] | None:
        body = self.encode_request(request, capabilities, losses)
        return f"/v1beta/models/{quote_model(request.model)}:countTokens", counting.wrap_count(request.model, body)

    @override
    def decode_count(self, body: bytes) -> int:
        return counting.decode_count(body)

    @override
    def encode_count(self, tokens: int) -> bytes:
        return msgspec.json.encode({"totalTokens": tokens})

    @override
    def decode_embedding_request(self, body: bytes, path: str) -> EmbeddingRequest:
        return embeddings.decode_embedding_request(body, is_single=path.endswith(":embedContent"))

    @override
    def encode_embedding_request(self, request: EmbeddingRequest) -> tuple[str, bytes] | None:
        path = f"/v1beta/models/{quote_model(request.model)}:batchEmbedContents"
        return path, embeddings.encode_embedding_request(request)

    @override
    def decode_embeddings(self, body: bytes) -> Embeddings:
        return embeddings.decode_embeddings(body)

    @override
    def encode_embeddings(self, vectors: Embeddings, asked: EmbeddingRequest) -> bytes:
        return embeddings.encode_embeddings(vectors, asked)

    @override
    def decode_request(self, body: bytes) -> Request:
        """Decode a caller's request. The path says the model, and whether the answer is to be a stream."""
        return requests.decode_request(body)

    @override
    def is_plain(self, body: bytes) -> bool:
        return plain.is_plain(body)

    @override
    def encode_request(self, request: Request, capabilities: Capabilities, losses: Losses) -> bytes:
        return requests.encode_request(request, capabilities, losses)

    @override
    def request_path(self, request: Request) -> tuple[str, str]:
        path = f"/v1beta/models/{quote_model(request.model)}"
        return (f"{path}:streamGenerateContent", "alt=sse") if request.stream else (f"{path}:generateContent", "")

    @override
    def decode_response(self, body: bytes) -> Response:
        return decode_response(body)

    @override
    def encode_response(self, response: Response, asked: Request) -> bytes:
        return answers.encode_response(response, asked)

    @override
    def stream_decoder(self, candidates: int = 1) -> StreamDecoder:
        return GeminiStreamDecoder(min(candidates, MAX_CANDIDATES))

    @override
    def stream_encoder(self, asked: Request, request_id: str) -> StreamEncoder:
        return GeminiStreamEncoder(asked)

    def array_encoder(self, asked: Request, request_id: str) -> StreamEncoder:
        """Return an encoder for the stream without ``alt=sse``, a JSON array of the same objects."""
        del request_id  # the format has no place for it
        return GeminiArrayEncoder(asked)

    @override
    def decode_model_list(self, body: bytes) -> list[ModelCard]:
        return models.decode_model_list(body)

    @override
    def encode_model(self, card: ModelCard) -> bytes:
        return models.encode_model(card)

    @override
    def encode_model_list(self, cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
        return models.encode_model_list(cards, query)
