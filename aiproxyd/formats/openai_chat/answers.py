"""Whole answers: https://platform.openai.com/docs/api-reference/chat/object. Sans-I/O."""

import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from aiproxyd import seals
from aiproxyd.errors import UpstreamGarbage
from aiproxyd.formats.base import encode_deep
from aiproxyd.formats.codec import describe_media, make_call_id, read_arguments
from aiproxyd.formats.openai_chat.messages import encode_call
from aiproxyd.formats.openai_chat.parts import encode_image, join_texts
from aiproxyd.formats.openai_chat.views import (
    Annotation,
    CallPiece,
    Completion,
    ImageAnswer,
    Logprob,
    Logprobs,
    MessageView,
    ThinkingPiece,
    WholeChoice,
    completion_decoder,
    decode_loosely,
    read_usage,
)
from aiproxyd.formats.openai_chat.wire import NAME
from aiproxyd.formats.openai_shared import decode_band_error, read_time, split_data_url
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
    TokenLogprob,
    ToolCall,
    Usage,
)

_STOPS: Final[dict[str, Stop]] = {
    "stop": "end",
    "length": "length",
    "tool_calls": "tool",
    "function_call": "tool",
    "content_filter": "refusal",
    "model_length": "length",  # Mistral: https://docs.mistral.ai/api
}
_FINISHES: Final[dict[Stop, str]] = {
    "end": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "context": "length",
    "pause": "length",
    "tool": "tool_calls",
    "refusal": "content_filter",
    "blocked": "content_filter",
}


# --- Words that whole answers and streams share


def read_stop(finish_reason: str, *, has_refusal: bool) -> tuple[Stop, str]:
    """Return why a candidate ended, and the vendor's own word where it is not one of the API's."""
    stop = _STOPS.get(finish_reason)
    if stop is None:
        return "end", finish_reason
    # The model's own refusal has a field of its own, and ends like any answer.
    return ("refusal" if stop == "end" and has_refusal else stop), ""


def write_stop(stop: Stop, *, has_refusal: bool) -> str:
    """Return the ``finish_reason`` for *stop*."""
    return "stop" if stop == "refusal" and has_refusal else _FINISHES[stop]


def read_logprobs(logprobs: Logprobs) -> tuple[TokenLogprob, ...]:
    """Return the probabilities of a choice's tokens."""
    return tuple(_read_logprob(token) for token in (*(logprobs.content or ()), *(logprobs.refusal or ())))


def _read_logprob(token: Logprob) -> TokenLogprob:
    top = tuple(TokenLogprob(other.token, other.logprob, other.bytes) for other in token.top_logprobs or ())
    return TokenLogprob(token.token, token.logprob, token.bytes, top)


def write_logprobs(logprobs: Iterable[TokenLogprob]) -> dict[str, Any]:
    """Return the ``logprobs`` of a choice."""
    content = [_write_logprob(token) | {"top_logprobs": list(map(_write_logprob, token.top))} for token in logprobs]
    return {"content": content, "refusal": None}


