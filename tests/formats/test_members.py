"""What an object holds beyond what is known is found, by its place, and no more of it than can be told."""

import time
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, Struct

from aiproxyd.formats.base import NULL
from aiproxyd.formats.codec import MAX_LOSSES
from aiproxyd.formats.members import Known, KnownFields


class Plain(Struct, forbid_unknown_fields=True):
    kind: Literal["plain"]


TEXT = Known("type text", usual={"tone": Plain}, source=Known("url"))
FIELDS = KnownFields(
    turns=("messages",),
    messages=Known("role", content=TEXT),
    tools=Known("type name", kinds="function", format=Known("async")),
    config=Known(is_open=True, inner=Known("a")),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["type", "text", "role", "content", "a"]), inner),
)


def find(**fields: object) -> dict[str, bytes]:
    body = {name: Raw(msgspec.json.encode(value)) for name, value in fields.items()}
    return {name: bytes(raw) for name, raw in FIELDS.find_unknown(body).items()}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"messages": []},
        {"messages": "hi"},
        {"messages": None},
        {"messages": [{"role": "user", "content": "hi"}]},
        {"messages": {"role": "user", "content": {"type": "text", "text": 5, "source": {"url": "u"}}}},
        {"messages": [{"content": [{"text": "a"}, "b", 5, 1.5, True, None, {"source": [{"url": {}}]}]}]},
        {"messages": [{"mood": None, "content": [{"mood": False}, {"mood": ""}, {"mood": []}, {"mood": {}}]}]},
        {"messages": [{"content": [{"tone": {"kind": "plain"}}, {"tone": {"kind": "plain"}, "mood": None}]}]},
        {"tools": [{"type": "function", "name": "f", "format": {"async": True}}]},
        {"tools": [{"type": "other", "mood": "good"}]},
        {"config": {"mood": "good", "inner": {"a": 1}}},
        {"elsewhere": {"mood": "good"}},
    ],
)
def test_what_is_known_or_says_nothing_is_not_found(fields: dict[str, object]) -> None:
    assert find(**fields) == {}


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"messages": [{"role": "user"}, {"mood": "good"}]}, {"messages.mood": b"null"}),
        ({"messages": [{"content": {"tone": "plain"}}]}, {"messages.content.tone": b"null"}),
        ({"messages": [{"content": {"tone": {"kind": "plain", "b": 1}}}]}, {"messages.content.tone": b"null"}),
        ({"messages": [{"content": {"source": [{"b": 1}]}}]}, {"messages.content.source.b": b"null"}),
        ({"tools": [{"name": "f", "mood": "good"}]}, {"tools.mood": b'"good"'}),
        ({"tools": [{"type": None, "mood": 1}, {"type": "function", "mood": 2}]}, {"tools.mood": b"1"}),
        ({"tools": {"format": {"sync": True}}}, {"tools.format.sync": b"true"}),
        ({"config": {"inner": {"b": {"c": 1}}}}, {"config.inner.b": b'{"c":1}'}),
    ],
)
def test_what_is_not_known_is_found_by_its_place(fields: dict[str, object], found: dict[str, bytes]) -> None:
    assert find(**fields) == found


def test_what_is_usual_may_be_spaced_in_any_way() -> None:
    body = {"messages": Raw(b'[{"mood": 1, "content": {"tone": {\n "kind" : "plain" }}}]')}

    assert FIELDS.find_unknown(body).keys() == {"messages.mood"}


def test_lists_of_lists_are_not_looked_into_for_each_of_them_would_be_read_again() -> None:
    nested = Raw(b"[" * 500 + b'{"mood":"' + b"x" * 1_000_000 + b'"}' + b"]" * 500)
    start_s = time.process_time()

    found = FIELDS.find_unknown({"tools": nested})

    assert time.process_time() - start_s < 0.05
    assert found == {}


def test_no_more_is_found_than_can_be_told() -> None:
    assert len(find(tools=[{f"x{number}": 1 for number in range(1000)}], config={"inner": {"b": 1}})) == MAX_LOSSES + 1


def test_much_that_is_not_known_is_found_in_linear_time() -> None:
    start_s = time.process_time()

    found = find(messages=[{"role": "user", "mood": "good", "content": [{"text": "a", "mood": 1}]}] * 50_000)

    assert time.process_time() - start_s < 2
    assert list(found) == ["messages.mood", "messages.content.mood"]


def test_what_is_nested_deep_is_left_alone() -> None:
    raw = Raw(b'[{"role":%b,"mood":1}]' % (b"[" * 5000 + b"]" * 5000))

    assert FIELDS.find_unknown({"messages": raw}) in ({}, {"messages.mood": NULL})


@given(value=JSON)
def test_anything_can_be_looked_into(value: object) -> None:
    assert all(place.startswith("messages.") for place in find(messages=value))
