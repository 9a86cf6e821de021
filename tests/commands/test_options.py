"""The options that several commands share."""

import re

import pytest

from aiproxyd.__main__ import main
from aiproxyd.commands.options import make_parser, parse_arguments
from aiproxyd.config import OPTIONS, Option
from aiproxyd.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        (["--port", "4000", "NAME"], ["--port=4000"]),
        (["NAME", "--config=x.ini", "--demo"], ["--config=x.ini", "--demo"]),
        (["--openai-api-key=-k", "--claude-api-key", "c", "NAME"], ["--openai-api-key=-k", "--claude-api-key=c"]),
        (["NAME"], []),
    ],
)
def test_the_options_of_serve_are_passed_on_as_they_were_given(given: list[str], passed_on: list[str]) -> None:
    parser = make_parser("x", "Do x.", takes_serve_options=True)
    parser.add_argument("name")

    options = parse_arguments(parser, given)

    assert options.name == "NAME"
    assert options.serve_arguments == passed_on


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["--nonsense=sk-LEAK"], "unrecognized arguments: --nonsense"),
        (["--port"], "argument --port: expected one argument; see `aiproxyd x --help`"),
        (["--por", "3"], "unrecognized arguments: --por"),
    ],
)
def test_a_wrong_argument_is_one_line_that_shows_no_value(given: list[str], problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_arguments(make_parser("x", "Do x.", takes_serve_options=True), given)

    assert raised.value.problems == (problem,)


# `aiproxyd check --help` showed the help of serve.
@pytest.mark.parametrize(
    ("arguments", "usage", "sentence"),
    [
        (["check"], "aiproxyd check [options]", "Exit status: 0 where it is valid, 2 where it is not"),
        (["clients"], "aiproxyd clients [NAME] [options]", "Print settings to paste into clients"),
        (["keys"], "aiproxyd keys create|list [options]", "Make and list virtual keys"),
        (["keys", "create"], "aiproxyd keys create NAME [--models LIST]", "Only its SHA-256 goes into the"),
        (["keys", "list"], "aiproxyd keys list [options]", "List the keys that are configured"),
        (["serve"], "aiproxyd [serve|check|clients|keys] [options]", "LLM gateway daemon"),
    ],
)
def test_each_command_has_its_own_help(
    arguments: list[str], usage: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])

    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert ended.value.code == 0
    assert text.startswith(f"usage: {usage} ")
    assert sentence in text


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
@pytest.mark.parametrize("arguments", [["check"], ["clients"], ["keys", "list"]], ids=" ".join)
def test_the_help_of_a_command_that_reads_the_configuration_has_every_option(
    arguments: list[str], option: Option, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*arguments, "--help"])

    assert re.search(rf"^  {option.flags[0]}\b", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("arguments", [["check"], ["clients"], ["keys", "list"]], ids=" ".join)
def test_a_command_tells_its_version(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--version"])

    assert ended.value.code == 0
    assert re.fullmatch(r"aiproxyd \d+\.\d+\.\d+\n", capsys.readouterr().out)
