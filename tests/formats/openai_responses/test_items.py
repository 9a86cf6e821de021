"""Output items."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from aiproxyd.formats.openai_responses.items import ItemIds, Shown, read_item, read_items, show, text_of, write_item
from aiproxyd.hub import (
    Block,
    Citation,
    Media,
    Opaque,
    Reasoning,
    Refusal,
    Seal,
    Text,
    TokenLogprob,
    ToolCall,
    ToolResult,
)

NAME = "openai-responses"
IMAGE = Media(kind="image", media_type="image/webp", data="UklG")
SEARCH = Opaque(NAME, "web_search_call", Raw(b'{"type":"web_search_call","id":"ws_1"}'))


def read(item: object) -> list[Block]:
    return [said.block for said in read_item(Raw(msgspec.json.encode(item)))]


def write(block: Shown, **options: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(write_item(block, "id_1", **options)))


@pytest.mark.parametrize(
    ("item", "blocks"),
    [
        (
            {
                "type": "message",
                "content": [
                    {"type": "output_text", "text": "a", "annotations": [], "logprobs": []},
                    {"type": "refusal", "refusal": "b"},
                    {"type": "output_audio"},
                    "odd",
                    {"type": "output_text", "text": None},
                ],
            },
            [Text("a"), Refusal("b"), Text("")],
        ),
        ({"type": "message", "content": "bare"}, [Text("bare")]),
        (
            {"type": "image_generation_call", "result": "UklG", "output_format": "webp"},
            [Media(kind="image", media_type="image/webp", data="UklG")],
        ),
        (
            {"type": "image_generation_call", "result": "iVBO"},
            [Media(kind="image", media_type="image/png", data="iVBO")],
        ),
        (
            {"type": "image_generation_call", "result": None},
            [Opaque(NAME, "image_generation_call", Raw(b'{"type":"image_generation_call","result":null}'))],
        ),
        (
            {"type": "reasoning", "id": "rs_1", "summary": [{"text": "hm"}], "encrypted_content": "gAAA"},
            [Reasoning("hm", Seal(NAME, "encrypted", "gAAA", "rs_1"))],
        ),
        (
            {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}", "namespace": "n"},
            [ToolCall(id="c", name="f", arguments="{}", namespace="n")],
        ),
        (
            {"type": "function_call", "id": "fc_1", "name": "f", "arguments": {"a": 1.5}},
            [ToolCall(id="fc_1", name="f", arguments='{"a":1.5}')],
        ),
        (
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":'},
            [ToolCall(id="c", name="f", arguments='{"a":')],
        ),
        (
            {"type": "function_call", "call_id": "c", "name": "f"},
            [ToolCall(id="c", name="f", arguments="{}")],
        ),
        (
            {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": " "},
            [ToolCall(id="c", name="f", arguments=" ", is_custom=True)],
        ),
    ],
)
def test_an_item_says_blocks(item: object, blocks: list[Block]) -> None:
    assert read(item) == blocks


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ({"type": "web_search_call", "id": "ws_1"}, "web_search_call"),
        ({"type": "message", "content": 7}, "message"),
        ({"type": "reasoning", "summary": "hm"}, "reasoning"),
        ({"type": "function_call", "call_id": "c"}, "function_call"),
        ({"type": ["odd"]}, ""),
        (7, ""),
    ],
)
def test_what_is_not_understood_is_kept_as_it_is(item: object, kind: str) -> None:
    assert read(item) == [Opaque(NAME, kind, Raw(msgspec.json.encode(item)))]


def test_a_call_without_an_id_gets_one_of_its_own() -> None:
    item = {"type": "function_call", "name": "f", "arguments": "{}"}

    ids = {block.id for block in (*read(item), *read(item)) if isinstance(block, ToolCall)}

    assert len(ids) == 2
    assert all(call_id.startswith("call_") for call_id in ids)


def test_the_probabilities_of_a_text_come_with_it() -> None:
    part = {"type": "output_text", "text": "a", "logprobs": [{"token": "a", "logprob": -1.0, "bytes": [97]}]}

    [said] = read_item(Raw(msgspec.json.encode({"type": "message", "content": [part]})))

    assert said.logprobs == (TokenLogprob("a", -1.0, (97,)),)


def test_an_output_that_is_no_list_has_no_items() -> None:
    assert read_items(Raw(b"[1,2]")) == [Raw(b"1"), Raw(b"2")]
    assert read_items(Raw(b"null")) is None


def test_only_some_blocks_have_text_that_comes_in_pieces() -> None:
    blocks: list[Block] = [Text("a"), Refusal("b"), Reasoning("c"), ToolCall(id="", name="", arguments="d"), IMAGE]

    assert list(map(text_of, blocks)) == ["a", "b", "c", "d", ""]


# --- And back


@pytest.mark.parametrize(
    ("block", "item"),
    [
        (
            Text("Hi", citations=(Citation("u", "t", "", 0, 2),)),
            {
                "id": "id_1",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [
                    {
                        "type": "output_text",
                        "annotations": [
                            {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 2}
                        ],
                        "logprobs": [],
                        "text": "Hi",
                    }
                ],
            },
        ),
        (
            Refusal("No."),
            {
                "id": "id_1",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "refusal", "refusal": "No."}],
            },
        ),
        (
            Reasoning("hm"),
            {"type": "reasoning", "id": "id_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        ),
        (
            ToolCall(id="c", name="f", arguments="{}", namespace="n"),
            {
                "id": "id_1",
                "type": "function_call",
                "status": "completed",
                "arguments": "{}",
                "call_id": "c",
                "name": "f",
                "namespace": "n",
            },
        ),
        (
            ToolCall(id="c", name="f", arguments="free", is_custom=True),
            {
                "id": "id_1",
                "type": "custom_tool_call",
                "status": "completed",
                "input": "free",
                "call_id": "c",
                "name": "f",
            },
        ),
        (
            IMAGE,
            {
                "id": "id_1",
                "type": "image_generation_call",
                "status": "completed",
                "output_format": "webp",
                "result": "UklG",
            },
        ),
        (SEARCH, {"type": "web_search_call", "id": "ws_1"}),
    ],
)
def test_a_block_is_an_item(block: Shown, item: object) -> None:
    assert write(block) == item


def test_a_text_is_written_with_its_probabilities() -> None:
    item = write(Text("a"), logprobs=[TokenLogprob("a", -1.0, (97,))])

    assert item["content"][0]["logprobs"] == [{"token": "a", "bytes": [97], "logprob": -1.0, "top_logprobs": []}]


def test_an_item_may_be_incomplete() -> None:
    assert write(Text("a"), status="incomplete")["status"] == "incomplete"


@pytest.mark.parametrize(
    ("block", "shown"),
    [
        (Text("a"), Text("a")),
        (SEARCH, SEARCH),
        (IMAGE, IMAGE),
        (Media(kind="image", url="https://a.org/b.png"), Text("https://a.org/b.png")),
        (Media(kind="audio", media_type="audio/wav", data="UklG", name="a"), Text("[audio 'a' audio/wav]")),
        (Opaque("anthropic", "server_tool_use", Raw(b"{}")), None),
        (ToolResult(call_id="c"), None),
    ],
)
def test_a_block_that_has_no_item_is_shown_as_text_or_not_at_all(block: Block, shown: Shown | None) -> None:
    assert show(block) == shown


def test_the_ids_of_items_say_their_kind_and_are_unique() -> None:
    ids = ItemIds("resp_1")
    blocks: list[Block] = [
        Text(""),
        Refusal(""),
        Reasoning(""),
        ToolCall(id="", name="", arguments=""),
        ToolCall(id="", name="", arguments="", is_custom=True),
        IMAGE,
    ]

    made = [ids.make(block) for block in blocks]

    assert [item_id.partition("_")[0] for item_id in made] == ["msg", "msg", "rs", "fc", "ctc", "ig"]
    assert len({item_id.partition("_")[2] for item_id in made} | {ItemIds("resp_1").make(Text(""))}) == 7
    assert max(map(len, made)) <= 64


def test_a_thought_of_openai_keeps_the_id_of_its_item() -> None:
    ids = ItemIds("resp_1")

    assert ids.make(Reasoning("", Seal(NAME, "encrypted", "gAAA", "rs_1"))) == "rs_1"
    assert ids.make(Reasoning("", Seal(NAME, "encrypted", "gAAA"))).startswith("rs_")
    assert ids.make(Reasoning("", Seal("openai-responses@up/m", "encrypted", "gAAA", "rs_1"))) != "rs_1"
