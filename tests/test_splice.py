import random
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiproxyd.errors import InvalidRequest
from aiproxyd.splice import Edit, Span, apply_edits, find_elements, find_members, insert_member

ODD = b'\t{ "a\\u0062" : 1.50e+1 ,\r\n"":[ {"x" :{}} , "]}" ],"\\"" : { "q":"\\\\" } }\n'

SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-1e9, 1e9) | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=5)
RANDOMS = st.randoms(use_true_random=False)


def write(value: Any, dice: random.Random) -> str:
    """Write *value* as JSON, with white space and escapes as the dice fall."""

    def gap() -> str:
        return "".join(dice.choice(" \t\r\n") for _ in range(dice.choice([0, 0, 1, 2])))

    if isinstance(value, dict):
        members = (f"{gap()}{write(key, dice)}{gap()}:{gap()}{write(item, dice)}{gap()}" for key, item in value.items())
        return "{" + (",".join(members) or gap()) + "}"
    if isinstance(value, list):
        return "[" + (",".join(f"{gap()}{write(item, dice)}{gap()}" for item in value) or gap()) + "]"
    if isinstance(value, str):
        return '"' + "".join(_write_char(char, dice) for char in value) + '"'
    return msgspec.json.encode(value).decode()


def _write_char(char: str, dice: random.Random) -> str:
    if dice.random() < 0.3:
        units = char.encode("utf-16-be")
        return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
    return msgspec.json.encode(char).decode()[1:-1]


def wrap(text: str, dice: random.Random) -> bytes:
    return (dice.choice(["", " ", "\r\n\t"]) + text + dice.choice(["", " ", "\n\n"])).encode()


@given(value=OBJECTS, dice=RANDOMS)
def test_members_are_found_where_their_values_stand(value: dict[str, Any], dice: random.Random) -> None:
    text = wrap(write(value, dice), dice)

    spans = find_members(text)

    assert {key: msgspec.json.decode(text[span.start : span.end]) for key, span in spans.items()} == value
    assert all(text[span.start : span.end].strip() == text[span.start : span.end] for span in spans.values())


@given(before=OBJECTS, inner=OBJECTS, dice=RANDOMS)
def test_members_of_an_inner_object_are_found_within_it(
    before: dict[str, Any], inner: dict[str, Any], dice: random.Random
) -> None:
    text = wrap(write({**before, "inner": inner, "later": 1}, dice), dice)

    spans = find_members(text, find_members(text)["inner"])

    assert {key: msgspec.json.decode(text[span.start : span.end]) for key, span in spans.items()} == inner


@given(items=st.lists(VALUES, max_size=5), dice=RANDOMS)
def test_elements_are_found_where_they_stand(items: list[Any], dice: random.Random) -> None:
    text = wrap(write({"first": [0], "list": items}, dice), dice)

    spans = find_elements(text, find_members(text)["list"])

    assert [msgspec.json.decode(text[span.start : span.end]) for span in spans] == items


@given(value=OBJECTS.filter(len), data=st.data(), dice=RANDOMS)
def test_an_edit_changes_one_value_and_keeps_every_other_byte(
    value: dict[str, Any], data: st.DataObject, dice: random.Random
) -> None:
    text = wrap(write(value, dice), dice)
    key = data.draw(st.sampled_from(sorted(value)))
    span = find_members(text)[key]

    edited = apply_edits(text, [Edit(*span, b'"new"')])

    assert msgspec.json.decode(edited) == {**value, key: "new"}
    assert edited.startswith(text[: span.start])
    assert edited.endswith(text[span.end :])
    assert len(edited) == len(text) - (span.end - span.start) + len(b'"new"')


@given(value=OBJECTS, key=st.text(max_size=4), dice=RANDOMS)
def test_an_inserted_member_leaves_the_others_as_they_were(
    value: dict[str, Any], key: str, dice: random.Random
) -> None:
    value.pop(key, None)
    outer = {"a": 1, "object": value}
    text = wrap(write(outer, dice), dice)

    at_top = apply_edits(text, [insert_member(text, None, f"{key}!", b"[7]")])
    inside = apply_edits(text, [insert_member(text, find_members(text)["object"], key, b"[7]")])

    assert msgspec.json.decode(at_top) == {**outer, f"{key}!": [7]}
    assert msgspec.json.decode(inside) == {"a": 1, "object": {**value, key: [7]}}
    assert at_top.endswith(text.lstrip()[1:].lstrip())


