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
        ("max-age", NONE),
        ("max-age=", NONE),
        ("max-age=-1", NONE),
        ("max-age=1.5", NONE),
        ("max-age=soon", NONE),
        ("max-age=\u0663", NONE),
        ("max-age=\u00b2", NONE),
        ("no-transform, max-stale=5, min-fresh=3, no-cachex", NONE),
    ],
)
def test_what_a_caller_may_wish(header: str, wishes: Directives) -> None:
    assert read_directives(header) == wishes


@pytest.mark.parametrize("digits", [19, 400, 5000])
def test_an_age_of_any_length_is_read(digits: int) -> None:
    assert (read_directives("max-age=" + "9" * digits).max_age_s or 0) >= 2**31


@given(header=st.text())
def test_any_header_is_read(header: str) -> None:
    assert isinstance(read_directives(header), Directives)
