"""The estimate of tokens: everything that is sent counts, and about right."""

import pytest
from msgspec import Raw

from aiproxyd.hub import (
    Block,
    Media,
    Opaque,
    OutputFormat,
    Reasoning,
    Refusal,
    Request,
    Seal,
    ServerTool,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
    Usage,
)
from aiproxyd.tokens import estimate_texts, estimate_tokens, estimate_usage

ENGLISH = "The quick brown fox jumps over the lazy dog, and nobody on the farm is surprised by that any more."
"""22 tokens to OpenAI's o200k and to Anthropic's tokenizer, give or take one."""


def estimate_of(*blocks: Block) -> int:
    return estimate_tokens(Request(model="m", turns=[Turn("user", blocks)]))


def test_english_is_counted_to_within_a_half() -> None:
    assert 22 <= estimate_of(Text(ENGLISH)) <= 33


def test_chinese_counts_by_the_character() -> None:
    assert 4 + 8 <= estimate_of(Text("你好世界你好世界你好")) <= 4 + 10


def test_an_empty_request_is_still_something() -> None:
    assert estimate_tokens(Request(model="m", turns=[])) == 1


def test_every_block_counts() -> None:
    word = "x" * 360
    blocks: list[Block] = [
        Text(word),
        Refusal(word),
        Reasoning(word, Seal("anthropic", "signature", word)),
        Reasoning("", Seal("anthropic", "redacted", word)),
        ToolCall(id="1", name="f", arguments=word),
        ToolResult(call_id="1", content=(Text(word),)),
        Opaque("anthropic", "server_tool_use", Raw(word.encode())),
        Media(kind="document", media_type="text/plain", data=word),
    ]

    assert all(104 <= estimate_of(block) <= 120 for block in blocks)


def test_images_documents_and_sounds_count_by_their_kind() -> None:
    assert estimate_of(Media(kind="image", url="https://example.org/a.png")) == 1504
    assert estimate_of(Media(kind="video", data="AAAA")) == 1504
    assert estimate_of(Media(kind="document", media_type="application/pdf", data="A" * 4_000)) == 1504
    assert estimate_of(Media(kind="document", media_type="application/pdf", data="A" * 400_000)) == 10_004
    assert estimate_of(Media(kind="audio", media_type="audio/wav", data="A" * 40_000)) == 64


def test_texts_without_a_conversation_count_by_their_words() -> None:
    assert estimate_texts(["x" * 36, "\u4f60" * 10]) == 18
    assert estimate_texts([]) == 1


def test_tools_and_schemas_count() -> None:
    schema = Raw(b"x" * 720)

    tools = estimate_tokens(
        Request(
            model="m",
            turns=[],
            tools=[Tool(name="f", description="x" * 36, schema=schema)],
            server_tools=[ServerTool("web_search", "anthropic", schema)],
            output=OutputFormat(schema=schema),
        )
    )

    assert tools == round(12 + 1 / 3.6 + 10 + 200 + 12 + 200 + 200)


@pytest.mark.parametrize(
    ("known", "written", "usage"),
    [
        (None, 3, Usage(input_tokens=100, output_tokens=3)),
        (None, 0, Usage(input_tokens=100, output_tokens=0)),
        (Usage(), 3, Usage(input_tokens=100, output_tokens=3)),
        (Usage(input_tokens=25, output_tokens=1), 3, Usage(input_tokens=25, output_tokens=3)),
        (Usage(input_tokens=25, output_tokens=7), 3, Usage(input_tokens=25, output_tokens=7)),
        (Usage(input_tokens=0, output_tokens=7), 3, Usage(input_tokens=0, output_tokens=7)),
        (Usage(cache_read_tokens=25), 3, Usage(cache_read_tokens=25, output_tokens=3)),
        (Usage(output_tokens=7), 3, Usage(input_tokens=100, output_tokens=7)),
    ],
)
def test_what_is_known_of_a_call_that_did_not_end_is_filled_in(known: Usage | None, written: int, usage: Usage) -> None:
    assert estimate_usage(known, lambda: 100, written) == usage


def test_what_is_known_of_the_input_is_not_counted_again() -> None:
    def count() -> int:
        raise AssertionError("the whole request was decoded for nothing")

    assert estimate_usage(Usage(input_tokens=25), count, 3).input_tokens == 25
