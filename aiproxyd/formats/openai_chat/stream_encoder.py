"""Writes the stream of an answer: https://platform.openai.com/docs/api-reference/chat-streaming. Sans-I/O."""

import time
from typing import Any, Final, assert_never

import msgspec
from typing_extensions import override

from aiproxyd.errors import ProxyError
from aiproxyd.formats.codec import StreamEncoder
from aiproxyd.formats.openai_chat.answers import (
    make_answer_id,
    show_media,
    wrap_call_seal,
    write_citation,
    write_logprobs,
    write_stop,
    write_thought,
    write_usage,
)
from aiproxyd.formats.openai_chat.messages import encode_call_seal
from aiproxyd.formats.openai_chat.parts import encode_image
from aiproxyd.formats.openai_shared import render_error
from aiproxyd.hub import (
    BlockStart,
    BlockStop,
    Citation,
    CitationAdded,
    Delta,
    End,
    Event,
    Failed,
    Finish,
    LogprobsAdded,
    Media,
    Opaque,
    Ping,
    Reasoning,
    Refusal,
    Request,
    Seal,
    SealSet,
    Start,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    UsageSeen,
)

_PING: Final = b": ping\n\n"
_DONE: Final = b"data: [DONE]\n\n"
_encode: Final = msgspec.json.Encoder().encode


def encode_failure(error: ProxyError) -> bytes:
    """Return the bytes that report *error* inside a started stream."""
    # Without [DONE]: the SDKs take a stream that has it, or just ends, for complete.
    return b"data: " + _encode({"error": render_error(error)}) + b"\n\n"


class _Open:
    """A block while its events come."""

    __slots__ = ("block", "chars", "index", "pieces", "prefix", "seal", "suffix")

    def __init__(self, block: Text | Refusal | Reasoning | ToolCall, prefix: bytes, suffix: bytes) -> None:
        self.block = block
        self.prefix = prefix
        """What stands in front of each delta, and behind it."""
        self.suffix = suffix
        self.pieces: list[str] | None = None
        """Of a thought, whose seal is shown together with all of its text."""
        self.chars = 0
        self.index = 0
        """Of a call, among those of its choice."""
        self.seal: Seal | None = None

    def write(self, text: str) -> bytes:
        """Return the chunk that adds *text*."""
        self.chars += len(text)
        if self.pieces is not None:
            self.pieces.append(text)
        return self.prefix + _encode(text) + self.suffix


class _Choice:
    """What has been written of one of the answers."""

    __slots__ = ("calls", "chars", "has_refusal", "is_apart", "is_finished", "lists", "prefix")

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        """What stands in front of what a delta of it holds."""
        self.calls = 0
        self.chars = 0
        """Of the texts that are complete."""
        self.is_apart = False
        """Something else has begun since the last text."""
        self.has_refusal = False
        self.is_finished = False
        self.lists: dict[str, int] = {}
        """How many elements each list has so far: SDKs put them together by their index."""


