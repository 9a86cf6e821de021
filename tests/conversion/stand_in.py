"""Formats that have only what a test needs: traits, and scripted bodies."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Never

from hypothesis import strategies as st
from msgspec import Raw
from typing_extensions import override

from aiproxyd import hub
from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import ProxyError, UpstreamCut, UpstreamError
from aiproxyd.formats.base import Format, Peek, StreamTap, Tapped
from aiproxyd.formats.codec import Losses, StreamDecoder, StreamEncoder, Traits
from aiproxyd.sse import SSEvent

WORD: Final = re.compile(r"[a-zA-Z0-9_-]+")
LATIN: Final = re.compile(r"[ -~]{1,40}")

Script = Mapping[bytes, Sequence[hub.Event]]


class ScriptedDecoder(StreamDecoder):
    """Reads events whose data are the keys of a script."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self._script = script

    @override
    def feed(self, event: SSEvent) -> list[hub.Event]:
        return self._tell(self._script[event.data])

    @override
    def feed_eof(self) -> list[hub.Event]:
        return [] if self.is_over else self._tell([hub.Failed(UpstreamCut("cut"))])

    def _tell(self, events: Sequence[hub.Event]) -> list[hub.Event]:
        self.is_over = any(isinstance(event, hub.End | hub.Failed) for event in events)
        return list(events)


class NamingEncoder(StreamEncoder):
    """Writes the name of each event, and the text of deltas."""

    @override
    def feed(self, event: hub.Event) -> bytes:
        text = event.text if isinstance(event, hub.Delta) else type(event).__name__
        return text.encode() + b"\n"


class StandIn(Format):
    """A format without bytes of its own: it remembers what it was to encode, and decodes what it was given."""

    members: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "turns": ("turns",),
        "reasoning": ("think", "forget"),
        "tools": ("tools",),
    }

    def __init__(self) -> None:
        self.body = b"a request"
        """What it encodes requests to."""
        self.encoded: Any = None
        self.decoded: hub.Response = hub.Response()
        self.script: Script = {}

    @override
    def encode_request(self, request: hub.Request, capabilities: Capabilities, losses: Losses) -> bytes:
        self.encoded = request
        return self.body

    @override
    def decode_request(self, body: bytes) -> hub.Request:
        return _never()

    @override
    def request_path(self, request: hub.Request) -> tuple[str, str]:
        return f"/models/{request.model}", "alt=sse"

    @override
    def encode_count_request(
        self, request: hub.Request, capabilities: Capabilities, losses: Losses
    ) -> tuple[str, bytes] | None:
        self.encoded = request
        return "/count", b"a request"

    @override
    def decode_response(self, body: bytes) -> hub.Response:
        return self.decoded

    @override
    def encode_response(self, response: hub.Response, asked: hub.Request) -> bytes:
        self.encoded = response
        return b"an answer"

    @override
    def stream_decoder(self, candidates: int = 1) -> StreamDecoder:
        return ScriptedDecoder(self.script)

    @override
    def stream_encoder(self, asked: hub.Request, request_id: str) -> StreamEncoder:
        return NamingEncoder()

    @override
    def peek(self, body: bytes) -> Peek:
        return _never()

    @override
    def encode_error(self, error: ProxyError, request_id: str) -> bytes:
        return _never()

    @override
    def encode_stream_error(self, error: ProxyError, request_id: str) -> bytes:
        return _never()

    @override
    def decode_error(self, status: int, body: bytes) -> UpstreamError:
        return _never()

    @override
    def read_answer(self, body: bytes) -> Tapped:
        return _never()

    @override
    def stream_tap(self, *, hide_usage: bool = False, candidates: int = 1) -> StreamTap:
        return _never()

    @override
    def read_stream_error(self, block: bytes) -> UpstreamError | None:
        return _never()

    @override
    def decode_model_list(self, body: bytes) -> list[hub.ModelCard]:
        return _never()

    @override
    def encode_model(self, card: hub.ModelCard) -> bytes:
        return _never()

    @override
    def encode_model_list(self, cards: Sequence[hub.ModelCard], query: Mapping[str, str]) -> bytes:
        return _never()


def _never() -> Never:
    raise AssertionError("conversion does not ask this of a format")


