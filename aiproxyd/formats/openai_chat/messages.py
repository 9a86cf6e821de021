"""The messages of a request, as turns and back. Sans-I/O.

https://platform.openai.com/docs/api-reference/chat/create#chat-create-messages
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import Any, Final, assert_never

from msgspec.structs import replace

from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.base import NULL
from aiproxyd.formats.codec import describe_media, read_arguments, refuse
from aiproxyd.formats.openai_chat.parts import decode_content, encode_content, join_texts, read_cache_mark
from aiproxyd.formats.openai_chat.wire import (
    NAME,
    AssistantMessage,
    CustomToolCall,
    DeveloperMessage,
    FunctionMessage,
    FunctionToolCall,
    Markable,
    Message,
    RedactedThinkingBlock,
    SystemMessage,
    ThinkingBlock,
    ToolMessage,
    UserMessage,
)
from aiproxyd.hub import Block, CacheMark, Media, Reasoning, Refusal, Seal, Text, ToolCall, ToolResult, Turn
from aiproxyd.seals import unwrap, unwrap_base64

NO_AUDIO: Final = "sound cannot be sent to this model: only its own API has it; leave `audio` out, and `modalities` too"


class Conversation:
    """Reads the messages of one request."""

    def __init__(self) -> None:
        self.has_names = False
        """A message said who of several speaks; no other format can."""
        self._custom_ids: set[str] = set()
        self._functions: defaultdict[str, deque[str]] = defaultdict(deque)
        """Ids of the calls of the deprecated kind that wait for their result, by the function's name."""
        self._function_calls = 0

    def decode(self, messages: Sequence[Message]) -> list[Turn]:
        """Return a turn for each message.

        Raises:
            InvalidRequest: one says what no other format can, or what does not fit to those before.
        """
        return [self._decode_message(message, index) for index, message in enumerate(messages)]

    def _decode_message(self, message: Message, index: int) -> Turn:
        path = f"$.messages[{index}]"
        match message:
            case UserMessage():
                self.has_names = self.has_names or bool(message.name)
                return Turn("user", _mark_last(decode_content(message.content, f"{path}.content"), message))
            case AssistantMessage():
                return Turn("assistant", _mark_last(self._decode_assistant(message, path), message))
            case ToolMessage():
                return Turn("user", (self._decode_result(message, path),))
            case SystemMessage() | DeveloperMessage():
                self.has_names = self.has_names or bool(message.name)
                return Turn("system", _mark_last(decode_content(message.content, f"{path}.content"), message))
            case FunctionMessage():
                return Turn("user", (self._decode_function_result(message, path),))
            case _ as never:
                assert_never(never)

    def _decode_assistant(self, message: AssistantMessage, path: str) -> tuple[Block, ...]:
        if message.audio != NULL:
            raise InvalidRequest(NO_AUDIO, param=f"{path}.audio")
        self.has_names = self.has_names or bool(message.name)
        blocks: list[Block] = _decode_thoughts(message)
        blocks += decode_content(message.content, f"{path}.content")
        if message.refusal:
            blocks.append(Refusal(message.refusal))
        blocks += map(self._decode_call, message.tool_calls or ())
        if message.function_call is not None:
            self._function_calls += 1
            call_id, name = f"call_function_{self._function_calls}", message.function_call.name
            self._functions[name].append(call_id)
            arguments = read_arguments(message.function_call.arguments)
            blocks.append(ToolCall(id=call_id, name=name, arguments=arguments))
        return tuple(blocks)

    def _decode_call(self, call: FunctionToolCall | CustomToolCall) -> ToolCall:
        google = call.extra_content.google if call.extra_content else None
        seal = _read_call_seal(google.thought_signature) if google and google.thought_signature else None
        if isinstance(call, CustomToolCall):
            self._custom_ids.add(call.id)
            return ToolCall(id=call.id, name=call.custom.name, arguments=call.custom.input, is_custom=True, seal=seal)
        arguments = read_arguments(call.function.arguments)
        return ToolCall(id=call.id, name=call.function.name, arguments=arguments, seal=seal)

    def _decode_result(self, message: ToolMessage, path: str) -> ToolResult:
        return ToolResult(
            call_id=message.tool_call_id,
            content=tuple(part for part in decode_content(message.content, f"{path}.content") if part != Text("")),
            is_custom=message.tool_call_id in self._custom_ids,
            cache=read_cache_mark(message),
        )

    def _decode_function_result(self, message: FunctionMessage, path: str) -> ToolResult:
        waiting = self._functions[message.name]
        if not waiting:
            raise InvalidRequest(f"no call of the function {message.name!r} waits for a result", param=f"{path}.name")
        content = (Text(message.content),) if message.content else ()
        return ToolResult(call_id=waiting.popleft(), content=content, name=message.name)


