"""What the tests with the official SDKs share: the stage, sync SDKs used as async ones, and how answers are framed."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import cache
from hashlib import sha256
from typing import Any, NamedTuple

import httpx2
import msgspec
import pytest
from pydantic import BaseModel
from typing_extensions import override

from tests.conftest import StartGateway
from tests.support import Reply, Upstream, upstream_section

HELLO = "Hello from the aiproxyd demo. You said: Hi"
"""What the demo answers to ``Hi``; the scripted upstreams say the same, in the words of the service they play."""
ASK_BOTH = "Use get_weather and get_time with city=Oslo."
"""The demo calls every tool that is named, with the arguments that are."""
USED_BOTH = "The tool answered: rain, noon"
RESULTS = {"get_weather": "rain", "get_time": "noon"}
"""The tools, in the order in which they are offered, and what they say."""
ASK_CITY = "Describe city=Oslo"
OSLO = '{"city":"Oslo","degrees":1}'


class City(BaseModel):
    """What an answer to ASK_CITY is parsed into."""

    city: str
    degrees: int


CALLER_KEY = "sk-caller-0123"
KEY_SECTION = f"[key alice]\nsecret = sha256:{sha256(CALLER_KEY.encode()).hexdigest()}\nmodels = m, good*\n"


def encode(value: object, indent: int = 0) -> bytes:
    """Encode in the spelling of OpenAI and Google, which is not ours."""
    return msgspec.json.format(msgspec.json.encode(value), indent=indent)


def whole(value: object) -> Reply:
    return Reply(encode(value, indent=2))


def stream(*events: bytes) -> Reply:
    return Reply(chunks=events, content_type="text/event-stream")


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + encode(data) + b"\n\n"


def named_event(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\n".encode() + event(data)


def refusal(status: int, body: object, **headers: str) -> Reply:
    return Reply(encode(body), status, headers=headers)


def cut(text: str) -> list[str]:
    """Return *text* in two pieces."""
    middle = len(text) // 2
    return [text[:middle], text[middle:]]


class Tape:
    """The bodies that left an SDK, and what reached it."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self._received: list[bytearray] = []

    @property
    def received(self) -> list[bytes]:
        return [bytes(body) for body in self._received]

    def client(self) -> httpx2.Client:
        hooks: dict[str, list[Callable[..., Any]]] = {"request": [self._send], "response": [self._receive]}
        return httpx2.Client(event_hooks=hooks, trust_env=False, verify=False)

    def async_client(self) -> httpx2.AsyncClient:
        async def send(request: httpx2.Request) -> None:
            self._send(request)

        async def receive(response: httpx2.Response) -> None:
            self._receive(response)

        hooks: dict[str, list[Callable[..., Any]]] = {"request": [send], "response": [receive]}
        return httpx2.AsyncClient(event_hooks=hooks, trust_env=False, verify=False)

    def _send(self, request: httpx2.Request) -> None:
        self.sent.append(request.content)

    def _receive(self, response: httpx2.Response) -> None:
        copy = bytearray()
        self._received.append(copy)
        response.stream = _Copied(response.stream, copy)


class _Copied(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """The body of a response, copied while it is read."""

    def __init__(self, body: Any, copy: bytearray) -> None:
        self._body = body
        self._copy = copy

    @override
    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._body:
            self._copy += chunk
            yield chunk

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._body:
            self._copy += chunk
            yield chunk

    @override
    def close(self) -> None:
        self._body.close()

    @override
    async def aclose(self) -> None:
        await self._body.aclose()


class Stage:
    """A gateway whose one upstream is the demo, or a scripted one that says what the demo would."""

    def __init__(self, url: str, upstream: Upstream | None, tape: Tape | None) -> None:
        self.url = url
        self._upstream = upstream
        self._tape = tape
        self._replies: tuple[Reply, ...] = ()

    def script(self, *replies: Reply) -> None:
        """Let the scripted upstream answer so; the demo needs no script."""
        self._replies = replies
        if self._upstream is not None:
            self._upstream.script(*replies)

    def assert_bytes_passed_untouched(self) -> None:
        """Compare every body at both ends, where both were recorded."""
        if self._upstream is None or self._tape is None:
            return
        assert [received.body for received in self._upstream.received] == self._tape.sent
        assert self._tape.received == [b"".join(reply.chunks or [reply.body]) for reply in self._replies]


async def set_stage(kind: str, provider: str, upstream: Upstream, gateway: StartGateway, tape: Tape | None) -> Stage:
    if kind == "demo":
        return Stage((await gateway("", "--demo")).url, None, tape)
    return Stage((await gateway(upstream_section(upstream, provider))).url, upstream, tape)


class Threaded:
    """A synchronous object that is used as the SDK's asynchronous twin: what is awaited runs in a thread.

    So each test is written once, and runs with either client.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = cache(make)

    def __getattr__(self, name: str) -> "Threaded":
        return Threaded(lambda: getattr(self._make(), name))

    def __call__(self, *args: Any, **kwargs: Any) -> "Threaded":
        return Threaded(lambda: self._make()(*args, **kwargs))

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.to_thread(self._settle).__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        items = await asyncio.to_thread(lambda: iter(self._make()))
        end = object()
        while (item := await asyncio.to_thread(next, items, end)) is not end:
            yield _wrap_stream(item)

    async def __aenter__(self) -> "Threaded":
        entered = await asyncio.to_thread(lambda: self._make().__enter__())
        return Threaded(lambda: entered)

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(lambda: self._make().__exit__(*error))

    def _settle(self) -> Any:
        return _wrap_stream(self._make())


def _wrap_stream(value: Any) -> Any:
    return Threaded(lambda: value) if hasattr(value, "__next__") else value


def assert_unseen(secret: str, upstream: Upstream) -> None:
    """Look for a caller's secret in everything that reached the upstream."""
    assert upstream.received
    for received in upstream.received:
        seen = f"{received.target} {received.body!r} {list(received.headers.items())}"
        assert secret not in seen


async def read_into(seen: io.StringIO, texts: AsyncIterator[str]) -> None:
    """Read to the end, and keep what has come when it is a bad one."""
    async for text in texts:
        seen.write(text)


class Break(NamedTuple):
    """How a stream breaks off that has begun, and what the caller is told."""

    is_cut: bool
    has_half_event: bool
    message: str


BREAKS = pytest.mark.parametrize(
    "end",
    [
        Break(is_cut=True, has_half_event=False, message="cut the connection"),
        Break(is_cut=True, has_half_event=True, message="cut the connection"),
        Break(is_cut=False, has_half_event=False, message="ended before it was complete"),
    ],
    ids=["cut", "cut inside an event", "ended early"],
)


def break_off(reply: Reply, count: int, end: Break) -> Reply:
    """Return the stream *reply* as it is when it breaks off behind *count* events."""
    chunks = list(reply.chunks or ())
    rest = [chunks[count][:-20]] if end.has_half_event else []
    return Reply(chunks=chunks[:count] + rest, cut=end.is_cut, content_type=reply.content_type)
