"""Requests to generateContent: https://ai.google.dev/api/generate-content#request-body. Sans-I/O."""

import base64
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.base import NULL, check_text, decode_body, decode_view
from aiproxyd.formats.codec import Losses, refuse, to_object, unwrap_arguments
from aiproxyd.formats.gemini.casing import to_camel_case
from aiproxyd.formats.gemini.parts import read_media, read_signature, write_media
from aiproxyd.formats.gemini.settings import (
    GenerationConfig,
    ToolConfig,
    given,
    read_config,
    read_tier,
    read_tool_choice,
    read_tools,
    write_config,
    write_tier,
    write_tool_choice,
    write_tools,
)
from aiproxyd.formats.gemini.wire import (
    NAME,
    SERVER_PARTS,
    AnyPart,
    Content,
    FunctionCall,
    FunctionResponse,
    MediaPart,
    Part,
    decode_at,
    is_object,
    is_string,
    read_opaque,
)
from aiproxyd.formats.members import Known, KnownFields
from aiproxyd.hub import (
    Block,
    Media,
    Opaque,
    Reasoning,
    Refusal,
    Request,
    Seal,
    Text,
    ToolCall,
    ToolResult,
    Turn,
    arrange,
    merge_turns,
)

PLACEHOLDER: Final = base64.b64encode(b"skip_thought_signature_validator").decode()
"""Taken for the signature of a call whose own was lost: https://ai.google.dev/gemini-api/docs/thought-signatures."""

_STATES: Final = {
    "cachedContent": "send the cached contents themselves",
    "continuationToken": "send the whole conversation",
}
"""What only its owner can go on from, and what to do instead."""
_SETTINGS: Final = {
    "tools": read_tools,
    "toolConfig": read_tool_choice,
    "generationConfig": read_config,
    "serviceTier": read_tier,
}
_BYTES: Final = Known("data mimeType")
_FILE: Final = Known("fileUri mimeType")
_PARTS: Final = Known(
    " ".join(("text thought thoughtSignature videoMetadata mediaResolution", *SERVER_PARTS)),
    functionCall=Known("name args id"),
    functionResponse=Known("name response id", parts=Known(inlineData=_BYTES, fileData=_FILE)),
    inlineData=_BYTES,
    fileData=_FILE,
)

_KNOWN_INSIDE: Final = KnownFields(
    turns=("contents", "systemInstruction"),
    contents=Known("role", parts=_PARTS),
    systemInstruction=Known("role text", parts=_PARTS),
    tools=Known(is_open=True, functionDeclarations=Known("name description parameters parametersJsonSchema")),
    toolConfig=Known(is_open=True, functionCallingConfig=Known("mode allowedFunctionNames")),
    generationConfig=Known(is_open=True, thinkingConfig=Known("includeThoughts thinkingBudget thinkingLevel")),
)
_RESULT_KEYS: Final = ("output", "result", "error")
_NOTHING: Final = (b"null", b"false", b'""')


class _Body(Struct, rename="camel", omit_defaults=True):
    contents: list[Content[AnyPart]]
    system_instruction: Content[Part] | None = None
    tools: list[Any] | None = None
    tool_config: ToolConfig | None = None
    generation_config: GenerationConfig | None = None
    service_tier: str | None = None


_encode: Final = msgspec.json.Encoder().encode
_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_text: Final = msgspec.json.Decoder(str)
_contents: Final = msgspec.json.Decoder(list[Content[Part]])
_raw_contents: Final = msgspec.json.Decoder(list[Content[Raw]])
_parts: Final = msgspec.json.Decoder(list[Part])
_content: Final = msgspec.json.Decoder(Content[Part])


# --- From a caller


def decode_request(body: bytes) -> Request:
    """Decode a caller's request; model and stream are not in it.

    Raises:
        InvalidRequest: malformed, or content that no other format could carry; ``param`` has the path.
    """
    try:
        return _read_request(to_camel_case(check_text(body)))
    except RecursionError as exc:
        raise InvalidRequest("malformed JSON: nested too deep") from exc


def _read_request(body: bytes) -> Request:
    fields = decode_body(_fields, body)
    fields = {name: raw for name, raw in fields.items() if given(raw)}
    for name, hint in _STATES.items():
        if name in fields:
            raise InvalidRequest(f"{name} cannot be used through this gateway: {hint}", param=f"$.{name}")
    if "contents" not in fields:
        raise InvalidRequest("contents is missing", param="$.contents")
    unknown = _KNOWN_INSIDE.find_unknown(fields)
    system = [_read_system(fields.pop("systemInstruction"))] if "systemInstruction" in fields else []
    turns = map(_join_pieces, merge_turns(_ContentsReader(fields.pop("contents")).turns))
    request = Request(model="", turns=arrange([*system, *turns]))
    for name, read in _SETTINGS.items():
        if name in fields:
            read(fields.pop(name), request)
    fields.pop("model", None)  # says what the path says
    request.extensions |= fields | unknown
    return request


