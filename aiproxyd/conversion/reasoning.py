"""How much a model is to think, in the words that the model understands: efforts, budgets, levels. Sans-I/O."""

from typing import Final

from msgspec.structs import replace

from aiproxyd.capabilities import EFFORTS, Capabilities, Effort
from aiproxyd.formats.codec import Losses
from aiproxyd.hub import ReasoningControl, Request, ToolChoice

BUDGETS: Final[dict[Effort, int]] = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16384,
    "xhigh": 32768,
    "max": 65536,
}
"""Tokens that stand for an effort, about what coding agents ask for themselves."""

_DEFAULT_EFFORT: Final[Effort] = "medium"
_ROOM_TOKENS: Final = 4096
"""What is left for the answer where the caller sets no limit."""
_UNTOLD: Final = ReasoningControl()
_OFF: Final = ReasoningControl(mode="off")
_SHOWN: Final = ReasoningControl(mode="on", show=True)


def is_thinking(control: ReasoningControl, capabilities: Capabilities) -> bool:
    """Tell whether the model thinks when it is told *control*."""
    return control.mode == "on" or (control.mode == "default" and capabilities.reasons_by_default)


def settle_reasoning(request: Request, capabilities: Capabilities, losses: Losses) -> None:
    """Put the reasoning of *request* in terms of *capabilities*, and settle what excludes thinking.

    What is on has a budget where the model is told one, else an effort out of those that it knows; neither where the
    model thinks anyway, and is only told to show it.
    """
    if capabilities.reasoning == "none":
        if request.reasoning.mode == "on":
            losses.drop("reasoning")
        request.reasoning = _UNTOLD
        return
    control = _settle_mode(request, capabilities, losses)
    if control.mode != "on":
        request.reasoning = (
            _SHOWN if _is_shown(control, capabilities) else replace(control, effort=None, budget_tokens=None)
        )
    elif capabilities.reasoning == "budget":
        request.reasoning = _settle_budget(control, request.max_output_tokens, capabilities, losses)
    else:
        effort = _nearest(control.effort or _effort_of(control.budget_tokens), capabilities.efforts)
        request.reasoning = replace(control, effort=effort, budget_tokens=None)


def room_for(request: Request, capabilities: Capabilities) -> int:
    """Return the limit for an answer whose caller sets none, thoughts included."""
    budget = request.reasoning.budget_tokens
    wanted = max(capabilities.default_output_tokens, budget + _ROOM_TOKENS if budget is not None else 0)
    return min(wanted, capabilities.max_output_tokens or wanted)


def _settle_mode(request: Request, capabilities: Capabilities, losses: Losses) -> ReasoningControl:
    """Return the request's reasoning, switched on or off where it has to be."""
    control = request.reasoning
    if control.mode == "default" and control.effort is not None:
        control = replace(control, mode="on")
    excludes_choice = _is_forced(request) and not capabilities.can_force_tools_reasoning
    if excludes_choice and capabilities.can_stop_reasoning and is_thinking(control, capabilities):
        if control.mode == "on":
            losses.drop("reasoning")
        return _OFF
    if control.mode == "off" and not capabilities.can_stop_reasoning:
        losses.drop("reasoning")
        control = ReasoningControl(mode="on", effort=capabilities.efforts[0], budget_tokens=1, show=False)
    if excludes_choice and is_thinking(control, capabilities):
        losses.drop("tool_choice")
        request.tool_choice = ToolChoice("auto")
    return control


def _settle_budget(
    control: ReasoningControl, limit: int | None, capabilities: Capabilities, losses: Losses
) -> ReasoningControl:
    """Return *control* with a budget that an answer of *limit* tokens, thoughts included, has room for."""
    wanted = control.budget_tokens or BUDGETS[control.effort or _DEFAULT_EFFORT]
    ceilings = (_ceiling(control, limit, capabilities), capabilities.max_budget_tokens)
    budget = min([wanted, *(ceiling for ceiling in ceilings if ceiling is not None)])
    budget = max(budget, capabilities.min_budget_tokens, 1)
    if limit is not None and budget >= limit and capabilities.can_stop_reasoning:
        losses.drop("reasoning")
        return _OFF
    return replace(control, effort=None, budget_tokens=budget)


def _ceiling(control: ReasoningControl, limit: int | None, capabilities: Capabilities) -> int | None:
    """Return the most that thoughts may take of an answer of *limit* tokens; None: whatever they like."""
    if limit is None:
        return None if capabilities.max_output_tokens is None else capabilities.max_output_tokens - _ROOM_TOKENS
    is_own = control.budget_tokens is not None and control.budget_tokens < limit
    return None if is_own else limit // 2


def _is_shown(control: ReasoningControl, capabilities: Capabilities) -> bool:
    """Tell whether the model thinks without being told to, but only shows it when it is told so.

    https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking
    """
    shows = control.mode == "default" and control.show is True
    return shows and capabilities.reasons_by_default and capabilities.reasoning == "adaptive"


def _is_forced(request: Request) -> bool:
    return request.tool_choice is not None and request.tool_choice.mode == "required"


def _effort_of(budget_tokens: int | None) -> Effort:
    if budget_tokens is None:
        return _DEFAULT_EFFORT
    return next((effort for effort in ("low", "medium", "high") if budget_tokens <= BUDGETS[effort]), "xhigh")


def _nearest(wanted: Effort, known: tuple[Effort, ...]) -> Effort:
    """Return the highest of *known* that is not above *wanted*, else the lowest."""
    rank = EFFORTS.index(wanted)
    return next((effort for effort in reversed(known) if EFFORTS.index(effort) <= rank), known[0])
