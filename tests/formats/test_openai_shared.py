from collections.abc import Mapping

import msgspec
import pytest

from aiproxyd.errors import InvalidRequest, UpstreamKeyRefused, UpstreamRefusal
from aiproxyd.formats import OPENAI_CHAT, OPENAI_RESPONSES
from aiproxyd.formats.openai_shared import decode_band_error, render_error
from aiproxyd.hub import ModelCard


def test_an_error_names_the_place() -> None:
    error = InvalidRequest("no", param="$.model")

    assert render_error(error) == {
        "message": "no",
        "type": "invalid_request_error",
        "param": "model",
        "code": None,
    }


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 429}, 429),
        ({"code": "slow", "status_code": 503}, 503),
        ({"code": "rate_limit_exceeded"}, 429),
        ({"code": "insufficient_quota"}, 429),
        ({"code": "context_length_exceeded", "type": "x"}, 400),
        ({"type": "invalid_request_error", "code": None}, 400),
        ({"type": "rate_limit_error"}, 429),
        ({"type": "overloaded_error"}, 503),
        ({"code": "server_is_overloaded"}, 503),
        ({"type": "server_error"}, 502),
        ({"code": 400}, 400),
        ({"code": 599}, 599),
        ({"code": 399}, 502),
        ({"code": 600}, 502),
        ({"code": True}, 502),
        ({"code": [429]}, 502),
        ({"code": 10**30}, 502),
        ({}, 502),
    ],
)
def test_an_error_in_band_has_the_status_of_its_words(error: dict[str, object], status: int) -> None:
    decoded = decode_band_error({"message": "no", **error})

    assert isinstance(decoded, UpstreamRefusal)
    assert (decoded.status, decoded.message) == (status, "no")
    assert msgspec.json.decode(decoded.body or b"", type=dict[str, msgspec.Raw])


def test_an_error_in_band_is_shown_whole_as_the_body_of_an_answer() -> None:
    decoded = decode_band_error({"message": "no", "code": "x", "extra": 1.5})

    assert isinstance(decoded, UpstreamRefusal)
    assert decoded.body == b'{"error":{"message":"no","type":null,"param":null,"code":"x","extra":1.5}}'


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("Unexpected endpoint", "Unexpected endpoint"),
        ({"message": ""}, "the upstream reported an error"),
        ({"message": ["no"]}, "['no']"),
        ({}, "the upstream reported an error"),
        (True, "the upstream reported an error"),
        (["no"], "the upstream reported an error"),
    ],
)
def test_an_error_in_band_of_any_shape_has_a_message(error: object, message: str) -> None:
    assert decode_band_error(error).message == message


@pytest.mark.parametrize(
    "error",
    [
        {"code": 401},
        {"code": "401"},
        {"code": "invalid_api_key", "type": "invalid_request_error"},
        {"code": None, "type": "authentication_error"},
    ],
)
def test_a_refused_key_in_band_is_not_quoted(error: dict[str, object]) -> None:
    decoded = decode_band_error({"message": "Incorrect API key provided: sk-up***am", **error})

    assert isinstance(decoded, UpstreamKeyRefused)
    assert decoded.message == "the upstream refused the gateway's credential"


@pytest.mark.parametrize(
    ("body", "message", "passed_on"),
    [
        (b'{"error":{"message":"no","x":1.50}}', "no", b'{"error":{"message":"no","x":1.50}}'),
        (b' [{"error":{"message":"no","x":1.50}}]', "no", b'{"error":{"message":"no","x":1.50}}'),
        (
            b'{"error":{"message":"","code":"x"}}',
            "the upstream answered with status 418",
            b'{"error":{"message":"","code":"x"}}',
        ),
        (b'{"error":{"code":"x"}}', "the upstream answered with status 418", None),
        (b'{"error":"no"}', "no", None),
        (b'{"detail":"no"}', "no", None),
        (b"<html>", "the upstream answered with status 418", None),
        (b"", "the upstream answered with status 418", None),
    ],
)
def test_an_error_answer_is_passed_on_where_the_callers_sdk_can_read_it(
    body: bytes, message: str, passed_on: bytes | None
) -> None:
    error = OPENAI_CHAT.decode_error(418, body)

    assert isinstance(error, UpstreamRefusal)
    assert (error.message, error.status, error.body) == (message, 418, passed_on)


def test_a_list_of_models_is_decoded_entry_by_entry() -> None:
    body = b"""{"object":"list","data":[
        {"id":"gpt-5","object":"model","created":1754425777,"owned_by":"system","x": 1.50},
        {"id":"llama","created":1754425777.9},
        {"id":"ms","created":1754425777000,"owned_by":null},
        {"id":"odd","created":"2026-11-23"},
        {"id":"huge","created":1e300},
        {"id":"negative","created":-1},
        {"id":"first","created":0},
        {"id":"last","created":253402300799},
        {"id":"after","created":253402300800},
        {"name":"no id"}, {"id":5}, 7, null, "gpt", []
    ]}"""

    cards = OPENAI_RESPONSES.decode_model_list(body)

    assert [(card.name, card.created, card.owner, card.origin) for card in cards] == [
        ("gpt-5", 1754425777, "system", "openai"),
        ("llama", 1754425777, "", "openai"),
        ("ms", None, "", "openai"),
        ("odd", None, "", "openai"),
        ("huge", None, "", "openai"),
        ("negative", None, "", "openai"),
        ("first", 0, "", "openai"),
        ("last", 253402300799, "", "openai"),
        ("after", None, "", "openai"),
    ]
    assert bytes(cards[0].raw) == b'{"id":"gpt-5","object":"model","created":1754425777,"owned_by":"system","x": 1.50}'


@pytest.mark.parametrize("query", [{}, {"limit": "1", "after_id": "nobody", "pageSize": "x"}])
def test_the_list_has_no_pages(query: Mapping[str, str]) -> None:
    cards = [ModelCard(name="a"), ModelCard(name="b", created=5, owner="up")]

    assert OPENAI_CHAT.encode_model_list(cards, query) == (
        b'{"object":"list","data":[{"id":"a","object":"model","created":0,"owned_by":"aiproxyd"},'
        b'{"id":"b","object":"model","created":5,"owned_by":"up"}]}'
    )
    assert OPENAI_CHAT.encode_model_list([], query) == b'{"object":"list","data":[]}'
