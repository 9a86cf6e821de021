from typing import Any

import msgspec
import pytest
from msgspec import Raw

from aiproxyd import hub
from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import OPENAI_CHAT
from aiproxyd.formats.openai_chat.messages import encode_messages

UNKNOWN = Capabilities()
FIRST_PARTY = Capabilities(has_developer_role=True)


def decode(*messages: object) -> list[hub.Turn]:
    return OPENAI_CHAT.decode_request(msgspec.json.encode({"model": "m", "messages": messages})).turns


def refusal_of(*messages: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decode(*messages)
    return caught.value


def user(content: object) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(**fields: object) -> dict[str, Any]:
    return {"role": "assistant", **fields}


def function(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(call_id: str, content: object) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def only_assistant(**fields: object) -> tuple[hub.Block, ...]:
    (turn,) = decode(assistant(**fields))
    return turn.blocks


def test_roles_are_turns_where_they_stand() -> None:
    assert decode(
        {"role": "system", "content": "a"},
        {"role": "developer", "content": [{"type": "text", "text": "b"}]},
        user("c"),
        user([{"type": "text", "text": "d"}]),
        assistant(content="e"),
        {"role": "system", "content": "f"},
    ) == [
        hub.Turn("system", (hub.Text("a"), hub.Text("b"))),
        hub.Turn("user", (hub.Text("c"), hub.Text("d"))),
        hub.Turn("assistant", (hub.Text("e"),)),
        hub.Turn("system", (hub.Text("f"),)),
    ]


def test_an_assistant_says_text_refuses_and_calls() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]
    custom = {"id": "y", "type": "custom", "custom": {"name": "g", "input": "any"}}

    blocks = only_assistant(content=parts, refusal="c", tool_calls=[function("x", "f", '{"a": 1.0}'), custom])

    assert blocks == (
        hub.Text("a"),
        hub.Refusal("b"),
        hub.Refusal("c"),
        hub.ToolCall(id="x", name="f", arguments='{"a": 1.0}'),
        hub.ToolCall(id="y", name="g", arguments="any", is_custom=True),
    )


@pytest.mark.parametrize("content", [None, "", []])
def test_an_assistant_may_say_nothing_beside_its_calls(content: object) -> None:
    assert only_assistant(content=content, refusal=None, tool_calls=[function("x", "f", " ")]) == (
        hub.ToolCall(id="x", name="f", arguments="{}"),
    )


@pytest.mark.parametrize("arguments", ["[]", '{"a": "b', '"{}"', "x"])
def test_arguments_that_are_no_object_are_history_as_well(arguments: str) -> None:
    assert only_assistant(content=None, tool_calls=[function("x", "f", arguments)]) == (
        hub.ToolCall(id="x", name="f", arguments=arguments),
    )


def test_results_stand_behind_their_calls_and_know_custom_ones() -> None:
    custom = {"id": "y", "type": "custom", "custom": {"name": "g", "input": "any"}}
    image = {"type": "image_url", "image_url": {"url": "https://x"}}

    turns = decode(
        assistant(tool_calls=[function("x", "f", "{}"), custom]),
        user("and?"),
        result("y", [{"type": "text", "text": "b"}, image]),
        result("x", "a") | {"cache_control": {"type": "ephemeral"}},
    )

    assert turns[1:] == [
        hub.Turn(
            "user",
            (
                hub.ToolResult(call_id="x", content=(hub.Text("a"),), cache=hub.CacheMark()),
                hub.ToolResult(
                    call_id="y", content=(hub.Text("b"), hub.Media(kind="image", url="https://x")), is_custom=True
                ),
                hub.Text("and?"),
            ),
        )
    ]


@pytest.mark.parametrize("content", [None, "", []])
def test_a_result_may_be_empty(content: object) -> None:
    turns = decode(assistant(tool_calls=[function("x", "f", "{}")]), result("x", content))

    assert turns[1].blocks == (hub.ToolResult(call_id="x"),)


def test_calls_of_the_deprecated_kind_are_matched_by_name_in_order() -> None:
    def legacy(name: str) -> dict[str, Any]:
        return assistant(content=None, function_call={"name": name, "arguments": ""})

    def answer(name: str, content: object) -> dict[str, Any]:
        return {"role": "function", "name": name, "content": content}

    turns = decode(legacy("f"), legacy("g"), legacy("f"), answer("f", "1"), answer("f", "2"), answer("g", None))

    assert turns == [
        hub.Turn(
            "assistant",
            (
                hub.ToolCall(id="call_function_1", name="f", arguments="{}"),
                hub.ToolCall(id="call_function_2", name="g", arguments="{}"),
                hub.ToolCall(id="call_function_3", name="f", arguments="{}"),
            ),
        ),
        hub.Turn(
            "user",
            (
                hub.ToolResult(call_id="call_function_1", name="f", content=(hub.Text("1"),)),
                hub.ToolResult(call_id="call_function_2", name="g"),
                hub.ToolResult(call_id="call_function_3", name="f", content=(hub.Text("2"),)),
            ),
        ),
    ]
    error = refusal_of(legacy("f"), answer("g", "1"))
    assert (error.message, error.param) == ("no call of the function 'g' waits for a result", "$.messages[1].name")


def test_thoughts_come_back_with_their_seals_instead_of_their_text() -> None:
    thinking = [
        {"type": "thinking", "thinking": "hm", "signature": "gw1.s.anthropic@up/claude..EqQB"},
        {"type": "thinking", "thinking": "raw", "signature": "EqQB"},
        {"type": "thinking", "thinking": "unsigned", "signature": None},
        {"type": "redacted_thinking", "data": "gw1.r.anthropic@up/claude..data"},
        {"type": "redacted_thinking", "data": "data"},
    ]

    assert only_assistant(content="a", reasoning_content="hmraw", thinking_blocks=thinking) == (
        hub.Reasoning("hm", hub.Seal("anthropic@up/claude", "signature", "EqQB")),
        hub.Reasoning("raw", hub.Seal("anthropic", "signature", "EqQB")),
        hub.Reasoning("unsigned"),
        hub.Reasoning("", hub.Seal("anthropic@up/claude", "redacted", "data")),
        hub.Reasoning("", hub.Seal("anthropic", "redacted", "data")),
        hub.Text("a"),
    )
    assert only_assistant(content="a", reasoning_content="hm") == (hub.Reasoning("hm"), hub.Text("a"))
    assert only_assistant(content="a", reasoning="hm", thinking_blocks=[]) == (hub.Reasoning("hm"), hub.Text("a"))


@pytest.mark.parametrize(
    ("signature", "seal"),
    [
        ("Z3cxLnMuZ2VtaW5pQGcvcHJvLi5jMmxu", hub.Seal("gemini@g/pro", "signature", "c2ln")),
        ("gw1.s.gemini@g/pro..c2ln", hub.Seal("gemini@g/pro", "signature", "c2ln")),
        ("c2ln", hub.Seal("gemini", "signature", "c2ln")),
    ],
)
def test_the_signature_of_a_call_is_its_seal(signature: str, seal: hub.Seal) -> None:
    extra = {"extra_content": {"google": {"thought_signature": signature}}}

    assert only_assistant(tool_calls=[function("x", "f", "{}") | extra]) == (
        hub.ToolCall(id="x", name="f", arguments="{}", seal=seal),
    )


@pytest.mark.parametrize("extra", [{}, {"google": None}, {"google": {}}])
def test_a_call_may_have_extras_without_a_signature(extra: object) -> None:
    assert only_assistant(tool_calls=[function("x", "f", "{}") | {"extra_content": extra}]) == (
        hub.ToolCall(id="x", name="f", arguments="{}"),
    )


def test_the_cache_mark_of_a_message_stands_on_its_last_block() -> None:
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    cache = hub.CacheMark("1h")

    assert decode(user("a") | mark) == [hub.Turn("user", (hub.Text("a", cache),))]
    assert only_assistant(content="a", tool_calls=[function("x", "f", "{}")], **mark) == (
        hub.Text("a"),
        hub.ToolCall(id="x", name="f", arguments="{}", cache=cache),
    )
    assert only_assistant(refusal="no", **mark) == (hub.Refusal("no"),)
    assert decode({"role": "system", "content": []} | mark) == []


def test_sound_of_an_earlier_answer_is_refused() -> None:
    error = refusal_of(assistant(audio={"id": "audio_1"}))

    assert error.param == "$.messages[0].audio"
    assert "leave `audio` out" in error.message


@pytest.mark.parametrize(
    ("message", "problem", "param"),
    [
        ({"role": "narrator", "content": "a"}, "'narrator'", "$.messages[0].role"),
        ({"role": "user"}, "missing required field `content`", "$.messages[0]"),
        ({"role": "user", "content": 5}, "got `int`", "$.messages[0].content"),
        ({"role": "system", "content": [{"type": "image_url"}]}, "'image_url'", "$.messages[0].content[0].type"),
        ({"role": "assistant", "tool_calls": [{"type": "x"}]}, "'x'", "$.messages[0].tool_calls[0].type"),
        ({"role": "tool", "content": "a"}, "missing required field `tool_call_id`", "$.messages[0]"),
        ("hi", "got `str`", "$.messages[0]"),
    ],
)
def test_a_message_of_another_shape_is_refused_with_its_place(message: object, problem: str, param: str) -> None:
    error = refusal_of(message)

    assert problem in error.message
    assert error.param == param


# --- Encoding


def encode(*turns: hub.Turn, capabilities: Capabilities = UNKNOWN) -> list[dict[str, Any]]:
    return encode_messages(turns, capabilities)


def test_the_developer_speaks_where_the_upstream_knows_one() -> None:
    turn = hub.Turn("system", (hub.Text("a"), hub.Text("b")))
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]

    assert encode(turn) == [{"role": "system", "content": "a\n\nb"}]
    assert encode(turn, capabilities=FIRST_PARTY) == [{"role": "developer", "content": parts}]


