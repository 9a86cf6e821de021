"""What a caller says about the cache (``Cache-Control``) and is told about it (``Cache-Status``). Sans-I/O.

https://www.rfc-editor.org/rfc/rfc9111.html#section-5.2.1, https://www.rfc-editor.org/rfc/rfc9211.html
"""

from typing import Final, NamedTuple


class Directives(NamedTuple):
    """A caller's wishes."""

    no_cache: bool = False
    """The answer is to be a new one; it may be kept for others."""
    no_store: bool = False
    """Neither is an answer to come from the cache, nor may this one be kept."""
    only_if_cached: bool = False
    """No upstream is to be asked."""
    max_age_s: float | None = None
    """The answer is to be no older; None: whatever the operator allows."""


NONE: Final = Directives()


def read_directives(header: str) -> Directives:
    """Read the value of a request's ``Cache-Control``; what cannot be read is passed over."""
    if not header:
        return NONE
    told: dict[str, str] = {}
    for directive in header.split(","):
        name, _, value = directive.partition("=")
        told.setdefault(name.strip().lower(), value.strip().strip('"'))
    age = told.get("max-age", "")
    return Directives(
        no_cache="no-cache" in told,
        no_store="no-store" in told,
        only_if_cached="only-if-cached" in told,
        max_age_s=float(age) if age.isascii() and age.isdigit() else None,
    )
