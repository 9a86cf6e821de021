"""How the opaque state of one vendor travels through the format of another, and finds back. A leaf; does no I/O.

A caller of another format gets a seal *wrapped*, ``gw1.KIND.ORIGIN.ITEM.DATA``, in whatever field its format has for
opaque state, and sends it back there. Only what was wrapped here is unwrapped; whether it may go on to an upstream is
decided by its origin.
"""

import base64
from typing import Final, get_args
from urllib.parse import quote, unquote

from aiproxyd.hub import Seal, SealHolder, SealKind

MARK: Final = "gw1."
MARK_BASE64: Final = "Z3cxL"
"""How base64 of a wrapped seal begins, in either alphabet."""

_KINDS: Final[tuple[SealKind, ...]] = get_args(SealKind)
_HOLDERS: Final[tuple[SealHolder, ...]] = get_args(SealHolder)
_CODES: Final = {f"{kind[0]}{holder[:1]}": (kind, holder) for kind in _KINDS for holder in _HOLDERS}
"""What a seal is and where it belongs, by the first letters of both."""


def wrap(seal: Seal) -> str:
    """Return *seal* as one printable word without spaces."""
    return f"{MARK}{seal.kind[0]}{seal.holder[:1]}.{_quote(seal.origin)}.{_quote(seal.item)}.{seal.data}"


def unwrap(text: str) -> Seal | None:
    """Return the seal that *text* wraps; None where it was not wrapped here."""
    if not text.startswith(MARK):
        return None
    code, _, rest = text[len(MARK) :].partition(".")
    origin, _, rest = rest.partition(".")
    item, dot, data = rest.partition(".")
    if code not in _CODES or not dot:
        return None
    kind, holder = _CODES[code]
    if holder if kind == "plain" else not data:
        return None  # no model makes such a seal
    return Seal(unquote(origin), kind, data, unquote(item), holder)


def wrap_base64(seal: Seal) -> str:
    """Return *seal* wrapped, as base64 of the standard alphabet, for formats that check it."""
    return base64.b64encode(wrap(seal).encode()).decode()


def unwrap_base64(text: str) -> Seal | None:
    """Return the seal that *text*, base64 of either alphabet, padded or not, wraps; None where it does not."""
    if not text.startswith(MARK_BASE64):
        return None
    try:
        decoded = base64.b64decode(text.translate(_TO_STANDARD) + "=" * (-len(text) % 4), validate=True)
        return unwrap(decoded.decode())
    except ValueError:
        return None


_TO_STANDARD: Final = str.maketrans("-_", "+/")


def _quote(text: str) -> str:
    return quote(text, safe="@/:-_").replace(".", "%2E")
