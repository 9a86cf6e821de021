"""Whole answers: the upstream's to ``hub.Response``, and such a one to the caller's. Sans-I/O.

https://platform.openai.com/docs/api-reference/responses/object
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from aiproxyd.errors import UpstreamCut, UpstreamError, UpstreamGarbage
from aiproxyd.formats.base import NULL, Tokens, decode_answer, decode_view
from aiproxyd.formats.openai_responses.items import ItemIds, Shown, read_item, read_items, show, write_item
from aiproxyd.formats.openai_responses.wire import as_text
from aiproxyd.formats.openai_shared import decode_band_error, read_time
from aiproxyd.hub import Candidate, Refusal, Request, Response, Start, Stop, Text, Usage


class _InputDetails(Struct):
    cached_tokens: Tokens | None = None
    cache_write_tokens: Tokens | None = None


class _OutputDetails(Struct):
    reasoning_tokens: Tokens | None = None


class _Usage(Struct):
    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class AnswerView(Struct):
    """A whole response, or the ``response`` of an event."""

    id: Any = None
    model: Any = None
    created_at: Any = None
    status: Any = None
    service_tier: Any = None
    error: Any = None
    incomplete_details: Any = None
    output: Raw = NULL
    usage: Raw = NULL


_usage: Final = msgspec.json.Decoder(_Usage | None)
_answer: Final = msgspec.json.Decoder(AnswerView)
_encode: Final = msgspec.json.Encoder().encode

_STOP_BY_REASON: Final[dict[str, Stop]] = {"max_output_tokens": "length", "content_filter": "refusal"}
_REASON_BY_STOP: Final[dict[Stop, str]] = {
    "length": "max_output_tokens",
    "pause": "max_output_tokens",
    "context": "max_output_tokens",
    "refusal": "content_filter",
    "blocked": "content_filter",
}

_UNSAID: Final[dict[str, Any]] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "store": False,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
"""What a response repeats of a request that does not say it."""


def read_usage(raw: Raw) -> Usage | None:
    """Return the token counts of a response; None where there are none, or misshapen ones."""
    usage = decode_view(_usage, raw)
    if usage is None:
        return None
    details_in, details_out = usage.input_tokens_details, usage.output_tokens_details
    read = details_in.cached_tokens if details_in else None
    write = details_in.cache_write_tokens if details_in else None
    fresh = None if usage.input_tokens is None else max(usage.input_tokens - (read or 0) - (write or 0), 0)
    return Usage(
        input_tokens=fresh,
        cache_read_tokens=read,
        cache_write_tokens=write,
        output_tokens=usage.output_tokens,
        reasoning_tokens=details_out.reasoning_tokens if details_out else None,
    )


def _write_usage(usage: Usage) -> dict[str, Any]:
    total_input, output = usage.total_input_tokens, usage.output_tokens or 0
    return {
        "input_tokens": total_input,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens or 0,
            "cache_write_tokens": usage.cache_write_tokens or 0,
        },
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": total_input + output,
    }


def decode_response(body: bytes) -> Response:
    """Decode the whole answer of an upstream; see `Format.decode_response`.

    Raises:
        UpstreamGarbage: it is none.
        UpstreamError: it failed.
    """
    try:
        view = decode_answer(_answer, body)
    except msgspec.DecodeError as exc:
        raise UpstreamGarbage("the upstream's answer is not JSON") from exc
    if view is None:
        raise UpstreamGarbage("the upstream's answer is no response")
    failure = read_failure(view)
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # else it and this frame would hold each other
    output = read_items(view.output)
    if output is None:
        raise UpstreamGarbage("the upstream's answer has no output")
    said = [one for raw in output for one in read_item(raw)]
    stop, detail = read_stop(view, is_refused=any(isinstance(one.block, Refusal) for one in said))
    candidate = Candidate(
        blocks=tuple(one.block for one in said),
        stop=stop,
        detail=detail,
        logprobs=tuple(logprob for one in said for logprob in one.logprobs),
    )
    start = read_start(view)
    return Response(
        id=start.id,
        model=start.model,
        created=start.created,
        candidates=(candidate,),
        usage=read_usage(view.usage),
        service_tier=start.service_tier,
    )


def read_failure(view: AnswerView) -> UpstreamError | None:
    """Return the error that a response is; None where it is an answer."""
    if view.error or view.status == "failed":
        return decode_band_error(view.error)
    if view.status == "cancelled":
        return UpstreamCut("the upstream cancelled its answer")
    return None


def read_start(view: AnswerView) -> Start:
    """Return what a response says about itself."""
    return Start(
        id=as_text(view.id),
        model=as_text(view.model),
        created=read_time(view.created_at),
        service_tier=as_text(view.service_tier),
    )


def read_stop(view: AnswerView, *, is_refused: bool) -> tuple[Stop, str]:
    """Return why a response ended, with the vendor's own word where it is not one of ours."""
    if view.status != "incomplete":
        return ("refusal" if is_refused else "end"), ""
    details = view.incomplete_details
    reason = as_text(details.get("reason")) if isinstance(details, dict) else ""
    if not reason:
        return "length", ""
    return (_STOP_BY_REASON[reason], "") if reason in _STOP_BY_REASON else ("end", reason)


# --- And back


class Envelope:
    """The response object around the items, as it stands in several events of a stream. One per answer."""

    def __init__(self, start: Start | Response, asked: Request) -> None:
        self.id = start.id or f"resp_{secrets.token_hex(12)}"
        self._head = {
            "id": self.id,
            "object": "response",
            "created_at": int(time.time()) if start.created is None else start.created,
            "model": start.model or asked.model,
        }
        self._tail: Mapping[str, Any] = _UNSAID | asked.echo | {"service_tier": start.service_tier or None}

    def write(
        self,
        status: str,
        output: Sequence[Any] = (),
        usage: Usage | None = None,
        *,
        error: dict[str, Any] | None = None,
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Return the response as it stands."""
        return {
            **self._head,
            "status": status,
            "error": error,
            "incomplete_details": {"reason": reason} if reason else None,
            "output": output,
            "usage": None if usage is None else _write_usage(usage),
            **self._tail,
        }

    def write_end(self, stop: Stop, output: Sequence[Any], usage: Usage | None, *, is_refused: bool) -> dict[str, Any]:
        """Return the response as it is complete; *is_refused*: a refusal stands in *output*."""
        # A model that declines in its own words has completed its answer.
        reason = None if stop == "refusal" and is_refused else _REASON_BY_STOP.get(stop)
        return self.write("incomplete" if reason else "completed", output, usage or Usage(), reason=reason)


def encode_response(response: Response, asked: Request) -> bytes:
    """Return the whole answer to *asked*; see `Format.encode_response`."""
    candidate = response.candidates[0] if response.candidates else Candidate()
    shown = (show(block) for block in candidate.blocks)
    blocks = [block for block in shown if block is not None] or explain_stop(candidate.stop, candidate.detail)
    last_text = max((index for index, block in enumerate(blocks) if isinstance(block, Text)), default=-1)
    envelope = Envelope(response, asked)
    ids = ItemIds(envelope.id)
    output = [
        write_item(block, ids.make(block), candidate.logprobs if index == last_text else ())
        for index, block in enumerate(blocks)
    ]
    is_refused = any(isinstance(block, Refusal) for block in blocks)
    return _encode(envelope.write_end(candidate.stop, output, response.usage, is_refused=is_refused))


def explain_stop(stop: Stop, detail: str) -> list[Shown]:
    """Return what an answer says in place of nothing: why it was not given, where the vendor tells."""
    return [Refusal(detail)] if detail and stop in ("refusal", "blocked") else []
