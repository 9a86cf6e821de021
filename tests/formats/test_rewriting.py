"""A conversation led with models of several vendors, as one of its own format gets to see it.

What holds for each format: what others have left is gone, and all else is as the caller wrote it.
"""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from aiproxyd.capabilities import Capabilities
from aiproxyd.conversion import Crossing, Memory, rewrite_request
from aiproxyd.formats import ANTHROPIC, FORMATS, OPENAI_CHAT
from aiproxyd.formats.base import Format
from aiproxyd.formats.codec import Losses
from aiproxyd.hub import (
    Block,
    Candidate,
    Reasoning,
    ReasoningControl,
    Request,
    Response,
    Seal,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
    arrange,
)
from tests.formats.crossings import SCHEMA, capabilities_of
from tests.formats.test_pairs import FEW, PAIRS, REQUESTS, RESPONSES

OURS = re.compile(rb"gw1|Z3cxL")
"""What is minted here: marked and escaped ids, wrapped seals, the latter in base64 too."""
TOOL = Tool(name="weather", description="The weather of a city.", schema=SCHEMA)
SIGNED = Reasoning("I thought", Seal("other", "signature", "c2lnbmVk"))
OWN_THOUGHT = Reasoning("", Seal("own", "signature", "b3duIHNpZ25lZA=="))
SEARCHED = ToolCall(id="call:1", name="weather", arguments='{"city":"Oslo"}', seal=Seal("other", "signature", "dG9v"))
EXTENSIONS: dict[str, dict[str, Any]] = {
    "openai-chat": {"prediction": {"type": "content", "content": "x"}, "store": True},
    "openai-responses": {
        "store": True,
        "include": ["web_search_call.action.sources"],
        "reasoning": {"effort": "low", "mode": "pro"},
        "max_tool_calls": 3,
        "tool_choice": {"type": "web_search"},
    },
    "anthropic": {
        "cache_control": {"type": "ephemeral"},
        "output_config": {"effort": "low", "task_budget": {"type": "tokens", "total": 500}},
        "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
        "system": [{"type": "text", "text": "x-anthropic-billing-header: cc_version=2"}],
        "thinking": {"type": "between_tools"},
    },
    "gemini": {
        "safetySettings": [{"category": "x"}],
        "generation_config": {"mediaResolution": "MEDIA_RESOLUTION_LOW", "top_k": 5},
        "system_instruction": {"parts": [{"text": "Be brief."}]},
    },
}
"""What callers say in their format's own words, and nothing here stands for."""


def write(fmt: Format, request: Request) -> bytes:
    return fmt.encode_request(request, capabilities_of(fmt), Losses())


def decode(fmt: Format, body: bytes) -> Request:
    asked = fmt.decode_request(body)
    asked.model = "m"
    return asked


def rewrite(
    fmt: Format, body: bytes, capabilities: Capabilities | None = None, memory: Memory | None = None
) -> tuple[bytes | None, list[str]]:
    losses = Losses()
    written = rewrite_request(
        body,
        decode(fmt, body),
        fmt,
        capabilities or capabilities_of(fmt),
        model="m",
        origin="up/m",
        principal="p",
        memory=memory or Memory(),
        losses=losses,
    )
    return written, losses.names


def answer_by(upstream: Format, caller: Format, asked: Request, response: Response) -> tuple[Block, ...]:
    """Return what a caller, who sends it back, has read of the answer of a model of another format."""
    crossing = Crossing(
        asked, caller, upstream, capabilities_of(upstream), origin="there/m", principal="p", memory=Memory()
    )
    crossing.encode_request("m")
    body, _ = crossing.convert_answer(upstream.encode_response(response, asked))
    return caller.decode_response(body).candidates[0].blocks


def go_on(asked: Request, blocks: tuple[Block, ...], *behind: Turn) -> Request:
    """Return *asked* with an answer, its results, and what the caller says then."""
    last = max(index for index, turn in enumerate(asked.turns) if turn.role == "user")
    calls = [block for block in blocks if isinstance(block, ToolCall)]
    results = (
        ToolResult(call_id=call.id, name=call.name, content=(Text("rain"),), is_custom=call.is_custom) for call in calls
    )
    answered = (Turn("assistant", blocks), Turn("user", (*results, Text("And then?"))))
    turns = [*asked.turns[: last + 1], *answered, *behind]
    return replace(asked, turns=arrange(turns))


def texts_of(request: Request) -> list[str]:
    return [block.text for turn in request.turns for block in turn.blocks if isinstance(block, Text)]


def words_of(request: Request) -> str:
    """Return the texts without blanks, which Anthropic refuses alone, and without their bounds, which Gemini moves."""
    return "".join("".join(texts_of(request)).split())


def calls_of(request: Request) -> list[ToolCall]:
    return [block for turn in request.turns for block in turn.blocks if isinstance(block, ToolCall)]


def thoughts_of(request: Request) -> list[Reasoning]:
    return [block for turn in request.turns for block in turn.blocks if isinstance(block, Reasoning)]


