"""What a format needs to be converted: its traits, the machines that read and write its streams, and a list of losses.

Sans-I/O.
"""

import re
import secrets
from abc import ABC, abstractmethod
from typing import Final

import msgspec
from msgspec import Raw, Struct

from aiproxyd.errors import InvalidRequest, ProxyError, UpstreamCut
from aiproxyd.hub import Event, Failed, Media, Usage
from aiproxyd.splice import JSON_ERRORS
from aiproxyd.sse import SSEvent


class Traits(Struct, frozen=True, kw_only=True):
    """What a format has words for. `aiproxyd.conversion` goes by this, so that encoders need not ask."""

    knobs: frozenset[str] = frozenset()
    """Those tuning fields of ``hub.Request`` that it can write, out of KNOBS."""
    tool_name: re.Pattern[str]
    """What a tool's name must match as a whole."""
    max_tool_name_chars: int
    call_id: re.Pattern[str]
    """What a call's id must match as a whole."""
    has_custom_tools: bool = False
    """Tools that take free text."""
    has_namespaces: bool = False
    """Tools that are offered in groups."""
    has_system_turns: bool = False
    """System turns in the middle of a conversation."""
    has_system_behind_user: bool = False
    """Those stand only behind the user, and last or before the assistant."""
    has_refusals: bool = False
    """Refusals as blocks of their own."""
    has_candidates: bool = False
    """More than one answer to a request."""
    has_result_media: bool = False
    """Images and documents in tool results."""
    has_assistant_media: bool = False
    """Images among the assistant's words."""
    has_phases: bool = False
    """Turns of one role that are told apart by their phase."""
    seals_on: frozenset[str] = frozenset(("reasoning",))
    """The blocks that can carry a seal, out of ``reasoning``, ``call`` and ``text``."""
    seals_all_thoughts: bool = False
    """The vendor refuses thoughts that it did not make, so that ours have to be told from its own."""
    is_sequential: bool = False
    """In a stream, a block has to end before the next one begins."""
    wants_user_first: bool = False
    """A conversation has to begin with the user."""
    refuses_blank_texts: bool = False
    """Texts of nothing but white space are errors."""
    needs_json_word: bool = False
    """JSON without a schema is only given, or only asked for, where the conversation speaks of it."""
    needs_called_tools: bool = False
    """Where tools have been called, some have to be offered still."""
    has_finish_details: bool = False
    """Words of the vendor's own on an answer that ended in an odd way."""
    has_exact_prefill: bool = False
    """The model goes on from words put into its mouth, and does not just answer them."""
    needs_output_limit: bool = False
    """A request has to say how long the answer may get."""
    tool_subsets: frozenset[str] = frozenset()
    """The modes of a tool choice that can be limited to several of the tools."""
    server_tools: frozenset[str] = frozenset()
    """The kinds of server tools that it shares with other vendors."""
    names_server_tools: bool = False
    """Those have names as well, the same as their kinds, which none of the caller's tools may have."""
    output_schema: str = ""
    """Where a request says what shape the answer is to have."""


KNOBS: Final = frozenset(
    (
        "cache_key",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "metadata",
        "parallel_tool_calls",
        "presence_penalty",
        "seed",
        "service_tier",
        "stop",
        "temperature",
        "top_k",
        "top_p",
        "user",
        "verbosity",
    )
)


_BLANK_ENDS: Final = bytes.maketrans(b"\r\n", b"  ")

INVALID_JSON: Final = "INVALID_JSON"
"""The only member of an object that stands for arguments that are none."""

_WRAPPER: Final = re.compile(rf'\{{\s*"{INVALID_JSON}"')

_object: Final = msgspec.json.Decoder(dict[str, Raw])
_texts: Final = msgspec.json.Decoder(dict[str, str])

MAX_LOSSES: Final = 32
MAX_LOSS_CHARS: Final = 64
MORE: Final = "..."
"""Stands for all losses beyond MAX_LOSSES."""


