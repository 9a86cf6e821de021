"""Bodies and streams that are nearly right: every format's own, with members taken out, retyped or spelled oddly."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
from hypothesis import strategies as st
from msgspec import Raw

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import FORMATS
from aiproxyd.formats.codec import Losses
from aiproxyd.hub import ModelCard, unfold
from tests.formats.crossings import ANSWERS, FEATURES, capabilities_of
from tests.formats.crossings import ask as say

RECORDINGS: Final = Path(__file__).parents[1] / "recordings"
ODD: Final = tuple(
    map(
        Raw,
        (
            *(b"null", b"true", b"false", b"0", b"-1", b"1.5", b'""', b'" "', b'"x"', b"[]", b"{}", b"[null]", b"[[]]"),
            *(b'{"type":"x"}', b'[{"type":null}]', b'[{"index":-1}]', b'"data:,"', b'"data:image/png;base64,%%"'),
            *(b"1e999", b"-1e400", b"9" * 40, b"9223372036854775808", b"18446744073709551616", b"1e-400"),
            *(b"NaN", b"Infinity", b"-Infinity", b"undefined", b"'x'", b"01", b"+1", b""),
            *(b'"\\ud800"', b'"\\udc00 x"', b'"\\u0000"', b'"\xff"', b'"\xed\xa0\x80"', b'"\n"', b'"\\u2028\\r\\n"'),
            *(b"[" * 300 + b"]" * 300, b'{"a":' * 300 + b"1" + b"}" * 300, b"[" * 5000 + b"]" * 5000),
            b'"' + b"x" * 5000 + b'"',
        ),
    )
)
"""Values that JSON has, or some who write it, and that nobody expects."""
CARDS: Final = (ModelCard(name="fast"), ModelCard(name="local/qwen3:8b", created=1_763_856_000, owner="local"))
ROOT: Final = "the body"


@cache
def requests_of(name: str) -> tuple[bytes, ...]:
    """Return requests as callers of the format write them: recorded, and one for each thing that can be said."""
    fmt = FORMATS[name]
    written = [path.read_bytes() for path in sorted((RECORDINGS / name).glob("*/request.json"))]
    for feature in FEATURES:
        try:
            written.append(fmt.encode_request(feature.request, capabilities_of(fmt), Losses()))
        except InvalidRequest:
            continue
    return tuple(written)


@cache
def answers_of(name: str) -> tuple[bytes, ...]:
    recorded = [path.read_bytes() for path in sorted((RECORDINGS / name).glob("*/response.json"))]
    return (*recorded, *(FORMATS[name].encode_response(answer.response, say(logprobs=True)) for answer in ANSWERS))


@cache
def models_of(name: str) -> tuple[bytes, ...]:
    return (FORMATS[name].encode_model_list(CARDS, {}),)


@cache
def errors_of(name: str) -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted((RECORDINGS / name).glob("*/error.json")))


@cache
def streams_of(name: str) -> tuple[tuple[bytes, ...], ...]:
    """Return streams of the format, each as its lines."""
    recorded = [path.read_bytes() for path in sorted((RECORDINGS / name).glob("*/stream.sse"))]
    written = []
    for answer in ANSWERS:
        encoder = FORMATS[name].stream_encoder(say(logprobs=True), "req-1")
        written.append(b"".join(map(encoder.feed, unfold(answer.response))))
    return tuple(tuple(stream.splitlines(keepends=True)) for stream in (*recorded, *written))


def _places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in a JSON value: the object or list, and the key or index."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(each, dict | list):
            yield from _places_in(each)


@st.composite
def mutated(draw: st.DrawFn, bodies: Callable[[str], tuple[bytes, ...]], name: str) -> bytes:
    """Draw one of the *bodies* of a format, JSON, with up to three of its members changed."""
    written = bodies(name)
    return _mutate_body(draw, written[draw(st.integers(0, len(written) - 1))])


def _mutate_body(draw: st.DrawFn, body: bytes) -> bytes:
    value = {ROOT: msgspec.json.decode(body)}
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places_in(value))
        _mutate(draw, *places[draw(st.integers(0, len(places) - 1))])
    return msgspec.json.encode(value[ROOT])


def _mutate(draw: st.DrawFn, holder: Any, key: Any) -> None:
    kind = draw(st.sampled_from(["odd", "odd", "delete", "wrap", "unwrap", "repeat", "number", "swap"]))
    old = holder[key]
    match kind, old:
        case "delete", _ if key != ROOT:
            del holder[key]
        case "wrap", _:
            holder[key] = draw(st.sampled_from([[old], {"x": old}, [old, old]]))
        case "unwrap", [_, *_] | {"type": _}:
            holder[key] = old[0] if isinstance(old, list) else next(iter(old.values()))
        case "repeat", {}:
            holder[key] = _say_twice(old, draw(st.sampled_from([*old, "type"])), draw(st.sampled_from(ODD)))
        case "repeat", [*_]:
            holder[key] = old * 2
        case "number", str() | int() | float():
            holder[key] = draw(st.integers(-(2**70), 2**70).map(lambda number: Raw(str(number).encode())))
        case "swap", str():
            holder[key] = draw(st.text(max_size=4))
        case _:
            holder[key] = draw(st.sampled_from(ODD))


def _say_twice(value: dict[str, Any], key: str, other: Raw) -> Raw:
    rest = msgspec.json.encode(value)[1:]
    return Raw(b"{%b:%b%b%b" % (msgspec.json.encode(key), bytes(other), b"" if rest == b"}" else b",", rest))


@st.composite
def mutated_streams(draw: st.DrawFn, name: str) -> bytes:
    """Draw a stream of a format with lines left out, repeated or moved, and members of their data changed."""
    streams = streams_of(name)
    lines = list(streams[draw(st.integers(0, len(streams) - 1))])
    mutable = [at for at, line in enumerate(lines) if line.startswith(b"data: {")]
    for at in draw(st.lists(st.sampled_from(mutable), max_size=2, unique=True)):
        data = _mutate_body(draw, lines[at].removeprefix(b"data: ").strip())
        lines[at] = b"data: " + data.replace(b"\n", b" ") + b"\n"
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["delete", "repeat", "move"])):
            case "repeat":
                lines.insert(at, lines[at])
            case "move":
                lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at))
            case _ if len(lines) > 1:
                del lines[at]
    return b"".join(lines)
