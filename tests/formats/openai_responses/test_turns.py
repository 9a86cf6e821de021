"""Input items."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.openai_responses.tools import Tools
from aiproxyd.formats.openai_responses.turns import decode_input, encode_instructions, encode_turn
from aiproxyd.hub import Citation, Media, Opaque, Reasoning, Refusal, Seal, Text, Tool, ToolCall, ToolResult, Turn

NAME = "openai-responses"
IMAGE = Media(kind="image", url="https://a.org/b.png")


def decode(*items: object) -> list[Turn]:
    return list(decode_input([Raw(msgspec.json.encode(item)) for item in items], Tools()))


def encode(turn: Turn) -> Any:
    return msgspec.json.decode(msgspec.json.encode(list(encode_turn(turn))))


@pytest.mark.parametrize(
    ("item", "turn"),
    [
        ({"role": "user", "content": "Hi"}, Turn("user", (Text("Hi"),))),
        (
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "Hi"}],
                "status": "completed",
            },
            Turn("user", (Text("Hi"),)),
        ),
        ({"id": "msg_1", "role": "system", "content": "Be brief."}, Turn("system", (Text("Be brief."),))),
        ({"role": "developer", "content": "Be brief."}, Turn("system", (Text("Be brief."),))),
        ({"role": "assistant", "content": "Hi"}, Turn("assistant", (Text("Hi"),))),
        (
            {
                "role": "assistant",
                "content": [{"type": "input_text", "text": "a"}, {"type": "refusal", "refusal": "b"}],
                "phase": "commentary",
            },
            Turn("assistant", (Text("a"), Refusal("b")), "commentary"),
        ),
        ({"role": "user", "content": [{"type": "refusal", "refusal": "b"}]}, Turn("user", (Text("b"),))),
        (
            {
                "type": "message",
                "id": "msg_1",
                "status": "completed",
                "role": "assistant",
                "content": [
                    {
                        "type": "output_text",
                        "text": "Hi",
                        "annotations": [{"type": "url_citation", "url": "u", "title": "t"}],
                        "logprobs": [],
                    }
                ],
                "phase": None,
            },
            Turn(
                "assistant",
                (
                    Text(
                        "Hi",
                        citations=(
                            Citation("u", "t", origin=NAME, raw=Raw(b'{"type":"url_citation","url":"u","title":"t"}')),
                        ),
                    ),
                ),
            ),
        ),
        (
            {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": ' {"a":1.50}'},
            Turn("assistant", (ToolCall(id="c", name="f", arguments=' {"a":1.50}'),)),
        ),
        (
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a'},
            Turn("assistant", (ToolCall(id="c", name="f", arguments='{"a'),)),
        ),
        (
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": " ", "namespace": "crm"},
            Turn("assistant", (ToolCall(id="c", name="f", arguments="{}", namespace="crm"),)),
        ),
        (
            {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "free", "namespace": "crm"},
            Turn("assistant", (ToolCall(id="c", name="f", arguments="free", is_custom=True, namespace="crm"),)),
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": "rain"},
            Turn("user", (ToolResult(call_id="c", content=(Text("rain"),)),)),
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": ""},
            Turn("user", (ToolResult(call_id="c"),)),
        ),
        (
            {
                "type": "custom_tool_call_output",
                "call_id": "c",
                "output": [
                    {"type": "input_text", "text": "see"},
                    {"type": "input_image", "image_url": "https://a.org/b.png"},
                    {"type": "refusal", "refusal": "no"},
                ],
            },
            Turn("user", (ToolResult(call_id="c", content=(Text("see"), IMAGE, Text("no")), is_custom=True),)),
        ),
        (
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": "gAAA"},
            Turn("assistant", (Reasoning("", Seal(NAME, "encrypted", "gAAA", "rs_1")),)),
        ),
        (
            {"type": "web_search_call", "id": "ws_1"},
            Turn("assistant", (Opaque(NAME, "web_search_call", Raw(b'{"type":"web_search_call","id":"ws_1"}')),)),
        ),
        (
            {"type": "tool_search_output", "tools": []},
            Turn("assistant", (Opaque(NAME, "tool_search_output", Raw(b'{"type":"tool_search_output","tools":[]}')),)),
        ),
    ],
)
def test_an_item_is_a_turn(item: dict[str, object], turn: Turn) -> None:
    assert decode(item) == [turn]


def test_tools_that_stand_among_the_items_are_offered_like_all_others() -> None:
    tools = Tools()
    item = Raw(b'{"type":"additional_tools","role":"developer","tools":[{"type":"function","name":"f"}]}')

    assert list(decode_input([item], tools)) == []
    assert tools.own == [Tool(name="f")]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"type": "item_reference", "id": "rs_1"}, "no items are stored here: send the item itself"),
        ({"id": "rs_1"}, "no items are stored here"),
        ({"type": "compaction_trigger"}, "cannot be compacted here"),
        ({"type": "configuration_update", "reasoning": {"effort": "low"}}, "the settings cannot change"),
    ],
)
def test_items_that_stand_for_what_is_elsewhere_are_refused(item: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        decode({"role": "user", "content": "Hi"}, item)

    assert caught.value.param == "$.input[1]"


@pytest.mark.parametrize(
    ("item", "param"),
    [
        (7, "$.input[0]"),
        ({}, "$.input[0]"),
        ({"role": "tool", "content": "Hi"}, "$.input[0].role"),
        ({"role": "user", "content": [{"type": "text", "text": "Hi"}]}, "$.input[0].content[0].type"),
        ({"role": "user", "content": [{"type": "input_text", "text": 7}]}, "$.input[0].content[0].text"),
        ({"role": "user", "content": [{"type": "input_image"}]}, "$.input[0].content[0]"),
        ({"type": "function_call_output", "call_id": None, "output": ""}, "$.input[0].call_id"),
        ({"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file"}]}, "$.input[0].output[0]"),
        ({"type": "reasoning", "summary": "hm"}, "$.input[0].summary"),
        ({"type": "additional_tools", "tools": [{"type": "function"}]}, "$.input[0].tools[0]"),
    ],
)
def test_misshapen_items_are_refused_with_their_place(item: object, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(item)

    assert caught.value.param == param


# --- And back


def test_the_words_of_a_user_are_one_message_and_results_are_items() -> None:
    turn = Turn(
        "user",
        (
            ToolResult(call_id="c", content=(Text("rain"),), name="f"),
            ToolResult(call_id="d", content=(Text("see"), IMAGE), is_custom=True),
            ToolResult(call_id="e"),
            Text("and?"),
            IMAGE,
        ),
    )

    image = {"type": "input_image", "detail": "auto", "image_url": "https://a.org/b.png"}
    assert encode(turn) == [
        {"type": "function_call_output", "call_id": "c", "output": "rain"},
        {"type": "custom_tool_call_output", "call_id": "d", "output": [{"type": "input_text", "text": "see"}, image]},
        {"type": "function_call_output", "call_id": "e", "output": ""},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "and?"}, image]},
    ]


@pytest.mark.parametrize(
    ("content", "output"),
    [
        ((), "Error: "),
        ((Text("no"),), "Error: no"),
        ((Text("a"), Text("b")), [{"type": "input_text", "text": "Error: a"}, {"type": "input_text", "text": "b"}]),
        (
            (IMAGE,),
            [
                {"type": "input_text", "text": "Error: "},
                {"type": "input_image", "detail": "auto", "image_url": "https://a.org/b.png"},
            ],
        ),
    ],
)
def test_a_result_says_in_words_that_the_tool_has_failed(content: tuple[Text | Media, ...], output: object) -> None:
    assert encode(Turn("user", (ToolResult(call_id="c", content=content, is_error=True),)))[0]["output"] == output


def test_what_the_assistant_said_is_written_in_its_order() -> None:
    turn = Turn(
        "assistant",
        (
            Reasoning("hm", Seal(NAME, "encrypted", "gAAA", "rs_1")),
            Text("One moment.", citations=(Citation("u", "t"), Citation(title="no URL"))),
            Refusal("Not that."),
            ToolCall(id="c", name="f", arguments="{}", namespace="crm"),
            ToolCall(id="d", name="g", arguments="free", is_custom=True),
            Text("Done.", citations=(Citation(title="no URL"),)),
            Opaque(NAME, "web_search_call", Raw(b'{"type":"web_search_call","id":"ws_1"}')),
        ),
        "final_answer",
    )

    assert encode(turn) == [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": "gAAA",
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {
                    "type": "output_text",
                    "text": "One moment.",
                    "annotations": [
                        {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 11}
                    ],
                },
                {"type": "refusal", "refusal": "Not that."},
            ],
            "phase": "final_answer",
        },
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "namespace": "crm"},
        {"type": "custom_tool_call", "call_id": "d", "name": "g", "input": "free"},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Done."}],
            "phase": "final_answer",
        },
        {"type": "web_search_call", "id": "ws_1"},
    ]


def test_a_system_turn_within_the_conversation_is_the_developers() -> None:
    assert encode(Turn("system", (Text("Be brief."),))) == [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]}
    ]


def test_the_leading_system_turn_is_one_text() -> None:
    assert encode_instructions(Turn("system", (Text("Be brief."), Text("Be kind.")))) == "Be brief.\n\nBe kind."


def test_a_picture_has_no_place_in_the_instructions_nor_in_the_mouth_of_the_assistant() -> None:
    with pytest.raises(InvalidRequest, match="anything but text in the instructions cannot be sent"):
        encode_instructions(Turn("system", (IMAGE,)))
    with pytest.raises(InvalidRequest, match="image content of the assistant cannot be sent"):
        encode(Turn("assistant", (IMAGE,)))