def _read_system(raw: Raw) -> Turn:
    """Return the system's turn; the API takes one content, its SDKs' users also write a list of parts or a text."""
    path = "$.systemInstruction"
    if is_object(raw):
        parts = decode_at(_content, raw, path).parts or []
    elif is_string(raw):
        parts = [Part(decode_at(_text, raw, path))]
    else:
        parts = decode_at(_parts, raw, path)
    if any(part.text is None for part in parts):
        raise InvalidRequest("a systemInstruction can only hold text", param=path)
    return Turn("system", tuple(Text(part.text or "") for part in parts))


class _ContentsReader:
    """Reads the contents of one request into turns."""

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        self._contents = decode_at(_contents, raw, "$.contents")
        self._raw_parts: list[list[Raw]] | None = None
        """Of all contents, undecoded, once one of them is needed so."""
        self._waiting: dict[int, ToolCall] = {}
        """Calls without a result so far, by their number."""
        self._numbers: defaultdict[tuple[str, str], deque[int]] = defaultdict(deque)
        """Of the calls with an id, and of those with a name, oldest first; some may have a result."""
        self._ids: set[str] | None = None
        """Of all calls that have one."""
        self._made_ids = 0
        self._calls = 0
        self.turns = [self._read_content(index, content) for index, content in enumerate(self._contents)]

    def _read_content(self, index: int, content: Content[Part]) -> Turn:
        is_model = content.role == "model"
        # `function` is what the role of results was called at first.
        if not is_model and content.role not in (None, "", "user", "function"):
            raise InvalidRequest(f"unknown role: {content.role!r}", param=f"$.contents[{index}].role")
        read = self._read_model_part if is_model else self._read_user_part
        blocks: list[Block] = []
        for position, part in enumerate(content.parts or ()):
            try:
                if not read(part, blocks):
                    blocks.append(self._read_opaque(index, position))
            except InvalidRequest as exc:
                exc.param = exc.param or f"$.contents[{index}].parts[{position}]"
                raise
        return Turn("assistant" if is_model else "user", tuple(blocks))

    def _read_user_part(self, part: Part, blocks: list[Block]) -> bool:
        """Append what *part* says to *blocks*; return whether it was understood."""
        if part.text is not None:
            blocks.append(Text(part.text))
        elif part.function_response is not None:
            blocks.append(self._read_result(part.function_response))
        elif (media := read_media(part)) is not None:
            blocks.append(media)
        else:
            return False
        return True

    def _read_model_part(self, part: Part, blocks: list[Block]) -> bool:
        """Append what *part* says to *blocks*; return whether it was understood."""
        seal = read_signature(part.thought_signature) if part.thought_signature else None
        if part.text is not None:
            _read_text(part, seal, blocks)
        elif part.function_call is not None:
            blocks.append(self._read_call(part.function_call, seal))
        elif (media := read_media(part)) is not None:
            blocks.append(media)
        else:
            return False
        return True

    def _read_call(self, call: FunctionCall, seal: Seal | None) -> ToolCall:
        if not call.name:
            raise InvalidRequest("a functionCall needs a name")
        if call.args != NULL and not is_object(call.args):
            raise InvalidRequest("the args of a functionCall must be an object")
        arguments = "{}" if call.args == NULL else unwrap_arguments(str(call.args, "utf-8"))
        call_id = str(call.id) if call.id is not None and call.id != "" else self._make_id()
        block = ToolCall(id=call_id, name=call.name, arguments=arguments, seal=seal)
        self._calls += 1
        self._waiting[self._calls] = block
        self._numbers["id", call_id].append(self._calls)
        self._numbers["name", call.name].append(self._calls)
        return block

    def _make_id(self) -> str:
        """Return an id that no call has; the same ones for the same conversation, for the sake of prompt caches."""
        if self._ids is None:
            parts = (part for content in self._contents for part in content.parts or ())
            self._ids = {str(part.function_call.id) for part in parts if part.function_call is not None}
        self._made_ids += 1
        while (call_id := f"call_{self._made_ids}") in self._ids:
            self._made_ids += 1
        return call_id

    def _read_result(self, response: FunctionResponse[MediaPart]) -> ToolResult:
        call = self._take_call(response)
        if response.response != NULL and not is_object(response.response):
            raise InvalidRequest("the response of a functionResponse must be an object")
        text, is_error = _read_output(response.response)
        content: list[Text | Media] = [Text(text)] if text else []
        content += [media for part in response.parts or () if (media := read_media(part)) is not None]
        name = response.name or call.name
        return ToolResult(call_id=call.id, name=name, content=tuple(content), is_error=is_error)

    def _take_call(self, response: FunctionResponse[MediaPart]) -> ToolCall:
        """Return, once, the call that *response* answers: the one with its id, else the first one with its name."""
        for key in (("id", str(response.id)), ("name", response.name)):
            numbers = self._numbers.get(key)
            while numbers:
                call = self._waiting.pop(numbers.popleft(), None)
                if call is not None:
                    return call
        raise InvalidRequest(f"no functionCall of {response.name!r} waits for this functionResponse")

    def _read_opaque(self, index: int, position: int) -> Opaque:
        if self._raw_parts is None:
            self._raw_parts = [content.parts or [] for content in _raw_contents.decode(self._raw)]
        raw = self._raw_parts[index][position]
        opaque = read_opaque(raw)
        if opaque is None or opaque.kind not in SERVER_PARTS:
            raise InvalidRequest("a part needs text, inlineData, fileData, a functionCall or a functionResponse")
        return opaque


