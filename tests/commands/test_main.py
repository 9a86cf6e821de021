"""Which command runs, and what is said where there is none of that name."""

import pytest

from aiproxyd.__main__ import main


# `aiproxyd chek` was an unrecognized argument of serve.
@pytest.mark.parametrize("name", ["chek", "help", "usage"])
def test_an_unknown_command_is_refused_with_those_that_are_known(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = main([name, "--demo"])

    assert status == 2
    assert capsys.readouterr().err == (
        f"unknown command {name!r}; known are serve, check, clients, keys; `aiproxyd --help` shows more\n"
    )


def test_a_command_behind_its_options_is_told_where_it_belongs(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--demo", "check"])

    assert status == 2
    assert capsys.readouterr().err == "unrecognized arguments: check; the command comes first, then its options\n"