class ChatStreamEncoder(StreamEncoder):
    """Writes one stream: ``(role-chunk chunk* finish-chunk)* usage-chunk? [DONE]``, or an error in the middle of it."""

    def __init__(self, asked: Request) -> None:
        self._asked = asked
        self._head = b""
        """What each chunk begins with."""
        self._tail = b',"usage":null}\n\n' if asked.wants_usage else b"}\n\n"
        self._suffix = b'},"logprobs":null,"finish_reason":null}]' + self._tail
        """What stands behind what a delta holds."""
        self._choices: dict[int, _Choice] = {}
        self._open: dict[tuple[int, int], _Open] = {}
        self._usage: Usage | None = None

    @override
    def feed(self, event: Event) -> bytes:
        if isinstance(event, Delta):
            block = self._open.get((event.candidate, event.key))
            return b"" if block is None else block.write(event.text)
        match event:
            case BlockStart():
                return self._choose(event.candidate) + self._start_block(self._choices[event.candidate], event)
            case BlockStop():
                return self._stop_block(event)
            case SealSet() | CitationAdded():
                return self._add_to_block(event)
            case LogprobsAdded():
                return self._choose(event.candidate) + self._add_logprobs(event)
            case Finish():
                return self._choose(event.candidate) + self._finish(self._choices[event.candidate], event)
            case _:
                return self._feed_frame(event)

    def _feed_frame(self, event: Start | UsageSeen | Ping | End | Failed) -> bytes:
        match event:
            case Ping():
                return _PING
            case Start():
                return self._start(event)
            case UsageSeen(usage=usage):
                self._usage = usage
                return b""
            case End():
                return self._end()
            case Failed(error=error):
                return encode_failure(error)
            case _ as never:
                assert_never(never)

    # --- The frame

    def _start(self, start: Start) -> bytes:
        head: dict[str, Any] = {
            "id": start.id or make_answer_id(),
            "object": "chat.completion.chunk",
            "created": start.created or int(time.time()),
            "model": start.model or self._asked.model,
        }
        if start.service_tier:
            head["service_tier"] = start.service_tier
        self._head = b"data: " + _encode(head)[:-1] + b","
        return self._choose(0)

    def _choose(self, index: int) -> bytes:
        """Return the chunk that a choice begins with, where it has not begun."""
        if index in self._choices:
            return b""
        prefix = self._head + b'"choices":[{"index":%d,"delta":{' % index
        self._choices[index] = _Choice(prefix)
        return prefix + b'"role":"assistant","content":""' + self._suffix

    def _finish(self, choice: _Choice, finish: Finish) -> bytes:
        choice.is_finished = True
        explained = b""
        if finish.detail and not choice.has_refusal and not choice.chars and finish.stop in ("refusal", "blocked"):
            explained = self._write_delta(choice, "refusal", finish.detail)
        reason = write_stop(finish.stop, has_refusal=choice.has_refusal).encode()
        return explained + choice.prefix + b'},"logprobs":null,"finish_reason":"' + reason + b'"}]' + self._tail

    def _end(self) -> bytes:
        is_finished = any(choice.is_finished for choice in self._choices.values())
        finished = b"" if is_finished else self._finish(self._choices[0], Finish(0, "end"))
        if not self._asked.wants_usage:
            return finished + _DONE
        return finished + self._head + b'"choices":[],"usage":' + _encode(write_usage(self._usage)) + b"}\n\n" + _DONE

    def _add_logprobs(self, event: LogprobsAdded) -> bytes:
        logprobs = _encode(write_logprobs(event.logprobs))
        prefix = self._choices[event.candidate].prefix
        return prefix + b'},"logprobs":' + logprobs + b',"finish_reason":null}]' + self._tail

    # --- Blocks

    def _start_block(self, choice: _Choice, event: BlockStart) -> bytes:
        block, place = event.block, (event.candidate, event.key)
        if isinstance(block, Media):
            block = show_media(block)
        if isinstance(block, Text):
            return self._start_text(choice, block, place)
        choice.is_apart = True
        match block:
            case ToolCall():
                return self._start_call(choice, block, place)
            case Reasoning():
                thought = self._open[place] = self._open_block(choice, block, b'"reasoning_content":')
                thought.pieces, thought.seal = [], block.seal
                return thought.write(block.text) if block.text else b""
            case Refusal():
                choice.has_refusal = True
                refusal = self._open[place] = self._open_block(choice, block, b'"refusal":')
                return refusal.write(block.text) if block.text else b""
            case Media():
                return self._write_element(choice, "images", encode_image(block) or {})
            case ToolResult() | Opaque():
                return b""
            case _ as never:
                assert_never(never)

    def _open_block(self, choice: _Choice, block: Text | Refusal | Reasoning, name: bytes) -> _Open:
        return _Open(block, choice.prefix + name, self._suffix)

    def _start_text(self, choice: _Choice, block: Text, place: tuple[int, int]) -> bytes:
        text = self._open[place] = self._open_block(choice, block, b'"content":')
        written = b""
        if choice.is_apart and choice.chars:  # as parts.join_texts does
            written = text.write("\n\n")
            choice.chars, text.chars = choice.chars + text.chars, 0
        choice.is_apart = False
        if block.text:
            written += text.write(block.text)
        return written + b"".join(self._write_citation(choice, text, citation) for citation in block.citations)

    def _start_call(self, choice: _Choice, call: ToolCall, place: tuple[int, int]) -> bytes:
        index, choice.calls = choice.calls, choice.calls + 1
        kind, field = ("custom", "input") if call.is_custom else ("function", "arguments")
        names = f'"tool_calls":[{{"index":{index},"{kind}":{{"{field}":'.encode()
        opened = self._open[place] = _Open(call, choice.prefix + names, b"}}]" + self._suffix)
        opened.index = index
        begun: dict[str, Any] = {"index": index, "id": call.id, "type": kind, kind: {"name": call.name, field: ""}}
        if call.seal is not None:
            begun["extra_content"] = encode_call_seal(wrap_call_seal(call.seal))
        written = self._write_delta(choice, "tool_calls", [begun])
        return written + opened.write(call.arguments) if call.arguments else written

    def _add_to_block(self, event: SealSet | CitationAdded) -> bytes:
        choice = self._choices[event.candidate]
        opened = self._open.get((event.candidate, event.key))
        if opened is None:
            return b""
        if isinstance(event, CitationAdded):
            return self._write_citation(choice, opened, event.citation)
        if isinstance(opened.block, ToolCall):
            # The SDK's accumulator wants the function in every piece of a call.
            kind, field = ("custom", "input") if opened.block.is_custom else ("function", "arguments")
            extra = encode_call_seal(wrap_call_seal(event.seal))
            sealed = {"index": opened.index, kind: {field: ""}, "extra_content": extra}
            return self._write_delta(choice, "tool_calls", [sealed])
        opened.seal = event.seal
        return b""

    def _write_citation(self, choice: _Choice, opened: _Open, citation: Citation) -> bytes:
        if not citation.url:
            return b""
        return self._write_element(choice, "annotations", write_citation(citation, choice.chars, opened.chars))

    def _stop_block(self, event: BlockStop) -> bytes:
        choice = self._choices[event.candidate]
        opened = self._open.pop((event.candidate, event.key), None)
        if opened is None:
            return b""
        if isinstance(opened.block, Text):
            choice.chars += opened.chars
        if opened.pieces is None or opened.seal is None:
            return b""
        return self._write_element(choice, "thinking_blocks", write_thought("".join(opened.pieces), opened.seal))

    def _write_element(self, choice: _Choice, name: str, element: dict[str, Any]) -> bytes:
        """Return the chunk that adds *element* to a list."""
        index = choice.lists[name] = choice.lists.get(name, -1) + 1
        return self._write_delta(choice, name, [{"index": index} | element])

    def _write_delta(self, choice: _Choice, name: str, value: object) -> bytes:
        return choice.prefix + f'"{name}":'.encode() + _encode(value) + self._suffix
