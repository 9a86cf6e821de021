"""What the objects of a request may hold, so that whatever else they hold can be named as lost. Sans-I/O."""

import functools
import operator
from collections.abc import Iterator, Mapping
from types import GenericAlias
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from aiproxyd.formats.base import NULL, SAYS_NOTHING, decode_view
from aiproxyd.formats.codec import MAX_LOSSES

_BRACKET, _BRACE = b"[{"

_members: Final = msgspec.json.Decoder(dict[str, Raw])
_raws: Final = msgspec.json.Decoder(list[Raw])


class Direct(Struct, forbid_unknown_fields=True):
    """The ``caller`` of a tool that the model itself calls, and not a program that it has written."""

    type: Literal["direct"]


class Known:
    """The members of one kind of object that something is done with, or that nobody misses. Made once."""

    def __init__(
        self,
        names: str = "",
        *,
        kinds: str = "",
        usual: Mapping[str, Any] | None = None,
        is_open: bool = False,
        **nested: "Known",
    ) -> None:
        """Take the members' names.

        Args:
            names: Those that are not looked into, separated by blanks.
            kinds: What the ``type`` may be, separated by blanks; objects of any other are somebody else's business.
            usual: Types of the values with which other members are no loss.
            is_open: Any other member is somebody else's business.
            nested: Those that hold an object or a list of objects, and what is known of these. Lists in lists are not
                looked into: each would be read again, and no format has them.
        """
        self._names = frozenset(names.split())
        self._nested = nested
        self._kinds = frozenset(b'"%s"' % kind.encode() for kind in kinds.split())
        self._usual = {name: msgspec.json.Decoder(kind | None) for name, kind in (usual or {}).items()}
        self._is_open = is_open
        self._type = self._make_type()

    def decoder(self) -> "msgspec.json.Decoder[Any]":
        """Return what decodes an object or a list of objects that hold nothing else, or anything plain."""
        return msgspec.json.Decoder(self._type)

    def find(self, place: str, raw: Raw) -> Iterator[tuple[str, Raw]]:
        """Yield what *raw*, which stands at *place*, holds beyond this and says something: place and value."""
        if memoryview(raw)[0] == _BRACKET:
            for each in decode_view(_raws, raw) or ():
                yield from self._find_in(place, each)
        else:
            yield from self._find_in(place, raw)

    def _find_in(self, place: str, raw: Raw) -> Iterator[tuple[str, Raw]]:
        members = (decode_view(_members, raw) or {}) if memoryview(raw)[0] == _BRACE else {}
        kind = members.get("type", NULL)
        if self._kinds and kind != NULL and bytes(kind) not in self._kinds:
            return
        for name, value in members.items():
            if name in self._nested:
                yield from self._nested[name].find(f"{place}.{name}", value)
            elif not (self._is_open or name in self._names or value in SAYS_NOTHING or self._is_usual(name, value)):
                yield f"{place}.{name}", value

    def _is_usual(self, name: str, value: Raw) -> bool:
        return name in self._usual and decode_view(self._usual[name], value) is not None

    def _make_type(self) -> Any:
        types: list[tuple[str, Any]] = [(name, Raw) for name in self._names]
        types += [(name, decoder.type) for name, decoder in self._usual.items()]
        types += [(name, known._type) for name, known in self._nested.items()]
        shape = msgspec.defstruct(
            "Shape",
            [(f"member_{index}", kind, NULL) for index, (_, kind) in enumerate(types)],
            rename={f"member_{index}": name for index, (name, _) in enumerate(types)},
            forbid_unknown_fields=not self._is_open,
            gc=False,
        )
        return functools.reduce(operator.or_, (str, int, float, bool, None, shape), GenericAlias(list, (shape,)))


class KnownFields:
    """What is known inside the fields of a body; those fields themselves are told apart elsewhere. Made once.

    Most bodies hold nothing else, and that is seen in one typed decode of each of their fields.
    """

    def __init__(self, turns: tuple[str, ...], **fields: Known) -> None:
        """Take what is known of *fields*; those of them that say the *turns* are never written as they came."""
        self._turns = turns
        self._fields = [(name, known.decoder(), known) for name, known in fields.items()]

    def find_unknown(self, body: Mapping[str, Raw]) -> dict[str, Raw]:
        """Return what the fields of *body* hold beyond this, by their places in dotted names; null in turns.

        No more than can be told.
        """
        found: dict[str, Raw] = {}
        for name, decoder, known in self._fields:
            if name not in body or decode_view(decoder, body[name]) is not None:
                continue
            for place, raw in known.find(name, body[name]):
                found.setdefault(place, NULL if name in self._turns else raw)
                if len(found) > MAX_LOSSES:
                    return found
        return found
