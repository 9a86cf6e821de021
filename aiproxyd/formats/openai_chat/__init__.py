"""OpenAI Chat Completions and Embeddings: https://platform.openai.com/docs/api-reference/chat. Sans-I/O."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Struct
from typing_extensions import override

from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import ProxyError, UpstreamError
from aiproxyd.formats.base import Peek, StreamTap, Tapped
from aiproxyd.formats.codec import KNOBS, Losses, StreamDecoder, StreamEncoder, Traits
from aiproxyd.formats.conversations import SESSION_NAME, Conversations
from aiproxyd.formats.openai_chat import answers, embeddings, plain, requests, taps
from aiproxyd.formats.openai_chat.stream_decoder import ChatStreamDecoder
from aiproxyd.formats.openai_chat.stream_encoder import ChatStreamEncoder, encode_failure
from aiproxyd.formats.openai_shared import OpenAIFormat
from aiproxyd.hub import EmbeddingRequest, Embeddings, Request, Response
from aiproxyd.splice import Edit


class _Storing(Struct):
    store: Any = None


_storing: Final = msgspec.json.Decoder(_Storing)


class OpenAIChat(OpenAIFormat):
    """The ``openai-chat`` format."""

    name = "openai-chat"
    telling_headers = ("openai-beta",)
    volatile_fields = frozenset(
        (
            "metadata",
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
            "safety_identifier",
            "store",
            "stream",
            "stream_options",
            "user",
        )
    )
    conversations = Conversations("messages", sessions={"prompt_cache_key": SESSION_NAME})
    marks = (b"gw1",)
    members: ClassVar[Mapping[str, tuple[str, ...]]] = {"turns": ("messages",)}
    traits = Traits(
        needs_json_word=True,
        knobs=KNOBS - {"top_k"},
        tool_name=re.compile(r"[a-zA-Z0-9_-]+"),
        max_tool_name_chars=64,
        call_id=re.compile(r"[ -~]{1,40}"),
        has_custom_tools=True,
        has_system_turns=True,
        has_refusals=True,
        has_candidates=True,
        seals_on=frozenset(("reasoning", "call")),
        tool_subsets=frozenset(("auto", "required")),
        output_schema="$.response_format.json_schema.schema",
    )

    # --- The byte path

    @override
    def peek(self, body: bytes) -> Peek:
        return taps.peek(body)

    @override
    def edits(self, body: bytes, *, model: str | None, ask_usage: bool) -> list[Edit]:
        edits = super().edits(body, model=model, ask_usage=ask_usage)
        if ask_usage:
            edits.append(taps.ask_usage(body))
        return edits

    @override
    def encode_stream_error(self, error: ProxyError, request_id: str) -> bytes:
        return encode_failure(error)

    @override
    def read_answer(self, body: bytes) -> Tapped:
        return taps.read_answer(body)

    @override
    def stream_tap(self, *, hide_usage: bool = False, candidates: int = 1) -> StreamTap:
        return taps.ChatTap(hide_usage=hide_usage, candidates=candidates)

    @override
    def read_stream_error(self, block: bytes) -> UpstreamError | None:
        return taps.read_stream_error(block)

    # --- Conversion

    @override
    def decode_embedding_request(self, body: bytes, path: str) -> EmbeddingRequest:
        return embeddings.decode_embedding_request(body)

    @override
    def encode_embedding_request(self, request: EmbeddingRequest) -> tuple[str, bytes] | None:
        return "/v1/embeddings", embeddings.encode_embedding_request(request)

    @override
    def decode_embeddings(self, body: bytes) -> Embeddings:
        return embeddings.decode_embeddings(body)

    @override
    def encode_embeddings(self, vectors: Embeddings, asked: EmbeddingRequest) -> bytes:
        return embeddings.encode_embeddings(vectors, asked)

    @override
    def decode_request(self, body: bytes) -> Request:
        return requests.decode_request(body)

    @override
    def is_plain(self, body: bytes) -> bool:
        return plain.is_plain(body)

    @override
    def stores(self, body: bytes) -> bool:
        return _storing.decode(body).store is True

    @override
    def encode_request(self, request: Request, capabilities: Capabilities, losses: Losses) -> bytes:
        return requests.encode_request(request, capabilities)

    @override
    def request_path(self, request: Request) -> tuple[str, str]:
        return "/v1/chat/completions", ""

    @override
    def decode_response(self, body: bytes) -> Response:
        return answers.decode_response(body)

    @override
    def encode_response(self, response: Response, asked: Request) -> bytes:
        return answers.encode_response(response, asked)

    @override
    def stream_decoder(self, candidates: int = 1) -> StreamDecoder:
        return ChatStreamDecoder(candidates)

    @override
    def stream_encoder(self, asked: Request, request_id: str) -> StreamEncoder:
        return ChatStreamEncoder(asked)
