"""Objects of the Messages API."""

import pytest
from msgspec import Raw

from aiproxyd.formats.anthropic import wire


@pytest.mark.parametrize(("raw", "text"), [(b'"a"', "a"), (b"5", ""), (b"null", ""), (b'"\xff"', ""), (b'["a"]', "")])
def test_a_string_is_read_and_anything_else_is_none(raw: bytes, text: str) -> None:
    assert wire.read_string(Raw(raw)) == text


def test_what_is_left_out_is_not_written() -> None:
    assert wire.encode(wire.TextBlock("a")) == b'{"type":"text","text":"a"}'
    assert wire.encode(wire.ThinkingBlock("a")) == b'{"type":"thinking","thinking":"a","signature":""}'
    assert wire.encode(wire.CacheControl()) == b'{"type":"ephemeral"}'
    assert wire.encode(wire.CacheControl("1h")) == b'{"type":"ephemeral","ttl":"1h"}'
