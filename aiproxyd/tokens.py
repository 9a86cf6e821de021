"""An estimate of how many tokens a request comes to, for upstreams that cannot count. Sans-I/O.

Off by a fifth, as such estimates are: tokenizers differ between models. It covers everything that is sent: system,
turns, tools and their results, images, documents.
"""

from collections.abc import Callable, Iterable
from typing import Final, assert_never

from msgspec.structs import replace

from aiproxyd.hub import Block, Media, Opaque, Reasoning, Refusal, Request, Text, ToolCall, ToolResult, Usage

CHARS_PER_TOKEN: Final = 3.6
"""Of English and code."""
TOKENS_PER_FOREIGN_CHAR: Final = 0.8
"""Of scripts beyond ASCII; a Chinese character is mostly a token of its own."""
IMAGE_TOKENS: Final = 1500
"""Of one image; vendors charge between 260 and 4,800, by its size: https://docs.anthropic.com/en/docs/build-with-claude/vision."""
DOCUMENT_BYTES_PER_TOKEN: Final = 30
"""Of a PDF; a page of 50 to 100 kB costs 1,500 to 3,000 tokens."""
AUDIO_BYTES_PER_TOKEN: Final = 500
TURN_TOKENS: Final = 4
"""What a turn costs beside its words."""
TOOL_TOKENS: Final = 12
"""What a tool, a call or a result costs beside its words."""


def estimate_tokens(request: Request) -> int:
    """Return about how many tokens of input *request* comes to; at least 1."""
    count = sum(TURN_TOKENS + sum(map(_of_block, turn.blocks)) for turn in request.turns)
    for tool in request.tools:
        count += TOOL_TOKENS + _of_text(tool.name) + _of_text(tool.description) + _of_bytes(bytes(tool.schema or b""))
    for server_tool in request.server_tools:
        count += TOOL_TOKENS + _of_bytes(bytes(server_tool.raw))
    if request.output is not None:
        count += _of_bytes(bytes(request.output.schema or b""))
    return max(round(count), 1)


def estimate_usage(known: Usage | None, count_input: Callable[[], int], output_tokens: int) -> Usage:
    """Return what a call presumably used that never came to its end: what is *known*, filled in.

    *output_tokens* is what must have been written by then.
    """
    usage = known or Usage()
    if usage.input_tokens is None and not usage.total_input_tokens:
        usage = replace(usage, input_tokens=count_input())
    return replace(usage, output_tokens=max(usage.output_tokens or 0, output_tokens))


def estimate_texts(texts: Iterable[str]) -> int:
    """Return about how many tokens *texts* come to; at least 1."""
    return max(round(sum(map(_of_text, texts))), 1)


def _of_block(block: Block) -> float:
    match block:
        case Text(text=text) | Refusal(text=text):
            return _of_text(text)
        case Reasoning(text=text, seal=seal):
            return _of_text(text) + (len(seal.data) / CHARS_PER_TOKEN if seal is not None and not text else 0)
        case ToolCall():
            return TOOL_TOKENS + _of_text(block.name) + _of_text(block.arguments)
        case ToolResult():
            return TOOL_TOKENS + sum(map(_of_block, block.content))
        case Media():
            return _of_media(block)
        case Opaque(raw=raw):
            return _of_bytes(bytes(raw))
        case _ as never:
            assert_never(never)


def _of_media(media: Media) -> float:
    if media.kind == "document" and media.media_type.startswith("text/"):
        return _of_text(media.data or "")
    size_bytes = len(media.data or "") * 3 / 4
    match media.kind:
        case "document":
            return max(size_bytes / DOCUMENT_BYTES_PER_TOKEN, IMAGE_TOKENS)
        case "audio":
            return max(size_bytes / AUDIO_BYTES_PER_TOKEN, 1)
        case "image" | "video":
            return IMAGE_TOKENS


def _of_text(text: str) -> float:
    if text.isascii():
        return len(text) / CHARS_PER_TOKEN
    foreign = sum(char > "\x7f" for char in text)
    return (len(text) - foreign) / CHARS_PER_TOKEN + foreign * TOKENS_PER_FOREIGN_CHAR


def _of_bytes(text: bytes) -> float:
    return len(text) / CHARS_PER_TOKEN
