"""What conversion itself costs, for each ordered pair of formats: no sockets, no event loop, bytes in and bytes out.

Measured in CPU time of the one thread, in rounds: each pair in turn, again and again. What is converted is decoded once
by the other side and compared before anything is timed. `python -m benchmarks.machines ROUNDS` prints JSON.
"""

import gc
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import msgspec

from aiproxyd import hub
from aiproxyd.capabilities import find_capabilities
from aiproxyd.commands.serve import GC_THRESHOLDS
from aiproxyd.conversion import Crossing, Memory
from aiproxyd.errors import ProxyError
from aiproxyd.formats import FORMATS
from aiproxyd.formats.base import Format
from aiproxyd.sse import SSEDecoder
from benchmarks import wire
from benchmarks.targets import Figures, Target

REQUEST_US: Final = "request out us"
LONG_US: Final = "50 kB out us"
ANSWER_US: Final = "answer back us"
BURST_US: Final = "us/event, one chunk"
SINGLE_US: Final = "us/event, singly"
THOUGHTS_US: Final = "us/event, thoughts"
CALL_MS: Final = "6 MB call ms"
PICTURE_MS: Final = "6 MB picture ms"
PROMISES: Final = (
    ("request out <= 100 us", REQUEST_US, 100),
    ("answer back <= 100 us", ANSWER_US, 100),
    ("event of a stream, one chunk <= 4 us", BURST_US, 4),
    ("event of a stream, singly <= 4 us", SINGLE_US, 4),
    ("6 MB of arguments in one event <= 300 ms", CALL_MS, 300),
    ("6 MB of picture in a request <= 300 ms", PICTURE_MS, 300),
)
"""Promise, column, and the most that any pair may take."""

MODEL: Final = "bench-model"
DELTAS: Final = 100
CALLS: Final = 60
"""Requests, and answers, that are timed together."""
STREAMS: Final = 6
"""Streams that are timed together."""
LONG_SYSTEM: Final = wire.SYSTEM * 190
"""Instructions as long as those of coding agents, which send them with every request."""
LONG_CALLS: Final = 5
"""Requests with long instructions that are timed together."""
BIG_BYTES: Final = 6_000_000
BIG_ROUNDS: Final = 2
"""Rounds in which the big ones are converted too."""
PIECE_BYTES: Final = 16 * 1024
"""The small end of what a socket gives at once: a big event comes in hundreds of pieces."""
LINE: Final = 'if name == "main":\n    print("So much for a file that a model writes at once")\n'

T = TypeVar("T")


class WrongConversion(Exception):
    """What came out does not say what went in; nothing measured beside it can be trusted."""


