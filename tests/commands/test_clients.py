"""``aiproxyd clients``."""

import pytest

from aiproxyd.__main__ import main


def test_the_settings_of_one_client_name_the_gateway_the_key_and_the_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = main(["clients", "claude-code", "--url", "http://box:3000/", "--key", "k", "--model", "m"])

    assert status == 0
    assert capsys.readouterr().out == (
        "export ANTHROPIC_BASE_URL=http://box:3000\nexport ANTHROPIC_AUTH_TOKEN=k\nclaude --model m\n"
    )


def test_without_a_name_all_clients_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["clients"])

    output = capsys.readouterr().out
    assert "# codex\n" in output
    assert "# curl\n" in output
    assert "http://127.0.0.1:3000/v1" in output


def test_the_address_is_that_of_the_configuration_unless_another_is_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["clients", "anthropic-python", "--host", "box", "--port", "4000"])
    main(["clients", "openai-python", "--url", "https://ai.lan/v1"])

    output = capsys.readouterr().out
    assert "ANTHROPIC_BASE_URL=http://box:4000\n" in output
    assert "OPENAI_BASE_URL=https://ai.lan/v1\n" in output


def test_an_unknown_client_is_refused_with_those_that_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["clients", "netscape"])

    assert status == 2
    assert "known are claude-code, codex" in capsys.readouterr().err
