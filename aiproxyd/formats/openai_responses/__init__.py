"""OpenAI Responses: https://platform.openai.com/docs/api-reference/responses. Sans-I/O."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Struct
from typing_extensions import override

from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import ProxyError, UpstreamError
from aiproxyd.formats.base import Peek, StreamTap, Tapped, decode_body, decode_input_tokens, keep_members
from aiproxyd.formats.codec import Losses, StreamDecoder, StreamEncoder, Traits
from aiproxyd.formats.conversations import SESSION_NAME, Conversations
from aiproxyd.formats.openai_responses import answers, errors, plain, requests, taps
from aiproxyd.formats.openai_responses.stream_decoder import ResponsesDecoder
from aiproxyd.formats.openai_responses.stream_encoder import ResponsesEncoder
from aiproxyd.formats.openai_responses.wire import NAME
from aiproxyd.formats.openai_shared import OpenAIFormat
from aiproxyd.hub import Request, Response


class _Storing(Struct):
    store: Any = None


_peek: Final = msgspec.json.Decoder(Peek)
_storing: Final = msgspec.json.Decoder(_Storing)

_COUNTED: Final = frozenset(
    ("input", "instructions", "model", "parallel_tool_calls", "reasoning", "text", "tool_choice", "tools", "truncation")
)
"""The fields that it takes: https://platform.openai.com/docs/api-reference/responses/input-tokens."""

_CONVERSATION: Final = re.compile(SESSION_NAME.pattern + rb'|"id"\s*:\s*"[^"]+', re.DOTALL)
"""A ``conversation``: its name, or an object that has it."""


class OpenAIResponses(OpenAIFormat):
    """The ``openai-responses`` format."""

    name = NAME
    telling_headers = ("openai-beta",)
    volatile_fields = frozenset(
        (
            "client_metadata",
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
    counts_tokens = True
    conversations = Conversations(
        "input", orders=("instructions",), sessions={"prompt_cache_key": SESSION_NAME, "conversation": _CONVERSATION}
    )
    marks = (b"gw1",)
    members: ClassVar[Mapping[str, tuple[str, ...]]] = {"turns": ("input", "instructions")}
    traits = Traits(
        needs_json_word=True,
        seals_all_thoughts=True,
        knobs=frozenset(
            (
                "cache_key",
                "logprobs",
                "metadata",
                "parallel_tool_calls",
                "service_tier",
                "temperature",
                "top_p",
                "user",
                "verbosity",
            )
        ),
        tool_name=re.compile(r"[a-zA-Z0-9_-]+"),
        max_tool_name_chars=64,
        call_id=re.compile(r"[ -~]{1,64}"),
        has_custom_tools=True,
        has_namespaces=True,
        has_system_turns=True,
        has_refusals=True,
        has_result_media=True,
        has_phases=True,
        tool_subsets=frozenset(("auto", "required")),
        server_tools=frozenset(("web_search",)),
        output_schema="$.text.format.schema",
    )

    @override
    def peek(self, body: bytes) -> Peek:
        return decode_body(_peek, body)

    @override
    def encode_stream_error(self, error: ProxyError, request_id: str) -> bytes:
        return errors.write_stream_error(error)

    @override
    def read_answer(self, body: bytes) -> Tapped:
        return taps.read_answer(body)

    @override
    def stream_tap(self, *, hide_usage: bool = False, candidates: int = 1) -> StreamTap:
        return taps.Tap()

    @override
    def read_stream_error(self, block: bytes) -> UpstreamError | None:
        return errors.read_stream_error(block)

    @override
    def encode_count_request(
        self, request: Request, capabilities: Capabilities, losses: Losses
    ) -> tuple[str, bytes] | None:
        return "/v1/responses/input_tokens", keep_members(self.encode_request(request, capabilities, losses), _COUNTED)

    @override
    def decode_count(self, body: bytes) -> int:
        return decode_input_tokens(body)

    @override
    def encode_count(self, tokens: int) -> bytes:
        return msgspec.json.encode({"object": "response.input_tokens", "input_tokens": tokens})

    @override
    def decode_request(self, body: bytes) -> Request:
        return requests.decode_request(body)

    @override
    def is_plain(self, body: bytes) -> bool:
        return plain.is_plain(body)

    @override
    def stores(self, body: bytes) -> bool:
        return _storing.decode(body).store is not False

    @override
    def encode_request(self, request: Request, capabilities: Capabilities, losses: Losses) -> bytes:
        return requests.encode_request(request, capabilities)

    @override
    def request_path(self, request: Request) -> tuple[str, str]:
        return "/v1/responses", ""

    @override
    def decode_response(self, body: bytes) -> Response:
        return answers.decode_response(body)

    @override
    def encode_response(self, response: Response, asked: Request) -> bytes:
        return answers.encode_response(response, asked)

    @override
    def stream_decoder(self, candidates: int = 1) -> StreamDecoder:
        return ResponsesDecoder()

    @override
    def stream_encoder(self, asked: Request, request_id: str) -> StreamEncoder:
        return ResponsesEncoder(asked)