def _decode_thoughts(message: AssistantMessage) -> list[Block]:
    if message.thinking_blocks:
        # Their text stands in reasoning_content once more.
        return [_decode_thought(block) for block in message.thinking_blocks]
    text = message.reasoning_content or message.reasoning
    return [Reasoning(text)] if text else []


def _decode_thought(block: ThinkingBlock | RedactedThinkingBlock) -> Reasoning:
    if isinstance(block, RedactedThinkingBlock):
        return Reasoning("", unwrap(block.data) or Seal("anthropic", "redacted", block.data))
    if not block.signature:
        return Reasoning(block.thinking)
    return Reasoning(block.thinking, unwrap(block.signature) or Seal("anthropic", "signature", block.signature))


def _read_call_seal(signature: str) -> Seal:
    return unwrap_base64(signature) or unwrap(signature) or Seal("gemini", "signature", signature)


def _mark_last(blocks: tuple[Block, ...], message: Markable) -> tuple[Block, ...]:
    """Return *blocks* with the mark of their message, as LiteLLM has it, on the last of them."""
    mark = read_cache_mark(message)
    if mark is None or not blocks:
        return blocks
    return *blocks[:-1], _mark(blocks[-1], mark)


def _mark(block: Block, mark: CacheMark) -> Block:
    return replace(block, cache=mark) if isinstance(block, Text | Media | ToolCall) else block


def encode_messages(turns: Iterable[Turn], capabilities: Capabilities) -> list[dict[str, Any]]:
    """Return the messages that say *turns*.

    Raises:
        InvalidRequest: there is no place for a block.
    """
    is_first_party = capabilities.has_developer_role
    messages: list[dict[str, Any]] = []
    for turn in turns:
        match turn.role:
            case "user":
                messages += _encode_user(turn.blocks, can_split=is_first_party)
            case "assistant":
                messages.append(_encode_assistant(turn.blocks))
            case "system":
                role = "developer" if is_first_party else "system"
                messages.append({"role": role, "content": _encode_words(turn.blocks, can_split=is_first_party)})
            case _ as never:
                assert_never(never)
    return messages


def _encode_user(blocks: Sequence[Block], *, can_split: bool) -> list[dict[str, Any]]:
    messages = [_encode_result(block) for block in blocks if isinstance(block, ToolResult)]
    if len(messages) < len(blocks):
        messages.append({"role": "user", "content": _encode_words(blocks, can_split=can_split)})
    return messages


def _encode_words(blocks: Sequence[Block], *, can_split: bool) -> str | list[dict[str, Any]]:
    return encode_content([block for block in blocks if isinstance(block, Text | Media)], can_split=can_split)


def _encode_result(result: ToolResult) -> dict[str, Any]:
    for part in result.content:
        if isinstance(part, Media):
            raise refuse(f"{describe_media(part)} in a tool result", NAME)
    text = encode_content(result.content, can_split=False)
    return {"role": "tool", "tool_call_id": result.call_id, "content": f"Error: {text}" if result.is_error else text}


def _encode_assistant(blocks: Sequence[Block]) -> dict[str, Any]:
    text, _ = join_texts(blocks)
    message: dict[str, Any] = {"role": "assistant", "content": text}
    calls: list[dict[str, Any]] = []
    refusals: list[str] = []
    for block in blocks:
        match block:
            case ToolCall():
                calls.append(encode_call(block))
            case Refusal():
                refusals.append(block.text)
            case Reasoning():
                _add_thought(message, block)
            case Media():
                raise refuse(f"{describe_media(block)} in an assistant's turn", NAME)
            case _:
                pass
    if refusals:
        parts = [{"type": "text", "text": text}] if text else []
        message["content"] = [*parts, {"type": "refusal", "refusal": "".join(refusals)}]
    if calls:
        message["tool_calls"] = calls
        message["content"] = message["content"] or None
    return message


def encode_call(call: ToolCall) -> dict[str, Any]:
    """Return *call*, whose seal is this format's own, or has been wrapped."""
    encoded: dict[str, Any] = {"id": call.id}
    if call.is_custom:
        encoded |= {"type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    else:
        encoded |= {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    if call.seal is not None:
        encoded["extra_content"] = encode_call_seal(call.seal.data)
    return encoded


def encode_call_seal(signature: str) -> dict[str, Any]:
    """Return the ``extra_content`` of a call that carries *signature*."""
    return {"google": {"thought_signature": signature}}


def _add_thought(message: dict[str, Any], thought: Reasoning) -> None:
    if thought.seal is None:
        return
    match thought.seal.kind:
        case "plain":
            message["reasoning_content"] = message.get("reasoning_content", "") + thought.text
        case "redacted":
            message.setdefault("thinking_blocks", []).append({"type": "redacted_thinking", "data": thought.seal.data})
        case "signature" | "encrypted":
            block = {"type": "thinking", "thinking": thought.text, "signature": thought.seal.data}
            message.setdefault("thinking_blocks", []).append(block)
        case _ as never:
            assert_never(never)
