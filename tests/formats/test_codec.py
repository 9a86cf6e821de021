"""What all formats share for conversion."""

import msgspec
import pytest

from aiproxyd.formats.codec import (
    MAX_LOSS_CHARS,
    MAX_LOSSES,
    MORE,
    Losses,
    describe_media,
    read_arguments,
    refuse,
    to_object,
    unwrap_arguments,
)
from aiproxyd.hub import Media


def test_losses_are_named_once_in_their_order() -> None:
    losses = Losses()

    for name in ("top_k", "seed", "top_k"):
        losses.drop(name)

    assert losses.names == ["top_k", "seed"]


def test_a_caller_cannot_make_the_list_of_losses_long() -> None:
    losses = Losses()

    for number in range(10_000):
        losses.drop(f"{number}" + "x" * 1_000)

    assert len(losses.names) == MAX_LOSSES + 1
    assert losses.names[-1] == MORE
    assert max(map(len, losses.names)) == MAX_LOSS_CHARS


def test_losses_that_are_noticed_later_are_seen_by_whoever_has_the_list() -> None:
    losses = Losses()
    losses.drop("seed")
    names = losses.names

    losses.drop("executableCode")

    assert names == ["seed", "executableCode"]


@pytest.mark.parametrize(
    ("arguments", "read"),
    [("", "{}"), (" \n", "{}"), ("null", "{}"), ("{}", "{}"), ('{"a": 1.50}', '{"a": 1.50}'), ('{"a', '{"a')],
)
def test_arguments_are_read_as_they_are_written(arguments: str, read: str) -> None:
    assert read_arguments(arguments) == read


@pytest.mark.parametrize("arguments", ['{"a": 1.50}', " {}\n", '{"n": 12345678901234567890123}'])
def test_arguments_that_are_an_object_stand_as_they_were_written(arguments: str) -> None:
    assert bytes(to_object(arguments)) == arguments.encode()


@pytest.mark.parametrize(
    "arguments", ['{"city": "Os', "[]", "x \u20ac", '"{}"', "5", '{"a":1}{"a":2}', '{"a":' * 100_000]
)
def test_arguments_that_are_no_object_are_wrapped_in_one(arguments: str) -> None:
    wrapped = bytes(to_object(arguments))

    assert msgspec.json.decode(wrapped) == {"INVALID_JSON": arguments}
    assert unwrap_arguments(wrapped.decode()) == arguments
    assert unwrap_arguments(msgspec.json.format(wrapped.decode())) == arguments


@pytest.mark.parametrize("space", ["\n    ", "\n" + " " * 24, "\r\n\t\t"])
def test_wrapped_arguments_are_known_however_their_body_is_laid_out(space: str) -> None:
    assert unwrap_arguments(f'{{{space}"INVALID_JSON" : "[1"{space}}}') == "[1"


@pytest.mark.parametrize(
    "arguments",
    [
        "{}",
        '{"a":"INVALID_JSON"}',
        '{"INVALID_JSON":5}',
        '{"INVALID_JSON":"x","a":"y"}',
        '{"INVALID_JSON":"x"',
        # A tool may have such a parameter: nothing that is an object, or none, has been wrapped here.
        '{"INVALID_JSON":"{\\"a\\":1}"}',
        '{"INVALID_JSON":""}',
        "5",
    ],
)
def test_no_other_arguments_are_unwrapped(arguments: str) -> None:
    assert unwrap_arguments(arguments) == arguments


@pytest.mark.parametrize("arguments", ["", " \n", "null"])
def test_no_arguments_are_an_empty_object(arguments: str) -> None:
    assert bytes(to_object(arguments)) == b"{}"


def test_half_a_character_in_arguments_does_no_harm() -> None:
    assert msgspec.json.decode(to_object("\ud800")) == {"INVALID_JSON": "?"}


def test_a_refusal_says_what_is_in_the_way() -> None:
    error = refuse("a film", "anthropic", "$.messages[0]")

    assert error.message == "a film cannot be sent to this model: its API (anthropic) has no place for it"
    assert (error.status, error.param) == (400, "$.messages[0]")


def test_media_are_described_by_what_is_known_of_them() -> None:
    assert describe_media(Media(kind="image")) == "image"
    assert describe_media(Media(kind="document", media_type="application/pdf", name="a.pdf")) == (
        "document 'a.pdf' application/pdf"
    )
