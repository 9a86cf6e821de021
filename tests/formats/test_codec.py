"""What all formats share for conversion."""

from aiproxyd.formats.codec import MAX_LOSS_CHARS, MAX_LOSSES, MORE, Losses, describe_media, refuse
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


def test_a_refusal_says_what_is_in_the_way() -> None:
    error = refuse("a film", "anthropic", "$.messages[0]")

    assert error.message == "a film cannot be sent to this model: its API (anthropic) has no place for it"
    assert (error.status, error.param) == (400, "$.messages[0]")


def test_media_are_described_by_what_is_known_of_them() -> None:
    assert describe_media(Media(kind="image")) == "image"
    assert describe_media(Media(kind="document", media_type="application/pdf", name="a.pdf")) == (
        "document 'a.pdf' application/pdf"
    )