def seals_of(request: Request) -> list[str]:
    """Return the seals that are the format's own, or no longer told from those."""
    seals = [getattr(block, "seal", None) for turn in request.turns for block in turn.blocks]
    return [seal.data for seal in seals if seal is not None and "@" not in seal.origin]


def rest_of(fmt: Format, body: bytes) -> dict[str, bytes]:
    """Return what of a body does not say the conversation."""
    members = msgspec.json.decode(body, type=dict[str, Raw])
    return {name: bytes(raw) for name, raw in members.items() if name not in fmt.members["turns"]}


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=FEW, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_conversation_with_no_other_vendors_is_not_rewritten(name: str, data: st.DataObject) -> None:
    fmt = FORMATS[name]
    body = write(fmt, data.draw(REQUESTS[name]))
    assume(not OURS.search(body))

    assert rewrite(fmt, body) == (None, [])


@pytest.mark.parametrize(("caller", "upstream"), PAIRS)
@settings(max_examples=FEW, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(data=st.data())
def test_what_other_vendors_have_left_is_gone_and_nothing_else(caller: str, upstream: str, data: st.DataObject) -> None:
    fmt, other = FORMATS[caller], FORMATS[upstream]
    asked = data.draw(REQUESTS[caller])
    response = data.draw(RESPONSES[upstream])
    response = replace(response, candidates=response.candidates[:1])
    blocks = answer_by(other, fmt, Request(model="m", turns=[Turn("user", (Text("Hi"),))]), response)
    # A caller sends back neither images nor the custom calls that nobody has offered.
    kept = tuple(
        block
        for block in blocks
        if isinstance(block, Text | Reasoning) or (type(block) is ToolCall and not block.is_custom)
    )
    body = write(fmt, go_on(asked, kept))
    before = decode(fmt, body)
    assume(OURS.search(body) and not OURS.search(write(fmt, asked) + other.encode_response(response, asked)))

    written, _ = rewrite(fmt, body)

    assert written is not None
    assert not OURS.search(written)
    after = decode(fmt, written)
    assert words_of(after) == words_of(before)
    assert seals_of(after) == seals_of(before)
    assert all(thought.seal for thought in thoughts_of(after))
    assert [(call.name, call.arguments) for call in calls_of(after)] == [
        (call.name, call.arguments) for call in calls_of(before)
    ]
    ids = [call.id for call in calls_of(after)]
    assert len(set(ids)) == len(ids)
    assert all(map(fmt.traits.call_id.fullmatch, ids))
    added = set() if before.tools or before.server_tools else set(fmt.members.get("tools", ()))
    assert {name: raw for name, raw in rest_of(fmt, written).items() if name not in added} == rest_of(fmt, body)


@pytest.mark.parametrize(("caller", "upstream"), PAIRS)
def test_what_only_the_callers_format_can_say_stays(caller: str, upstream: str) -> None:
    fmt, other = FORMATS[caller], FORMATS[upstream]
    plain = Request(model="m", turns=[Turn("user", (Text("Weather?"),))], tools=[TOOL], max_output_tokens=500)
    made_there = replace(SIGNED, seal=Seal(upstream, "signature", "c2lnbmVk"))
    response = Response(candidates=(Candidate(blocks=(made_there, Text("Let me see."), SEARCHED), stop="tool"),))
    blocks = answer_by(other, fmt, plain, response)
    made_here = replace(OWN_THOUGHT, seal=Seal(caller, "encrypted" if "resp" in caller else "signature", "b3du"))
    conversation = go_on(plain, blocks, Turn("assistant", (made_here, Text("So so."))), Turn("user", (Text("Why?"),)))
    members = msgspec.json.decode(write(fmt, conversation), type=dict[str, Raw])
    body = msgspec.json.encode(members | EXTENSIONS[caller])

    written, lost = rewrite(fmt, body)

    assert written is not None
    assert OURS.search(body)
    assert not OURS.search(written)
    assert rest_of(fmt, written) == rest_of(fmt, body)
    assert lost == []
    after = decode(fmt, written)
    assert seals_of(after) == ["b3du"]
    assert [thought.text for thought in thoughts_of(after)] == [made_here.text]
    assert texts_of(after)[-5:] == ["Weather?", "Let me see.", "And then?", "So so.", "Why?"]
    assert [(call.name, call.arguments) for call in calls_of(after)] == [("weather", '{"city":"Oslo"}')]


# --- What single formats need


def claude(*content: dict[str, Any], **members: object) -> bytes:
    """Return a conversation that goes on behind the call of another vendor's model."""
    call = {"type": "tool_use", "id": "call_1_gw1", "name": "weather", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "call_1_gw1", "content": "rain"}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [*content, call]},
        {"role": "user", "content": [result]},
    ]
    return msgspec.json.encode({"model": "m", "max_tokens": 9000, "messages": messages, "tools": [OFFERED]} | members)


OFFERED = {"name": "weather", "input_schema": {"type": "object"}, "input_examples": [{}]}
MANUAL = Capabilities(reasoning="budget", needs_signed_turns=True, refuses_thoughts_when_off=True)