def test_each_result_is_a_message_before_what_the_user_says() -> None:
    turn = hub.Turn(
        "user",
        (
            hub.ToolResult(call_id="x", content=(hub.Text("a"), hub.Text("b"))),
            hub.ToolResult(call_id="y", content=(hub.Text("gone"),), is_error=True),
            hub.ToolResult(call_id="z"),
            hub.Text("well"),
        ),
    )

    assert encode(turn, capabilities=FIRST_PARTY) == [
        {"role": "tool", "tool_call_id": "x", "content": "a\n\nb"},
        {"role": "tool", "tool_call_id": "y", "content": "Error: gone"},
        {"role": "tool", "tool_call_id": "z", "content": ""},
        {"role": "user", "content": "well"},
    ]


def test_an_assistants_turn_is_one_message() -> None:
    call = hub.ToolCall(id="x", name="f", arguments="{}", seal=hub.Seal("openai-chat", "signature", "c2ln"))
    custom = hub.ToolCall(id="y", name="g", arguments="any", is_custom=True)
    opaque = hub.Opaque("openai-chat", "x", Raw(b"{}"))

    assert encode(hub.Turn("assistant", (hub.Text("a"), call, custom, opaque)), hub.Turn("assistant", (custom,))) == [
        {
            "role": "assistant",
            "content": "a",
            "tool_calls": [
                {
                    "id": "x",
                    "type": "function",
                    "function": {"name": "f", "arguments": "{}"},
                    "extra_content": {"google": {"thought_signature": "c2ln"}},
                },
                {"id": "y", "type": "custom", "custom": {"name": "g", "input": "any"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "y", "type": "custom", "custom": {"name": "g", "input": "any"}}],
        },
    ]


def test_a_refusal_is_a_part_of_the_content() -> None:
    refusal = {"type": "refusal", "refusal": "no"}

    assert encode(hub.Turn("assistant", (hub.Text("a"), hub.Refusal("n"), hub.Refusal("o")))) == [
        {"role": "assistant", "content": [{"type": "text", "text": "a"}, refusal]}
    ]
    assert encode(hub.Turn("assistant", (hub.Refusal("no"),))) == [{"role": "assistant", "content": [refusal]}]


def test_thoughts_go_back_in_the_field_that_they_came_in() -> None:
    plain = hub.Seal("openai-chat", "plain", "")

    assert encode(
        hub.Turn("assistant", (hub.Reasoning("h", plain), hub.Reasoning("m", plain), hub.Text("a"))),
        hub.Turn(
            "assistant",
            (
                hub.Reasoning("h", hub.Seal("openai-chat", "signature", "s")),
                hub.Reasoning("", hub.Seal("openai-chat", "redacted", "r")),
                hub.Reasoning("lost"),
            ),
        ),
    ) == [
        {"role": "assistant", "content": "a", "reasoning_content": "hm"},
        {
            "role": "assistant",
            "content": "",
            "thinking_blocks": [
                {"type": "thinking", "thinking": "h", "signature": "s"},
                {"type": "redacted_thinking", "data": "r"},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (
            hub.Turn("assistant", (hub.Media(kind="image", url="https://x"),)),
            "image in an assistant's turn cannot be sent",
        ),
        (
            hub.Turn("user", (hub.ToolResult(call_id="x", content=(hub.Media(kind="image", url="https://x"),)),)),
            "image in a tool result cannot be sent",
        ),
    ],
)
def test_media_where_only_text_can_stand_are_refused(turn: hub.Turn, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        encode(turn)
