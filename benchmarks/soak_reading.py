"""Whether an answer is right: whole and nobody else's, or one clear error in the caller's own format. No I/O."""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from benchmarks.soak_words import SCRIPTED, Question, Wish
from tests.http.raw import CHECKS, Event, check_chat, read_events

CALLER_ERRORS: Final = {"malformed": 400, "unknown model": 404, "wrong key": 401, "oversize": 413}
"""What is answered to requests that are the caller's own fault."""
_UPSTREAM_ERRORS: Final = (429, 500, 502, 503, 504)
"""What may come of an upstream that fails in the ways that are played."""


class Answer(NamedTuple):
    """One answer, as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_ended: bool
    """Whether the body came to the end that HTTP has for it."""


class WrongAnswer(Exception):
    """What came is neither the right answer nor an error that may be."""


def read(wish: Wish, question: Question, answer: Answer) -> str:
    """Return what *answer* is: ``whole``, ``whole, but for [DONE]``, ``error STATUS``, ``in-band error`` or ``cut``.

    Raises:
        WrongAnswer: it is none of these.
    """
    try:
        return _read(wish, question, answer)
    except (AssertionError, ValueError, KeyError, TypeError, IndexError, AttributeError) as exc:
        raise WrongAnswer(f"{type(exc).__name__}: {exc}") from exc


def read_error(fmt: str, answer: Answer, statuses: Sequence[int]) -> str:
    """Return ``error STATUS`` for an error answer in *fmt* with one of *statuses*.

    Raises:
        WrongAnswer: it is none.
    """
    try:
        _expect(answer.status in statuses, f"status {answer.status}")
        _check_error_answer(fmt, answer)
    except (AssertionError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise WrongAnswer(f"{type(exc).__name__}: {exc}") from exc
    return f"error {answer.status}"


def _read(wish: Wish, question: Question, answer: Answer) -> str:
    if answer.status != 200:
        is_scripted = SCRIPTED.encode() in answer.body
        _expect(answer.status in _UPSTREAM_ERRORS or (answer.status == 400 and is_scripted), f"status {answer.status}")
        _check_error_answer(wish.fmt, answer)
        return f"error {answer.status}"
    kind = answer.headers["content-type"].partition(";")[0]
    _expect(kind == ("text/event-stream" if wish.kind == "stream" else "application/json"), f"content-type {kind}")
    if wish.kind == "whole":
        _expect(answer.is_ended, "a whole answer is cut")
        told = _read_whole(wish.fmt, json.loads(answer.body))
        _expect(told == _expected(question), f"not the answer to {question}: {told}")
        return "whole"
    events = _read_array(answer) if wish.kind == "array" else read_events(answer.body)
    return "cut" if events is None else _read_stream(wish, question, answer, events)


def _expect(is_so: bool, what: str) -> None:
    if not is_so:
        raise AssertionError(what)


def _expected(question: Question) -> tuple[str, list[Any]]:
    return "".join(question.words), [] if question.arguments is None else [question.arguments]


def _check_error_answer(fmt: str, answer: Answer) -> None:
    _expect(answer.is_ended, "an error is cut")
    _expect(answer.headers["content-type"].startswith("application/json"), "an error is no JSON")
    _check_error(fmt, json.loads(answer.body), answer.status)
    if answer.status in (429, 503):
        _expect(int(answer.headers["retry-after"]) >= 0, "no retry-after")


def _check_error(fmt: str, body: Any, status: int | None = None) -> None:
    """Check that *body* is an error of *fmt*; *status* is None for one in band."""
    error = body["error"]
    _expect(bool(error["message"]), "an error says nothing")
    match fmt:
        case "anthropic":
            _expect((body["type"], bool(body["request_id"])) == ("error", True), "no error of Anthropic's")
            _expect(error["type"].endswith("_error") or error["type"] == "request_too_large", error["type"])
        case "gemini":
            _expect(error["status"].isupper(), "no status word of Google's")
            _expect(status in (None, error["code"]), f"status {status}, code {error['code']}")
        case _:
            _expect({"message", "type", "param", "code"} <= error.keys(), "no error of OpenAI's")


# --- Whole answers ----------------------------------------------------------------------------------------------------


def _read_whole(fmt: str, answer: Any) -> tuple[str, list[Any]]:
    """Return the text and the arguments of the calls, having checked that the answer says that it is complete."""
    match fmt:
        case "openai-chat":
            (choice,) = answer["choices"]
            calls = choice["message"].get("tool_calls") or []
            _expect(choice["finish_reason"] == ("tool_calls" if calls else "stop"), choice["finish_reason"])
            _expect(answer["usage"]["total_tokens"] > 0, "no usage")
            arguments = [json.loads(call["function"]["arguments"]) for call in calls]
            return choice["message"].get("content") or "", arguments
        case "openai-responses":
            _expect((answer["status"], answer["usage"]["total_tokens"] > 0) == ("completed", True), answer["status"])
            return _read_items(answer["output"])
        case "anthropic":
            blocks = answer["content"]
            calls = [block["input"] for block in blocks if block["type"] == "tool_use"]
            _expect(answer["stop_reason"] == ("tool_use" if calls else "end_turn"), answer["stop_reason"])
            return "".join(block["text"] for block in blocks if block["type"] == "text"), calls
        case _:
            (candidate,) = answer["candidates"]
            _expect(candidate["finishReason"] == "STOP", candidate["finishReason"])
            return _read_parts(candidate["content"]["parts"])


def _read_items(items: Sequence[Any]) -> tuple[str, list[Any]]:
    messages = [item for item in items if item["type"] == "message"]
    calls = [json.loads(item["arguments"]) for item in items if item["type"] == "function_call"]
    return "".join(part["text"] for item in messages for part in item["content"]), calls


def _read_parts(parts: Sequence[Any]) -> tuple[str, list[Any]]:
    text = "".join(part["text"] for part in parts if "text" in part and not part.get("thought"))
    return text, [part["functionCall"]["args"] for part in parts if "functionCall" in part]


# --- Streams ----------------------------------------------------------------------------------------------------------


def _read_array(answer: Answer) -> list[Event] | None:
    """Return the elements of a stream in JSON; None where it does not pass for one, since nothing ends it."""
    try:
        elements = json.loads(answer.body)
    except ValueError:
        _expect(not answer.is_ended, "an array is broken, and ends as if it were whole")
        return None
    return [Event("", element) for element in elements]


def _read_stream(wish: Wish, question: Question, answer: Answer, events: Sequence[Event]) -> str:
    if _is_error(wish.fmt, events[-1]):
        _check_broken(wish, question, answer, events)
        return "in-band error"
    _expect(answer.is_ended, "a stream is cut without a word")
    is_closed = wish.fmt != "openai-chat" or events[-1].data is None
    if wish.fmt != "openai-chat":
        CHECKS[wish.fmt](events)
    elif is_closed:
        check_chat(events, wants_usage=wish.wants_usage)
    else:
        # The upstream was cut behind the answer, and what it would have said is all that is missing.
        has_usage = any(event.data.get("usage") for event in events)
        check_chat([*events, Event("", None)], wants_usage=has_usage)
    told = _join_stream(wish.fmt, events)
    _expect(told == _expected(question), f"not the answer to {question}: {told}")
    return "whole" if is_closed else "whole, but for [DONE]"


def _is_error(fmt: str, event: Event) -> bool:
    if event.data is None:
        return False
    match fmt:
        case "openai-responses":
            return event.data["type"] in ("error", "response.failed")
        case "anthropic":
            return bool(event.data["type"] == "error")
        case _:
            return "error" in event.data


def _check_broken(wish: Wish, question: Question, answer: Answer, events: Sequence[Event]) -> None:
    # Google's own clients take an error event for an empty chunk unless the connection is cut behind it.
    _expect(answer.is_ended is (wish.fmt != "gemini"), "a broken stream does not end as its format's do")
    *before, last = events
    _expect(not any(_is_error(wish.fmt, event) for event in before), "more follows an error")
    text, _ = _join_stream(wish.fmt, before, is_whole=False)
    _expect(_expected(question)[0].startswith(text), f"not the answer to {question}: {text}")
    if wish.fmt == "openai-responses":
        error = last.data if last.data["type"] == "error" else last.data["response"]["error"]
        _expect(bool(error["message"]) and "code" in error, "no error of the Responses API")
    else:
        _check_error(wish.fmt, last.data)


def _join_stream(fmt: str, events: Sequence[Event], *, is_whole: bool = True) -> tuple[str, list[Any]]:
    """Return the text and, where the stream is whole, the arguments of the calls."""
    bodies = [event.data for event in events if event.data is not None]
    match fmt:
        case "openai-chat":
            deltas = [choice["delta"] for body in bodies for choice in body["choices"]]
            text = "".join(delta.get("content") or "" for delta in deltas)
            calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
            pieces = [(call["index"], call["function"].get("arguments", "")) for call in calls]
        case "openai-responses":
            text = "".join(body["delta"] for body in bodies if body["type"] == "response.output_text.delta")
            kind = "response.function_call_arguments.delta"
            pieces = [(body["output_index"], body["delta"]) for body in bodies if body["type"] == kind]
        case "anthropic":
            blocks = [body for body in bodies if body["type"] == "content_block_delta"]
            text = "".join(body["delta"].get("text", "") for body in blocks)
            pieces = [
                (body["index"], body["delta"]["partial_json"]) for body in blocks if "partial_json" in body["delta"]
            ]
        case _:
            candidates = [candidate for body in bodies for candidate in body.get("candidates", ())]
            return _read_parts([part for each in candidates for part in each.get("content", {}).get("parts", ())])
    joined: dict[int, str] = {}
    for index, piece in pieces:
        joined[index] = joined.get(index, "") + piece
    return text, [json.loads(arguments) for arguments in joined.values()] if is_whole else []