def _read_text(part: Part, seal: Seal | None, blocks: list[Block]) -> None:
    if part.thought:
        blocks.append(Reasoning(part.text or "", seal))
    elif part.text or seal is None:
        blocks.append(Text(part.text or "", seal=seal))
    elif blocks and isinstance(last := blocks[-1], Text) and last.seal is None:
        # In streams the signature of a text comes behind it, in a part of its own.
        blocks[-1] = msgspec.structs.replace(last, seal=seal)
    else:
        blocks.append(Reasoning("", msgspec.structs.replace(seal, holder="text")))


def _join_pieces(turn: Turn) -> Turn:
    """Return *turn* with what the model said whole again: google-genai's chats keep a stream in the pieces it came in.

    A thought's signature stands on its last piece.
    """
    if turn.role != "assistant":
        return turn
    joined: list[Block] = []
    pieces: list[str] = []
    for block in turn.blocks:
        if joined and _goes_on(joined[-1], block):
            joined[-1] = block
        else:
            _close(joined, pieces)
            joined.append(block)
        if isinstance(block, Text | Reasoning):
            pieces.append(block.text)
    _close(joined, pieces)
    return msgspec.structs.replace(turn, blocks=tuple(joined))


def _goes_on(last: Block, block: Block) -> bool:
    """Tell whether *block* is the next piece of *last*."""
    match last, block:
        case Text(seal=None), Text():
            return True
        # One that has a holder only lends its place to another block's seal.
        case Reasoning(seal=None), Reasoning(seal=None | Seal(holder="")):
            return True
        case _:
            return False


def _close(joined: list[Block], pieces: list[str]) -> None:
    """Give the last of *joined* the text that its *pieces* are together."""
    if len(pieces) > 1 and isinstance(last := joined[-1], Text | Reasoning):
        joined[-1] = msgspec.structs.replace(last, text="".join(pieces))
    pieces.clear()


def _read_output(response: Raw) -> tuple[str, bool]:
    """Return what a function answered, as text, and whether that is an error."""
    fields = _fields.decode(response) if response != NULL else {}
    if len(fields) == 1 and (key := next(iter(fields))) in _RESULT_KEYS and is_string(fields[key]):
        return _text.decode(fields[key]), key == "error"
    is_error = bytes(fields.get("error", NULL)) not in _NOTHING
    return (str(response, "utf-8") if fields else ""), is_error


# --- To an upstream


def encode_request(request: Request, capabilities: Capabilities, losses: Losses) -> bytes:
    """Return the body that asks an upstream for *request*.

    Raises:
        InvalidRequest: the format has no place for a part of its content.
    """
    turns = request.turns
    system = turns[0] if turns and turns[0].role == "system" else None
    config = write_config(request, capabilities)
    return _encode(
        _Body(
            contents=list(_ContentsWriter(capabilities, losses).write(turns[1:] if system else turns)),
            system_instruction=_write_system(system) if system else None,
            tools=list(write_tools(request)) or None,
            tool_config=write_tool_choice(request.tool_choice) if request.tool_choice is not None else None,
            generation_config=config if config != GenerationConfig() else None,
            service_tier=write_tier(request.service_tier, losses),
        )
    )


