"""The tuning of a request, as far as a format and a model know such knobs. Sans-I/O."""

from copy import copy
from typing import Any, Final

from aiproxyd.capabilities import Capabilities
from aiproxyd.conversion.reasoning import is_thinking
from aiproxyd.formats.codec import KNOBS, Losses, Traits
from aiproxyd.hub import Request

_SILENT: Final = frozenset(("cache_key", "metadata", "user", "verbosity"))
"""Hints and labels that nobody misses where there is nothing like them."""
_SAMPLING: Final = frozenset(("temperature", "top_p", "top_k"))
_UNTOUCHED: Final[dict[str, Any]] = {knob: getattr(Request(model="", turns=[]), knob) for knob in sorted(KNOBS)}
"""What each knob is where the caller says nothing of it."""
_USUAL: Final[dict[str, Any]] = {
    "temperature": 1,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "parallel_tool_calls": True,
    "service_tier": "auto",
}
"""Values that say what models do anyway."""


def set_knobs(request: Request, traits: Traits, capabilities: Capabilities, losses: Losses) -> None:
    """Leave only those knobs of *request* turned that the format and the model know; its reasoning is settled."""
    turned = [knob for knob, untouched in _UNTOUCHED.items() if getattr(request, knob) != untouched]
    refused = _find_refused(request, capabilities) if turned else set()
    for knob in turned:
        if knob in refused or knob not in traits.knobs:
            is_told = knob in refused or knob not in _SILENT
            if is_told and getattr(request, knob) != _USUAL.get(knob):
                losses.drop(knob)
            setattr(request, knob, copy(_UNTOUCHED[knob]))
    if not request.logprobs:
        request.top_logprobs = None
    if request.temperature is not None and request.temperature > capabilities.max_temperature:
        request.temperature = capabilities.max_temperature
        losses.drop("temperature")


def _find_refused(request: Request, capabilities: Capabilities) -> set[str]:
    """Return the knobs that the model does not take although its format may have them."""
    refused: set[str] = set()
    if not capabilities.has_penalties:
        refused |= {"presence_penalty", "frequency_penalty", "logit_bias"}
    if not capabilities.has_stop:
        refused.add("stop")
    if not capabilities.has_logprobs:
        refused.add("logprobs")
    if not capabilities.has_metadata:
        refused.add("metadata")
    return refused | _find_refused_sampling(request, capabilities)


def _find_refused_sampling(request: Request, capabilities: Capabilities) -> set[str]:
    thinks = is_thinking(request.reasoning, capabilities)
    if capabilities.sampling == "none" or (thinks and not capabilities.has_sampling_reasoning):
        return set(_SAMPLING)
    if capabilities.sampling == "without-reasoning" and thinks:
        return {*_SAMPLING, "logprobs"}
    if capabilities.sampling == "one" and request.temperature is not None:
        return {"top_p"}
    return set()
