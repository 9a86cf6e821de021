"""A caller that reads raw bytes, and takes them for a whole answer, or for one clear error, or for neither."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from tests.http.raw import CHECKS, Event, check_chat, read_events, write_request

PATIENCE_S: Final = 20.0
"""Longer than any call may take here; whoever is still waiting then has been left hanging."""


class Answer(NamedTuple):
    """One answer, as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_ended: bool
    """Whether the body came to the end that HTTP has for it."""


async def ask(port: int, fmt: str, model: str, kind: str) -> Answer:
    """Ask *model* in the format *fmt*, on a connection of its own, and read to that connection's end.

    Raises:
        AssertionError: what came is no single HTTP answer, or did not come to an end.
    """
    path, content = write_request(fmt, model, "Hello", is_stream=kind != "whole")
    if kind == "array":
        path = path.removesuffix("?alt=sse")
    body = json.dumps(content).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + body)
        async with asyncio.timeout(PATIENCE_S):
            return _read_answer(await reader.read())
    except TimeoutError as exc:
        raise AssertionError("it hangs") from exc
    finally:
        writer.close()


def _read_answer(received: bytes) -> Answer:
    head, _, rest = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    version, status, *_ = first.split(" ")
    assert version == "HTTP/1.1"
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if "content-length" in headers:
        assert len(rest) <= int(headers["content-length"]), "bytes behind the end"
        return Answer(int(status), headers, rest, len(rest) == int(headers["content-length"]))
    assert headers["transfer-encoding"] == "chunked"
    body, is_ended = _join_chunks(rest)
    return Answer(int(status), headers, body, is_ended)


def _join_chunks(rest: bytes) -> tuple[bytes, bool]:
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        count = int(size, 16)
        if not count:
            assert rest == b"\r\n", "bytes behind the end"
            return body, True
        assert rest[count : count + 2] == b"\r\n", "a chunk is cut"
        body, rest = body + rest[:count], rest[count + 2 :]
    return body, False


def read(fmt: str, answer: Answer, texts: Sequence[str], kind: str) -> str:
    """Return what *answer* is: ``whole`` (one of *texts*), ``error STATUS``, ``in-band error`` or ``cut``.

    Raises:
        AssertionError: it is neither.
    """
    if answer.status != 200:
        assert answer.is_ended
        assert answer.headers["content-type"].startswith("application/json")
        check_error(fmt, answer.body, answer.status)
        if answer.status in (429, 503):
            assert int(answer.headers["retry-after"]) >= 0
        return f"error {answer.status}"
    if kind == "whole":
        assert answer.is_ended
        assert read_whole(fmt, answer.body) in texts
        return "whole"
    if kind == "array":
        assert answer.headers["content-type"].startswith("application/json")
        events = _read_array(answer)
        if events is None:
            return "cut"
    else:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = read_events(answer.body)
    return _read_stream(fmt, answer, events, texts)


def _read_array(answer: Answer) -> list[Event] | None:
    """Return the elements of a stream in JSON; None where it does not pass for one, since nothing ends it."""
    try:
        elements = json.loads(answer.body)
    except ValueError:
        assert not answer.is_ended
        return None
    assert isinstance(elements, list)
    return [Event("", element) for element in elements]


def _read_stream(fmt: str, answer: Answer, events: Sequence[Event], texts: Sequence[str]) -> str:
    if _is_error(fmt, events[-1]):
        _check_broken(fmt, answer, events, texts)
        return "in-band error"
    assert answer.is_ended
    if fmt == "openai-chat":
        check_chat(events, wants_usage=False)
    else:
        CHECKS[fmt](events)
    assert _find_text(fmt, events) in texts
    return "whole"


def check_error(fmt: str, body: bytes, status: int | None = None) -> None:
    """Check that *body* is an error of *fmt*; *status* is None for one in band."""
    answer = json.loads(body)
    error = answer["error"]
    assert error["message"]
    match fmt:
        case "anthropic":
            assert (answer["type"], bool(answer["request_id"])) == ("error", True)
            assert error["type"].endswith("_error") or error["type"] == "request_too_large"
        case "gemini":
            assert error["status"].isupper()
            # Google has no 402.
            assert status in (None, 402, error["code"])
        case _:
            assert {"message", "type", "param", "code"} <= error.keys()
            assert error["type"]


def read_whole(fmt: str, body: bytes) -> str:
    """Return the text of a whole answer, having checked that it says that it is complete."""
    answer: Any = json.loads(body)
    match fmt:
        case "openai-chat":
            (choice,) = answer["choices"]
            assert choice["finish_reason"] == "stop"
            assert answer["usage"]["total_tokens"] == 7
            return str(choice["message"]["content"])
        case "openai-responses":
            assert (answer["status"], answer["usage"]["total_tokens"]) == ("completed", 7)
            return "".join(part["text"] for item in answer["output"] for part in item["content"])
        case "anthropic":
            assert (answer["type"], answer["stop_reason"]) == ("message", "end_turn")
            return "".join(block["text"] for block in answer["content"])
        case _:
            (candidate,) = answer["candidates"]
            assert candidate["finishReason"] == "STOP"
            return "".join(part["text"] for part in candidate["content"]["parts"])


def _is_error(fmt: str, event: Event) -> bool:
    if event.data is None:
        return False
    match fmt:
        case "openai-responses":
            return bool(event.data["type"] in ("error", "response.failed"))
        case "anthropic":
            return bool(event.data["type"] == "error")
        case _:
            return "error" in event.data


def _check_broken(fmt: str, answer: Answer, events: Sequence[Event], texts: Sequence[str]) -> None:
    # Google's own clients take an error event for an empty chunk unless the connection is cut behind it.
    assert answer.is_ended is (fmt != "gemini")
    begun = _find_text(fmt, events[:-1])
    assert any(text.startswith(begun) for text in texts)
    assert not any(_is_error(fmt, event) or _is_end(fmt, event) for event in events[:-1])
    last = events[-1].data
    if fmt == "openai-responses":
        assert events[-1].name == last["type"]
        error = last if last["type"] == "error" else last["response"]["error"]
        assert error["message"]
        assert "code" in error
    else:
        check_error(fmt, json.dumps(last).encode())


def _is_end(fmt: str, event: Event) -> bool:
    """Tell whether *event* says that the answer is complete, or about to be."""
    match fmt:
        case "openai-chat":
            return event.data is None or any(bool(choice["finish_reason"]) for choice in event.data["choices"])
        case "openai-responses":
            return event.data["type"] in ("response.completed", "response.incomplete")
        case "anthropic":
            return event.data["type"] in ("message_delta", "message_stop")
        case _:
            return any("finishReason" in candidate for candidate in event.data["candidates"])


def _find_text(fmt: str, events: Sequence[Event]) -> str:
    bodies = [event.data for event in events if event.data is not None]
    match fmt:
        case "openai-chat":
            return "".join(choice["delta"].get("content") or "" for body in bodies for choice in body["choices"])
        case "openai-responses":
            return "".join(body["delta"] for body in bodies if body["type"] == "response.output_text.delta")
        case "anthropic":
            return "".join(body["delta"]["text"] for body in bodies if body["type"] == "content_block_delta")
        case _:
            parts = [
                part
                for body in bodies
                for candidate in body["candidates"]
                for part in candidate.get("content", {"parts": []})["parts"]
            ]
            return "".join(part.get("text", "") for part in parts)
