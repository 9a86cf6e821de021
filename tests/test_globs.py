import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.globs import compile_globs, is_glob, specificity


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("gpt-5", ["gpt-5"], ["gpt-5-mini", "xgpt-5", "GPT-5", "gpt-5\n"]),
        ("gpt-*", ["gpt-", "gpt-5", "gpt-5/x\ny"], ["gpt", "xgpt-5"]),
        ("gpt-?", ["gpt-5", "gpt-\n"], ["gpt-", "gpt-10"]),
        ("gpt-[45]", ["gpt-4", "gpt-5"], ["gpt-6", "gpt-45"]),
        ("gpt-[!4]", ["gpt-5"], ["gpt-4", "gpt-"]),
        ("gpt-5.1", ["gpt-5.1"], ["gpt-5x1"]),
        ("a+b(c)|d", ["a+b(c)|d"], ["aab(c)", "d", "aabc"]),
        ("gpt-[", ["gpt-["], ["gpt-"]),
        ("[z-a]", [], ["z", "a"]),
    ],
)
def test_a_pattern_fits_whole_names(pattern: str, fitting: list[str], others: list[str]) -> None:
    expression = compile_globs([pattern])

    assert [name for name in fitting + others if expression.match(name)] == fitting


def test_several_patterns_fit_what_any_of_them_fits() -> None:
    expression = compile_globs(["gpt-*", "llama3", "*:8b"])

    names = ["gpt-5", "llama3", "qwen3:8b", "llama31", "qwen3:8bx"]

    assert [name for name in names if expression.match(name)] == ["gpt-5", "llama3", "qwen3:8b"]


def test_no_pattern_fits_nothing() -> None:
    assert compile_globs([]).match("") is None
    assert compile_globs([]).match("a") is None


@given(name=st.text(alphabet=st.characters(exclude_characters="*?["), max_size=20))
def test_a_name_without_wildcards_fits_itself(name: str) -> None:
    assert not is_glob(name)
    assert compile_globs([name]).match(name)


def test_each_wildcard_makes_a_glob() -> None:
    assert [is_glob(text) for text in ("a*", "?a", "[ab]", "a]", "a")] == [True, True, True, False, False]


def test_the_more_a_pattern_spells_out_the_more_specific_it_is() -> None:
    patterns = ["o1", "claude-*-5", "claude-3*", "claude-[0-9][!]a-z]*", "claude-?*", "claude-*", "c?", "c*", "*"]

    assert sorted(reversed(patterns), key=specificity, reverse=True) == patterns
    assert sorted(patterns, key=specificity, reverse=True) == patterns
