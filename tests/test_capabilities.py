"""What models accept, as data: complete, sourced, and right for those that everybody knows."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

import aiproxyd
from aiproxyd.capabilities import EFFORTS, MAX_NAME_CHARS, Capabilities, find_capabilities
from aiproxyd.formats import FORMATS

ENTRIES: list[dict[str, Any]] = msgspec.json.decode(Path(aiproxyd.__file__).with_name("capabilities.json").read_bytes())
RAW_ENTRIES = msgspec.json.decode(
    Path(aiproxyd.__file__).with_name("capabilities.json").read_bytes(), type=list[dict[str, Raw]]
)
FIELDS = {field.name: field for field in msgspec.structs.fields(Capabilities)}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["models"][0])
def test_every_entry_says_whom_it_is_about_and_where_it_is_from(entry: dict[str, Any]) -> None:
    assert set(entry) == {"models", "format", "source", "values"}
    assert entry["models"]
    assert entry["format"]
    assert set(entry["format"]) <= set(FORMATS)
    assert entry["source"].startswith("https://")
    assert entry["values"]


@pytest.mark.parametrize("entry", RAW_ENTRIES, ids=lambda entry: bytes(entry["models"]).decode())
def test_every_value_is_one_that_a_model_can_have(entry: dict[str, Raw]) -> None:
    for key, raw in msgspec.json.decode(entry["values"], type=dict[str, Raw]).items():
        value = msgspec.json.decode(raw, type=FIELDS[key].type)

        if key == "efforts":
            assert list(value) == [effort for effort in EFFORTS if effort in value]


@pytest.mark.parametrize(
    ("fmt", "model", "known"),
    [
        # Manual budgets, sampling, prefill
        ("anthropic", "claude-sonnet-4-5-20250929", {
            "reasoning": "budget", "min_budget_tokens": 1024, "max_output_tokens": 64000, "reasons_by_default": False,
            "sampling": "one", "has_sampling_reasoning": False, "max_temperature": 1.0, "has_prefill": True,
            "has_late_system": False, "needs_signed_turns": True, "can_force_tools": True,
            "can_force_tools_reasoning": False,
        }),
        ("anthropic", "claude-haiku-4-5", {"reasoning": "budget", "max_output_tokens": 64000}),
        ("anthropic", "claude-opus-4-1-20250805", {"reasoning": "budget", "max_output_tokens": 32000}),
        ("anthropic", "claude-opus-4-20250514", {"reasoning": "budget", "max_output_tokens": 32000}),
        ("anthropic", "claude-sonnet-4-20250514", {"reasoning": "budget", "max_output_tokens": 64000}),
        ("anthropic", "claude-3-7-sonnet-20250219", {
            "reasoning": "budget", "sampling": "one", "default_output_tokens": 32000,
        }),
        ("anthropic", "anthropic.claude-sonnet-4-5-20250929-v1:0", {"reasoning": "budget"}),
        # As other clouds and routers write them
        ("anthropic", "anthropic/claude-sonnet-4.5", {"reasoning": "budget", "needs_signed_turns": True}),
        ("anthropic", "claude-sonnet-4@20250514", {"reasoning": "budget", "max_output_tokens": 64000}),
        ("anthropic", "claude-opus-4@20250514", {"reasoning": "budget", "max_output_tokens": 32000}),
        ("anthropic", "anthropic/claude-opus-4.1:beta", {"reasoning": "budget", "max_output_tokens": 32000}),
        ("anthropic", "us.anthropic.claude-opus-4-20250514-v1:0", {"reasoning": "budget", "has_prefill": True}),
        ("anthropic", "anthropic.claude-3-5-sonnet-20241022-v2:0", {"reasoning": "none", "max_output_tokens": 8192}),
        ("anthropic", "anthropic/claude-3.5-haiku", {"reasoning": "none", "max_output_tokens": 8192}),
        ("anthropic", "anthropic/claude-3.7-sonnet:thinking", {
            "reasoning": "budget", "max_output_tokens": 64000, "default_output_tokens": 32000,
        }),
        ("anthropic", "claude-3-opus@20240229", {"reasoning": "none", "max_output_tokens": 4096}),
        ("anthropic", "claude-opus-4.6", {"sampling": "one", "has_prefill": False, "has_late_system": False}),
        ("anthropic", "claude-opus-4.7", {"sampling": "none", "has_late_system": False}),
        ("anthropic", "claude-opus-4.8", {"sampling": "none", "has_late_system": True, "reasons_by_default": False}),
        ("anthropic", "claude-sonnet-5.5", {"can_force_tools": False}),
        # No thoughts at all
        ("anthropic", "claude-3-5-sonnet-20241022", {
            "reasoning": "none", "max_output_tokens": 8192, "sampling": "any", "needs_signed_turns": False,
        }),
        ("anthropic", "claude-3-haiku-20240307", {"reasoning": "none", "max_output_tokens": 4096}),
        # Adaptive
        ("anthropic", "claude-opus-4-6", {
            "reasoning": "adaptive", "max_output_tokens": 128000, "sampling": "one", "has_prefill": False,
            "has_late_system": False, "reasons_by_default": False, "needs_signed_turns": False,
        }),
        ("anthropic", "claude-opus-4-7", {"reasoning": "adaptive", "sampling": "none", "has_late_system": False}),
        ("anthropic", "claude-opus-4-8", {
            "reasoning": "adaptive", "sampling": "none", "has_late_system": True, "can_force_tools": True,
        }),
        ("anthropic", "claude-opus-5", {
            "reasoning": "adaptive", "reasons_by_default": True, "can_stop_reasoning": True, "can_force_tools": True,
        }),
        ("anthropic", "claude-sonnet-5-5", {"can_force_tools": False, "can_stop_reasoning": False}),
        ("anthropic", "claude-mythos-5-1", {"can_force_tools": False, "can_stop_reasoning": False}),
        # OpenAI
        ("openai-responses", "gpt-5.4", {
            "reasoning": "effort", "reasons_by_default": True, "needs_responses_for_tools": True, "has_stop": False,
            "has_penalties": False, "sampling": "without-reasoning", "can_stop_reasoning": True,
        }),
        ("openai-responses", "gpt-5.6-sol", {"efforts": ("low", "medium", "high", "xhigh", "max")}),
        ("openai-chat", "gpt-5.6-sol", {"efforts": ("low", "medium", "high", "xhigh")}),
        ("openai-chat", "gpt-5.2", {"reasons_by_default": False, "needs_responses_for_tools": False}),
        ("openai-chat", "gpt-5", {
            "efforts": ("minimal", "low", "medium", "high"), "can_stop_reasoning": False, "sampling": "none",
            "has_custom_tools": True, "needs_responses_for_tools": False,
        }),
        ("openai-chat", "gpt-5-2025-08-07", {"can_stop_reasoning": False}),
        ("openai-chat", "gpt-5-pro", {"efforts": ("high",)}),
        ("openai-chat", "gpt-5-chat-latest", {"reasoning": "none", "sampling": "any", "has_stop": True}),
        ("openai-chat", "o3", {
            "reasoning": "effort", "sampling": "none", "has_stop": False, "has_max_completion_tokens": True,
            "has_custom_tools": False,
        }),
        ("openai-chat", "o4-mini", {"reasoning": "effort", "can_stop_reasoning": False}),
        ("openai-chat", "gpt-4.1", {"reasoning": "none", "max_output_tokens": 32768, "has_penalties": True}),
        ("openai-chat", "gpt-4o-mini", {"reasoning": "none", "max_output_tokens": 16384, "has_stop": True}),
        ("openai-chat", "openai.gpt-oss-120b-1:0", {"reasoning": "effort", "has_stop": True}),
        ("openai-chat", "gpt-oss:20b", {"reasoning": "effort", "sampling": "any", "has_developer_role": False}),
        ("openai-chat", "deepseek-ai/DeepSeek-V3.2", {"reasoning": "none", "wants_thoughts_back": True}),
        ("openai-chat", "kimi-k2-thinking", {"wants_thoughts_back": True}),
        # Google
        ("gemini", "gemini-3-pro-preview", {
            "reasoning": "level", "efforts": ("low", "high"), "can_stop_reasoning": False, "needs_signed_calls": True,
            "has_penalties": False, "has_call_ids": True, "has_result_media": True,
        }),
        ("gemini", "gemini-3.1-pro-preview", {"efforts": ("low", "medium", "high"), "sampling": "any"}),
        ("gemini", "gemini-3.6-flash", {"sampling": "none"}),
        ("gemini", "models/gemini-2.5-pro", {
            "reasoning": "budget", "min_budget_tokens": 128, "max_budget_tokens": 32768, "can_stop_reasoning": False,
            "needs_signed_calls": False, "has_call_ids": False, "has_result_media": False,
        }),
        ("gemini", "gemini-2.5-flash", {
            "min_budget_tokens": 0, "max_budget_tokens": 24576, "can_stop_reasoning": True, "reasons_by_default": True,
        }),
        ("gemini", "gemini-2.5-flash-lite", {"min_budget_tokens": 512, "reasons_by_default": False}),
        ("gemini", "gemini-2.0-flash", {"reasoning": "none", "max_output_tokens": 8192}),
    ],
)  # fmt: skip
def test_a_well_known_model_is_known(fmt: str, model: str, known: dict[str, object]) -> None:
    capabilities = find_capabilities(model, fmt)

    assert {key: getattr(capabilities, key) for key in known} == known


def test_an_unknown_model_has_the_defaults() -> None:
    assert find_capabilities("qwen3-coder", "openai-chat") == Capabilities()


def test_a_model_is_known_only_in_the_formats_that_are_told() -> None:
    assert find_capabilities("gpt-5", "anthropic") == Capabilities()


def test_case_and_what_stands_before_the_name_do_not_matter() -> None:
    assert find_capabilities("openai/GPT-5", "openai-chat") == find_capabilities("gpt-5", "openai-chat")


def test_the_end_of_an_overlong_name_does_not_matter() -> None:
    name = "gpt-5-mini" + "x" * MAX_NAME_CHARS

    assert find_capabilities(name, "openai-chat") is find_capabilities(name + "y", "openai-chat")
