import msgspec
import pytest
from msgspec import Struct

from aiproxyd.errors import InvalidRequest, UpstreamGarbage
from aiproxyd.formats.base import (
    MAX_MESSAGE_CHARS,
    Peek,
    check_text,
    decode_answer,
    decode_body,
    decode_error_body,
    decode_input_tokens,
    decode_list,
    decode_view,
    is_whole_event,
    keep_members,
    name_members,
    read_number,
    unwrap_array,
)


class View(Struct):
    count: int = 0


PEEK = msgspec.json.Decoder(Peek)
VIEW = msgspec.json.Decoder(View)
DEEP = b"[" * 100_000
NO_TEXT = b'{"model":"\xff"}'


def test_a_request_is_decoded() -> None:
    assert decode_body(PEEK, b'{"x":[1],"model":"m","stream":null}') == Peek("m", None)
    assert Peek("m").wants_usage
    assert Peek("m").candidates == 1


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (b'{"model":5}', "invalid request body: Expected `str`, got `int` - at `$.model`", "$.model"),
        (b"{}", "invalid request body: Object missing required field `model`", None),
        (b"[]", "invalid request body: Expected `object`, got `array`", None),
        (b"", "malformed JSON: Input data was truncated", None),
        (b'{"model":"m"', "malformed JSON: Input data was truncated", None),
        (b'{"model":"m"} x', "malformed JSON: trailing characters (byte 15)", None),
        (NO_TEXT, "malformed JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte", None),
        (b'{"x":' + DEEP, "malformed JSON: maximum recursion depth exceeded while deserializing an object", None),
    ],
)
def test_a_request_that_does_not_fit_is_refused_with_the_place(body: bytes, message: str, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_body(PEEK, body)

    assert (caught.value.message, caught.value.param) == (message, param)


def test_a_view_is_what_fits() -> None:
    assert decode_view(VIEW, b'{"count":3,"x":{}}') == View(3)
    for data in (b'{"count":"3"}', b"[]", b"", b"\xff", b'{"x":' + DEEP):
        assert decode_view(VIEW, data) is None
    assert decode_view(PEEK, NO_TEXT) is None


def test_an_answer_of_another_shape_is_no_view_and_one_that_is_no_json_an_error() -> None:
    assert decode_answer(VIEW, b'{"count":3}') == View(3)
    assert decode_answer(VIEW, b'{"count":"3"}') is None
    assert decode_answer(VIEW, b"[]") is None
    # The decoder stops at the first thing that does not fit, whatever follows.
    for broken in (b"[1, 2", b'{"count":"3"', b'{"count":"3"} and more', b'{"count":"3","x":' + DEEP):
        with pytest.raises(msgspec.DecodeError):
            decode_answer(VIEW, broken)
    for body in (b"", b"<html>", b'{"x":' + DEEP):
        with pytest.raises(msgspec.DecodeError):
            decode_answer(VIEW, body)
    with pytest.raises(msgspec.DecodeError):
        decode_answer(PEEK, NO_TEXT)


def test_a_list_that_does_not_fit_is_garbage() -> None:
    assert decode_list(VIEW, b'{"count":3}') == View(3)
    for body in (b"[]", b"<html>", b"", b'{"count":3,"new":"\xff"}'):
        with pytest.raises(UpstreamGarbage, match="the upstream's list of models is none"):
            decode_list(VIEW, body)


def test_a_number_of_the_query_is_read() -> None:
    assert read_number({"limit": "1"}, "limit", 20) == 1
    assert read_number({"limit": "0100"}, "limit", 20) == 100
    assert read_number({"limit": "9" * 18}, "limit", 20) == 10**18 - 1
    assert read_number({"limit": ""}, "limit", 20) == 20
    assert read_number({"other": "1"}, "limit", 20) == 20


@pytest.mark.parametrize(
    "text", ["0", "00", "-1", "+1", "1.0", "1e3", "ten", " 1", "1_0", "٣", "²", "9" * 19, "9" * 5000]
)
def test_a_number_of_the_query_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_number({"limit": text}, "limit", 20)

    assert caught.value.message == f"limit must be a positive whole number, not {text[:40]!r}"
    assert caught.value.param == "limit"


@pytest.mark.parametrize(
    ("body", "message", "error"),
    [
        (b'{"error":{"message":"no","code":1}}', "no", {"message": "no", "code": 1}),
        (b'{"error":"no"}', "no", {}),
        (b'{"detail":[{"msg":"Field required"},{"msg":"2"}]}', "Field required", {}),
        (b'{"detail":"Not Found"}', "Not Found", {}),
        (b'{"detail":{"message":"no"}}', "no", {}),
        (b'{"message":"no","object":"error"}', "no", {}),
        (b'{"error":{"message":""},"message":"no"}', "no", {"message": ""}),
        (b'{"error":{"message":5}}', "", {"message": 5}),
        (b'{"error":{"message":null},"detail":[]}', "", {"message": None}),
        (b'{"error":null,"detail":[5],"message":["no"]}', "", {}),
        (b'[{"error":{"message":"no"}}]', "no", {"message": "no"}),
        (b'[{"error":{"message":"no"}},{}]', "", {}),
        (b"[]", "", {}),
        (b'["no"]', "", {}),
        (b'"no"', "", {}),
        (b"5", "", {}),
        (b"  upstream connect error\n", "upstream connect error", {}),
        (b"no\xff", "no\ufffd", {}),
        (b"\n<!DOCTYPE html><title>502</title>", "", {}),
        (b"", "", {}),
    ],
)
def test_the_message_of_an_error_is_found(body: bytes, message: str, error: dict[str, object]) -> None:
    assert decode_error_body(body) == (message, error)


def test_a_long_message_is_cut() -> None:
    assert decode_error_body(b"x" * 5000) == ("x" * MAX_MESSAGE_CHARS, {})
    assert decode_error_body(b'{"error":"%s"}' % (b"x" * 5000)) == ("x" * MAX_MESSAGE_CHARS, {})
    assert decode_error_body(DEEP) == ("[" * MAX_MESSAGE_CHARS, {})


def test_an_array_of_one_is_unwrapped() -> None:
    assert unwrap_array(b' [ {"a":1.50} ]') == b'{"a":1.50}'
    assert unwrap_array(b'{"a":1.50}') == b'{"a":1.50}'
    assert unwrap_array(b"[]") == b"[]"
    assert unwrap_array(b"no") == b"no"


@pytest.mark.parametrize(
    ("piece", "is_whole"),
    [
        (b"data: {}", True),
        (b"event: x\ndata: [1]\n", True),
        (b"data: [DONE]", True),
        (b'data: {"a":', False),
        (b"event: x", False),
        (b": comment", False),
        (b"", False),
    ],
)
def test_an_event_at_the_end_is_whole_or_half(piece: bytes, is_whole: bool) -> None:
    assert is_whole_event(piece) is is_whole


def test_only_certain_members_are_kept_and_as_they_are() -> None:
    assert keep_members(b'{"a": 1.50, "b":[ ], "c":null}', ("c", "a", "x")) == b'{"a":1.50,"c":null}'


def test_members_that_say_something_are_named() -> None:
    assert name_members(b'{"type":"x","b":false,"c":null,"d":[]}', ("type",)) == ("b", "d")
    assert name_members(b"[1]") == name_members(b"null") == ()


def test_a_count_of_tokens_is_read() -> None:
    assert decode_input_tokens(b'{"input_tokens":12,"object":"x"}') == 12
    for body in (b"{}", b'{"input_tokens":null}', b"<html>", b'{"input_tokens":-1}', b'{"input_tokens":1e99}'):
        with pytest.raises(UpstreamGarbage, match="the upstream has counted no tokens"):
            decode_input_tokens(body)


def test_text_has_to_be_utf_8_where_nobody_decodes_it_too() -> None:
    for body in (b"{}", '{"a":"é"}'.encode()):
        assert check_text(body) is body
    with pytest.raises(InvalidRequest, match="malformed JSON: 'utf-8' codec can't decode byte 0xff"):
        check_text(b'{"a":"\xff"}')
