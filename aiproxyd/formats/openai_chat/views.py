"""Answers in the API's own words, as far as they are read. Sans-I/O.

https://platform.openai.com/docs/api-reference/chat/object and https://platform.openai.com/docs/api-reference/chat-streaming.
Imitations of the API give these in many ways: nothing is required, and `decode_loosely` leaves out single fields of a
wrong type.
"""
# ruff: noqa: D101  # the vendor's page says what each object is

from typing import Any, Final, TypeVar, get_args, get_origin

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import fields

from aiproxyd.formats.base import Tokens, encode_deep
from aiproxyd.formats.openai_chat.wire import ExtraContent, ImageUrl
from aiproxyd.hub import Usage
from aiproxyd.splice import JSON_ERRORS


class PromptDetails(Struct):
    cached_tokens: Tokens | None = None
    cache_write_tokens: Tokens | None = None


class CompletionDetails(Struct):
    reasoning_tokens: Tokens | None = None


class UsageView(Struct):
    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class FunctionPiece(Struct):
    name: str | None = None
    arguments: str | None = None


class CustomPiece(Struct):
    name: str | None = None
    input: str | None = None


class CallPiece(Struct):
    """A call, or a piece of one in a stream."""

    index: int | None = None
    id: str | None = None
    function: FunctionPiece | None = None
    custom: CustomPiece | None = None
    extra_content: ExtraContent | None = None


class ThinkingPiece(Struct):
    type: str = ""
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


class UrlCitation(Struct):
    url: str = ""
    title: str | None = None
    start_index: int | None = None
    end_index: int | None = None


class Annotation(Struct):
    url_citation: UrlCitation | None = None


class ImageAnswer(Struct):
    """Of OpenRouter: https://openrouter.ai/docs/features/multimodal/image-generation."""

    image_url: ImageUrl | None = None


class MessageView(Struct, gc=False):
    """The message of a whole answer, or the delta of a chunk."""

    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[CallPiece] | None = None
    refusal: str | None = None
    thinking_blocks: list[ThinkingPiece] | None = None
    annotations: list[Annotation] | None = None
    images: list[ImageAnswer] | None = None
    function_call: FunctionPiece | None = None


class TopLogprob(Struct):
    token: str = ""
    logprob: float = 0.0
    bytes: tuple[int, ...] | None = None


class Logprob(TopLogprob):
    top_logprobs: list[TopLogprob] | None = None


class Logprobs(Struct):
    content: list[Logprob] | None = None
    refusal: list[Logprob] | None = None


class Choice(Struct, gc=False):
    index: int = 0
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class WholeChoice(Choice):
    message: MessageView | None = None


class StreamChoice(Choice, gc=False):
    delta: MessageView | None = None


class Chunk(Struct, gc=False):
    """A chunk in the middle of a stream. The SDK takes any true value in ``error`` for one."""

    choices: list[StreamChoice] | None = None
    usage: UsageView | None = None
    error: Any = None


class FirstChunk(Chunk):
    id: str | None = None
    model: str | None = None
    created: float | None = None
    service_tier: str | None = None


class Completion(Struct):
    """A whole answer."""

    choices: list[WholeChoice] | None = None
    usage: UsageView | None = None
    error: Any = None
    id: str | None = None
    model: str | None = None
    created: float | None = None
    service_tier: str | None = None


chunk_decoder: Final = msgspec.json.Decoder(Chunk)
first_chunk_decoder: Final = msgspec.json.Decoder(FirstChunk)
completion_decoder: Final = msgspec.json.Decoder(Completion)
_any_json: Final = msgspec.json.Decoder()
_usage: Final = msgspec.json.Decoder(UsageView | None)

S = TypeVar("S", bound=Struct)


def decode_loosely(data: bytes, view: type[S]) -> S | None:
    """Decode an answer that is not quite what *view* says, without those fields whose type is wrong.

    None where it is JSON of another shape altogether.

    Raises:
        msgspec.DecodeError: *data* is not JSON at all.
    """
    try:
        answer = _any_json.decode(data)
    except (UnicodeDecodeError, RecursionError) as exc:
        raise msgspec.DecodeError(str(exc)) from exc
    return _salvage_fields(answer, view) if isinstance(answer, dict) else None


def _salvage(value: object, kind: Any) -> Any:
    """Return what of *value* fits *kind*, the type of a field; None where nothing does."""
    try:
        return msgspec.convert(value, kind)
    except JSON_ERRORS:
        pass
    for option in get_args(kind) or (kind,):
        if isinstance(value, list) and get_origin(option) is list:
            kept = (_salvage(item, get_args(option)[0]) for item in value)
            return [item for item in kept if item is not None]
        if isinstance(value, dict) and isinstance(option, type) and issubclass(option, Struct):
            return _salvage_fields(value, option)
        if isinstance(value, dict) and option is str:  # arguments as an object, not as its text
            text = encode_deep(value)
            return None if text is None else text.decode()
    return None


def _salvage_fields(value: dict[str, Any], view: type[S]) -> S | None:
    kept: dict[str, Any] = {}
    for field in fields(view):
        item = _salvage(value[field.name], field.type) if field.name in value else None
        if item is not None:
            kept[field.name] = item
        elif field.required:
            return None
    return view(**kept)


def read_usage(usage: UsageView) -> Usage:
    """Return the usage in disjoint buckets: here the input counts what was read from and written to a cache."""
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    read = prompt.cached_tokens if prompt else None
    write = prompt.cache_write_tokens if prompt else None
    fresh = None if usage.prompt_tokens is None else max(usage.prompt_tokens - (read or 0) - (write or 0), 0)
    return Usage(
        input_tokens=fresh,
        cache_read_tokens=read,
        cache_write_tokens=write,
        output_tokens=usage.completion_tokens,
        reasoning_tokens=completion.reasoning_tokens if completion else None,
    )


def read_raw_usage(raw: Raw) -> Usage | None:
    """Return the usage that *raw* holds; None where it does not fit."""
    try:
        usage = _usage.decode(raw)
    except JSON_ERRORS:
        return None
    return None if usage is None else read_usage(usage)
