"""Names and ids: legal, distinct, and led back."""

import re
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.conversion.names import AnswerIds, Called, CallIds, ToolNames, escape_id, is_marked, unescape_id
from aiproxyd.formats.codec import Traits
from tests.conversion.stand_in import LATIN, WORD, make_traits

GEMINI = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]*")
NAMES = st.text(st.sampled_from("aZ9_-.: é"), max_size=70)
CALLED = st.builds(Called, NAMES, NAMES, st.booleans())
TRAITS = st.sampled_from(
    [
        make_traits(),
        make_traits(has_namespaces=True),
        make_traits(tool_name=GEMINI, max_tool_name_chars=128, call_id=LATIN),
    ]
)
IDS = st.text(max_size=60) | st.text(string.ascii_letters + "_-", max_size=60) | st.sampled_from(["gw1_Zm9v", "c_gw1"])


# --- Names of tools


def test_a_legal_name_stays_as_it_is() -> None:
    assert ToolNames(make_traits()).fit(Called("read_file")) == "read_file"


def test_an_illegal_name_is_fitted_and_found_again() -> None:
    names = ToolNames(make_traits())

    fitted = names.fit(Called("files.read"))

    assert fitted == "files_read_f98a72f3"
    assert names.fit(Called("files.read")) == fitted
    assert names.find(fitted) == Called("files.read")


def test_a_name_that_several_namespaces_have_is_that_of_the_first() -> None:
    names = ToolNames(make_traits())
    names.fit(Called("click", "browser"))
    names.fit(Called("click", "mouse"))

    assert names.fit_name("click") == "browser__click"
    assert names.fit_name("dig") == "dig"


def test_a_name_that_the_upstream_made_up_means_nothing() -> None:
    assert ToolNames(make_traits()).find("read") is None


def test_long_names_that_differ_only_at_the_end_stay_apart() -> None:
    names = ToolNames(make_traits())

    first, second = names.fit(Called("a" * 64 + "1")), names.fit(Called("a" * 64 + "2"))

    assert first != second
    assert (len(first), len(second)) == (63, 63)


def test_a_namespace_becomes_part_of_the_name_where_there_are_none() -> None:
    tool = Called("click", namespace="browser")

    assert ToolNames(make_traits()).fit(tool) == "browser__click"
    assert ToolNames(make_traits(has_namespaces=True)).fit(tool) == "click"


def test_a_tool_is_chosen_by_its_name_alone() -> None:
    names = ToolNames(make_traits())
    names.fit(Called("click", namespace="browser"))

    assert names.fit_name("click") == "browser__click"
    assert names.fit_name("unheard-of") == "unheard-of"


def test_a_name_that_looks_fitted_takes_nothing_from_another() -> None:
    names = ToolNames(make_traits())
    names.fit(Called("files_read_f98a72f3"))

    assert names.fit(Called("files.read")) == "files_read_be3eed5f"


@given(tools=st.lists(CALLED, unique=True), traits=TRAITS)
def test_names_are_legal_and_distinct_and_lead_back(tools: list[Called], traits: Traits) -> None:
    names = ToolNames(traits)

    fitted = [names.fit(tool) for tool in tools]

    assert len(set(fitted)) == len(tools)
    assert all(traits.tool_name.fullmatch(name) and len(name) <= traits.max_tool_name_chars for name in fitted)
    assert [names.find(name) for name in fitted] == tools


def test_a_name_that_is_reserved_is_nobody_elses() -> None:
    names = ToolNames(make_traits())
    names.reserve("web_search")

    fitted = names.fit(Called("web_search"))

    assert fitted.startswith("web_search_")
    assert names.find(fitted) == Called("web_search")
    assert names.find("web_search") is None
    assert names.fit_name("web_search") == fitted


# --- Ids of calls


@pytest.mark.parametrize(
    ("given_id", "escaped"),
    [
        ("call_1", "call_1_gw1"),
        ("functions.bash:0", "gw1_ZnVuY3Rpb25zLmJhc2g6MA"),
        ("", "_gw1"),
        ("gw1_Zm9v", "gw1_Z3cxX1ptOXY"),
        ("c_gw1", "c_gw1_gw1"),
        ("." * 60, "call_292fe2730c19038f89d10a75_gw1"),
    ],
)
def test_an_id_is_marked_and_escaped_where_the_caller_could_not_say_it(given_id: str, escaped: str) -> None:
    assert escape_id(given_id, make_traits()) == escaped


