"""What all scripted vendors share: taking a request, refusing it, framing the answer. No I/O."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import count, cycle, pairwise
from typing import Any, TypeVar, final

import msgspec
from msgspec import Struct

from tests.support import Received, Reply
from tests.vendors.scene import RETRY_AFTER_S, Answer, Decide, decide

T = TypeVar("T")
KEY = "sk-upstream"
"""The key that `tests.support.upstream_section` gives the gateway."""


class Refused(Exception):
    """The vendor does not take this request."""

    def __init__(self, message: str, path: str = "", *, status: int = 400, code: str = "") -> None:
        super().__init__(f"{message} (at {path})" if path else message)
        self.status = status
        self.code = code


class Strict(Struct, forbid_unknown_fields=True, kw_only=True):
    """An object of the wire that has these fields and no others."""


class Loose(Struct, kw_only=True):
    """An object of the wire that is not looked into."""


class Vendor(ABC):
    """A vendor's API, as a function for `Upstream.respond`. Keeps what it was asked and what it refused.

    *decide* chooses what is answered, in place of `scene.decide`. *key* is the only one that is accepted.
    """

    def __init__(self, decide: Decide = decide, key: str = KEY) -> None:
        self.decide = decide
        self.key = key
        self.bodies: list[Any] = []
        """The requests, decoded."""
        self.refusals: list[str] = []
        """Why some of them were not taken."""
        self._serial = count(1)

    @final
    def __call__(self, received: Received) -> Reply:
        try:
            return self.answer(received)
        except Refused as refused:
            self.refusals.append(f"{received.method} {received.target}: {refused}")
            return self.encode_error(refused.status, str(refused), refused.code)

    @abstractmethod
    def answer(self, received: Received) -> Reply:
        """Answer one request.

        Raises:
            Refused: it breaks a rule.
        """

    @abstractmethod
    def encode_error(self, status: int, message: str, code: str = "") -> Reply: ...

    def read_body(self, received: Received) -> Any:
        """Decode the JSON, and keep it."""
        try:
            body = json.loads(received.body)
        except ValueError:
            raise Refused("We could not parse the JSON body of your request.") from None
        if not isinstance(body, dict):
            raise Refused("The body is to be an object.", "$")
        self.bodies.append(json.loads(received.body))
        return body

    def make_id(self, prefix: str, length: int = 24) -> str:
        return f"{prefix}{next(self._serial):0{length}d}"

    def send_whole(self, answer: Answer, body: Any) -> Reply:
        """Return the answer in one piece."""
        data = json.dumps(body, indent=2).encode()
        if answer.breaks == "error":
            return self.encode_error(500, "The server had an error while processing your request.")
        if answer.breaks == "cut":
            return Reply(data[: len(data) // 2], cut=True)
        return Reply(data)


def read_struct(value: Any, kind: type[T], unknown: str) -> T:
    """Convert *value*, exactly as its type says.

    Raises:
        Refused: with *unknown*, in which ``{}`` is the name, for a field that is not known.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at ")
        path = path.strip("`") or "$"
        if match := re.search(r"unknown field `(.*)`", text):
            raise Refused(unknown.format(match[1]), f"{path}.{match[1]}") from None
        raise Refused(text, path) from None


def send_stream(events: Sequence[bytes], answer: Answer, error: bytes) -> Reply:
    """Return the events, cut into chunks without regard to where they begin; *error* is how one is told in band."""
    middle = len(events) // 2
    if answer.breaks == "cut":
        data = b"".join(events[:middle]) + events[middle][:-9]
    elif answer.breaks == "error":
        data = b"".join(events[:middle]) + error
    else:
        data = b"".join(events)
    return Reply(chunks=_split(data), content_type="text/event-stream", cut=answer.breaks == "cut")


def _split(data: bytes) -> list[bytes]:
    sizes = cycle((100, 3, 700, 1, 2000))
    cuts = [0]
    while cuts[-1] < len(data):
        cuts.append(cuts[-1] + next(sizes))
    return [data[start:end] for start, end in pairwise(cuts)]


def cut_text(text: str) -> list[str]:
    """Return *text* as a stream brings it, a few characters at a time."""
    return [text[start : start + 9] for start in range(0, len(text), 9)] or [""]


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def retry_after(status: int) -> dict[str, str]:
    return {"retry-after": str(RETRY_AFTER_S)} if status in (429, 503, 529) else {}


def walk(value: Any, path: str, opaque: frozenset[str] = frozenset()) -> Iterator[tuple[str, str, Any]]:
    """Return path, key and value of everything inside *value*, except what is inside keys that are *opaque*."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield f"{path}.{key}", key, each
            if key not in opaque:
                yield from walk(each, f"{path}.{key}", opaque)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from walk(each, f"{path}[{index}]", opaque)
