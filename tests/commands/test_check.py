"""``aiproxyd check``."""

from pathlib import Path

import pytest

from aiproxyd.__main__ import main


def test_a_valid_configuration_is_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.ini"
    path.write_text("[upstream local]\nprovider = openai\nbase-url = http://127.0.0.1:11434/v1\n")

    status = main(["check", "--config", str(path)])

    assert status == 0
    assert capsys.readouterr().out == f"ok: {path}; 1 upstreams, 0 models, 0 keys\n"


def test_each_problem_is_a_line_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.ini"
    path.write_text("[aiproxyd]\nport = x\n\n[model fast]\ntargets = nobody/m\n")

    status = main(["check", "--config", str(path)])

    assert status == 2
    assert capsys.readouterr().err == (
        f"{path}:2: port: 'x' is not a port number, 0 to 65535\n{path}:5: unknown upstream 'nobody'; configured: none\n"
    )
