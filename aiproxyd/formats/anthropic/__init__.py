"""Anthropic Messages: https://docs.anthropic.com/en/api/messages and /messages-streaming. Sans-I/O."""

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import msgspec
from typing_extensions import override

from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import ProxyError, UpstreamError
from aiproxyd.formats.anthropic import answers, errors, models, plain, requests, taps, wire
from aiproxyd.formats.anthropic.stream_decoder import EventDecoder
from aiproxyd.formats.anthropic.stream_encoder import EventEncoder
from aiproxyd.formats.base import Format, Peek, StreamTap, Tapped, decode_body, decode_input_tokens, keep_members
from aiproxyd.formats.codec import Losses, StreamDecoder, StreamEncoder, Traits
from aiproxyd.formats.conversations import Conversations
from aiproxyd.hub import ModelCard, Request, Response

_peek: Final = msgspec.json.Decoder(Peek)

_COUNTED: Final = frozenset(
    ("messages", "model", "output_config", "system", "thinking", "tool_choice", "tools", "cache_control")
)
"""The fields that count_tokens takes: https://docs.anthropic.com/en/api/messages-count-tokens."""

_SESSION: Final = re.compile(rb'session_id\\"\s*:\s*\\"[^"\\]+|_session_[\w-]+')
"""How Claude Code names its session in ``metadata.user_id``: in JSON in that string, formerly behind the user's name.
https://github.com/coder/aibridge/pull/241. A user alone is the same in all of its conversations."""


class Anthropic(Format):
    """The ``anthropic`` format."""

    name = wire.NAME
    volatile_fields = frozenset(("cache_control", "metadata", "stream"))
    volatile_texts = (requests.BILLING_HEADER,)
    telling_headers = ("anthropic-beta",)
    counts_tokens = True
    conversations = Conversations(
        "messages", orders=("system",), passing=requests.BILLING_HEADER.encode(), sessions={"metadata": _SESSION}
    )
    marks = (b"gw1",)
    # What is edited in the context are thoughts, and the API refuses that where there are to be none.
    members: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "turns": ("messages",),
        "reasoning": ("thinking", "context_management"),
        "tools": ("tools", "tool_choice"),
    }
    traits = Traits(
        refuses_blank_texts=True,
        needs_json_word=True,
        seals_all_thoughts=True,
        needs_called_tools=True,
        has_exact_prefill=True,
        knobs=frozenset(("parallel_tool_calls", "service_tier", "stop", "temperature", "top_k", "top_p", "user")),
        tool_name=re.compile(r"[a-zA-Z0-9_-]+"),
        max_tool_name_chars=128,
        call_id=re.compile(r"[a-zA-Z0-9_-]+"),
        has_system_turns=True,
        has_system_behind_user=True,
        has_result_media=True,
        is_sequential=True,
        wants_user_first=True,
        needs_output_limit=True,
        server_tools=frozenset(("web_search",)),
        names_server_tools=True,
        output_schema="$.output_config.format.schema",
    )

    @override
    def peek(self, body: bytes) -> Peek:
        return decode_body(_peek, body)

    @override
    def encode_error(self, error: ProxyError, request_id: str) -> bytes:
        return errors.encode_error(error, request_id)

    @override
    def encode_stream_error(self, error: ProxyError, request_id: str) -> bytes:
        return errors.encode_stream_error(error, request_id)

    @override
    def decode_error(self, status: int, body: bytes) -> UpstreamError:
        return errors.decode_error(status, body)

    @override
    def read_answer(self, body: bytes) -> Tapped:
        return taps.read_answer(body)

    @override
    def stream_tap(self, *, hide_usage: bool = False, candidates: int = 1) -> StreamTap:
        return taps.Tap()

    @override
    def read_stream_error(self, block: bytes) -> UpstreamError | None:
        return taps.read_stream_error(block)

    @override
    def decode_request(self, body: bytes) -> Request:
        return requests.decode_request(body)

    @override
    def is_plain(self, body: bytes) -> bool:
        return plain.is_plain(body)

    @override
    def refuse_state(self, asked: Request) -> None:
        requests.refuse_state(asked.extensions)

    @override
    def encode_request(self, request: Request, capabilities: Capabilities, losses: Losses) -> bytes:
        return requests.encode_request(request, capabilities, losses)

    @override
    def request_path(self, request: Request) -> tuple[str, str]:
        return "/v1/messages", ""

    @override
    def decode_response(self, body: bytes) -> Response:
        return answers.decode_response(body)

    @override
    def encode_response(self, response: Response, asked: Request) -> bytes:
        return answers.encode_response(response, asked)

    @override
    def stream_decoder(self, candidates: int = 1) -> StreamDecoder:
        return EventDecoder()

    @override
    def stream_encoder(self, asked: Request, request_id: str) -> StreamEncoder:
        return EventEncoder(asked.model, request_id)

    @override
    def encode_count_request(
        self, request: Request, capabilities: Capabilities, losses: Losses
    ) -> tuple[str, bytes] | None:
        return "/v1/messages/count_tokens", keep_members(self.encode_request(request, capabilities, losses), _COUNTED)

    @override
    def decode_count(self, body: bytes) -> int:
        return decode_input_tokens(body)

    @override
    def decode_model_list(self, body: bytes) -> list[ModelCard]:
        return models.decode_model_list(body)

    @override
    def encode_model(self, card: ModelCard) -> bytes:
        return models.encode_model(card)

    @override
    def encode_model_list(self, cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
        return models.encode_model_list(cards, query)
