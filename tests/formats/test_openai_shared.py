import time
from collections.abc import Mapping

import msgspec
import pytest
from msgspec import Raw

from aiproxyd.errors import InvalidRequest, UpstreamKeyRefused, UpstreamRefusal
from aiproxyd.formats import OPENAI_CHAT, OPENAI_RESPONSES
from aiproxyd.formats.openai_shared import (
    add_object_type,
    clean_schema_name,
    decode_band_error,
    is_strict_schema,
    make_data_url,
    read_file,
    render_error,
    split_data_url,
)
from aiproxyd.hub import CacheMark, Media, ModelCard


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


@pytest.mark.parametrize(("code", "kind"), [("insufficient_quota", "billing"), ("rate_limit_exceeded", "rate_limit")])
def test_an_empty_purse_is_no_rate_limit_although_it_has_its_status(code: str, kind: str) -> None:
    error = OPENAI_CHAT.decode_error(429, msgspec.json.encode({"error": {"message": "no", "code": code}}))

    assert (error.status, error.kind) == (429, kind)


def test_an_error_in_band_is_shown_whole_as_the_body_of_an_answer() -> None:
    decoded = decode_band_error({"message": "no", "code": "x", "extra": 1.5})

    assert isinstance(decoded, UpstreamRefusal)
    assert decoded.body == b'{"error":{"message":"no","type":"server_error","param":null,"code":"x","extra":1.5}}'


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


@pytest.mark.parametrize("field", ["message", "code", "type", "param", "details"])
@pytest.mark.parametrize("depth", range(400, 1101, 50))
def test_an_error_in_band_of_any_depth_is_read(field: str, depth: int) -> None:
    nest: object = "no"
    for _ in range(depth):
        nest = [nest]

    decoded = decode_band_error({"status_code": 429, field: nest})

    assert isinstance(decoded, UpstreamRefusal)
    assert decoded.status == 429


def test_an_error_in_band_that_goes_too_deep_has_no_body() -> None:
    nest: object = "no"
    for _ in range(100_000):
        nest = [nest]

    decoded = decode_band_error({"message": nest})

    assert isinstance(decoded, UpstreamRefusal)
    assert (decoded.message, decoded.body) == ("the upstream reported an error", None)


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


@pytest.mark.parametrize(
    ("url", "split"),
    [
        ("data:image/png;base64,AA==", ("image/png", "AA==")),
        ("DATA:image/PNG;BASE64,AA==", ("image/png", "AA==")),
        ("data:text/plain;charset=utf-8;base64,AA==", ("text/plain", "AA==")),
        ("data:;base64,AA==", ("", "AA==")),
        ("data:image/png;base64,", ("image/png", "")),
        ("data:image/png,AA==", None),
        ("data:image/png", None),
        ("https://example.org/data:image/png;base64,AA==", None),
        ("", None),
    ],
)
def test_a_data_url_is_taken_apart(url: str, split: tuple[str, str] | None) -> None:
    assert split_data_url(url) == split


def test_a_data_url_is_put_together() -> None:
    assert make_data_url(Media(kind="image", media_type="image/png", data="AA==")) == "data:image/png;base64,AA=="


@pytest.mark.parametrize(
    ("file_data", "name", "media"),
    [
        ("data:application/pdf;base64,AA==", "", Media(kind="document", media_type="application/pdf", data="AA==")),
        ("AA==", "a.b.PDF", Media(kind="document", media_type="application/pdf", data="AA==", name="a.b.PDF")),
        ("AA==", "a.jpeg", Media(kind="image", media_type="image/jpeg", data="AA==", name="a.jpeg")),
        ("AA==", "a.mp3", Media(kind="audio", media_type="audio/mpeg", data="AA==", name="a.mp3")),
        ("data:video/mp4;base64,AA==", "a", Media(kind="video", media_type="video/mp4", data="AA==", name="a")),
        ("w6k=", "a.txt", Media(kind="document", media_type="text/plain", data="é", name="a.txt")),
        ("data:text/csv;base64,YSxi", "", Media(kind="document", media_type="text/plain", data="a,b")),
    ],
)
def test_a_file_has_the_type_of_its_data_url_or_of_its_name(file_data: str, name: str, media: Media) -> None:
    assert read_file(file_data, name, "$.x") == media


