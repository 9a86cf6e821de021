"""Lists of models: https://docs.anthropic.com/en/api/models-list. Sans-I/O."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.anthropic.wire import NAME, encode
from aiproxyd.formats.base import decode_list, decode_view, read_number
from aiproxyd.hub import ModelCard

DEFAULT_PAGE_SIZE: Final = 20
"""Models on a page where ``limit`` is left out."""


class _ModelEntry(Struct):
    id: str
    created_at: Any = None


class _ModelList(Struct):
    data: list[Raw]


_models: Final = msgspec.json.Decoder(_ModelList)
_model: Final = msgspec.json.Decoder(_ModelEntry)


def decode_model_list(body: bytes) -> list[ModelCard]:
    """Decode an upstream's list of models.

    Raises:
        UpstreamGarbage: it is none.
    """
    cards: list[ModelCard] = []
    for raw in decode_list(_models, body).data:
        entry = decode_view(_model, raw)
        if entry:
            created = _read_time(entry.created_at)
            cards.append(ModelCard(name=entry.id, created=created, owner="anthropic", origin=NAME, raw=raw.copy()))
    return cards


def encode_model(card: ModelCard) -> bytes:
    """Return one model: the upstream's own entry where it is of this format."""
    if card.origin == NAME:
        return bytes(card.raw)
    created = datetime.fromtimestamp(card.created or 0, UTC)
    return encode(
        {
            "type": "model",
            "id": card.name,
            "display_name": card.name,
            "created_at": created,
            "lifecycle": "active",
            "capabilities": None,
            "max_input_tokens": None,
            "max_tokens": None,
        }
    )


def encode_model_list(cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
    """Return the page of the list of models that *query* asks for.

    Raises:
        InvalidRequest: *query* does not make sense.
    """
    limit = read_number(query, "limit", DEFAULT_PAGE_SIZE)
    names = [card.name for card in cards]
    if "before_id" in query:
        end = _find(names, query["before_id"], "before_id")
        start = max(end - limit, 0)
        has_more = start > 0
    else:
        start = _find(names, query["after_id"], "after_id") + 1 if "after_id" in query else 0
        end = min(start + limit, len(cards))
        has_more = end < len(cards)
    page: dict[str, bool | str | None] = {"has_more": has_more, "first_id": None, "last_id": None}
    if start < end:
        page |= {"first_id": names[start], "last_id": names[end - 1]}
    data = b",".join(map(encode_model, cards[start:end]))
    return b'{"data":[' + data + b"]," + encode(page)[1:]


def _find(names: Sequence[str], name: str, param: str) -> int:
    try:
        return names.index(name)
    except ValueError:
        raise InvalidRequest(f"{param}: there is no model {name[:80]!r}", param=param) from None


def _read_time(created_at: object) -> int | None:
    try:
        time = datetime.fromisoformat(created_at if isinstance(created_at, str) else "")
    except ValueError:
        return None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