def _write_logprob(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": token.logprob, "bytes": token.bytes}


def read_citations(annotations: Iterable[Annotation]) -> tuple[Citation, ...]:
    """Return the citations among *annotations*."""
    cited = (annotation.url_citation for annotation in annotations)
    return tuple(
        Citation(url=source.url, title=source.title or "", start=source.start_index, end=source.end_index)
        for source in cited
        if source is not None
    )


def write_citation(citation: Citation, offset: int, size: int) -> dict[str, Any]:
    """Return *citation* of a text of *size* characters, which begins at *offset*, as an annotation."""
    start = 0 if citation.start is None else citation.start
    end = size if citation.end is None else citation.end
    source = {"url": citation.url, "title": citation.title, "start_index": offset + start, "end_index": offset + end}
    return {"type": "url_citation", "url_citation": source}


def read_images(images: Iterable[ImageAnswer]) -> list[Media]:
    """Return the images of an answer."""
    urls = [image.image_url.url for image in images if image.image_url is not None]
    return [_read_image(url) for url in urls]


def _read_image(url: str) -> Media:
    split = split_data_url(url)
    return Media(kind="image", url=url) if split is None else Media(kind="image", media_type=split[0], data=split[1])


def read_thought_seal(piece: ThinkingPiece) -> Seal | None:
    """Return the seal that *piece* brings, if it does."""
    if piece.data:
        return Seal(NAME, "redacted", piece.data)
    return Seal(NAME, "signature", piece.signature) if piece.signature else None


def write_thought(text: str, seal: Seal) -> dict[str, Any]:
    """Return a thought with *seal* as an element of ``thinking_blocks``."""
    data = seal.data if seal.origin == NAME else seals.wrap(seal)
    if seal.kind == "redacted":
        return {"type": "redacted_thinking", "data": data}
    return {"type": "thinking", "thinking": text, "signature": data}


def read_call_seal(piece: CallPiece) -> Seal | None:
    """Return the seal that a call, or a piece of one, brings, if it does."""
    google = piece.extra_content.google if piece.extra_content else None
    return Seal(NAME, "signature", google.thought_signature) if google and google.thought_signature else None


def wrap_call_seal(seal: Seal) -> str:
    """Return *seal* as the signature of a call."""
    return seal.data if seal.origin == NAME else seals.wrap(seal)


def show_media(media: Media) -> Media | Text:
    """Return *media* if an answer can hold it, else what is said in its place."""
    return media if media.kind == "image" and encode_image(media) is not None else Text(f"[{describe_media(media)}]")


def make_answer_id() -> str:
    """Return an id for an answer that came without."""
    return f"chatcmpl-{secrets.token_hex(12)}"


def write_usage(usage: Usage | None) -> dict[str, Any]:
    """Return ``usage``; what the upstream did not say is zero, in the details it is left out."""
    usage = usage or Usage()
    prompt, completion = usage.total_input_tokens, usage.output_tokens or 0
    written: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    details = {"cached_tokens": usage.cache_read_tokens, "cache_write_tokens": usage.cache_write_tokens}
    details = {name: count for name, count in details.items() if count is not None}
    if details:
        written["prompt_tokens_details"] = details
    if usage.reasoning_tokens is not None:
        written["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return written


# --- Decoding


def decode_response(body: bytes) -> Response:
    """Decode the whole answer of an upstream.

    Raises:
        UpstreamGarbage: it is none.
        UpstreamError: it is an error, in spite of its success status.
    """
    answer = _read_completion(body)
    if answer is not None and answer.error:
        raise decode_band_error(answer.error)
    if answer is None or not answer.choices:
        raise UpstreamGarbage("the upstream's answer is no chat completion")
    return Response(
        id=answer.id or "",
        model=answer.model or "",
        created=read_time(answer.created) or None,
        candidates=tuple(map(_read_choice, sorted(answer.choices, key=lambda choice: choice.index))),
        usage=read_usage(answer.usage) if answer.usage else None,
        service_tier=answer.service_tier or "",
    )


def _read_completion(body: bytes) -> Completion | None:
    try:
        return completion_decoder.decode(body)
    except (msgspec.ValidationError, UnicodeDecodeError):
        pass
    except (msgspec.DecodeError, RecursionError) as exc:
        raise UpstreamGarbage("the upstream's answer is no JSON") from exc
    try:
        return decode_loosely(body, Completion)
    except msgspec.DecodeError as exc:
        raise UpstreamGarbage("the upstream's answer is no JSON") from exc


def _read_choice(choice: WholeChoice) -> Candidate:
    message = choice.message or MessageView()
    stop, detail = read_stop(choice.finish_reason or "stop", has_refusal=bool(message.refusal))
    logprobs = read_logprobs(choice.logprobs) if choice.logprobs else ()
    return Candidate(blocks=tuple(_read_message(message)), stop=stop, detail=detail, logprobs=logprobs)


def _read_message(message: MessageView) -> list[Block]:
    blocks: list[Block] = _read_thoughts(message)
    blocks += _read_content(message)
    if message.refusal:
        blocks.append(Refusal(message.refusal))
    calls = message.tool_calls or []
    if message.function_call is not None:
        calls = [*calls, CallPiece(function=message.function_call)]
    blocks += map(_read_call, calls)
    blocks += read_images(message.images or ())
    return blocks


def _read_thoughts(message: MessageView) -> list[Block]:
    text = message.reasoning_content or message.reasoning
    if message.thinking_blocks:
        # Their text stands in reasoning_content once more.
        return [Reasoning(piece.thinking or "", read_thought_seal(piece)) for piece in message.thinking_blocks]
    return [Reasoning(text)] if text else []


def _read_content(message: MessageView) -> list[Block]:
    citations = read_citations(message.annotations or ())
    if isinstance(message.content, list):
        return read_content_list(message.content)
    return [Text(message.content or "", citations=citations)] if message.content or citations else []


def read_content_list(content: Sequence[Any]) -> list[Block]:
    """Return the blocks of a content that is a list, as Mistral's: https://docs.mistral.ai/capabilities/reasoning."""
    blocks: list[Block] = []
    for part in content:
        match part:
            case {"type": "text", "text": str(text)}:
                blocks.append(Text(text))
            case {"type": "thinking", "thinking": list(pieces)}:
                blocks.append(Reasoning("".join(map(_read_text, pieces))))
            case {"type": str(kind)}:
                raw = encode_deep(part)
                blocks += () if raw is None else (Opaque(NAME, kind, msgspec.Raw(raw)),)
            case _:
                pass
    return blocks


def _read_text(part: object) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case _:
            return ""


def _read_call(call: CallPiece) -> ToolCall:
    call_id, seal = call.id or make_call_id(), read_call_seal(call)
    if call.custom is not None:
        custom = call.custom
        return ToolCall(id=call_id, name=custom.name or "", arguments=custom.input or "", is_custom=True, seal=seal)
    name = (call.function and call.function.name) or ""
    arguments = read_arguments((call.function and call.function.arguments) or "")
    return ToolCall(id=call_id, name=name, arguments=arguments, seal=seal)


# --- Encoding


def encode_response(response: Response, asked: Request) -> bytes:
    """Return the whole answer to *asked*."""
    candidates = response.candidates or (Candidate(),)
    answer: dict[str, Any] = {
        "id": response.id or make_answer_id(),
        "object": "chat.completion",
        "created": response.created or int(time.time()),
        "model": response.model or asked.model,
        "choices": [_write_choice(candidate, index) for index, candidate in enumerate(candidates)],
        "usage": write_usage(response.usage),
    }
    if response.service_tier:
        answer["service_tier"] = response.service_tier
    return msgspec.json.encode(answer)


def _write_choice(candidate: Candidate, index: int) -> dict[str, Any]:
    message = _write_message(candidate.blocks)
    has_refusal = message["refusal"] is not None
    if candidate.detail and not has_refusal and not message["content"] and candidate.stop in ("refusal", "blocked"):
        message["refusal"] = candidate.detail
    return {
        "index": index,
        "message": message,
        "logprobs": write_logprobs(candidate.logprobs) if candidate.logprobs else None,
        "finish_reason": write_stop(candidate.stop, has_refusal=has_refusal),
    }


def _write_message(blocks: Sequence[Block]) -> dict[str, Any]:
    if len(blocks) == 1 and type(blocks[0]) is Text and not blocks[0].citations:  # as most answers are
        return {"role": "assistant", "content": blocks[0].text, "refusal": None}
    shown = [show_media(block) if isinstance(block, Media) else block for block in blocks]
    text, offsets = join_texts(shown)
    texts = [block for block in shown if isinstance(block, Text)]
    calls = [_write_call(block) for block in blocks if isinstance(block, ToolCall)]
    refusals = [block.text for block in blocks if isinstance(block, Refusal)]
    thoughts = [block for block in blocks if isinstance(block, Reasoning)]
    extras = {
        "annotations": [
            write_citation(citation, offset, len(cited.text))
            for offset, cited in zip(offsets, texts, strict=True)
            for citation in cited.citations
            if citation.url
        ],
        "tool_calls": calls,
        "reasoning_content": "".join(thought.text for thought in thoughts),
        "thinking_blocks": [write_thought(thought.text, thought.seal) for thought in thoughts if thought.seal],
        "images": [encode_image(block) for block in shown if isinstance(block, Media)],
    }
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text or (None if calls or refusals else ""),
        "refusal": "".join(refusals) if refusals else None,
    }
    return message | {name: value for name, value in extras.items() if value}


def _write_call(call: ToolCall) -> dict[str, Any]:
    if call.seal is None:
        return encode_call(call)
    return encode_call(msgspec.structs.replace(call, seal=Seal(NAME, "signature", wrap_call_seal(call.seal))))