def make_traits(**changes: Any) -> Traits:
    """Return the traits of a format that has nothing beyond text and functions, but for *changes*."""
    parts: dict[str, Any] = {"tool_name": WORD, "max_tool_name_chars": 64, "call_id": WORD}
    return Traits(**(parts | changes))


def make_format(format_name: str, **changes: Any) -> StandIn:
    """Return a format of that name; *changes* as for `make_traits`."""
    made = type("Made", (StandIn,), {"name": format_name, "traits": make_traits(**changes)})
    format_: StandIn = made()
    return format_


# --- Streams that `hub.Folder` accepts

_TEXTS = st.text(max_size=3)
_SEALS = st.builds(hub.Seal, st.just("up"), st.sampled_from(["signature", "redacted", "encrypted"]), _TEXTS, _TEXTS)
_NO_SEALS = st.none() | _SEALS
BLOCKS: st.SearchStrategy[hub.Block] = st.one_of(
    st.builds(hub.Text, _TEXTS, seal=_NO_SEALS),
    st.builds(hub.Refusal, _TEXTS),
    st.builds(hub.Reasoning, _TEXTS, _NO_SEALS),
    st.builds(hub.ToolCall, id=_TEXTS, name=st.sampled_from(["f", "patch"]), arguments=_TEXTS, seal=_NO_SEALS),
    st.builds(hub.Opaque, st.sampled_from(["up", "caller"]), st.just("server tool"), st.just(Raw(b"{}"))),
)
_CANDIDATE_STOPS = st.sampled_from(["end", "tool", "length", "pause"])

Draw = Callable[[st.SearchStrategy[Any]], Any]


class _Scribe:
    """Writes a legal stream, drawing what comes next."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._open: list[tuple[int, int]] = []
        self._sealed: set[tuple[int, int]] = set()
        self._keys = iter(range(1000))
        self.events: list[hub.Event] = [hub.Start(model=draw(_TEXTS))]
        self.candidates: set[int] = set()

    def write(self, size: int) -> list[hub.Event]:
        for _ in range(size):
            self._write_step()
        while self._open:
            self._stop()
        for candidate in self._draw(st.permutations(sorted(self.candidates))):
            self.events.append(hub.Finish(candidate, self._draw(_CANDIDATE_STOPS)))
        self.events.append(hub.End())
        return self.events

    def _write_step(self) -> None:
        step = self._draw(st.sampled_from(["start", "start", "delta", "delta", "seal", "cite", "stop", "aside"]))
        if step == "aside":
            self.events.append(self._draw(st.sampled_from([hub.Ping(), hub.UsageSeen(hub.Usage())])))
        elif step == "start" or not self._open:
            self._start()
        elif step == "stop":
            self._stop()
        else:
            self._add(step, *self._draw(st.sampled_from(self._open)))

    def _add(self, step: str, candidate: int, key: int) -> None:
        if step == "cite":
            self.events.append(hub.CitationAdded(candidate, key, hub.Citation(url="u")))
        elif step == "delta" or (candidate, key) in self._sealed:
            self.events.append(hub.Delta(candidate, key, self._draw(_TEXTS)))
        else:
            self._sealed.add((candidate, key))
            self.events.append(hub.SealSet(candidate, key, self._draw(_SEALS)))

    def _start(self) -> None:
        candidate, key = self._draw(st.integers(0, 1)), next(self._keys)
        self.candidates.add(candidate)
        self._open.append((candidate, key))
        block = self._draw(BLOCKS)
        if getattr(block, "seal", None) is not None:
            self._sealed.add((candidate, key))
        self.events.append(hub.BlockStart(candidate, key, block))

    def _stop(self) -> None:
        place = self._draw(st.sampled_from(self._open))
        self._open.remove(place)
        self.events.append(hub.BlockStop(*place))


@st.composite
def streams(draw: Draw) -> list[hub.Event]:
    """Draw the events of one answer; several candidates, blocks that overlap."""
    return _Scribe(draw).write(draw(st.integers(0, 14)))


def cut(draw: Draw, events: list[hub.Event]) -> list[list[hub.Event]]:
    """Return *events* in batches."""
    batches: list[list[hub.Event]] = [[]]
    for event in events:
        if draw(st.booleans()):
            batches.append([])
        batches[-1].append(event)
    return batches
