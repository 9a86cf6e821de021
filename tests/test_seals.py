"""Seals travel wrapped, and nothing else is taken for one."""

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.hub import Seal
from aiproxyd.seals import MARK, MARK_BASE64, unwrap, unwrap_base64, wrap, wrap_base64

SEALS = st.builds(
    Seal,
    st.text(),
    st.sampled_from(["signature", "redacted", "encrypted"]),
    st.text(min_size=1),
    st.text(),
    st.sampled_from(["", "call", "text"]),
) | st.builds(Seal, st.text(), st.just("plain"), st.text(), st.text())
SEAL = Seal("gemini@google/gemini-3.1-pro", "signature", "AAA+/=.x", "rs_1", "call")
WRAPPED = "gw1.sc.gemini@google/gemini-3%2E1-pro.rs_1.AAA+/=.x"


def test_a_seal_is_wrapped_as_one_word() -> None:
    assert wrap(SEAL) == WRAPPED
    assert unwrap(WRAPPED) == SEAL


@given(seal=SEALS)
def test_what_is_wrapped_is_unwrapped_as_it_was(seal: Seal) -> None:
    assert unwrap(wrap(seal)) == seal
    assert wrap(seal).startswith(MARK)


@given(seal=SEALS)
def test_what_is_wrapped_in_base64_is_unwrapped_in_either_alphabet_padded_or_not(seal: Seal) -> None:
    standard = wrap_base64(seal)
    urlsafe = standard.translate(str.maketrans("+/", "-_")).rstrip("=")

    assert re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", standard)
    assert standard.startswith(MARK_BASE64)
    assert unwrap_base64(standard) == unwrap_base64(urlsafe) == seal


@pytest.mark.parametrize(
    "text",
    ["", "gw1", "gw2.s.a.b.c", "gw1.s.a.b", "gw1.s", "gw1.x.a.b.c", "gw1..a.b.c", "gw1.s.a.b.", "gw1.pc.a.b.", "ErUB"],
)
def test_what_was_not_wrapped_here_is_no_seal(text: str) -> None:
    assert unwrap(text) is None
    assert unwrap_base64(base64.b64encode(text.encode()).decode()) is None


def test_only_a_plain_seal_may_be_empty() -> None:
    assert unwrap("gw1.p.a.b.") == Seal("a", "plain", "", "b")
    assert [unwrap(f"gw1.{code}.a.b.") for code in ("s", "r", "e", "sc", "rt")] == [None] * 5


@pytest.mark.parametrize("text", [MARK_BASE64, MARK_BASE64 + "é", MARK_BASE64 + "!!!", MARK_BASE64 + "v8=", "Z3cxLnM"])
def test_broken_base64_is_no_seal(text: str) -> None:
    assert unwrap_base64(text) is None


@given(text=st.text() | st.text().map(MARK.__add__))
def test_any_text_can_be_asked_for_a_seal(text: str) -> None:
    seal = unwrap(text)

    assert seal is None or text.startswith(MARK)


@given(text=st.text() | st.text().map(MARK_BASE64.__add__))
def test_any_text_can_be_asked_for_a_seal_in_base64(text: str) -> None:
    seal = unwrap_base64(text)

    assert seal is None or text.startswith(MARK_BASE64)
