"""``aiproxyd keys``."""

import hashlib
import re
from pathlib import Path

import pytest

from aiproxyd.__main__ import main
from aiproxyd.config import load_settings
from aiproxyd.keyring import Keyring


def test_a_created_key_opens_the_section_that_is_printed_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "create", "kitchen-tablet", "--models", "fast, gpt-5*"]) == 0

    output = capsys.readouterr().out
    key = re.search(r"sk-aiproxyd-\S+", output)
    assert key is not None
    path = tmp_path / "config.ini"
    path.write_text(output[output.index("[key ") :])
    principal = Keyring(load_settings(["--demo", "--config", str(path)], {}).keys).find(key[0])
    assert principal is not None
    assert principal.name == "kitchen-tablet"
    assert principal.may_use("gpt-5-mini")
    assert not principal.may_use("claude-opus-5")


def test_two_created_keys_differ(capsys: pytest.CaptureFixture[str]) -> None:
    main(["keys", "create", "a"])
    main(["keys", "create", "a"])

    output = capsys.readouterr().out
    assert len(set(re.findall(r"sk-aiproxyd-\S+", output))) == 2
    assert "models" not in output


def test_the_configured_keys_are_listed_without_their_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digests = [hashlib.sha256(key).hexdigest() for key in (b"one", b"two")]
    path = tmp_path / "config.ini"
    path.write_text(f"[key a]\nsecret = sha256:{digests[0]}\n[key b]\nsecret = sha256:{digests[1]}\nmodels = x, y*\n")

    status = main(["keys", "list", "--demo", "--config", str(path)])

    assert status == 0
    assert capsys.readouterr().out == "a: all models\nb: x, y*\n"


def test_keys_are_listed_where_there_is_no_upstream_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Listing them asked for all that serving needs.
    path = tmp_path / "config.ini"
    path.write_text(f"[key a]\nsecret = sha256:{hashlib.sha256(b'one').hexdigest()}\n")

    status = main(["keys", "list", "--config", str(path)])

    assert status == 0
    assert capsys.readouterr().out == "a: all models\n"


@pytest.mark.parametrize("name", ["", "a]b", " a", "a\nb"])
def test_a_name_that_would_break_the_file_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", name]) == 2

    assert "is no name for a key" in capsys.readouterr().err


def test_an_unknown_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "a", "--nonsense"]) == 2

    assert capsys.readouterr().err == "unrecognized arguments: --nonsense\n"


@pytest.mark.parametrize("arguments", [[], ["crate", "a"], ["create"]])
def test_who_asks_wrongly_is_led_to_the_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", *arguments]) == 2

    assert re.search(r"; see `aiproxyd keys( create)? --help`\n$", capsys.readouterr().err)


def test_no_key_at_all_is_said_beside_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.ini"
    path.write_text("")

    status = main(["keys", "list", "--config", str(path)])

    captured = capsys.readouterr()
    assert status == 0
    assert captured.out == ""
    assert captured.err == f"no key is configured ({path}); `aiproxyd keys create NAME` makes one\n"
