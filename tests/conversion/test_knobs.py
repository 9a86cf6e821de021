"""Knobs that the format or the model does not know are put back, and named where somebody may miss them."""

from typing import Any

import pytest

from aiproxyd.capabilities import Capabilities
from aiproxyd.conversion.knobs import set_knobs
from aiproxyd.formats.codec import KNOBS, Losses
from aiproxyd.hub import ReasoningControl, Request
from tests.conversion.stand_in import make_traits

TURNED: dict[str, Any] = {
    "cache_key": "k",
    "frequency_penalty": 0.5,
    "logit_bias": {"1": 2.0},
    "logprobs": True,
    "metadata": {"a": "b"},
    "parallel_tool_calls": False,
    "presence_penalty": 0.5,
    "seed": 0,
    "service_tier": "flex",
    "stop": ["x"],
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 0.0,
    "user": "u",
    "verbosity": "low",
}
UNTOUCHED = Request(model="m", turns=[])
ON = ReasoningControl(mode="on")
UNLABELLED = Capabilities(has_metadata=False)
OFF = ReasoningControl(mode="off")


def turn(knobs: frozenset[str], capabilities: Capabilities, **turned: Any) -> tuple[dict[str, Any], list[str]]:
    """Return what is left of the knobs that were *turned*, and what was named."""
    request, losses = Request(model="m", turns=[], **turned), Losses()
    set_knobs(request, make_traits(knobs=knobs), capabilities, losses)
    left = {knob: getattr(request, knob) for knob in turned if getattr(request, knob) != getattr(UNTOUCHED, knob)}
    left.pop("reasoning", None)
    return left, losses.names


def test_every_knob_is_tried() -> None:
    assert set(TURNED) == KNOBS


def test_what_the_format_and_the_model_know_stays() -> None:
    assert turn(KNOBS, Capabilities(), **TURNED, top_logprobs=2) == (TURNED | {"top_logprobs": 2}, [])


def test_what_the_format_does_not_know_is_put_back_and_named_where_it_matters() -> None:
    left, lost = turn(frozenset(), Capabilities(), **TURNED, top_logprobs=2)

    assert left == {}
    assert set(lost) == KNOBS - {"cache_key", "metadata", "user", "verbosity"}


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("temperature", 1.0),
        ("top_p", 1.0),
        ("presence_penalty", 0.0),
        ("frequency_penalty", 0.0),
        ("parallel_tool_calls", True),
        ("service_tier", "auto"),
    ],
)
def test_what_models_do_anyway_is_not_missed(knob: str, value: Any) -> None:
    assert turn(frozenset(), Capabilities(), **{knob: value}) == ({}, [])


def test_counts_of_probabilities_without_these_are_left_out() -> None:
    assert turn(KNOBS, Capabilities(), top_logprobs=3) == ({}, [])


@pytest.mark.parametrize(
    ("capabilities", "reasoning", "refused"),
    [
        (Capabilities(has_penalties=False), OFF, {"frequency_penalty", "logit_bias", "presence_penalty"}),
        (Capabilities(has_stop=False), OFF, {"stop"}),
        (Capabilities(has_logprobs=False), OFF, {"logprobs"}),
        (Capabilities(sampling="none"), OFF, {"temperature", "top_k", "top_p"}),
        (Capabilities(sampling="one"), OFF, {"top_p"}),
        (Capabilities(sampling="without-reasoning"), OFF, set()),
        (Capabilities(sampling="without-reasoning"), ReasoningControl(), set()),
        (Capabilities(sampling="without-reasoning", reasons_by_default=True), ReasoningControl(),
         {"logprobs", "temperature", "top_k", "top_p"}),
        (Capabilities(sampling="without-reasoning"), ON, {"logprobs", "temperature", "top_k", "top_p"}),
        (Capabilities(has_sampling_reasoning=False), OFF, set()),
        (Capabilities(has_sampling_reasoning=False), ON, {"temperature", "top_k", "top_p"}),
    ],
)  # fmt: skip
def test_what_the_model_refuses_is_put_back_and_named(
    capabilities: Capabilities, reasoning: ReasoningControl, refused: set[str]
) -> None:
    left, lost = turn(KNOBS, capabilities, **TURNED, reasoning=reasoning)

    assert set(left) == KNOBS - refused
    assert set(lost) == refused


def test_one_knob_of_sampling_is_enough() -> None:
    assert turn(KNOBS, Capabilities(sampling="one"), top_p=0.5) == ({"top_p": 0.5}, [])


def test_a_temperature_that_is_too_hot_is_turned_down() -> None:
    capabilities = Capabilities(max_temperature=1.0)

    assert turn(KNOBS, capabilities, temperature=1.5) == ({"temperature": 1.0}, ["temperature"])
    assert turn(KNOBS, capabilities, temperature=1.0) == ({"temperature": 1.0}, [])


def test_requests_do_not_share_what_was_put_back() -> None:
    requests = [Request(model="m", turns=[], stop=["x"]), Request(model="m", turns=[], stop=["y"])]

    for request in requests:
        set_knobs(request, make_traits(), Capabilities(), Losses())

    assert requests[0].stop == requests[1].stop == []
    assert requests[0].stop is not requests[1].stop


def test_labels_are_named_where_only_the_model_takes_none() -> None:
    labels = {"a": "b"}

    assert turn(KNOBS, UNLABELLED, metadata=labels) == ({}, ["metadata"])
    assert turn(KNOBS, Capabilities(), metadata=labels) == ({"metadata": labels}, [])
    assert turn(KNOBS - {"metadata"}, Capabilities(), metadata=labels) == ({}, [])
