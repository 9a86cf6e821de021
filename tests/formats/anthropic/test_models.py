"""Lists of models as Anthropic shows them."""

from collections.abc import Mapping

import msgspec
import pytest

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import ANTHROPIC
from aiproxyd.hub import ModelCard

CARDS = [ModelCard(name=name) for name in "abcde"]


def names_on_page(query: Mapping[str, str], cards: list[ModelCard] = CARDS) -> tuple[str, bool, str | None, str | None]:
    page = msgspec.json.decode(ANTHROPIC.encode_model_list(cards, query))
    names = "".join(entry["id"] for entry in page["data"])
    return names, page["has_more"], page["first_id"], page["last_id"]


def test_a_list_of_models_is_decoded_entry_by_entry() -> None:
    body = b"""{"data":[
        {"type":"model","id":"claude-5","display_name":"Claude 5","created_at":"2026-08-01T00:00:00Z","x": 1.50},
        {"id":"zoned","created_at":"2026-08-01T02:00:00.5+02:00"},
        {"id":"naive","created_at":"2026-08-01T00:00:00"},
        {"id":"date","created_at":"2026-08-01"},
        {"id":"epoch","created_at":"1970-01-01T00:00:00Z"},
        {"id":"zero","created_at":"0001-01-01T00:00:00"},
        {"id":"number","created_at":1785542400},
        {"id":"null","created_at":null},
        {"id":"odd","created_at":"soon"},
        {"name":"no id"}, {"id":5}, 7, null, []
    ],"has_more":true}"""

    cards = ANTHROPIC.decode_model_list(body)

    assert [(card.name, card.created) for card in cards] == [
        ("claude-5", 1785542400),
        ("zoned", 1785542400),
        ("naive", 1785542400),
        ("date", 1785542400),
        ("epoch", 0),
        ("zero", -62135596800),
        ("number", None),
        ("null", None),
        ("odd", None),
    ]
    assert {(card.owner, card.origin) for card in cards} == {("anthropic", "anthropic")}
    assert ANTHROPIC.encode_model(cards[0]).endswith(b'"x": 1.50}')


def test_a_model_of_another_format_is_shown_with_all_that_the_sdk_wants() -> None:
    assert msgspec.json.decode(ANTHROPIC.encode_model(ModelCard(name="fast", created=1785542400))) == {
        "type": "model",
        "id": "fast",
        "display_name": "fast",
        "created_at": "2026-08-01T00:00:00Z",
        "lifecycle": "active",
        "capabilities": None,
        "max_input_tokens": None,
        "max_tokens": None,
    }
    assert b'"created_at":"1970-01-01T00:00:00Z"' in ANTHROPIC.encode_model(ModelCard(name="fast"))


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ({}, ("abcde", False, "a", "e")),
        ({"limit": "5"}, ("abcde", False, "a", "e")),
        ({"limit": "2"}, ("ab", True, "a", "b")),
        ({"limit": "2", "after_id": "b"}, ("cd", True, "c", "d")),
        ({"limit": "2", "after_id": "c"}, ("de", False, "d", "e")),
        ({"limit": "2", "after_id": "e"}, ("", False, None, None)),
        ({"limit": "2", "before_id": "d"}, ("bc", True, "b", "c")),
        ({"limit": "2", "before_id": "c"}, ("ab", False, "a", "b")),
        ({"limit": "2", "before_id": "b"}, ("a", False, "a", "a")),
        ({"before_id": "a"}, ("", False, None, None)),
        ({"limit": "1000", "lifecycle": "active"}, ("abcde", False, "a", "e")),
    ],
)
def test_the_list_has_pages(query: Mapping[str, str], page: tuple[str, bool, str | None, str | None]) -> None:
    assert names_on_page(query) == page


def test_an_empty_list_is_one_page() -> None:
    assert ANTHROPIC.encode_model_list([], {}) == b'{"data":[],"has_more":false,"first_id":null,"last_id":null}'


def test_a_page_has_twenty_models_where_the_caller_does_not_say() -> None:
    cards = [ModelCard(name=f"m{number}") for number in range(21)]

    names, has_more, _, last = names_on_page({}, cards)

    assert (names.count("m"), has_more, last) == (20, True, "m19")


@pytest.mark.parametrize(
    ("query", "param"),
    [({"limit": "0"}, "limit"), ({"after_id": "x"}, "after_id"), ({"before_id": ""}, "before_id")],
)
def test_a_page_that_does_not_exist_is_refused(query: Mapping[str, str], param: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{param}") as caught:
        ANTHROPIC.encode_model_list(CARDS, query)

    assert caught.value.param == param