def test_an_id_that_is_too_long_when_escaped_is_hashed() -> None:
    assert escape_id("é" * 20, make_traits(call_id=LATIN)) == "call_aad6d34be290104761ece629_gw1"


@pytest.mark.parametrize("given_id", ["call_1", "gw1_é", "gw1_a", "gw1_Z!m9v", "gw1_Zm9v=", "gw1__w"])
def test_an_id_that_was_not_escaped_is_not_unescaped(given_id: str) -> None:
    assert unescape_id(given_id) == given_id


@given(given_id=IDS, traits=TRAITS)
def test_an_escaped_id_is_legal_and_finds_back_if_it_is_short(given_id: str, traits: Traits) -> None:
    escaped = escape_id(given_id, traits)

    assert traits.call_id.fullmatch(escaped)
    assert is_marked(escaped)
    assert unescape_id(escaped) == given_id or len(given_id.encode()) > 26


def test_an_upstream_gets_its_own_id_back() -> None:
    assert CallIds(make_traits(call_id=LATIN)).fit(["gw1_ZnVuY3Rpb25zLmJhc2g6MA", "call_1_gw1", "call_2"]) == {
        "gw1_ZnVuY3Rpb25zLmJhc2g6MA": "functions.bash:0",
        "call_1_gw1": "call_1",
        "call_2": "call_2",
    }


@pytest.mark.parametrize(
    ("given_id", "is_ours"), [("call_1_gw1", True), ("gw1_Zm9v", True), ("call_1", False), ("", False), ("gw1", False)]
)
def test_an_id_shows_whether_its_call_was_made_elsewhere(given_id: str, is_ours: bool) -> None:
    assert is_marked(given_id) is is_ours


def test_ids_that_come_again_in_a_conversation_are_told_apart() -> None:
    ids = CallIds(make_traits())

    turns = [ids.fit(["0", "1"]), ids.fit(["0"]), ids.fit(["0"])]

    assert turns == [
        {"0": "0", "1": "1"},
        {"0": "call_ac72368a586a18c190883935"},
        {"0": "call_a6685f3b62d57bfc49352631"},
    ]


def test_ids_that_come_again_in_an_answer_are_told_apart() -> None:
    ids = AnswerIds(make_traits())

    assert [ids.fit("f"), ids.fit("f"), ids.fit("f")] == [
        "f_gw1",
        "call_49f44721af6ce50c9b381561_gw1",
        "call_619003e5ec902369b20708e7_gw1",
    ]
    # The first is made up as well, being too long.
    assert len({ids.fit("." * 60), ids.fit("." * 60), ids.fit("." * 60)}) == 3


def test_many_equal_ids_are_told_apart_in_linear_time() -> None:
    sent, told = CallIds(make_traits()), AnswerIds(make_traits())
    start_s = time.process_time()

    turns = {sent.fit(["0"])["0"] for _ in range(20_000)}
    answer = {told.fit("0") for _ in range(20_000)}

    assert time.process_time() - start_s < 1
    assert (len(turns), len(answer)) == (20_000, 20_000)


@given(turns=st.lists(st.lists(IDS, unique=True, max_size=3)))
def test_ids_of_a_conversation_are_legal_and_distinct(turns: list[list[str]]) -> None:
    ids = CallIds(make_traits())

    fitted = [sent for turn in turns for sent in ids.fit(turn).values()]

    assert len(set(fitted)) == sum(map(len, turns))
    assert all(map(WORD.fullmatch, fitted))


@given(given_ids=st.lists(IDS))
def test_ids_of_an_answer_are_legal_and_distinct(given_ids: list[str]) -> None:
    ids = AnswerIds(make_traits())

    fitted = list(map(ids.fit, given_ids))

    assert len(set(fitted)) == len(given_ids)
    assert all(map(WORD.fullmatch, fitted))