def test_a_file_may_carry_a_cache_mark() -> None:
    assert read_file("AA==", "a.pdf", "$.x", CacheMark("1h")).cache == CacheMark("1h")


@pytest.mark.parametrize(
    ("file_data", "name", "problem"),
    [
        ("AA==", "", "a file needs a media type"),
        ("AA==", "a.zip", "a file needs a media type"),
        ("data:;base64,AA==", "a.pdf", "a file needs a media type"),
        ("/w==", "a.txt", "base64 of UTF-8"),
        ("not base64", "a.txt", "base64 of UTF-8"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(file_data: str, name: str, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem) as caught:
        read_file(file_data, name, "$.x")

    assert caught.value.param == "$.x"


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [("", "response"), ("a-b_1", "a-b_1"), ("My schema: é!", "My_schema_"), ("x" * 70, "x" * 64)],
)
def test_the_name_of_a_schema_is_made_legal(name: str, cleaned: str) -> None:
    assert clean_schema_name(name) == cleaned


@pytest.mark.parametrize(
    ("schema", "typed"),
    [
        (b'{"type":"object","x":1.50}', b'{"type":"object","x":1.50}'),
        (b'{ "x": 1.50, "type": "object" }', b'{ "x": 1.50, "type": "object" }'),
        (b'{ "x": 1.50}', b'{"type":"object","x":1.50}'),
        (b"{}", b'{"type":"object"}'),
        (b"true", b"true"),
    ],
)
def test_a_schema_of_arguments_has_a_type(schema: bytes, typed: bytes) -> None:
    assert bytes(add_object_type(msgspec.Raw(schema))) == typed


CLOSED = {"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    "schema",
    [
        CLOSED,
        {"type": "object", "additionalProperties": False},
        CLOSED | {"properties": {"a": CLOSED}},
        CLOSED | {"properties": {"a": {"type": "array", "items": CLOSED}}},
        CLOSED | {"properties": {"a": {"anyOf": [CLOSED, {"type": "null"}]}}},
        CLOSED | {"$defs": {"b": CLOSED}, "properties": {"a": {"$ref": "#/$defs/b"}}},
    ],
)
def test_a_schema_that_says_all_is_strict(schema: object) -> None:
    assert is_strict_schema(msgspec.Raw(msgspec.json.encode(schema)))


OPEN = {"type": "object", "properties": {"a": {}}, "required": ["a"]}


@pytest.mark.parametrize(
    "schema",
    [
        OPEN,
        OPEN | {"additionalProperties": True},
        CLOSED | {"required": []},
        CLOSED | {"required": None},
        CLOSED | {"required": 5},
        {"properties": {"a": {}}},
        {"type": "object"},
        CLOSED | {"properties": {"a": OPEN}},
        CLOSED | {"properties": {"a": {"items": OPEN}}},
        CLOSED | {"properties": {"a": {"anyOf": [OPEN]}}},
        CLOSED | {"$defs": {"b": OPEN}},
        CLOSED | {"definitions": {"b": OPEN}},
        CLOSED | {"oneOf": [CLOSED]},
        CLOSED | {"properties": {"a": True}},
        [],
        True,
    ],
)
def test_a_schema_that_leaves_something_open_is_not_strict(schema: object) -> None:
    assert not is_strict_schema(msgspec.Raw(msgspec.json.encode(schema)))


@pytest.mark.parametrize("depth", [100, 400, 900, 100_000])
def test_a_schema_of_any_depth_is_looked_at(depth: int) -> None:
    schema = msgspec.Raw(b'{"items":' * depth + b"{}" + b"}" * depth)

    assert is_strict_schema(schema) in (True, False)


def test_a_schema_of_many_properties_is_looked_through_in_linear_time() -> None:
    names = [f"property_{number}" for number in range(40_000)]
    schema = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
        "required": names,
        "additionalProperties": False,
    }
    start_s = time.process_time()

    is_strict = is_strict_schema(Raw(msgspec.json.encode(schema)))

    assert is_strict
    assert time.process_time() - start_s < 1
