import msgspec
import pytest
from msgspec import Raw

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.gemini.wire import clean, decode_at, is_object, is_string, read_opaque
from aiproxyd.hub import Opaque


def test_the_shape_of_a_value_shows_in_its_first_byte() -> None:
    assert [is_object(Raw(raw)) for raw in (b"{}", b"[]", b'"a"', b"1")] == [True, False, False, False]
    assert [is_string(Raw(raw)) for raw in (b"{}", b"[]", b'"a"', b"1")] == [False, False, True, False]


def test_an_error_has_the_path_from_the_top() -> None:
    decoder = msgspec.json.Decoder(list[int])

    for raw, param in ((b'[1,"a"]', "$.x[1]"), (b"5", "$.x")):
        with pytest.raises(InvalidRequest) as caught:
            decode_at(decoder, Raw(raw), "$.x")
        assert caught.value.param == param
        assert caught.value.message.endswith(f" - at `{param}`")


def test_a_part_is_named_by_its_data() -> None:
    raw = Raw(b'{"thoughtSignature":"AAAA","thought":true,"toolCall":{}}')

    assert read_opaque(raw) == Opaque("gemini", "toolCall", raw)
    assert read_opaque(Raw(b'{"thought":true}')) is None
    assert read_opaque(Raw(b"[]")) is None


def test_bytes_that_are_no_text_and_line_breaks_do_not_travel() -> None:
    assert clean(Raw(b'{"a":\n [1.50, "\xff\\n"] }')) == Raw('{"a":[1.50,"\ufffd\\n"]}'.encode())
