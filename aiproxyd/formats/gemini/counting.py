"""Gemini countTokens: https://ai.google.dev/api/tokens. Sans-I/O."""

from typing import Final

import msgspec
from msgspec import Raw, Struct

from aiproxyd.errors import UpstreamGarbage
from aiproxyd.formats.base import NULL, Tokens, decode_body, decode_view


class _Asked(Struct):
    camel: Raw = msgspec.field(default=NULL, name="generateContentRequest")
    snake: Raw = msgspec.field(default=NULL, name="generate_content_request")


class _Count(Struct):
    tokens: Tokens = msgspec.field(name="totalTokens")


_asked: Final = msgspec.json.Decoder(_Asked)
_members: Final = msgspec.json.Decoder(dict[str, Raw])
_count: Final = msgspec.json.Decoder(_Count)


def unwrap_count(body: bytes) -> bytes:
    """Return the request whose tokens a caller wants counted: a whole one where it names one, else its contents.

    Raises:
        InvalidRequest: malformed.
    """
    asked = decode_body(_asked, body)
    nested = asked.snake if asked.camel == NULL else asked.camel
    if nested == NULL:
        return body
    members = decode_body(_members, bytes(nested))
    members.pop("model", None)
    return msgspec.json.encode(members)


def wrap_count(model: str, body: bytes) -> bytes:
    """Return the body that asks to count the request *body*."""
    return msgspec.json.encode({"generateContentRequest": {"model": f"models/{model}", **_members.decode(body)}})


def decode_count(body: bytes) -> int:
    """Decode an upstream's count.

    Raises:
        UpstreamGarbage: it is none.
    """
    count = decode_view(_count, body)
    if count is None:
        raise UpstreamGarbage("the upstream has counted no tokens")
    return count.tokens
