import msgspec
import pytest

from aiproxyd.errors import InvalidRequest, UpstreamGarbage
from aiproxyd.formats.gemini.counting import decode_count, unwrap_count, wrap_count


@pytest.mark.parametrize("name", ["generateContentRequest", "generate_content_request"])
def test_a_whole_request_is_counted_as_such(name: str) -> None:
    body = b'{"%s": {"model":"models/m","contents":[ ],"tools":[1.50]}}' % name.encode()

    assert unwrap_count(body) == b'{"contents":[ ],"tools":[1.50]}'


@pytest.mark.parametrize("body", [b'{"contents":[]}', b'{"generateContentRequest":null,"contents":[]}', b"{}"])
def test_bare_contents_are_a_request_of_their_own(body: bytes) -> None:
    assert unwrap_count(body) == body


@pytest.mark.parametrize("body", [b"", b"[]", b'{"generateContentRequest":5}', b'{"generateContentRequest":{"a":}}'])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        unwrap_count(body)


def test_a_request_is_counted_with_its_model() -> None:
    wrapped = wrap_count("gemini-3-pro", b'{"contents":[1.50]}')

    assert wrapped == b'{"generateContentRequest":{"model":"models/gemini-3-pro","contents":[1.50]}}'
    assert unwrap_count(wrapped) == b'{"contents":[1.50]}'
    assert msgspec.json.decode(wrapped)


def test_a_count_is_read() -> None:
    assert decode_count(b'{"totalTokens":31,"promptTokensDetails":[]}') == 31


@pytest.mark.parametrize("body", [b"", b"{}", b'{"totalTokens":"31"}', b"<html>"])
def test_a_count_that_is_none_is_garbage(body: bytes) -> None:
    with pytest.raises(UpstreamGarbage, match="the upstream has counted no tokens"):
        decode_count(body)