def test_claude_does_not_think_on_where_another_model_has_begun() -> None:
    foreign = {"type": "thinking", "thinking": "hm", "signature": "gw1.p.gemini@up/m.."}
    thinking = {"type": "enabled", "budget_tokens": 2000}
    body = claude(foreign, thinking=thinking, context_management={"edits": []}, x_new=1)

    written, lost = rewrite(ANTHROPIC, body, MANUAL)

    assert written is not None
    members = msgspec.json.decode(written)
    assert members.pop("messages")[1:] == [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "weather", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "rain"}]},
    ]
    assert members == {
        "model": "m",
        "max_tokens": 9000,
        "tools": [OFFERED],
        "thinking": {"type": "disabled"},
        "x_new": 1,
    }
    assert lost == ["reasoning", "context_management"]


def test_claude_thinks_on_where_it_has_begun_itself() -> None:
    own = {"type": "thinking", "thinking": "hm", "signature": "EqQB"}
    body = claude(own, thinking={"type": "enabled", "budget_tokens": 2000}, context_management={"edits": []})

    written, lost = rewrite(ANTHROPIC, body, MANUAL)

    assert written is not None
    assert rest_of(ANTHROPIC, written) == rest_of(ANTHROPIC, body)
    assert msgspec.json.decode(written)["messages"][1]["content"][0] == own
    assert lost == []


def test_claude_is_offered_what_was_called_where_nothing_is() -> None:
    written, _ = rewrite(ANTHROPIC, claude(tools=[]))

    members = msgspec.json.decode(written or b"")
    assert members["tools"] == [{"name": "weather", "input_schema": {"type": "object", "properties": {}}}]
    assert members["tool_choice"] == {"type": "none"}


STATE: dict[str, Any] = {
    "container": {"id": "container_1"},
    "mcp_servers": [{"type": "url", "url": "https://a.example", "name": "a"}],
    "thread": {"type": "create"},
}


@pytest.mark.parametrize("name", STATE)
def test_what_claude_goes_on_from_stays_as_it_is(name: str) -> None:
    used = {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "look", "server_name": "a", "input": {"x": 1}}
    seen = {"type": "mcp_tool_result", "tool_use_id": "mcptoolu_1", "is_error": False, "content": []}
    body = claude(
        used, seen, {"type": "thinking", "thinking": "hm", "signature": "gw1.p.gemini@up/m.."}, **{name: STATE[name]}
    )

    written, lost = rewrite(ANTHROPIC, body)

    assert written is not None
    assert not OURS.search(written)
    assert rest_of(ANTHROPIC, written) == rest_of(ANTHROPIC, body)
    assert msgspec.json.decode(written)["messages"][1]["content"][:2] == [used, seen]
    assert lost == []


def test_what_an_image_is_to_be_turned_into_stays() -> None:
    image = {
        "type": "image",
        "source": {"type": "url", "url": "https://a/b.png"},
        "transformations": {"oversized_image": "error"},
    }
    body = msgspec.json.decode(claude())
    body["messages"][0]["content"] = [image]

    written, lost = rewrite(ANTHROPIC, msgspec.json.encode(body))

    assert msgspec.json.decode(written or b"")["messages"][0]["content"] == [image]
    assert lost == []


def chat(thought: str, call_id: str, **members: object) -> dict[str, Any]:
    call = {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    return {"role": "assistant", "content": None, "reasoning_content": thought, "tool_calls": [call]} | members


def chat_result(call_id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": "rain"}


CHAT = [
    {"role": "user", "content": "Weather?", "name": "Ann"},
    chat("hm", "call_1_gw1"),
    chat_result("call_1_gw1"),
    chat("ah", "call_2"),
    chat_result("call_2"),
]


def test_a_chat_loses_thoughts_that_cannot_be_told_from_those_of_others() -> None:
    written, lost = rewrite(OPENAI_CHAT, msgspec.json.encode({"model": "m", "messages": CHAT, "stream": True}))

    assert msgspec.json.decode(written or b"") == {
        "model": "m",
        "stream": True,
        "messages": [
            {"role": "user", "content": "Weather?"},
            {key: value for key, value in chat("", "call_1").items() if key != "reasoning_content"},
            chat_result("call_1"),
            {key: value for key, value in chat("", "call_2").items() if key != "reasoning_content"},
            chat_result("call_2"),
        ],
    }
    assert lost == ["messages.name"]


def test_a_model_that_wants_its_thoughts_back_gets_those_beside_its_own_calls() -> None:
    body = msgspec.json.encode({"model": "m", "messages": CHAT})

    written, _ = rewrite(OPENAI_CHAT, body, Capabilities(wants_thoughts_back=True))

    messages = msgspec.json.decode(written or b"")["messages"]
    assert [message.get("reasoning_content") for message in messages] == [None, None, None, "ah", None]


def test_a_format_keeps_what_it_does_not_know_to_change() -> None:
    on = Request(model="m", turns=[], reasoning=ReasoningControl(mode="on"))
    losses = Losses()

    written = OPENAI_CHAT.rewrite(
        b'{"messages":[],"reasoning_effort":"low"}', write(OPENAI_CHAT, on), ["reasoning"], losses
    )

    assert written == b'{"messages":[],"reasoning_effort":"low"}'
    assert losses.names == []
