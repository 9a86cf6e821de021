"""Whole answers of the Messages API: https://docs.anthropic.com/en/api/messages. Sans-I/O."""

import secrets
from typing import Final, assert_never

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from aiproxyd import seals
from aiproxyd.errors import UpstreamGarbage
from aiproxyd.formats import codec
from aiproxyd.formats.anthropic import wire
from aiproxyd.formats.anthropic.errors import decode_band_error
from aiproxyd.formats.anthropic.wire import NAME, encode, read_string
from aiproxyd.formats.base import NULL, decode_answer, decode_view
from aiproxyd.formats.codec import describe_media, make_call_id, to_object
from aiproxyd.hub import (
    Block,
    Candidate,
    Citation,
    Media,
    Opaque,
    Reasoning,
    Refusal,
    Request,
    Response,
    Seal,
    Stop,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from aiproxyd.splice import JSON_ERRORS

_STOPS: Final[dict[str, Stop]] = {
    "": "end",
    "end_turn": "end",
    "max_tokens": "length",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool",
    "pause_turn": "pause",
    "refusal": "refusal",
    "model_context_window_exceeded": "context",
}
_REASONS: Final[dict[Stop, str]] = {
    "end": "end_turn",
    "length": "max_tokens",
    "tool": "tool_use",
    "stop_sequence": "stop_sequence",
    "refusal": "refusal",
    "blocked": "refusal",
    "pause": "pause_turn",
    "context": "model_context_window_exceeded",
}
_CITED_ELSEWHERE: Final = f"{seals.MARK}c"
"""Stands for the state of Anthropic's search in a citation of another vendor's."""
_TIERS: Final = {"standard": "default"}
_TIER_OF: Final = {"default": "standard", "standard": "standard", "priority": "priority", "batch": "batch"}


class _ToolUse(Struct):
    name: str
    id: str | None = None
    input: Raw = NULL


class _TextView(Struct):
    text: str = ""
    citations: list[Raw] | None = None


class _ThinkingView(Struct):
    thinking: str = ""
    signature: str | None = None


class _CitationView(Struct):
    url: str | None = None
    source: str | None = None
    title: str | None = None
    document_title: str | None = None
    cited_text: str | None = None
    encrypted_index: str | None = None


_message: Final = msgspec.json.Decoder(wire.MessageView)
_usage: Final = msgspec.json.Decoder(wire.UsageView | None)
_tier: Final = msgspec.json.Decoder(wire.TierView)
_stop_details: Final = msgspec.json.Decoder(wire.StopDetails)
_contents: Final = msgspec.json.Decoder(list[Raw])
_string: Final = msgspec.json.Decoder(str)
_head: Final = msgspec.json.Decoder(wire.Head)
_text: Final = msgspec.json.Decoder(_TextView)
_thinking: Final = msgspec.json.Decoder(_ThinkingView)
_redacted: Final = msgspec.json.Decoder(wire.RedactedThinkingBlock)
_tool_use: Final = msgspec.json.Decoder(_ToolUse)
_citation: Final = msgspec.json.Decoder(_CitationView)

# --- Decoding


def decode_response(body: bytes) -> Response:
    """Decode the whole answer of an upstream.

    Raises:
        UpstreamGarbage: it is none.
        UpstreamError: it is an error, in spite of its success status.
    """
    try:
        message = decode_answer(_message, body)
    except msgspec.DecodeError as exc:
        raise UpstreamGarbage(f"the upstream's answer is no JSON: {exc}") from exc
    if message is not None and (message.type == "error" or message.error):
        raise decode_band_error(message.error, body)
    contents = decode_view(_contents, message.content) if message is not None else None
    if message is None or contents is None:
        raise UpstreamGarbage("the upstream's answer is no message")
    blocks = [block for raw in contents if (block := read_block(raw)) is not None]
    stop, detail = read_stop(message.stop_reason, message.stop_details)
    candidate = Candidate(
        blocks=tuple(blocks), stop=stop, stop_sequence=read_string(message.stop_sequence) or None, detail=detail
    )
    return Response(
        id=read_string(message.id),
        model=read_string(message.model),
        candidates=(candidate,),
        usage=merge_usage(None, message.usage),
        service_tier=read_tier(message.usage),
    )


def merge_usage(before: Usage | None, raw: Raw) -> Usage | None:
    """Return the usage after *raw*: its counts are cumulative, what it leaves out keeps its value."""
    now = decode_view(_usage, raw)
    if now is None:
        return before
    before = before or Usage()
    details = now.output_tokens_details
    return Usage(
        input_tokens=_newer(now.input_tokens, before.input_tokens),
        cache_read_tokens=_newer(now.cache_read_input_tokens, before.cache_read_tokens),
        cache_write_tokens=_newer(_count_written(now), before.cache_write_tokens),
        output_tokens=_newer(now.output_tokens, before.output_tokens),
        reasoning_tokens=_newer(details.thinking_tokens if details else None, before.reasoning_tokens),
    )


def _newer(now: int | None, before: int | None) -> int | None:
    return before if now is None else now


def _count_written(usage: wire.UsageView) -> int | None:
    """Return the tokens written to the cache, summed where only the lifetimes are told apart."""
    split = usage.cache_creation
    if usage.cache_creation_input_tokens is not None or split is None:
        return usage.cache_creation_input_tokens
    return (split.ephemeral_5m_input_tokens or 0) + (split.ephemeral_1h_input_tokens or 0)


def read_tier(usage: Raw) -> str:
    """Return the tier that served, in the words that the formats share; empty where *usage* has none."""
    view = decode_view(_tier, usage)
    tier = view.service_tier if view else None
    return _TIERS.get(tier, tier) if tier else ""


def read_stop(reason: Raw, details: Raw) -> tuple[Stop, str]:
    """Return why the answer ended, and what Anthropic says to it: the reason itself where that is new."""
    word = read_string(reason)
    stop = _STOPS.get(word)
    if stop is None:
        return "end", word
    view = decode_view(_stop_details, details)
    return stop, (view.explanation or view.category or "") if view else ""


def read_citation(raw: Raw) -> Citation:
    """Return one citation; its source may be a page, a search result or a document.

    What was written here for another vendor has no origin: Anthropic refuses results of searches that it has not made.
    """
    view = decode_view(_citation, raw) or _CitationView()
    citation = Citation(
        url=view.url or view.source or "",
        title=view.title or view.document_title or "",
        cited_text=view.cited_text or "",
    )
    is_own = not (view.encrypted_index or "").startswith(seals.MARK)
    return replace(citation, origin=NAME, raw=raw) if is_own else citation


def read_arguments(raw: Raw) -> str:
    """Return the JSON text of a call's input, which some imitations give as a string."""
    text = decode_view(_string, raw)
    return codec.read_arguments(str(raw, "utf-8", "replace") if text is None else text)


def read_block(raw: Raw) -> Block | None:
    """Return one block of an answer; None where *raw* is no block at all."""
    head = decode_view(_head, raw)
    if head is None:
        return None
    return _read_known(head.type, raw) or Opaque(NAME, head.type, raw)


def _read_known(kind: str, raw: Raw) -> Block | None:
    try:
        match kind:
            case "text":
                text = _text.decode(raw)
                return Text(text.text, citations=tuple(map(read_citation, text.citations or ())))
            case "thinking":
                thought = _thinking.decode(raw)
                seal = Seal(NAME, "signature", thought.signature) if thought.signature else None
                return Reasoning(thought.thinking, seal)
            case "redacted_thinking":
                return Reasoning("", Seal(NAME, "redacted", _redacted.decode(raw).data))
            case "tool_use":
                call = _tool_use.decode(raw)
                return ToolCall(id=call.id or make_call_id(), name=call.name, arguments=read_arguments(call.input))
            case _:
                return None
    except JSON_ERRORS:
        return None


# --- Encoding


def encode_response(response: Response, asked: Request) -> bytes:
    """Return the whole answer to *asked*."""
    candidate = response.candidates[0] if response.candidates else Candidate()
    return encode(
        {
            "id": response.id or make_message_id(),
            "type": "message",
            "role": "assistant",
            "model": response.model or asked.model,
            "content": [written for written in map(_write_block, candidate.blocks) if written is not None],
            **write_stop(candidate.stop, candidate.stop_sequence, candidate.detail),
            "usage": write_usage(response.usage, response.service_tier),
        }
    )


def make_message_id() -> str:
    """Return an id for an answer that the upstream gave none."""
    return f"msg_{secrets.token_hex(12)}"


def write_stop(stop: Stop, stop_sequence: str | None, detail: str) -> dict[str, object]:
    """Return the members that say why the answer ended."""
    reason = _REASONS[stop]
    is_explained = reason == "refusal" and detail
    return {
        "stop_reason": reason,
        "stop_sequence": stop_sequence,
        "stop_details": {"type": "refusal", "category": None, "explanation": detail} if is_explained else None,
    }


def write_usage(usage: Usage | None, service_tier: str = "") -> dict[str, object]:
    """Return what is known of the usage; input and output are always there, for clients demand them."""
    usage = usage or Usage()
    written: dict[str, object] = {"input_tokens": usage.input_tokens or 0}
    if usage.cache_write_tokens is not None:
        written["cache_creation_input_tokens"] = usage.cache_write_tokens
    if usage.cache_read_tokens is not None:
        written["cache_read_input_tokens"] = usage.cache_read_tokens
    written["output_tokens"] = usage.output_tokens or 0
    if usage.reasoning_tokens is not None:
        written["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    if service_tier in _TIER_OF:
        written["service_tier"] = _TIER_OF[service_tier]
    return written


def write_seal(seal: Seal) -> str:
    """Return *seal* as the caller gets it: as it is where Anthropic made it, else wrapped."""
    return seal.data if seal.origin == NAME else seals.wrap(seal)


def write_thought(text: str, seal: Seal | None) -> wire.ThinkingBlock | wire.RedactedThinkingBlock:
    """Return a thought; one that is not shown is a redacted one, unless it is Anthropic's with a signature."""
    if seal is None:
        return wire.ThinkingBlock(text)
    is_redacted = seal.kind == "redacted" or seal.origin != NAME
    return (
        wire.RedactedThinkingBlock(write_seal(seal))
        if is_redacted and not text
        else wire.ThinkingBlock(text, write_seal(seal))
    )


def write_citation(citation: Citation) -> object | None:
    """Return a citation: Anthropic's as it is, any other's as that of a page; None where it names none."""
    if citation.origin == NAME:
        return citation.raw
    if not citation.url:
        return None
    return {
        "type": "web_search_result_location",
        "url": citation.url,
        "title": citation.title or None,
        "cited_text": citation.cited_text,
        "encrypted_index": _CITED_ELSEWHERE,
    }


def write_note(media: Media) -> str:
    """Return the words that stand where an answer holds what this API cannot carry."""
    return f"[{describe_media(media)}, which this API cannot carry]"


def _write_block(block: Block) -> object | None:
    match block:
        case Text(text=text, citations=citations):
            return wire.WrittenText(text, [found for found in map(write_citation, citations) if found is not None])
        case Reasoning(text=text, seal=seal):
            return write_thought(text, seal)
        case ToolCall(id=call_id, name=name, arguments=arguments):
            return wire.ToolUseBlock(call_id, name, to_object(arguments))
        case Refusal(text=text):
            return wire.TextBlock(text)
        case Media():
            return wire.TextBlock(write_note(block))
        case Opaque(origin=origin, raw=raw):
            return raw if origin == NAME else None
        case ToolResult():
            return None  # no model answers with one
        case _ as never:
            assert_never(never)
