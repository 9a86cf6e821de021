"""``aiproxyd check``."""

from pathlib import Path

import pytest

from aiproxyd.__main__ import main


def test_a_valid_configuration_is_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.ini"
    path.write_text("[upstream local]\nprovider = openai\nbase-url = http://127.0.0.1:11434/v1\n")

    status = main(["check", "--config", str(path)])

    assert status == 0
    assert capsys.readouterr().out == f"ok: {path}; 1 upstream (local), no model, no key\n"


def test_each_problem_is_a_line_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.ini"
    path.write_text("[aiproxyd]\nport = x\n\n[model fast]\ntargets = nobody/m\n")

    status = main(["check", "--config", str(path)])

    assert status == 2
    assert capsys.readouterr().err == (
        f"{path}:2: port: 'x' is not a port number, 0 to 65535\n{path}:5: unknown upstream 'nobody'; configured: none\n"
    )


def test_the_summary_names_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.ini"
    path.write_text(
        f"[aiproxyd]\ndemo = yes\n[model a]\ntargets = demo/x\n[model b*]\ntargets = demo/*\n"
        f"[key k]\nsecret = sha256:{'0' * 64}\n"
    )

    status = main(["check", "--config", str(path)])

    assert status == 0
    assert capsys.readouterr().out == f"ok: {path}; 1 upstream (demo), 2 models (a, b*), 1 key (k)\n"


# Such an upstream passed for a good one until its first call.
@pytest.mark.parametrize(
    ("ini", "arguments", "warning"),
    [
        (
            "[upstream anthropic]\nprovider = anthropic\n",
            [],
            "{path}:1: [upstream anthropic] api.anthropic.com wants an API key: set ANTHROPIC_API_KEY, or give "
            "--anthropic-api-key, a line `api-key = ...` or `api-key-file = ...`, or the systemd credential "
            "anthropic-api-key",
        ),
        (
            "\n[upstream work]\nprovider = openai\n",
            [],
            "{path}:2: [upstream work] api.openai.com wants an API key: give a line `api-key = ...` or "
            "`api-key-file = ...`, or the systemd credential work-api-key",
        ),
        (
            "",
            ["--gemini-base-url", "https://generativelanguage.googleapis.com"],
            "--gemini-base-url: generativelanguage.googleapis.com wants an API key: set GEMINI_API_KEY, or give "
            "--gemini-api-key, a line `api-key = ...` or `api-key-file = ...`, or the systemd credential "
            "gemini-api-key",
        ),
    ],
)
def test_an_upstream_that_lacks_its_key_is_warned_of(
    ini: str, arguments: list[str], warning: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.ini"
    path.write_text(ini)

    status = main(["check", "--config", str(path), *arguments])

    captured = capsys.readouterr()
    assert status == 0
    assert captured.err == f"warning: {warning.format(path=path)}\n"
    assert captured.out.startswith("ok: ")


@pytest.mark.parametrize(
    "ini",
    [
        "[upstream openai]\nprovider = openai\napi-key = k\n",
        "[upstream openai]\nprovider = openai\nbase-url = http://127.0.0.1:11434/v1\n",
        "[upstream demo]\nprovider = demo\n",
    ],
)
def test_an_upstream_that_has_its_key_or_needs_none_is_not_warned_of(
    ini: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.ini"
    path.write_text(ini)

    assert main(["check", "--config", str(path)]) == 0

    assert capsys.readouterr().err == ""
