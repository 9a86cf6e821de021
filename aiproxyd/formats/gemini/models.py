"""Gemini's list of models: https://ai.google.dev/api/models#method:-models.list. Sans-I/O."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from aiproxyd.formats.base import decode_list, decode_view, read_number
from aiproxyd.hub import ModelCard

DEFAULT_PAGE_SIZE: Final = 50
"""Models on a page where ``pageSize`` is left out."""


class _ModelEntry(Struct):
    name: str


class _ModelList(Struct):
    models: list[Raw] = []


_models: Final = msgspec.json.Decoder(_ModelList)
_model: Final = msgspec.json.Decoder(_ModelEntry)


def decode_model_list(body: bytes) -> list[ModelCard]:
    """Decode an upstream's list of models.

    Raises:
        UpstreamGarbage: it is none.
    """
    cards: list[ModelCard] = []
    for raw in decode_list(_models, body).models:
        entry = decode_view(_model, raw)
        if entry:
            name = entry.name.removeprefix("models/")
            cards.append(ModelCard(name=name, owner="google", origin="gemini", raw=raw.copy()))
    return cards


def encode_model(card: ModelCard) -> bytes:
    """Return one model: the upstream's own entry where it is of this format."""
    if card.origin == "gemini":
        return bytes(card.raw)
    return msgspec.json.encode(
        {
            "name": f"models/{card.name}",
            "displayName": card.name,
            "version": "",
            "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
        }
    )


def encode_model_list(cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
    """Return the page of the list that *query* asks for.

    Raises:
        InvalidRequest: *query* does not make sense.
    """
    size = read_number(query, "pageSize", DEFAULT_PAGE_SIZE)
    start = read_number(query, "pageToken", 0)
    body = b'{"models":[' + b",".join(map(encode_model, cards[start : start + size])) + b"]"
    # The token is the offset of the next page: the list is short and changes seldom.
    return body + (b',"nextPageToken":"%d"}' % (start + size) if start + size < len(cards) else b"}")
