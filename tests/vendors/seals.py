"""The opaque state that the scripted vendors hand out, made so that each can tell its own from all else. No I/O."""

import base64
import binascii
from hashlib import sha256
from itertools import count

_serial = count(1)


def make_seal(vendor: str, holder: str) -> str:
    """Return a seal that only fits *holder*: a thought's text, a call's name. No two are the same."""
    serial = f"{next(_serial):06d}"
    return f"sig-{vendor}-{serial}-{_digest(vendor, serial, holder)}"


def is_seal(seal: str, vendor: str, holder: str) -> bool:
    prefix, _, digest = seal.rpartition("-")
    start, _, serial = prefix.rpartition("-")
    return start == f"sig-{vendor}" and digest == _digest(vendor, serial, holder)


def has_seal(text: str, vendor: str) -> bool:
    """Return whether there is a seal of *vendor* somewhere in *text*, be it in base64."""
    return f"sig-{vendor}-" in text or encode_base64(f"sig-{vendor}-")[:12] in text


def _digest(vendor: str, serial: str, holder: str) -> str:
    return sha256(f"{vendor}/{serial}/{holder}".encode()).hexdigest()[:32]


def encode_base64(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def decode_base64(text: str, *, is_urlsafe: bool = False) -> bytes | None:
    """Decode the standard alphabet, padded; with *is_urlsafe* either alphabet, padded or not. None: it is neither."""
    if is_urlsafe:
        text = text.replace("-", "+").replace("_", "/").rstrip("=")
        text += "=" * (-len(text) % 4)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
