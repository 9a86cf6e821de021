"""README, config.example.ini and --help say the same thing."""

import configparser
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from msgspec.structs import fields

import aiproxyd
from aiproxyd.__main__ import COMMANDS
from aiproxyd.capabilities import Capabilities
from aiproxyd.config import CAPABILITIES, OPTIONS, SECTIONS, Option, load_settings, make_parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLE = (ROOT / "config.example.ini").read_text()
MODELS = (ROOT / "docs" / "models.md").read_text()
MODEL_ROWS = {row.split("`")[1]: row for row in MODELS.splitlines() if row.startswith("| `")}
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
        assert line[1] == ("no" if option.default is False else str(option.default))


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


def to_ini(value: object) -> str:
    """Return *value* as it is written in an INI file; nothing for what has no limit."""
    match value:
        case bool():
            return "yes" if value else "no"
        case None | 0:
            return ""
        case tuple():
            return ", ".join(value)
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def describe_values(kind: Any) -> str:
    if kind is bool:
        return "yes, no"
    if get_origin(kind) is tuple:
        return f"a list, ascending, of {describe_values(get_args(kind)[0])}"
    return ", ".join(get_args(kind)) if get_origin(kind) is Literal else "a number"


def test_every_line_that_says_what_is_known_of_a_model_is_documented_and_no_other() -> None:
    assert list(MODEL_ROWS) == list(CAPABILITIES)


@pytest.mark.parametrize("name", CAPABILITIES)
def test_what_is_documented_of_a_models_line_is_so(name: str) -> None:
    _, _, values, default, says, _ = MODEL_ROWS[name].split("|")

    assert values.strip() == describe_values(CAPABILITIES[name])
    assert default.strip() == to_ini(getattr(Capabilities(), name.replace("-", "_")))
    assert len(says.strip()) > 10


@pytest.mark.parametrize("name", CAPABILITIES)
def test_a_line_of_a_model_is_in_the_example_and_shows_its_default_where_it_is_commented_out(name: str) -> None:
    line = re.search(rf"^(;?){name} = ([^;\n]+)", EXAMPLE, re.MULTILINE)

    assert line is not None
    default = to_ini(getattr(Capabilities(), name.replace("-", "_")))
    assert not (line[1] and default) or line[2].strip() == default


def test_the_example_is_valid_with_all_that_is_commented_out_of_its_model(tmp_path: Path) -> None:
    path = tmp_path / "config.ini"
    told = EXAMPLE[EXAMPLE.index("[model house-model]") :]
    upstreams = "[upstream local]\nprovider = demo\n[upstream openai]\nprovider = demo\n"
    path.write_text(upstreams + re.sub(r"^;(?=[a-z-]+ = )", "", told, flags=re.MULTILINE))

    (model,) = load_settings(["--config", str(path)], {}).models

    assert {name.replace("_", "-") for name in model.capabilities} == set(CAPABILITIES)


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
    for document in ("README.md", "CONTRIBUTING.md", "docs/models.md"):
        for path in re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text()):
            assert ((ROOT / document).parent / path).exists(), path
