"""The codec of the Messages API as the house sees it; what it delegates to is tested beside this file."""

from aiproxyd import hub
from aiproxyd.formats import ANTHROPIC
from aiproxyd.splice import apply_edits


def test_the_model_is_edited() -> None:
    body = b'{"max_tokens":1,"model":"claude-*","messages":[{"model":"x"}]}'

    edits = ANTHROPIC.edits(body, model="claude-5", ask_usage=True)

    assert apply_edits(body, edits) == b'{"max_tokens":1,"model":"claude-5","messages":[{"model":"x"}]}'
    assert ANTHROPIC.peek(body).model == "claude-*"
    assert ANTHROPIC.edits(b"{}", model="claude-5", ask_usage=True) == []


def test_a_request_goes_to_the_path_of_messages() -> None:
    assert ANTHROPIC.request_path(hub.Request(model="claude-5", turns=[], stream=True)) == ("/v1/messages", "")


def test_names_and_ids_are_of_few_characters() -> None:
    traits = ANTHROPIC.traits

    assert traits.tool_name.fullmatch("get_weather-2")
    assert not traits.tool_name.fullmatch("weather.get")
    assert traits.call_id.fullmatch("toolu_01A09q90qw90lq917835lq9")
    assert not traits.call_id.fullmatch("functions.Bash:0")
