"""Requests that say nothing but what a ``hub.Request`` does, so that they mean the same in every format. Sans-I/O.

Narrower than what is decoded: whatever only this vendor's models would notice is missing here.
https://ai.google.dev/api/generate-content#request-body
"""

from collections.abc import Iterable
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw

from aiproxyd.formats.base import NULL, NoItems, Plain, Words, decode_view
from aiproxyd.formats.gemini.casing import to_camel_case

# --- Contents


class _Blob(Plain, rename="camel"):
    data: str
    # Texts come in base64 here, of which there are several spellings, and as they are elsewhere.
    mime_type: Annotated[str, Meta(pattern=r"^(?:image|audio|video|application)/[a-z0-9.+-]+$")]


class _FunctionCall(Plain):
    name: Words
    args: Raw = NULL
    id: str | int | None = None


class _MediaPart(Plain, rename="camel"):
    inline_data: _Blob


_Output: TypeAlias = Annotated[dict[Literal["output", "error"], str], Meta(min_length=1, max_length=1)]


class _FunctionResponse(Plain):
    name: Words
    response: _Output
    """Any other is an object to this vendor, and its JSON text to the rest."""
    parts: list[_MediaPart] | None = None
    id: str | int | None = None


class _Text(Plain):
    text: Words


class _Part(Plain, rename="camel"):
    text: str | None = None
    function_call: _FunctionCall | None = None
    function_response: _FunctionResponse | None = None
    inline_data: _Blob | None = None

    def __post_init__(self) -> None:
        # Of several, one is read.
        if (self.text, self.function_call, self.function_response, self.inline_data).count(None) != _OTHERS:
            raise ValueError


_OTHERS: Final = len(_Part.__struct_fields__) - 1


class _Content(Plain):
    parts: Annotated[list[_Part], Meta(min_length=1)]
    role: Literal["user", "model"] | None = None


class _Instruction(Plain):
    parts: list[_Text]
    role: Literal["user", "system"] | None = None


# --- Tools and the rest


class _Schema(Plain, rename="camel"):
    """Google's own spelling, as far as nothing of it is lost in JSON Schema.

    https://ai.google.dev/api/caching#Schema
    """

    type: Literal["STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT"]
    format: str | None = None
    title: str | None = None
    description: str | None = None
    nullable: bool = False
    enum: list[str] | None = None
    properties: "dict[str, _Schema] | None" = None
    required: list[str] | None = None
    items: "_Schema | None" = None


class _FunctionDeclaration(Plain, rename="camel"):
    name: Words
    description: str | None = None
    parameters: _Schema | None = None
    parameters_json_schema: Raw = NULL

    def __post_init__(self) -> None:
        # Of the two, one is read.
        if self.parameters is not None and self.parameters_json_schema != NULL:
            raise ValueError


class _Tool(Plain, rename="camel"):
    function_declarations: list[_FunctionDeclaration] | None = None


class _FunctionCallingConfig(Plain, rename="camel"):
    mode: Literal["AUTO", "ANY", "NONE"]
    allowed_function_names: list[str] | None = None


class _ToolConfig(Plain, rename="camel"):
    function_calling_config: _FunctionCallingConfig | None = None


class _ThinkingConfig(Plain, rename="camel"):
    include_thoughts: bool | None = None
    thinking_budget: Annotated[int, Meta(ge=-1)] | None = None
    thinking_level: Literal["MINIMAL", "LOW", "MEDIUM", "HIGH"] | None = None


class _GenerationConfig(Plain, rename="camel"):
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] | None = None
    seed: int | None = None
    response_mime_type: Literal["text/plain", "application/json"] | None = None
    response_schema: _Schema | None = None
    response_json_schema: Raw = NULL
    thinking_config: _ThinkingConfig | None = None

    def __post_init__(self) -> None:
        # A schema goes with JSON, and of two, one is read.
        schemas = (self.response_schema is not None) + (self.response_json_schema != NULL)
        if schemas > (self.response_mime_type == "application/json"):
            raise ValueError


class _Request(Plain, rename="camel"):
    contents: list[_Content]
    system_instruction: _Instruction | None = None
    tools: list[_Tool] | None = None
    tool_config: _ToolConfig | None = None
    generation_config: _GenerationConfig | None = None
    safety_settings: NoItems = None
    service_tier: None = None
    # Labels, and what the path says as well.
    labels: Raw = NULL
    model: Raw = NULL
    store: Raw = NULL


_request: Final = msgspec.json.Decoder(_Request)


def is_plain(body: bytes) -> bool:
    """Tell whether *body*, a request that could be decoded, is one."""
    camel = to_camel_case(body)
    # A member that is there in both spellings is one in the end, and which of them is anyone's guess.
    if camel.count(b'"') != body.count(b'"'):
        return False
    request = decode_view(_request, camel)
    return request is not None and _has_words(request.contents)


def _has_words(contents: Iterable[_Content]) -> bool:
    """Tell whether each side has words wherever its turn is: without, it is none in the hub.

    Of the model's words, which google-genai's chats keep in the pieces that they came in, the last is often empty.
    """
    has_begun = False
    for content in contents:
        is_silent = [part.text == "" for part in content.parts]
        if content.role != "model":
            has_begun = False
            if any(is_silent):
                return False
        elif not all(is_silent):
            has_begun = True
        elif not has_begun:
            return False
    return True
