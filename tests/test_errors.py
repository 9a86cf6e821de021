import re

import pytest

from aiproxyd import errors
from aiproxyd.errors import (
    ConfigError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    ProxyError,
    UpstreamRefusal,
    kind_of_status,
)

DRAWN = re.compile(r"^ *([│ ]*)[├└]── (\w+)(?: +(\d{3}))?", re.MULTILINE)


def tree_of(error: type[ProxyError], depth: int = 0) -> list[tuple[int, str, int]]:
    """Return the classes below *error*, in the order in which they are defined: depth, name, status."""
    found: list[tuple[int, str, int]] = []
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            found += [(depth, child.__name__, child.status), *tree_of(child, depth + 1)]
    return found


def test_the_tree_is_as_it_is_drawn() -> None:
    drawn = [(len(bars) // 4, name, status) for bars, name, status in DRAWN.findall(errors.__doc__ or "")]
    tree = tree_of(ProxyError)

    assert [(depth, name) for depth, name, _ in drawn] == [(depth, name) for depth, name, _ in tree]
    assert [int(status or grown) for (_, _, status), (_, _, grown) in zip(drawn, tree, strict=True)] == [
        status for _, _, status in tree
    ]
    assert len(tree) == 23


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request"),
        (401, "authentication"),
        (402, "billing"),
        (403, "permission"),
        (404, "not_found"),
        (408, "timeout"),
        (409, "conflict"),
        (413, "too_large"),
        (418, "invalid_request"),
        (422, "invalid_request"),
        (429, "rate_limit"),
        (499, "invalid_request"),
        (500, "internal"),
        (501, "unimplemented"),
        (502, "internal"),
        (503, "overloaded"),
        (504, "timeout"),
        (520, "internal"),
        (529, "overloaded"),
    ],
)
def test_a_status_stands_for_a_kind(status: int, kind: str) -> None:
    refusal = UpstreamRefusal("no", status=status)

    assert kind_of_status(status) == kind
    assert (refusal.status, refusal.kind) == (status, kind)


def test_the_kind_of_each_class_fits_its_status() -> None:
    odd = {name for _, name, status in tree_of(ProxyError) if getattr(errors, name).kind != kind_of_status(status)}

    assert odd == set()


def test_an_error_carries_what_the_caller_is_told() -> None:
    error = InvalidRequest("no", param="$.model", retry_after_s=2.5)

    assert (str(error), error.message, error.param, error.retry_after_s) == ("no", "no", "$.model", 2.5)
    assert (error.status, error.kind, error.code) == (400, "invalid_request", None)


def test_a_refusal_carries_the_upstreams_own_words() -> None:
    refusal = UpstreamRefusal("slow down", status=429, body=b"{}", retry_after_s=7.0)

    assert (refusal.message, refusal.body, refusal.retry_after_s) == ("slow down", b"{}", 7.0)
    assert UpstreamRefusal("no", status=400).body is None


@pytest.mark.parametrize(
    ("message", "status", "common", "code"),
    [
        ("prompt is too long: 210000 tokens > 200000 maximum", 400, 400, "context_length_exceeded"),
        ("This model's maximum context length is 272000 tokens.", 400, 400, "context_length_exceeded"),
        ("Your input exceeds the context window of this model.", 422, 400, "context_length_exceeded"),
        ("input exceeds the maximum number of tokens allowed (1048576)", 400, 400, "context_length_exceeded"),
        ("context_length exceeded", 400, 400, "context_length_exceeded"),
        ("prompt is too long", 500, 500, "upstream_error"),
        ("no", 400, 400, "upstream_error"),
        ("no", 408, 504, "upstream_error"),
        ("no", 429, 429, "upstream_error"),
        ("no", 529, 503, "upstream_error"),
    ],
)
def test_a_refusal_is_put_in_terms_that_every_format_knows(message: str, status: int, common: int, code: str) -> None:
    refusal = UpstreamRefusal(message, status=status, body=b'{"type":"error"}', retry_after_s=3.0)
    refusal.headers = {"anthropic-ratelimit-requests-limit": "5"}
    kind = refusal.kind

    refusal.forget_format()

    assert (refusal.status, refusal.code) == (common, code)
    assert (refusal.body, refusal.headers) == (None, {})
    assert (refusal.message, refusal.kind, refusal.retry_after_s) == (message, kind, 3.0)


def test_a_refused_method_says_which_are_allowed() -> None:
    error = MethodNotAllowed("PUT", {"POST", "GET"})

    assert error.message == "PUT is not allowed here; allowed: GET, POST"
    assert error.allowed == ["GET", "POST"]
    assert error.status == 405


def test_an_internal_error_is_a_500() -> None:
    assert (InternalError("bug").status, InternalError("bug").code) == (500, "internal_error")


def test_a_configuration_error_has_one_line_per_problem() -> None:
    error = ConfigError("a.ini:3: no", "a.ini:4: neither")

    assert error.problems == ("a.ini:3: no", "a.ini:4: neither")
    assert str(error) == "a.ini:3: no\na.ini:4: neither"


def make_each() -> list[ProxyError]:
    """Return an error of every class of the tree, with something in every attribute."""
    made: list[ProxyError] = []
    for _, name, _ in tree_of(ProxyError):
        kind = getattr(errors, name)
        if kind is MethodNotAllowed:
            error: ProxyError = MethodNotAllowed("PUT", ["GET"])
        elif kind is UpstreamRefusal:
            error = UpstreamRefusal("slow down", status=429, body=b"{}", retry_after_s=7.0)
            error.headers = {"retry-after": "7"}
        else:
            error = kind("no", param="$.model", retry_after_s=2.5, details={"a": 1})
        error.code = "another"
        made.append(error)
    return made


@pytest.mark.parametrize("error", make_each(), ids=lambda error: type(error).__name__)
def test_a_copy_says_the_same_and_is_another(error: ProxyError) -> None:
    copied = error.copy()

    assert copied is not error
    assert type(copied) is type(error)
    assert (str(copied), copied.args, vars(copied)) == (str(error), error.args, vars(error))
    assert (copied.status, copied.kind, copied.code, copied.is_lasting) == (
        error.status,
        error.kind,
        error.code,
        error.is_lasting,
    )
    copied.message, copied.code = "changed", "changed"
    assert (error.message == "changed", error.code) == (False, "another")


@pytest.mark.parametrize("error", make_each(), ids=lambda error: type(error).__name__)
def test_a_copy_is_raised_apart(error: ProxyError) -> None:
    copies = [error.copy(), error.copy()]
    for copied in copies:
        with pytest.raises(type(error)) as caught:
            raise copied from ValueError("first")
        assert caught.value is copied

    assert error.__traceback__ is None
    assert error.__cause__ is None
    assert copies[0].__traceback__ is not copies[1].__traceback__
    assert copies[0].copy().__traceback__ is None
