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
    """The answer is to be younger than this; None: whatever the operator allows."""
    min_fresh_s: float = 0.0
    """For how long the answer is to be good yet."""

    def accept(self, age_s: float, left_s: float) -> bool:
        """Tell whether an answer of this age will do that is good for *left_s* yet."""
        return (self.max_age_s is None or age_s < self.max_age_s) and left_s >= self.min_fresh_s


NONE: Final = Directives()


def read_directives(header: str) -> Directives:
    """Read the value of a request's ``Cache-Control``; what we do not know is passed over.

    An age that is none stands for 0: https://www.rfc-editor.org/rfc/rfc9111.html#section-4.2.1.
    """
    if not header:
        return NONE
    told: dict[str, str] = {}
    for directive in header.split(","):
        name, _, value = directive.partition("=")
        told.setdefault(name.strip().lower(), value.strip().strip('"'))
    age, left = told.get("max-age"), told.get("min-fresh", "")
    return Directives(
        no_cache="no-cache" in told,
        no_store="no-store" in told,
        only_if_cached="only-if-cached" in told,
        max_age_s=_read_seconds(age) if age is not None else None,
        min_fresh_s=_read_seconds(left),
    )


def _read_seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() else 0.0
