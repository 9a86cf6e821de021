import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.directives import NONE, Directives, read_directives


@pytest.mark.parametrize(
    ("header", "wishes"),
    [
        ("", NONE),
        ("no-cache", Directives(no_cache=True)),
        ("no-store", Directives(no_store=True)),
        ("only-if-cached", Directives(only_if_cached=True)),
        ("max-age=60", Directives(max_age_s=60.0)),
        ("max-age=0", Directives(max_age_s=0.0)),
        ('max-age="60"', Directives(max_age_s=60.0)),
        ("MAX-AGE = 60", Directives(max_age_s=60.0)),
        (" No-Cache ,\tno-store", Directives(no_cache=True, no_store=True)),
        ("no-cache,,only-if-cached,", Directives(no_cache=True, only_if_cached=True)),
        ("no-cache=field", Directives(no_cache=True)),
        # The first one counts: https://www.rfc-editor.org/rfc/rfc9111.html#section-4.2.1
        ("max-age=1, max-age=2", Directives(max_age_s=1.0)),
        # Nobody's words, or words for others.
        ("min-fresh", NONE),
        ("min-fresh=soon", NONE),
        ("no-transform, max-stale=5, no-cachex", NONE),
        ("min-fresh=3", Directives(min_fresh_s=3.0)),
        # An age that cannot be read is none: nothing is young enough.
        *((f"max-age{value}", Directives(max_age_s=0.0)) for value in ("", "=", "=-1", "=1.5", "=soon")),
        ("max-age=\u0663", Directives(max_age_s=0.0)),
        ("max-age=\u00b2", Directives(max_age_s=0.0)),
    ],
)
def test_what_a_caller_may_wish(header: str, wishes: Directives) -> None:
    assert read_directives(header) == wishes


@pytest.mark.parametrize(
    ("wishes", "age_s", "left_s", "is_good"),
    [
        (NONE, 1e9, 0.0, True),
        (Directives(max_age_s=0.0), 0.0, 60.0, False),
        (Directives(max_age_s=5.0), 4.9, 60.0, True),
        (Directives(max_age_s=5.0), 5.0, 60.0, False),
        (Directives(min_fresh_s=5.0), 0.0, 5.0, True),
        (Directives(min_fresh_s=5.0), 0.0, 4.9, False),
    ],
)
def test_what_is_good_enough(wishes: Directives, age_s: float, left_s: float, is_good: bool) -> None:
    assert wishes.accept(age_s, left_s) is is_good


@pytest.mark.parametrize("digits", [19, 400, 5000])
def test_an_age_of_any_length_is_read(digits: int) -> None:
    assert (read_directives("max-age=" + "9" * digits).max_age_s or 0) >= 2**31


@given(header=st.text())
def test_any_header_is_read(header: str) -> None:
    assert isinstance(read_directives(header), Directives)