class Losses:
    """What a conversion could not carry and nobody will miss much. One per attempt."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def drop(self, name: str) -> None:
        """Note that the caller's *name*, a field or a kind of block, goes no further."""
        # Callers choose names, and headers, logs and errors repeat them.
        short = name[:MAX_LOSS_CHARS] if len(self._names) < MAX_LOSSES else MORE
        if short not in self._names:
            self._names.append(short)

    @property
    def names(self) -> list[str]:
        """What was dropped, each once, in the order in which it was noticed; at the end MORE, where it is too much.

        Always the same list: what is noticed while an answer streams is seen by whoever has it already.
        """
        return self._names


class StreamDecoder(ABC):
    """Reads one stream of an upstream. Whatever it is fed, its events are in an order that `hub.Folder` accepts."""

    def __init__(self) -> None:
        self.is_over = False
        """End or Failed was returned: whatever is fed from now on is passed over."""

    def untold_usage(self) -> Usage | None:
        """Return the usage so far, where it was read but is told only at the end; for streams that nobody reads on."""
        return None

    @abstractmethod
    def feed(self, event: SSEvent) -> list[Event]:
        """Return what *event* means; the last are End, or Failed. Never raises for what an upstream sends."""

    @abstractmethod
    def feed_eof(self) -> list[Event]:
        """Return what the end of the connection means: nothing behind the end, else End or Failed(UpstreamCut)."""

    def _fail(self, error: ProxyError) -> list[Event]:
        self.is_over = True
        return [Failed(error)]

    def _fail_cut(self) -> list[Event]:
        return self._fail(UpstreamCut("the upstream's stream ended before it was complete"))


class StreamEncoder(ABC):
    """Writes one stream to a caller. Fed with events in an order that `hub.Folder` accepts, it writes what is legal."""

    @abstractmethod
    def feed(self, event: Event) -> bytes:
        """Return the bytes that say *event*, whole events; may be empty.

        ``Failed`` becomes the format's in-band error; nothing is to be fed behind it, nor behind ``End``.
        """


def make_call_id() -> str:
    """Return an id for a call that the upstream gave none."""
    return f"call_{secrets.token_hex(12)}"


def read_arguments(arguments: str) -> str:
    """Return the *arguments* of a call as they were written, an empty object where there are none."""
    return "{}" if arguments == "null" or not arguments or arguments.isspace() else arguments


def to_object(arguments: str) -> Raw:
    """Return the object that *arguments* of a call are the JSON text of, for formats that have one there.

    Small models write others, and the output limit cuts some off. Those are wrapped, as Anthropic wants invalid ones
    given back: ``{"INVALID_JSON": "..."}``, https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/fine-grained-tool-streaming.
    """
    data = read_arguments(arguments).encode(errors="replace")
    return Raw(data if is_object(data) else msgspec.json.encode({INVALID_JSON: data.decode()}))


def unwrap_arguments(arguments: str) -> str:
    """Return what stands in *arguments* that `to_object` has wrapped, so that models see their own; else themselves.

    Those of a tool that has such a parameter stay as they are unless their text is none of an object either.
    """
    if _WRAPPER.match(arguments) is None:
        return arguments
    try:
        wrapped = _texts.decode(arguments)
    except JSON_ERRORS:
        return arguments
    if wrapped.keys() != {INVALID_JSON}:
        return arguments
    text = wrapped[INVALID_JSON]
    return arguments if is_object(read_arguments(text).encode()) else text


def is_object(data: bytes) -> bool:
    """Tell whether *data* is the JSON text of an object."""
    try:
        _object.decode(data)
    except JSON_ERRORS:
        return False
    return True


def put_on_one_line(raw: bytes) -> bytes:
    """Return an upstream's own JSON, which may be laid out over several lines, fit for one line of an event stream."""
    return raw.translate(_BLANK_ENDS)  # inside strings there are none


def refuse(what: str, fmt: str, param: str | None = None) -> InvalidRequest:
    """Return the error for content that *fmt*, the name of the upstream's format, cannot carry."""
    return InvalidRequest(f"{what} cannot be sent to this model: its API ({fmt}) has no place for it", param=param)


def describe_media(media: Media) -> str:
    """Return *media* in words, for people and for models that do not get to see it."""
    return " ".join(filter(None, (media.kind, media.name and f"{media.name!r}", media.media_type)))
