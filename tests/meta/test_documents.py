"""README, config.example.ini and --help say the same thing."""

import configparser
import re
from pathlib import Path

import pytest
from msgspec.structs import fields

import aiproxyd
from aiproxyd.__main__ import COMMANDS
from aiproxyd.config import CAPABILITIES, OPTIONS, SECTIONS, Option, load_settings, make_parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLE = (ROOT / "config.example.ini").read_text()
ROWS = {row.split("|")[1].split("`")[1]: row for row in README.splitlines() if row.startswith("| `--")}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_an_option_is_in_the_readme_with_its_environment_and_its_default(option: Option) -> None:
    _, flags, environment, default, _, _ = ROWS[option.flags[0]].split("|")

    assert re.findall(r"`(--[a-z-]+)`", flags) == list(option.flags)
    assert re.findall(r"`([A-Z_]+)`", environment) == list(option.environment)
    if option.default:
        assert default.strip() == str(option.default)


def test_the_readme_has_no_option_that_is_not_there() -> None:
    assert list(ROWS) == [option.flags[0] for option in OPTIONS]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_an_option_is_in_the_example_with_its_default(option: Option) -> None:
    line = re.search(rf"^;?{option.name} = (\S+)", EXAMPLE, re.MULTILINE)

    assert line is not None
    if option.default is not None and option.name != "cors-origins":
        assert line[1] == {False: "no"}.get(option.default, str(option.default))


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_an_option_is_in_the_help_with_its_environment_and_its_default(option: Option) -> None:
    text = re.sub(r"\s+", " ", make_parser().format_help())

    described = text[re.search(rf" {option.flags[0]}[ ,]", text).start() :]  # type: ignore[union-attr]
    described = described[: described.index("[env: ")] + re.search(r"\[env: [^]]*\]", described)[0]  # type: ignore[index]
    assert all(name in described.replace("- ", "-") for name in option.environment)
    if option.default:
        assert f"(default {option.default})" in described


def test_the_example_is_a_valid_configuration() -> None:
    settings = load_settings(
        ["--config", str(ROOT / "config.example.ini")], {"OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b"}
    )

    assert [upstream.name for upstream in settings.upstreams] == ["openai", "anthropic", "local"]
    assert [model.name for model in settings.models] == ["fast", "gpt-4*", "house-model"]


@pytest.mark.parametrize("kind", SECTIONS)
def test_every_line_of_a_section_is_in_the_example(kind: str) -> None:
    ini = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",), delimiters=("=",))
    ini.read_string(re.sub(r"^;(?=[a-z-]+ = )", "", EXAMPLE, flags=re.MULTILINE))
    shown = {key for title in ini.sections() if title.startswith(kind) for key in ini[title]}

    assert shown - CAPABILITIES.keys() == {field.encode_name for field in fields(SECTIONS[kind])}


def test_the_commands_are_in_the_help_and_in_the_readme() -> None:
    text = make_parser().format_help()

    for command in COMMANDS:
        assert command in text
        assert command == "serve" or f"aiproxyd {command}" in README


def test_the_changelog_begins_with_this_version() -> None:
    latest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert latest is not None
    assert latest[1] == aiproxyd.__version__


def test_the_documents_name_files_that_exist() -> None:
    for document in ("README.md", "CONTRIBUTING.md"):
        for path in re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text()):
            assert (ROOT / path).exists(), path
