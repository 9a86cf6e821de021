from collections.abc import Mapping

import msgspec
import pytest

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import GEMINI
from aiproxyd.hub import ModelCard

CARDS = [ModelCard(name=name) for name in "abcde"]


def names_on_page(query: Mapping[str, str]) -> tuple[str, str | None]:
    page = msgspec.json.decode(GEMINI.encode_model_list(CARDS, query))
    return "".join(entry["displayName"] for entry in page["models"]), page.get("nextPageToken")


def test_a_list_of_models_is_decoded_entry_by_entry() -> None:
    body = b"""{"models":[
        {"name":"models/gemini-3-pro","displayName":"Gemini 3 Pro","temperature": 1.0},
        {"name":"tunedModels/mine"},{"name":"bare"},
        {"displayName":"no name"}, {"name":5}, 7, null, []
    ],"nextPageToken":"x"}"""

    cards = GEMINI.decode_model_list(body)

    assert [card.name for card in cards] == ["gemini-3-pro", "tunedModels/mine", "bare"]
    assert {(card.owner, card.origin) for card in cards} == {("google", "gemini")}
    assert GEMINI.encode_model(cards[0]) == (
        b'{"name":"models/gemini-3-pro","displayName":"Gemini 3 Pro","temperature": 1.0}'
    )
    assert GEMINI.decode_model_list(b"{}") == []


def test_a_model_of_another_format_is_shown_with_its_methods() -> None:
    assert msgspec.json.decode(GEMINI.encode_model(ModelCard(name="fast"))) == {
        "name": "models/fast",
        "displayName": "fast",
        "version": "",
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
    }


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ({}, ("abcde", None)),
        ({"pageSize": "5"}, ("abcde", None)),
        ({"pageSize": "2"}, ("ab", "2")),
        ({"pageSize": "2", "pageToken": "2"}, ("cd", "4")),
        ({"pageSize": "2", "pageToken": "4"}, ("e", None)),
        ({"pageSize": "2", "pageToken": ""}, ("ab", "2")),
        ({"pageSize": "2", "pageToken": "999999999999999999"}, ("", None)),
    ],
)
def test_the_list_has_pages(query: Mapping[str, str], page: tuple[str, str | None]) -> None:
    assert names_on_page(query) == page


def test_an_empty_list_is_one_page() -> None:
    assert GEMINI.encode_model_list([], {}) == b'{"models":[]}'


def test_a_page_has_fifty_models_where_the_caller_does_not_say() -> None:
    cards = [ModelCard(name="m") for _ in range(51)]

    page = msgspec.json.decode(GEMINI.encode_model_list(cards, {}))

    assert (len(page["models"]), page["nextPageToken"]) == (50, "50")


@pytest.mark.parametrize("query", [{"pageSize": "0"}, {"pageSize": "-1"}, {"pageToken": "x"}, {"pageToken": "0"}])
def test_a_page_that_does_not_exist_is_refused(query: Mapping[str, str]) -> None:
    with pytest.raises(InvalidRequest, match="must be a positive whole number"):
        GEMINI.encode_model_list(CARDS, query)
