"""``aiproxyd clients``."""

import shutil
import socket
import subprocess
from pathlib import Path

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


# The file's name was taken for the client's.
@pytest.mark.parametrize(
    "arguments", [["--config", "{file}"], ["--config", "{file}", "curl"], ["curl", "--config={file}"]]
)
def test_the_options_of_serve_may_stand_anywhere(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.ini"
    path.write_text("[aiproxyd]\nport = 4444\n")

    status = main(["clients", *(argument.format(file=path) for argument in arguments)])

    assert status == 0
    assert "curl http://127.0.0.1:4444/v1/chat/completions" in capsys.readouterr().out


def test_an_unknown_option_is_refused_beside_a_url_too(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["clients", "curl", "--url", "http://box:3000", "--nonsense"])

    assert status == 2
    assert capsys.readouterr().err == "unrecognized arguments: --nonsense\n"


def test_curl_is_told_the_unix_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["clients", "curl", "--unix-socket", f"{tmp_path}/a b"])

    assert status == 0
    assert capsys.readouterr().out.startswith(
        f"curl --unix-socket '{tmp_path}/a b' http://localhost/v1/chat/completions -H "
    )


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_line_for_curl_reaches_a_unix_socket(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        main(["clients", "curl", "--unix-socket", str(path), "--model", "demo"])
        line = capfd.readouterr().out

        with subprocess.Popen(["/bin/sh", "-c", line], stdout=subprocess.PIPE) as shell:
            server.settimeout(10)
            connection, _ = server.accept()
            with connection:
                request = connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            assert shell.stdout is not None
            answer = shell.stdout.read()

    assert request.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n")
    assert answer == b"ok"


def test_clients_that_cannot_reach_a_unix_socket_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["clients", "claude-code", "--unix-socket", "/run/s"])

    assert status == 2
    assert capsys.readouterr().err == (
        "claude-code cannot reach a Unix socket: give the URL of a server in front of it with --url\n"
    )


def test_only_curl_is_printed_for_a_unix_socket(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["clients", "--unix-socket", "/run/s"])

    captured = capsys.readouterr()
    assert status == 0
    assert captured.out.startswith("# curl\ncurl --unix-socket /run/s ")
    assert "unix:" not in captured.out
    assert "claude-code, codex, gemini-cli" in captured.err
    assert "cannot reach a Unix socket" in captured.err


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_who_listens_everywhere_is_reached_by_the_name_of_the_machine(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["clients", "anthropic-python", "--host", host])

    assert f"ANTHROPIC_BASE_URL=http://{socket.gethostname()}:3000\n" in capsys.readouterr().out


def test_a_port_that_is_chosen_at_start_cannot_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["clients", "curl", "--port", "0"])

    assert status == 2
    assert "with --url" in capsys.readouterr().err
