"""What Gemini answers, whole and as chunks. No I/O."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.vendors.gemini.rules import Model
from tests.vendors.gemini.wire import Request
from tests.vendors.scene import CACHED_TOKENS, INPUT_TOKENS, LOGPROB, OUTPUT_TOKENS, REASONING_TOKENS, Answer
from tests.vendors.seals import encode_base64, make_seal
from tests.vendors.vendor import cut_text


def encode_response(request: Request, model: Model, answer: Answer, make_id: Callable[[str], str]) -> dict[str, Any]:
    """Return the whole response."""
    count = request.generation_config.candidate_count or 1
    thoughts = REASONING_TOKENS if answer.thought else 0
    usage = {
        "promptTokenCount": INPUT_TOKENS,
        "cachedContentTokenCount": CACHED_TOKENS,
        "candidatesTokenCount": OUTPUT_TOKENS - thoughts,
        "totalTokenCount": INPUT_TOKENS + OUTPUT_TOKENS,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": INPUT_TOKENS}],
    }
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    return {
        "candidates": [_encode_candidate(request, model, answer, index, make_id) for index in range(count)],
        "usageMetadata": usage,
        "modelVersion": model.name,
        "responseId": make_id("resp"),
    }


def _encode_candidate(
    request: Request, model: Model, answer: Answer, index: int, make_id: Callable[[str], str]
) -> dict[str, Any]:
    if answer.refusal:
        ratings = [{"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}]
        return {"index": index, "finishReason": "SAFETY", "finishMessage": answer.refusal, "safetyRatings": ratings}
    parts = list(_encode_parts(request, model, answer, index, make_id))
    candidate: dict[str, Any] = {
        "content": {"parts": parts, "role": "model"},
        "finishReason": "MAX_TOKENS" if answer.stop == "length" else "STOP",
    }
    if index:
        candidate["index"] = index
    if request.generation_config.response_logprobs and answer.text:
        candidate["avgLogprobs"] = LOGPROB
        candidate["logprobsResult"] = _make_logprobs(answer.text, request.generation_config.logprobs)
    return candidate


def _make_logprobs(text: str, top: int | None) -> dict[str, Any]:
    chosen = [{"token": each, "tokenId": index, "logProbability": LOGPROB} for index, each in enumerate(cut_text(text))]
    return {"chosenCandidates": chosen, "topCandidates": [{"candidates": [each] if top else []} for each in chosen]}


def _encode_parts(
    request: Request, model: Model, answer: Answer, index: int, make_id: Callable[[str], str]
) -> Iterator[dict[str, Any]]:
    """Return the parts: 3.x signs its first call, or else its last text, and gives its calls ids."""
    config = request.generation_config.thinking_config
    if answer.thought and config is not None and config.include_thoughts:
        yield {"text": answer.thought, "thought": True}
    if answer.text:
        is_json = request.generation_config.response_mime_type == "application/json"
        part: dict[str, Any] = {"text": f"{answer.text} ({index + 1})" if index and not is_json else answer.text}
        if answer.thought and not answer.calls:
            part["thoughtSignature"] = encode_base64(make_seal("gemini", "text"))
        yield part
    for place, call in enumerate(answer.calls):
        fields = {"id": make_id("fc")} if model.is_3 else {}
        part = {"functionCall": {"name": call.name, "args": json.loads(call.arguments), **fields}}
        if place == 0 and model.is_3:
            part["thoughtSignature"] = encode_base64(make_seal("gemini", call.name))
        yield part


def encode_chunks(response: dict[str, Any]) -> list[bytes]:
    """Return the same response as a stream, in which the finish reason comes last, with an empty text."""
    head = {key: response[key] for key in ("modelVersion", "responseId")}
    begun = {"promptTokenCount": INPUT_TOKENS, "totalTokenCount": INPUT_TOKENS}
    pieces = [
        {**_index(candidate), "content": {"parts": [part], "role": "model"}}
        for candidate in response["candidates"]
        for whole in candidate.get("content", {}).get("parts", [])
        for part in _take_apart(whole)
    ]
    chunks = [{"candidates": [piece], "usageMetadata": begun, **head} for piece in pieces]
    for candidate in response["candidates"]:
        last = {key: value for key, value in candidate.items() if key != "content"}
        if "content" in candidate:
            part: dict[str, Any] = {"text": ""}
            if signature := _signature_of_text(candidate):
                part["thoughtSignature"] = signature
            last["content"] = {"parts": [part], "role": "model"}
        chunks.append({"candidates": [last], "usageMetadata": response["usageMetadata"], **head})
    return [b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in chunks]


def _index(candidate: dict[str, Any]) -> dict[str, Any]:
    return {"index": candidate["index"]} if "index" in candidate else {}


def _signature_of_text(candidate: dict[str, Any]) -> str | None:
    signatures = [part.get("thoughtSignature") for part in candidate["content"]["parts"] if "text" in part]
    return next((each for each in signatures if each), None)


def _take_apart(part: dict[str, Any]) -> list[dict[str, Any]]:
    if "text" not in part:
        return [part]
    extra = {"thought": True} if part.get("thought") else {}
    return [{"text": piece, **extra} for piece in cut_text(part["text"])]
