"""Tools, their calls and the choice among them, as the upstream knows such things."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from aiproxyd.capabilities import Capabilities
from aiproxyd.conversion.tools import Toolbox, unwrap_input, wrap_input
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.codec import Losses
from aiproxyd.hub import Request, ServerTool, Tool, ToolCall, ToolChoice, ToolResult, Turn
from tests.conversion.stand_in import StandIn, make_format

READ, RUN = Tool(name="read"), Tool(name="run")
PATCH = Tool(name="patch", is_custom=True, grammar=Raw(b'{"type":"grammar"}'))
SEARCH = ServerTool("web_search", "caller", Raw(b"{}"))
SHELL = ServerTool("shell", "caller", Raw(b"{}"))
CUSTOM = Capabilities(has_custom_tools=True)


def fit(
    tools: list[Tool], fmt: StandIn | None = None, capabilities: Capabilities | None = None, **fields: Any
) -> tuple[Request, list[str]]:
    request = Request(model="m", turns=[], tools=tools, **fields)
    losses = Losses()
    Toolbox(fmt or make_format("up"), capabilities or Capabilities(), losses).fit(request)
    return request, losses.names


def choose(
    choice: ToolChoice, fmt: StandIn | None = None, capabilities: Capabilities | None = None
) -> tuple[ToolChoice | None, list[Tool], list[str]]:
    request, lost = fit([READ, RUN], fmt, capabilities, tool_choice=choice)
    return request.tool_choice, request.tools, lost


# --- What is offered


def test_plain_tools_stay_as_they_are() -> None:
    request, lost = fit([READ, RUN])

    assert (request.tools, lost) == ([READ, RUN], [])


def test_a_namespace_stays_where_the_format_has_some() -> None:
    click = Tool(name="click", namespace="browser")

    assert fit([click])[0].tools == [Tool(name="browser__click")]
    assert fit([click], make_format("up", has_namespaces=True))[0].tools == [click]


def test_a_custom_tool_stays_where_format_and_model_have_some() -> None:
    request, lost = fit([PATCH], make_format("up", has_custom_tools=True), CUSTOM)

    assert (request.tools, lost) == ([PATCH], [])


@pytest.mark.parametrize(
    ("has_custom_tools", "capabilities"), [(False, CUSTOM), (True, Capabilities()), (False, Capabilities())]
)
def test_a_custom_tool_is_a_function_of_one_text_elsewhere(has_custom_tools: bool, capabilities: Capabilities) -> None:
    request, lost = fit([PATCH], make_format("up", has_custom_tools=has_custom_tools), capabilities)

    assert request.tools == [
        Tool(
            name="patch",
            schema=Raw(
                b'{"type":"object","properties":{"input":{"type":"string","description":'
                b'"Must be of this grammar: {\\"type\\":\\"grammar\\"}"}},"required":["input"]}'
            ),
        )
    ]
    assert lost == ["tools.patch.format"]


def test_a_custom_tool_without_a_grammar_loses_nothing() -> None:
    request, lost = fit([Tool(name="note", is_custom=True)])

    assert request.tools[0].schema == Raw(
        b'{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}'
    )
    assert lost == []


def test_server_tools_go_to_their_origin_and_to_whom_has_the_same() -> None:
    assert fit([], make_format("caller"), server_tools=[SHELL])[0].server_tools == [SHELL]
    assert fit([], make_format("up", server_tools=frozenset(("web_search",))), server_tools=[SEARCH, SHELL])[
        0
    ] == Request(model="m", turns=[], server_tools=[SEARCH])


def test_a_server_tool_is_dropped_where_others_remain() -> None:
    request, lost = fit([READ], server_tools=[SHELL])

    assert (request.server_tools, lost) == ([], ["tools.shell"])


def test_a_request_for_nothing_but_a_foreign_server_tool_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="the tool 'shell' cannot be sent") as caught:
        fit([], server_tools=[SHELL, SEARCH])

    assert caught.value.param == "$.tools"


def test_what_is_said_about_a_tool_of_another_vendor_is_named() -> None:
    search = ServerTool("web_search", "caller", Raw(b"{}"), ("max_uses", "user_location"))
    own = ServerTool("shell", "up", Raw(b"{}"), ("cwd",))

    request, lost = fit([], make_format("up", server_tools=frozenset(("web_search",))), server_tools=[search, own])

    assert request.server_tools == [search, own]
    assert lost == ["tools.web_search.max_uses", "tools.web_search.user_location"]


def test_a_function_is_called_otherwise_where_a_server_tool_has_its_name() -> None:
    fmt = make_format("up", server_tools=frozenset(("web_search",)), names_server_tools=True)
    function, choice = Tool(name="web_search"), ToolChoice("required", ("web_search",))

    request, lost = fit([function], fmt, server_tools=[SEARCH, SHELL], tool_choice=choice)
    without, _ = fit([function, Tool(name="shell")], fmt, server_tools=[SHELL])

    assert [tool.name for tool in request.tools] == ["web_search_64b71659"]
    assert request.tool_choice == ToolChoice("required", ("web_search_64b71659",))
    assert lost == ["tools.shell"]
    assert [tool.name for tool in without.tools] == ["web_search", "shell"]
    others = make_format("up", server_tools=frozenset(("web_search",)))
    assert fit([function], others, server_tools=[SEARCH])[0].tools == [function]


# --- What was called


STRICT = make_format("up", needs_called_tools=True)
CALLED = [
    Turn("assistant", (ToolCall(id="a", name="read", arguments="{}"), ToolCall(id="b", name="read", arguments="{}"))),
    Turn("assistant", (ToolCall(id="c", name="click", namespace="browser", arguments="{}"),)),
]


def test_what_was_called_is_still_offered_but_not_to_be_called() -> None:
    request = Request(model="m", turns=CALLED)

    Toolbox(STRICT, Capabilities(), Losses()).fit(request)

    assert request.tools == [Tool(name="read"), Tool(name="browser__click")]
    assert request.tool_choice == ToolChoice("none")


def test_nothing_is_offered_where_that_is_not_needed() -> None:
    for fmt, fields in (
        (make_format("up"), {"turns": CALLED}),
        (STRICT, {"turns": []}),
        (STRICT, {"turns": CALLED, "tools": [RUN]}),
        (STRICT, {"turns": CALLED, "server_tools": [ServerTool("shell", "up", Raw(b"{}"))]}),
    ):
        request = Request(model="m", **fields)
        offered = request.tools

        Toolbox(fmt, Capabilities(), Losses()).fit(request)

        assert (request.tools, request.tool_choice) == (offered, None)


# --- What is chosen


def test_without_tools_there_is_nothing_to_choose() -> None:
    request, lost = fit([], tool_choice=ToolChoice("required"), parallel_tool_calls=False)

    assert (request.tool_choice, request.parallel_tool_calls, lost) == (None, None, [])


def test_where_nothing_is_chosen_nothing_is() -> None:
    request, _ = fit([READ], parallel_tool_calls=False)

    assert (request.tool_choice, request.parallel_tool_calls) == (None, False)


@pytest.mark.parametrize(
    ("choice", "settled", "offered"),
    [
        (ToolChoice("auto"), ToolChoice("auto"), [READ, RUN]),
        (ToolChoice("required"), ToolChoice("required"), [READ, RUN]),
        (ToolChoice("required", ("run",)), ToolChoice("required", ("run",)), [READ, RUN]),
        (ToolChoice("none", ("run",)), ToolChoice("none"), [READ, RUN]),
        (ToolChoice("auto", ("run",)), ToolChoice("auto"), [RUN]),
        (ToolChoice("required", ("run", "read")), ToolChoice("required"), [READ, RUN]),
    ],
)
def test_a_choice_that_the_format_cannot_say_limits_what_is_offered(
    choice: ToolChoice, settled: ToolChoice, offered: list[Tool]
) -> None:
    assert choose(choice) == (settled, offered, [])


def test_a_choice_among_some_stays_where_the_format_can_say_it() -> None:
    fmt = make_format("up", tool_subsets=frozenset(("auto",)))

    assert choose(ToolChoice("auto", ("run",)), fmt) == (ToolChoice("auto", ("run",)), [READ, RUN], [])


def test_a_tool_is_chosen_by_the_name_that_the_upstream_knows() -> None:
    request, _ = fit([Tool(name="click", namespace="browser")], tool_choice=ToolChoice("required", ("click",)))

    assert request.tool_choice == ToolChoice("required", ("browser__click",))


def test_a_choice_of_what_is_not_offered_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="names no tool that is offered: dig, delve") as caught:
        choose(ToolChoice("required", ("dig", "delve")))

    assert caught.value.param == "$.tool_choice"


def test_names_that_are_not_offered_are_no_part_of_the_choice_and_named() -> None:
    fmt = make_format("up", tool_subsets=frozenset(("auto", "required")))

    assert choose(ToolChoice("required", ("run", "dig", "run"))) == (
        ToolChoice("required", ("run",)),
        [READ, RUN],
        ["tool_choice.dig"],
    )
    assert choose(ToolChoice("auto", ("dig", "run", "read")), fmt) == (
        ToolChoice("auto", ("run", "read")),
        [READ, RUN],
        ["tool_choice.dig"],
    )
    assert choose(ToolChoice("auto", ("dig", "run"))) == (ToolChoice("auto"), [RUN], ["tool_choice.dig"])


def test_a_choice_among_many_tools_takes_linear_time() -> None:
    tools = [Tool(name=f"tool_{number}") for number in range(20_000)]
    choice = ToolChoice("auto", tuple(tool.name for tool in tools[1:]))
    start_s = time.process_time()

    request, _ = fit(tools, tool_choice=choice)

    assert time.process_time() - start_s < 1
    assert request.tools == tools[1:]


def test_a_model_that_cannot_be_forced_is_left_free() -> None:
    capabilities = Capabilities(can_force_tools=False)

    assert choose(ToolChoice("required"), None, capabilities) == (ToolChoice("auto"), [READ, RUN], ["tool_choice"])
    assert choose(ToolChoice("auto"), None, capabilities) == (ToolChoice("auto"), [READ, RUN], [])


# --- Calls


def test_a_plain_call_and_its_result_stay_as_they_are() -> None:
    call, result = ToolCall(id="c", name="read", arguments="{}"), ToolResult(call_id="c", name="read")
    toolbox = Toolbox(make_format("up"), Capabilities(), Losses())

    assert toolbox.fit_call(call, "c") is call
    assert toolbox.fit_result(result, call) is result


def test_a_call_of_a_custom_tool_is_one_of_a_function() -> None:
    call = ToolCall(id="c", name="a.b", namespace="n", arguments="+ x", is_custom=True)
    toolbox = Toolbox(make_format("up"), Capabilities(), Losses())

    fitted = toolbox.fit_call(call, "c2")

    assert fitted == ToolCall(id="c2", name="n__a_b_2a09c837", arguments='{"input":"+ x"}')
    assert toolbox.fit_result(ToolResult(call_id="c", is_custom=True), fitted) == ToolResult(
        call_id="c2", name="n__a_b_2a09c837"
    )


def test_a_call_of_a_custom_tool_stays_one_where_there_are_some() -> None:
    call = ToolCall(id="c", name="patch", namespace="n", arguments="+ x", is_custom=True)
    fmt = make_format("up", has_custom_tools=True, has_namespaces=True)

    assert Toolbox(fmt, CUSTOM, Losses()).fit_call(call, "c") is call


@given(text=st.text())
def test_free_text_survives_as_arguments(text: str) -> None:
    assert unwrap_input(wrap_input(text)) == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"input":"a","why":1}', "a"),
        ('{"input":1}', '{"input":1}'),
        ('{"text":"a"}', '{"text":"a"}'),
        ("+ x", "+ x"),
        ("", ""),
    ],
)
def test_arguments_that_hold_no_free_text_are_it(arguments: str, text: str) -> None:
    assert unwrap_input(arguments) == text