@given(value=OBJECTS.filter(len), data=st.data(), dice=RANDOMS)
def test_a_key_that_stands_twice_is_refused_however_it_is_spelt(
    value: dict[str, Any], data: st.DataObject, dice: random.Random
) -> None:
    key = data.draw(st.sampled_from(sorted(value)))
    twin = data.draw(st.just(value[key]) | VALUES)
    at = data.draw(st.integers(0, len(value)))
    members = [f"{write(name, dice)}:{write(item, dice)}" for name, item in value.items()]
    members.insert(at, f"{write(key, dice)}:{write(twin, dice)}")

    with pytest.raises(InvalidRequest, match="a key stands twice"):
        find_members(("{" + " , ".join(members) + "}").encode())


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":1}',
        b'{"a":12,"a":1}',
        b'{"a":12,"b":3,"a":1}',
        b'{"a":1,"b":3,"a":12}',
        b'{"a":1,"a":12,"b":3}',
        b'{"a":{"b":1},"c":2,"a":{"b":1}}',
        b'{"a":"\\"","b":",\\"a\\":1","a":"\\""}',
        b'{"a":1,"b":2,"a":1,"b":2}',
    ],
)
def test_a_key_that_stands_twice_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest, match="a key stands twice in one object"):
        find_members(text)


def test_a_key_that_stands_twice_further_inside_is_nobodys_business() -> None:
    assert find_members(b'{"a":{"b":1,"b":2}}') == {"a": Span(5, 18)}


def test_odd_spelling_is_no_obstacle() -> None:
    spans = find_members(ODD)

    assert {key: ODD[span.start : span.end] for key, span in spans.items()} == {
        "ab": b"1.50e+1",
        "": b'[ {"x" :{}} , "]}" ]',
        '"': b'{ "q":"\\\\" }',
    }
    assert [ODD[span.start : span.end] for span in find_elements(ODD, spans[""])] == [b'{"x" :{}}', b'"]}"']


@given(text=st.binary() | st.text(alphabet='{}[]":,\\ \nau0.1-e+').map(str.encode))
@example(text=b"{}")
@example(text=b"{} {}")
@example(text=b'{"a":1}}')
@example(text=b'{"a":1')
@example(text=b'{"\xff":1}')  # UnicodeDecodeError is no DecodeError
@example(text=b'{"a":' + b"[" * 100_000)  # RecursionError
@example(text=b'\xef\xbb\xbf{"a":1}')
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    for find in (find_members, lambda text: find_elements(text, Span(0, len(text)))):
        try:
            find(text)
        except InvalidRequest as exc:
            assert exc.message.startswith("malformed JSON: ")  # noqa: PT017  # not raising is as good


@pytest.mark.parametrize("text", [b"", b"[]", b'"a"', b"null", b"1", b'{"a":}', b"{'a':1}"])
def test_what_is_no_object_has_no_members(text: bytes) -> None:
    with pytest.raises(InvalidRequest, match="malformed JSON: "):
        find_members(text)


@pytest.mark.parametrize("text", [b"", b"{}", b'"a"', b"null", b"1", b"[1,]"])
def test_what_is_no_array_has_no_elements(text: bytes) -> None:
    with pytest.raises(InvalidRequest, match="malformed JSON: "):
        find_elements(text, Span(0, len(text)))


def test_edits_are_made_in_the_order_of_their_places() -> None:
    text = b'{"a":1,"b":2}'
    spans = find_members(text)

    edits = [Edit(*spans["b"], b"20"), Edit(*spans["a"], b"[]"), insert_member(text, None, "c\n", b"3")]

    assert apply_edits(text, edits) == b'{"c\\n":3,"a":[],"b":20}'
    assert apply_edits(text, []) == text


def test_a_member_is_inserted_into_an_empty_object_without_a_comma() -> None:
    assert apply_edits(b"{ }", [insert_member(b"{ }", None, "a", b"1")]) == b'{ "a":1}'
