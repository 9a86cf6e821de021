"""Names of tools and ids of calls, fitted to what the other side allows, and back again. Sans-I/O."""

import base64
import hashlib
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from aiproxyd.formats.codec import Traits

MARK: Final = "_gw1"
"""How the ids end that callers of another format than the upstream's get to see: by it is known, many turns later, that
a call was made by another vendor's model."""
ESCAPED_ID: Final = "gw1_"
"""How an id begins that stands, in base64, for one that the caller's format does not allow."""
MAX_ESCAPED_CHARS: Final = 64
"""Longest escaped id; OpenAI refuses longer ones: https://platform.openai.com/docs/api-reference/responses/create."""

_NOT_COMMON: Final = re.compile(r"[^a-zA-Z0-9_-]")
_HASH_CHARS: Final = 8


class Called(NamedTuple):
    """A tool as its caller knows it."""

    name: str
    namespace: str = ""
    is_custom: bool = False


class ToolNames:
    """The tools of one request, under names that the upstream's format allows. One per attempt."""

    def __init__(self, traits: Traits) -> None:
        self._traits = traits
        self._names: dict[Called, str] = {}
        self._called: dict[str, Called] = {}
        self._by_name: dict[str, str] = {}
        """The first that was fitted of those that the caller calls so, in whatever namespace."""
        self._reserved: set[str] = set()

    def reserve(self, name: str) -> None:
        """Leave *name* to a tool that is not the caller's; before any is fitted."""
        self._reserved.add(name)

    def fit(self, called: Called) -> str:
        """Return the name of *called* at the upstream; always the same for the same tool."""
        name = self._names.get(called)
        if name is None:
            name = self._choose(called)
            self._names[called] = name
            self._called[name] = called
            self._by_name.setdefault(called.name, name)
        return name

    def fit_name(self, name: str) -> str:
        """Return the name at the upstream of the tool that its caller calls *name*, in whatever namespace."""
        return self._by_name.get(name, name)

    def find(self, name: str) -> Called | None:
        """Return what the upstream means by *name*; None where it made it up."""
        return self._called.get(name)

    def _choose(self, called: Called) -> str:
        whole = called.name
        if called.namespace and not self._traits.has_namespaces:
            whole = f"{called.namespace}__{called.name}"
        if len(whole) <= self._traits.max_tool_name_chars and self._is_free(whole):
            return whole
        texts, number = "\0".join(map(str, called)), 0
        while not self._is_free(name := self._mark(whole, _digest(f"{number}:{texts}")[:_HASH_CHARS])):
            number += 1
        return name

    def _is_free(self, name: str) -> bool:
        is_taken = name in self._called or name in self._reserved
        return not is_taken and self._traits.tool_name.fullmatch(name) is not None

    def _mark(self, whole: str, digest: str) -> str:
        """Return *whole* without what is not allowed, told apart by *digest*.

        Two names may have their first 64 characters in common, or differ in a character that is not allowed.
        """
        fitted = _NOT_COMMON.sub("_", whole)[: self._traits.max_tool_name_chars - len(digest) - 2]
        # Gemini wants a letter or an underscore first.
        return f"{fitted}_{digest}" if self._traits.tool_name.fullmatch(fitted) else f"_{fitted}_{digest}"


class _UsedIds:
    """The ids that are taken, and new ones beside them."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._numbers: dict[str, int] = {}
        """How many were tried for each that was given."""

    def __contains__(self, own: str) -> bool:
        return own in self._used

    def add(self, own: str) -> None:
        self._used.add(own)

    def make(self, given: str) -> str:
        """Return, and take, an id that every format allows, instead of *given*."""
        number = self._numbers.get(given, 0)
        while (made := _make_id(given, number)) in self._used:
            number += 1
        self._numbers[given] = number + 1
        self._used.add(made)
        return made


class CallIds:
    """The ids of the calls of one request, unique and in the upstream's alphabet. One per attempt."""

    def __init__(self, traits: Traits) -> None:
        self._pattern = traits.call_id
        self._used = _UsedIds()

    def fit(self, ids: Iterable[str]) -> dict[str, str]:
        """Return, for the *ids* of one turn's calls, those to send: the upstream's own again where it made them."""
        fitted: dict[str, str] = {}
        for given in ids:
            # Some servers count their ids anew for each answer; Anthropic wants them unique in the conversation.
            own = unescape_id(given)
            is_legal = self._pattern.fullmatch(own) is not None and own not in self._used
            fitted[given] = own if is_legal else self._used.make(own)
            self._used.add(fitted[given])
        return fitted


class AnswerIds:
    """The ids of the calls of one answer, unique and in its caller's alphabet. One per answer."""

    def __init__(self, traits: Traits) -> None:
        self._traits = traits
        self._used = _UsedIds()
        """Without their marks."""

    def fit(self, given: str) -> str:
        """Return the id by which the caller gets to know the upstream's call *given*."""
        fitted = escape_id(given, self._traits)
        if fitted.removesuffix(MARK) in self._used:
            # Then the results could not be told apart. Several servers call each of them the same, or nothing.
            fitted = self._used.make(given) + MARK
        self._used.add(fitted.removesuffix(MARK))
        return fitted


def is_marked(given: str) -> bool:
    """Tell whether the id *given* is that of a call by a model of another format than its caller's."""
    return given.startswith(ESCAPED_ID) or given.endswith(MARK)


def escape_id(given: str, traits: Traits) -> str:
    """Return an upstream's id in the alphabet of the caller's format, such that `unescape_id` finds the way back."""
    marked = given + MARK
    if traits.call_id.fullmatch(marked) and not given.startswith(ESCAPED_ID):
        return marked
    escaped = _escape(given)
    is_legal = len(escaped) <= MAX_ESCAPED_CHARS and traits.call_id.fullmatch(escaped) is not None
    return escaped if is_legal else _make_id(given) + MARK


def unescape_id(given: str) -> str:
    """Return the id that `escape_id` made *given* of, or *given* itself."""
    if not given.startswith(ESCAPED_ID):
        return given.removesuffix(MARK)
    text = given.removeprefix(ESCAPED_ID)
    try:
        own = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except ValueError:
        return given
    return own if _escape(own) == given else given


def _escape(given: str) -> str:
    return ESCAPED_ID + base64.urlsafe_b64encode(given.encode(errors="replace")).decode().rstrip("=")


def _make_id(given: str, number: int = 0) -> str:
    """Return an id that every format allows, always the same for *given* and *number*."""
    return f"call_{_digest(f'{number}:{given}')[:24]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