class Pair:
    """One direction between two formats: callers of the one, an upstream of the other."""

    def __init__(self, caller: Format, upstream: Format, memory: Memory) -> None:
        self.name = f"{caller.name} to {upstream.name}"
        self._caller = caller
        self._upstream = upstream
        self._memory = memory
        self._capabilities = find_capabilities(MODEL, upstream.name)
        self._request = wire.APIS[caller.name].ask_in_loop(MODEL)
        self._long_request = wire.APIS[caller.name].ask_in_loop(MODEL, system=LONG_SYSTEM)
        self._answer = wire.APIS[upstream.name].answer(has_call=True)
        self._events = wire.APIS[upstream.name].stream(wire.words(DELTAS))
        self._thoughts = wire.APIS[upstream.name].stream_thoughts(*[wire.words(DELTAS // 2)] * 2)

    def measure(self) -> Iterator[tuple[str, float]]:
        """Yield each small column's figure once."""
        burst = [b"".join(self._events)]
        yield REQUEST_US, measure_us(self.convert_request, [self._request] * CALLS) / CALLS
        yield LONG_US, measure_us(self.convert_request, [self._long_request] * LONG_CALLS) / LONG_CALLS
        yield ANSWER_US, measure_us(self._convert_answer, [self._cross() for _ in range(CALLS)]) / CALLS
        yield BURST_US, self._measure_streams(burst) / len(self._events)
        yield SINGLE_US, self._measure_streams(self._events) / len(self._events)
        yield THOUGHTS_US, self._measure_streams(self._thoughts) / len(self._thoughts)

    def _measure_streams(self, chunks: Sequence[bytes]) -> float:
        crossings = [self._cross() for _ in range(STREAMS)]
        return measure_us(lambda each: self.convert_stream(each, chunks), crossings) / STREAMS

    def measure_big(self) -> Iterator[tuple[str, float]]:
        """Yield each big column's figure once."""
        arguments = {"path": "a.py", "content": LINE * (BIG_BYTES // len(msgspec.json.encode(LINE)))}
        whole = b"".join(wire.APIS[self._upstream.name].stream_call(arguments))
        chunks = [whole[at : at + PIECE_BYTES] for at in range(0, len(whole), PIECE_BYTES)]
        yield CALL_MS, measure_us(lambda each: self.convert_stream(each, chunks), [self._cross()]) / 1000
        picture = wire.APIS[self._caller.name].ask_about("iVBORw0K" * (BIG_BYTES // 8))
        yield PICTURE_MS, measure_us(self.convert_request, [picture]) / 1000

    def check(self) -> None:
        """Convert everything small once and read it as the other side would.

        Raises:
            WrongConversion: it says something else.
        """
        try:
            arrived = self._upstream.decode_request(self.convert_request(self._request))
            answer = self._caller.decode_response(self._convert_answer(self._cross()))
            streamed = self._read_stream(self.convert_stream(self._cross(), [b"".join(self._events)]))
            singly = self._read_stream(self.convert_stream(self._cross(), self._events))
            thought = self._read_stream(self.convert_stream(self._cross(), self._thoughts))
        except ProxyError as error:
            raise WrongConversion(f"{self.name}: {error}") from error
        text = "".join(wire.words(DELTAS))
        for is_right, what in (
            (len(arrived.tools) == len(wire.TOOLS) and _calls(_blocks(arrived)), "request"),
            (_text(answer) == wire.TEXT and _calls(answer.candidates[0].blocks), "answer"),
            (_text(streamed) == _text(singly) == text, "stream"),
            (_thoughts(thought) == _text(thought) == "".join(wire.words(DELTAS // 2)), "stream with thoughts"),
            (_has_seal(thought), "signature"),
        ):
            if not is_right:
                raise WrongConversion(f"{self.name}: the {what} has lost something")

    def convert_request(self, body: bytes) -> bytes:
        """Bytes of the caller in, bytes for the upstream out."""
        return self._cross(body).encode_request(MODEL)[2]

    def convert_stream(self, crossing: Crossing, chunks: Sequence[bytes]) -> list[bytes]:
        """Bytes of the upstream in, bytes for the caller out."""
        stream = crossing.open_stream(self._caller.stream_encoder(crossing.asked, "req-1"))
        written = [stream.feed(chunk) for chunk in chunks]
        if not stream.is_over:
            written.append(stream.feed_eof())
        failure = stream.take_failure()
        if failure is not None:
            raise failure
        return written

    def _cross(self, body: bytes = b"") -> Crossing:
        """Read a request; what comes back through the crossing is to be given the names of its tools."""
        asked = self._caller.decode_request(body or self._request)
        asked.model, asked.stream = MODEL, not body
        crossing = Crossing(
            asked,
            self._caller,
            self._upstream,
            self._capabilities,
            origin=f"mock/{MODEL}",
            principal="bench",
            memory=self._memory,
        )
        if not body:
            crossing.encode_request(MODEL)
        return crossing

    def _convert_answer(self, crossing: Crossing) -> bytes:
        return crossing.convert_answer(self._answer)[0]

    def _read_stream(self, written: list[bytes]) -> hub.Response:
        sse, decoder = SSEDecoder(), self._caller.stream_decoder()
        events = [out for event in sse.feed(b"".join(written)) for out in decoder.feed(event)]
        return hub.fold([*events, *decoder.feed_eof()])


def measure_us(convert: Callable[[T], object], each: Sequence[T]) -> float:
    """Return the CPU time of this thread that converting *each* takes, in all."""
    started_ns = time.thread_time_ns()
    for one in each:
        convert(one)
    return (time.thread_time_ns() - started_ns) / 1000


def _blocks(request: hub.Request) -> list[hub.Block]:
    return [block for turn in request.turns for block in turn.blocks]


def _calls(blocks: Sequence[hub.Block]) -> bool:
    calls = [block for block in blocks if isinstance(block, hub.ToolCall)]
    return [(call.name, msgspec.json.decode(call.arguments)) for call in calls] == [
        (wire.CALL_NAME, wire.CALL_ARGUMENTS)
    ]


def _text(response: hub.Response) -> str:
    return "".join(block.text for block in response.candidates[0].blocks if isinstance(block, hub.Text))


def _thoughts(response: hub.Response) -> str:
    return "".join(block.text for block in response.candidates[0].blocks if isinstance(block, hub.Reasoning))


def _has_seal(response: hub.Response) -> bool:
    # Seals travel wrapped, so that they can be told from those of the caller's own vendor.
    seals = [getattr(block, "seal", None) for block in response.candidates[0].blocks]
    return any(len(seal.data) >= len(wire.SIGNATURE) for seal in seals if seal)


def measure_pairs(rounds: int) -> Figures:
    memory = Memory()
    pairs = [
        Pair(caller, upstream, memory)
        for caller in FORMATS.values()
        for upstream in FORMATS.values()
        if caller is not upstream
    ]
    for pair in pairs:
        pair.check()
        list(pair.measure())
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    figures: Figures = {pair.name: defaultdict(list) for pair in pairs}
    for number in range(rounds):
        for pair in pairs:
            for column, value in pair.measure():
                figures[pair.name][column].append(value)
            if number < BIG_ROUNDS:
                for column, value in pair.measure_big():
                    figures[pair.name][column].append(value)
    return figures


def main() -> None:
    try:
        figures = measure_pairs(int(sys.argv[1]))
    except WrongConversion as error:
        sys.exit(f"machines: {error}")
    targets = [Target(text, tuple(figures), most, column) for text, column, most in PROMISES]
    verdicts = [target.judge(figures) for target in targets]
    print(msgspec.json.encode({"figures": figures, "verdicts": verdicts}).decode())


if __name__ == "__main__":
    main()