def _write_system(turn: Turn) -> Content[Part]:
    parts: list[Part] = []
    for block in turn.blocks:
        if not isinstance(block, Text):
            raise refuse("anything but text in the system's words", NAME)
        parts.append(Part(block.text))
    return Content(parts=parts)


class _ContentsWriter:
    """Writes the turns of one request."""

    def __init__(self, capabilities: Capabilities, losses: Losses) -> None:
        self._capabilities = capabilities
        self._losses = losses

    def write(self, turns: Sequence[Turn]) -> Iterator[Content[AnyPart]]:
        """Yield the contents that say *turns*."""
        step = _find_last_words(turns) if self._capabilities.needs_signed_calls else len(turns)
        for index, turn in enumerate(turns):
            if turn.role == "user":
                yield from self._write_user(turn)
            else:
                parts = [self._write_model_block(block) for block in turn.blocks]
                if index > step:
                    _sign_first_call(parts)
                yield Content("model", parts)

    def _write_user(self, turn: Turn) -> Iterator[Content[AnyPart]]:
        """Yield the results in a content of their own: words beside them are answered badly."""
        results: list[AnyPart] = [self._write_result(block) for block in turn.blocks if isinstance(block, ToolResult)]
        others = [
            part for block in turn.blocks if not isinstance(block, ToolResult) for part in self._write_said(block)
        ]
        if results:
            yield Content("user", results)
        if others:
            yield Content("user", others)

    def _write_said(self, block: Block) -> Iterator[AnyPart]:
        match block:
            case Text(text=text):
                yield Part(text)
            case Media():
                if block.context:
                    yield Part(block.context)
                yield self._write_media(block)
            case Opaque(raw=raw):
                yield raw
            case _:
                raise refuse(f"a {type(block).__name__} block of the user", NAME)

    def _write_media(self, media: Media) -> Part:
        if media.has_citations:
            self._losses.drop("citations")
        part = write_media(media, fetches_urls=self._capabilities.fetches_urls)
        return Part(
            inline_data=part.inline_data,
            file_data=part.file_data,
            video_metadata=media.extensions.get("videoMetadata", NULL),
            media_resolution=media.extensions.get("mediaResolution", NULL),
        )

    def _write_model_block(self, block: Block) -> AnyPart:
        match block:
            case Text(text=text, seal=seal):
                return Part(text, thought_signature=seal.data if seal else None)
            case ToolCall():
                return self._write_call(block)
            case Reasoning(text=text, seal=seal):
                is_thought = True if not (seal and seal.holder) else None
                return Part(text, is_thought, seal.data if seal else None)
            case Refusal(text=text):
                return Part(text)
            case Media():
                return self._write_media(block)
            case Opaque(raw=raw):
                return raw
            case _:
                raise refuse("a tool result among the model's words", NAME)

    def _write_call(self, call: ToolCall) -> Part:
        call_id = call.id if self._capabilities.has_call_ids else None
        signature = call.seal.data if call.seal else None
        return Part(
            function_call=FunctionCall(call.name, to_object(call.arguments), call_id), thought_signature=signature
        )

    def _write_result(self, result: ToolResult) -> Part:
        text = "\n".join(block.text for block in result.content if isinstance(block, Text))
        media = [
            write_media(block, fetches_urls=self._capabilities.fetches_urls)
            for block in result.content
            if isinstance(block, Media)
        ]
        call_id = result.call_id if self._capabilities.has_call_ids else None
        response = _write_output(text, is_error=result.is_error)
        return Part(function_response=FunctionResponse(result.name, response, media or None, call_id))


def _find_last_words(turns: Sequence[Turn]) -> int:
    """Return the index of the last turn in which the user says something, -1 where there is none."""
    for index in range(len(turns) - 1, -1, -1):
        if turns[index].role == "user" and any(not isinstance(block, ToolResult) for block in turns[index].blocks):
            return index
    return -1


def _sign_first_call(parts: Sequence[AnyPart]) -> None:
    """Give the first call the placeholder where it has no signature: Gemini 3 refuses a step without."""
    call = next((part for part in parts if isinstance(part, Part) and part.function_call is not None), None)
    if call is not None and call.thought_signature is None:
        call.thought_signature = PLACEHOLDER


def _write_output(text: str, *, is_error: bool) -> Raw:
    """Return the object that a function answered: *text* itself where it is one, and would be read as such."""
    if not is_error and text.startswith("{") and text.endswith("}"):
        raw = Raw(text.encode())
        fields = decode_view(_fields, raw)
        if fields and fields.keys().isdisjoint(_RESULT_KEYS):
            return raw
    return Raw(_encode({"error" if is_error else "output": text}))
