"""How much a model is to think, in the words that it understands."""

import pytest

from aiproxyd.capabilities import Capabilities
from aiproxyd.conversion.reasoning import is_thinking, room_for, settle_reasoning
from aiproxyd.formats.codec import Losses
from aiproxyd.hub import ReasoningControl, Request, ToolChoice

EFFORT = Capabilities(reasoning="effort", efforts=("low", "medium", "high"))
ADAPTIVE = Capabilities(
    reasoning="adaptive", efforts=("low", "medium", "high", "xhigh", "max"), reasons_by_default=True
)
BUDGET = Capabilities(reasoning="budget", min_budget_tokens=1024, max_output_tokens=64000)
ALWAYS = Capabilities(reasoning="budget", min_budget_tokens=128, max_budget_tokens=32768, can_stop_reasoning=False)
NO_FORCE = Capabilities(reasoning="effort", can_force_tools_reasoning=False)

OFF = ReasoningControl(mode="off")
DEFAULT = ReasoningControl()


def on(**words: object) -> ReasoningControl:
    return ReasoningControl(mode="on", **words)  # type: ignore[arg-type]


def settle(
    control: ReasoningControl, capabilities: Capabilities, limit: int | None = None, choice: ToolChoice | None = None
) -> tuple[ReasoningControl, ToolChoice | None, list[str]]:
    request = Request(model="m", turns=[], reasoning=control, max_output_tokens=limit, tool_choice=choice)
    losses = Losses()
    settle_reasoning(request, capabilities, losses)
    return request.reasoning, request.tool_choice, losses.names


@pytest.mark.parametrize(
    ("control", "capabilities", "settled", "lost"),
    [
        # A model that is told nothing
        (DEFAULT, Capabilities(), DEFAULT, []),
        (ReasoningControl(show=True), Capabilities(), DEFAULT, []),
        (OFF, Capabilities(), DEFAULT, []),
        (on(effort="low"), Capabilities(), DEFAULT, ["reasoning"]),
        # Efforts
        (DEFAULT, EFFORT, DEFAULT, []),
        (OFF, EFFORT, OFF, []),
        (on(effort="high", show=True), EFFORT, on(effort="high", show=True), []),
        (on(effort="max"), EFFORT, on(effort="high"), []),
        (on(effort="minimal"), EFFORT, on(effort="low"), []),
        (on(), EFFORT, on(effort="medium"), []),
        (on(budget_tokens=2048), EFFORT, on(effort="low"), []),
        (on(budget_tokens=2049), EFFORT, on(effort="medium"), []),
        (on(budget_tokens=16384), EFFORT, on(effort="high"), []),
        (on(budget_tokens=16385), ADAPTIVE, on(effort="xhigh"), []),
        (ReasoningControl(effort="low"), EFFORT, on(effort="low"), []),
        (ReasoningControl(mode="off", effort="low"), EFFORT, OFF, []),
        # Thoughts that only have to be shown
        (ReasoningControl(show=True), ADAPTIVE, on(show=True), []),
        (ReasoningControl(show=False), ADAPTIVE, ReasoningControl(show=False), []),
        (ReasoningControl(show=True), EFFORT, ReasoningControl(show=True), []),
        # Models that cannot but think
        (OFF, Capabilities(reasoning="level", efforts=("minimal", "low"), can_stop_reasoning=False),
         on(effort="minimal", show=False), ["reasoning"]),
        (OFF, ALWAYS, on(budget_tokens=128, show=False), ["reasoning"]),
    ],
)  # fmt: skip
def test_reasoning_is_put_in_terms_of_the_model(
    control: ReasoningControl, capabilities: Capabilities, settled: ReasoningControl, lost: list[str]
) -> None:
    assert settle(control, capabilities) == (settled, None, lost)


@pytest.mark.parametrize(
    ("control", "capabilities", "limit", "budget_tokens"),
    [
        (on(budget_tokens=10000), BUDGET, None, 10000),
        (on(budget_tokens=10), BUDGET, None, 1024),
        (on(effort="high"), BUDGET, None, 16384),
        (on(effort="max"), BUDGET, None, 59904),
        (on(effort="max"), Capabilities(reasoning="budget"), None, 65536),
        (on(effort="max"), ALWAYS, None, 32768),
        (on(budget_tokens=10000), BUDGET, 10001, 10000),
        (on(budget_tokens=10000), BUDGET, 10000, 5000),
        (on(effort="high"), BUDGET, 20000, 10000),
        (on(effort="low"), BUDGET, 1025, 1024),
        (on(effort="low"), BUDGET, 1024, None),
        (on(effort="low"), Capabilities(reasoning="budget"), 1, None),
        (on(effort="low"), ALWAYS, 100, 128),
    ],
)
def test_a_budget_leaves_room_for_the_answer(
    control: ReasoningControl, capabilities: Capabilities, limit: int | None, budget_tokens: int | None
) -> None:
    settled, _, lost = settle(control, capabilities, limit)

    assert settled == (OFF if budget_tokens is None else on(budget_tokens=budget_tokens))
    assert lost == (["reasoning"] if budget_tokens is None else [])


@pytest.mark.parametrize(
    ("control", "capabilities", "settled", "choice", "lost"),
    [
        (on(), NO_FORCE, OFF, ToolChoice("required"), ["reasoning"]),
        (DEFAULT, NO_FORCE, DEFAULT, ToolChoice("required"), []),
        (DEFAULT, Capabilities(reasoning="effort", reasons_by_default=True, can_force_tools_reasoning=False),
         OFF, ToolChoice("required"), []),
        (DEFAULT, Capabilities(reasoning="effort", reasons_by_default=True, can_force_tools_reasoning=False,
                               can_stop_reasoning=False),
         DEFAULT, ToolChoice("auto"), ["tool_choice"]),
        (OFF, Capabilities(reasoning="effort", can_force_tools_reasoning=False, can_stop_reasoning=False),
         on(effort="low", show=False), ToolChoice("auto"), ["reasoning", "tool_choice"]),
    ],
)  # fmt: skip
def test_a_demanded_tool_goes_before_thoughts_where_it_can(
    control: ReasoningControl,
    capabilities: Capabilities,
    settled: ReasoningControl,
    choice: ToolChoice,
    lost: list[str],
) -> None:
    assert settle(control, capabilities, choice=ToolChoice("required")) == (settled, choice, lost)


def test_a_free_choice_excludes_nothing() -> None:
    assert settle(on(effort="low"), NO_FORCE, choice=ToolChoice("auto")) == (on(effort="low"), ToolChoice("auto"), [])


@pytest.mark.parametrize(
    ("control", "capabilities", "room"),
    [
        (DEFAULT, Capabilities(), 8192),
        (DEFAULT, Capabilities(max_output_tokens=4096), 4096),
        (on(budget_tokens=1024), Capabilities(), 8192),
        (on(budget_tokens=10000), Capabilities(), 14096),
        (on(budget_tokens=59904), BUDGET, 64000),
    ],
)
def test_an_answer_without_a_limit_gets_room_for_its_thoughts_too(
    control: ReasoningControl, capabilities: Capabilities, room: int
) -> None:
    assert room_for(Request(model="m", turns=[], reasoning=control), capabilities) == room


def test_a_model_thinks_when_it_is_told_to_or_does_so_by_itself() -> None:
    assert is_thinking(on(), EFFORT)
    assert is_thinking(DEFAULT, ADAPTIVE)
    assert not is_thinking(DEFAULT, EFFORT)
    assert not is_thinking(OFF, ADAPTIVE)
