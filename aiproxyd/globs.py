"""Patterns of model names: ``*``, ``?`` and ``[...]``, as in a shell. A leaf."""

import re
from collections.abc import Iterable
from fnmatch import translate

_WILDCARDS = frozenset("*?[")
_SET = re.compile(r"\[!?\]?[^]]*\]")


def is_glob(pattern: str) -> bool:
    """Tell whether *pattern* stands for more than itself."""
    return not _WILDCARDS.isdisjoint(pattern)


def compile_globs(patterns: Iterable[str]) -> re.Pattern[str]:
    """Return one expression whose ``match`` succeeds for names that fit any of *patterns*; of none, never."""
    return re.compile("|".join(map(translate, patterns)) or r"(?!)")


def specificity(pattern: str) -> tuple[bool, int, int]:
    """Return a sort key: plain names above patterns, then by how much is spelt out, then by single open characters."""
    shape = _SET.sub("?", pattern)
    return not is_glob(pattern), sum(char not in _WILDCARDS for char in shape), shape.count("?")
