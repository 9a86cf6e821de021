"""Answers of generateContent: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse. Sans-I/O."""

import secrets
from collections.abc import Iterable
from typing import Any, Final, assert_never

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.base import NULL, decode_view
from aiproxyd.formats.codec import to_object
from aiproxyd.formats.gemini.citations import write_grounding
from aiproxyd.formats.gemini.parts import write_media, write_signature
from aiproxyd.formats.gemini.usage import UsageMetadata, write_usage
from aiproxyd.formats.gemini.wire import NAME, Answer, AnyPart, Candidate, Content, FunctionCall, Part, PromptFeedback
from aiproxyd.hub import (
    Block,
    Media,
    Opaque,
    Reasoning,
    Refusal,
    Request,
    Response,
    Stop,
    Text,
    TokenLogprob,
    ToolCall,
    ToolResult,
)
from aiproxyd.hub import Candidate as HubCandidate

_STOPS: Final[dict[str, Stop]] = {
    "STOP": "end",
    "MAX_TOKENS": "length",
    "CONTINUATION": "pause",
    "SAFETY": "refusal",
    "RECITATION": "refusal",
    "LANGUAGE": "refusal",
    "BLOCKLIST": "refusal",
    "PROHIBITED_CONTENT": "refusal",
    "SPII": "refusal",
    "IMAGE_SAFETY": "refusal",
    "IMAGE_PROHIBITED_CONTENT": "refusal",
    "IMAGE_RECITATION": "refusal",
    "MODEL_ARMOR": "refusal",
}
_OTHER_REASONS: Final = frozenset(
    (
        "OTHER",
        "MALFORMED_FUNCTION_CALL",
        "IMAGE_OTHER",
        "NO_IMAGE",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE",
        "ESCALATION",
    )
)
"""The answer is over, and something went wrong; no other vendor has a word for it."""
_TELLING_REASONS: Final = _OTHER_REASONS - {"OTHER"}
"""Those that say more than their message, which quotes what the model wrote."""
_REASONS: Final[dict[Stop, str]] = {
    "end": "STOP",
    "length": "MAX_TOKENS",
    "tool": "STOP",
    "stop_sequence": "STOP",
    "refusal": "SAFETY",
    "blocked": "PROHIBITED_CONTENT",
    # CONTINUATION would make the SDK ask on by itself, with a token that we have not.
    "pause": "MAX_TOKENS",
    "context": "MAX_TOKENS",
}
_BLOCK_REASONS: Final = frozenset(
    ("SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "MODEL_ARMOR", "JAILBREAK")
)


class _Token(Struct, rename="camel", omit_defaults=True):
    token: str = ""
    log_probability: float = 0.0


class _Tokens(Struct):
    candidates: list[_Token] | None = None


class _LogprobsResult(Struct, rename="camel", omit_defaults=True):
    chosen_candidates: list[_Token] | None = None
    top_candidates: list[_Tokens] | None = None


_logprobs: Final = msgspec.json.Decoder(_LogprobsResult)
encode: Final = msgspec.json.Encoder().encode

WrittenCandidate = Candidate[AnyPart]
WrittenAnswer = Answer[AnyPart, UsageMetadata]


# --- Why an answer ended


def read_finish(reason: Any, message: Any) -> tuple[Stop, str]:
    """Return why a candidate ended, and what the vendor says about it where it is out of the ordinary."""
    word = str(reason)
    stop = _STOPS.get(word, "end")
    if word == "STOP" or stop in ("length", "pause"):
        return stop, ""
    is_told = word not in _TELLING_REASONS and message and isinstance(message, str)
    return stop, message if is_told else word


def read_block(feedback: PromptFeedback) -> str:
    """Return why the prompt was blocked; empty where it was not."""
    message = feedback.block_reason_message
    reason = str(feedback.block_reason or "")
    return message if reason and message and isinstance(message, str) else reason


def write_finish(stop: Stop, detail: str) -> tuple[str, str | None]:
    """Return finishReason and finishMessage."""
    if stop == "refusal":
        return (detail, None) if _STOPS.get(detail) == "refusal" else (_REASONS[stop], detail or None)
    if stop == "end" and detail:
        return (detail, None) if detail in _OTHER_REASONS else ("OTHER", detail)
    return _REASONS[stop], None


def write_block(detail: str) -> PromptFeedback:
    """Return the promptFeedback of a prompt that was blocked."""
    return PromptFeedback(detail) if detail in _BLOCK_REASONS else PromptFeedback("OTHER", detail or None)


# --- Probabilities


def read_logprobs(result: Raw) -> tuple[TokenLogprob, ...]:
    """Return the probabilities of tokens; none where *result* is misshapen."""
    logprobs = decode_view(_logprobs, result)
    if logprobs is None:
        return ()
    tops = [tuple(map(_read_token, top.candidates or ())) for top in logprobs.top_candidates or ()]
    chosen = [_read_token(token) for token in logprobs.chosen_candidates or ()]
    tops += [()] * (len(chosen) - len(tops))
    return tuple(replace(token, top=top) for token, top in zip(chosen, tops, strict=False))


def _read_token(token: _Token) -> TokenLogprob:
    return TokenLogprob(token.token, token.log_probability)


def write_logprobs(logprobs: Iterable[TokenLogprob]) -> Raw:
    """Return the probabilities in Gemini's words."""
    tokens = list(logprobs)
    if not tokens:
        return NULL
    tops = [_Tokens([_Token(top.token, top.logprob) for top in token.top]) for token in tokens]
    chosen = [_Token(token.token, token.logprob) for token in tokens]
    return Raw(encode(_LogprobsResult(chosen, tops if any(token.top for token in tokens) else None)))


# --- Blocks


def write_block_part(block: Block) -> AnyPart | None:
    """Return *block* as a caller gets to see it; None where there is nothing to see."""
    match block:
        case Text(text=text, seal=seal):
            return Part(text, thought_signature=write_signature(seal)) if text or seal else None
        case Refusal(text=text):
            return Part(text) if text else None
        case Reasoning(text=text, seal=seal):
            # The signature of a text stands behind it, in a part of its own that is no thought.
            is_thought = None if seal and seal.holder and seal.origin == NAME else True
            return Part(text, is_thought, write_signature(seal)) if text or seal else None
        case ToolCall():
            return write_call(block)
        case Media():
            return _write_media(block)
        case Opaque(origin=origin, raw=raw):
            return raw if origin == NAME else None
        case ToolResult():
            return None
        case _ as never:
            assert_never(never)


def write_call(call: ToolCall) -> Part:
    """Return *call* as a part."""
    args = to_object(call.arguments)
    return Part(
        function_call=FunctionCall(call.name, args, call.id or None), thought_signature=write_signature(call.seal)
    )


def _write_media(media: Media) -> Part | None:
    try:
        part = write_media(media, fetches_urls=True)
    except InvalidRequest:
        return None
    return Part(inline_data=part.inline_data, file_data=part.file_data)


# --- Whole answers


def make_id() -> str:
    """Return an id for an answer that has none."""
    return secrets.token_hex(12)


def empty_content() -> Content[AnyPart]:
    """Return a content that says nothing: without one, the SDK takes an answer for a broken one."""
    return Content("model", [Part("")])


def encode_response(response: Response, asked: Request) -> bytes:
    """Return the whole answer to *asked*."""
    candidates = [
        _write_candidate(index, candidate)
        for index, candidate in enumerate(response.candidates)
        if candidate.stop != "blocked" or candidate.blocks
    ]
    blocked = (candidate for candidate in response.candidates if candidate.stop == "blocked" and not candidate.blocks)
    return encode(
        WrittenAnswer(
            candidates=candidates or None,
            prompt_feedback=next((write_block(candidate.detail) for candidate in blocked), None),
            usage_metadata=write_usage(response.usage),
            model_version=response.model or asked.model,
            response_id=response.id or make_id(),
        )
    )


def _write_candidate(index: int, candidate: HubCandidate) -> WrittenCandidate:
    parts: list[AnyPart] = []
    cited: list[tuple[int, Text]] = []
    for block in candidate.blocks:
        part = write_block_part(block)
        if part is None:
            continue
        if isinstance(block, Text) and block.citations:
            cited.append((len(parts), block))
        parts.append(part)
    reason, message = write_finish(candidate.stop, candidate.detail)
    return WrittenCandidate(
        content=Content("model", parts) if parts else empty_content(),
        finish_reason=reason,
        finish_message=message,
        index=index,
        grounding_metadata=write_grounding(cited),
        logprobs_result=write_logprobs(candidate.logprobs),
    )
