"""Callers of the soak: a seeded mix of everything that callers do, on raw sockets; every answer is judged.

The number of callers and the rate of their requests are bounded, so that two shared cores are enough.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Final

import msgspec

from benchmarks.soak_reading import CALLER_ERRORS, Answer, WrongAnswer, read, read_error
from benchmarks.soak_words import FORMATS, Question, Shape, Wish, write_request

CALLERS: Final = 32
RATE_PER_S: Final = 60.0
PATIENCE_S: Final = 30.0
"""Longer than any call may take here; whoever is still waiting then has been left hanging."""
MAX_BODY_BYTES: Final = 512 * 1024
"""Which the daemon is told."""
HOT_QUESTIONS: Final = 40
"""Questions that are asked again and again."""
SESSIONS: Final = 20
"""Of which the callers' programs tell."""
READ_PIECE_BYTES: Final = 16 * 1024
"""What a slow reader takes at once, and how much a caller's socket holds back before it is slow."""
MAX_SHOWN: Final = 20
KEYS: Final = {"alice": "soak-key-of-alice", "bob": "soak-key-of-bob"}
MODELS: Final = ("m-chat", "m-responses", "m-anthropic", "m-gemini", "m-down", "m-weighted", "m-shared")
FOR_BOB: Final = "m-*"
"""The models that the second key may use; the first may use all."""
ALONE: Final = ("chat/m", "responses/m", "anthropic/m", "gemini/m")
"""Targets without a fallback."""

_JSON: Final = "application/json"


class Closed(Exception):
    """The connection was closed before an answer began."""


class Line:
    """One connection of a caller."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.is_fresh = True

    @classmethod
    async def open(cls, port: int) -> "Line":
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=READ_PIECE_BYTES))

    @property
    def is_open(self) -> bool:
        return not self._reader.at_eof() and not self._writer.is_closing()

    async def send(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError as exc:
            raise Closed from exc

    async def read_head(self) -> tuple[int, dict[str, str]]:
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as exc:
            raise Closed from exc
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        return int(head[0].split(" ")[1]), headers

    async def read_body(self, headers: Mapping[str, str], pause_s: float = 0.0) -> tuple[bytes, bool]:
        """Return the body, and whether it came to its end; pause after each piece for *pause_s*."""
        body = bytearray()
        try:
            if "content-length" in headers:
                await self._read_exactly(body, int(headers["content-length"]), pause_s)
                return bytes(body), True
            while size := int((await self._reader.readuntil(b"\r\n")).strip(), 16):
                await self._read_exactly(body, size, pause_s)
                await self._reader.readexactly(2)
            await self._reader.readexactly(2)
        except (asyncio.IncompleteReadError, ConnectionError):
            return bytes(body), False
        return bytes(body), True

    async def _read_exactly(self, body: bytearray, size: int, pause_s: float) -> None:
        while size:
            piece = await self._reader.read(min(size, READ_PIECE_BYTES))
            if not piece:
                raise asyncio.IncompleteReadError(b"", size)
            body += piece
            size -= len(piece)
            if pause_s:
                await asyncio.sleep(pause_s)

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()


class Load:
    """All callers; one for the run."""

    def __init__(self, port: int, seed: int, rate_per_s: float = RATE_PER_S) -> None:
        self._port = port
        self._random = random.Random(seed)
        self._gap_s = 1 / rate_per_s
        self._next_s = 0.0
        self._numbers = count()
        self.requests = 0
        self.outcomes: Counter[str] = Counter()
        """Of questions."""
        self.others: Counter[str] = Counter()
        """What else was asked and done, and what came of it."""
        self.wrong: list[str] = []
        """The first wrong answers, as they are shown."""
        self.wrong_count = 0

    async def run(self, duration_s: float) -> None:
        """Load for *duration_s*; what is under way then comes to its end."""
        started_s = time.monotonic()
        async with asyncio.TaskGroup() as callers:
            for number in range(CALLERS):
                caller = _Caller(self, self._port, random.Random(self._random.random()))
                callers.create_task(caller.run(started_s + duration_s), name=f"caller {number}")

    async def take_turn(self) -> None:
        """Wait until the next request may go."""
        now = time.monotonic()
        self._next_s = max(self._next_s + self._gap_s, now - 1)  # what was missed is not made up for at once
        await asyncio.sleep(self._next_s - now)
        self.requests += 1

    def next_number(self) -> int:
        return next(self._numbers)

    def note_wrong(self, what: str) -> None:
        self.wrong_count += 1
        if len(self.wrong) < MAX_SHOWN:
            self.wrong.append(what)


class _Caller:
    """One caller, which does one thing after the other, mostly on one connection."""

    def __init__(self, load: Load, port: int, drawn: random.Random) -> None:
        self._load = load
        self._port = port
        self._random = drawn
        self._line: Line | None = None

    async def run(self, end_s: float) -> None:
        while time.monotonic() < end_s:
            await self._load.take_turn()
            ((name, (_, act)),) = self._random.choices(list(_ACTS.items()), [share for share, _ in _ACTS.values()])
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await act(self)
            except TimeoutError:
                self._drop()
                self._load.note_wrong(f"{name}: left hanging for {PATIENCE_S:g} s")
            except (Closed, OSError) as exc:
                self._drop()
                self._load.note_wrong(f"{name}: connection closed without an answer: {exc!r}")
            except (ValueError, IndexError, asyncio.LimitOverrunError) as exc:
                self._drop()
                self._load.note_wrong(f"{name}: this is no HTTP: {exc!r}")
        self._drop()

    # --- The connection

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        key: str = KEYS["alice"],
        pause_s: float = 0.0,
    ) -> Answer:
        """Ask, and read the whole answer.

        Raises:
            Closed: there is none.
        """
        is_last = self._random.random() < 0.2
        request = self._write(method, path, body, headers, key, is_last=is_last)
        line = await self._connect()
        try:
            status, told = await _exchange(line, request)
        except Closed:
            self._drop()
            if line.is_fresh:
                raise
            line = await self._connect()  # the old one was closed just when we asked
            status, told = await _exchange(line, request)
        line.is_fresh = False
        content, is_ended = await line.read_body(told, pause_s)
        if is_last or not is_ended or told.get("connection", "").lower() == "close":
            self._drop()
        return Answer(status, told, content, is_ended)

    async def _connect(self) -> Line:
        if self._line is None or not self._line.is_open:
            self._drop()
            self._line = await Line.open(self._port)
        return self._line

    def _drop(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _write(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str] | None, key: str, *, is_last: bool = False
    ) -> bytes:
        # As each vendor's SDKs present it: on paths that vendors share, it tells whose format is spoken.
        name = "x-goog-api-key: " if "/v1beta/" in path else "Authorization: Bearer "
        name = "x-api-key: " if "/messages" in path else name
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"{name}{key}", f"Content-Length: {len(body)}"]
        lines += [f"{field}: {value}" for field, value in ({"Content-Type": _JSON} | dict(headers or {})).items()]
        if is_last:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode() + body

    # --- Questions

    def _draw_question(self) -> Question:
        if self._random.random() < 0.35:
            name = f"h{self._random.randrange(HOT_QUESTIONS)}"
            return _make_question(name, random.Random(name))  # alike, whoever asks
        return _make_question(f"u{self._load.next_number()}", self._random)

    def _draw_wish(self, *, is_stream: bool | None = None) -> Wish:
        fmt = self._random.choice(FORMATS)
        model = self._random.choice(MODELS if self._random.random() < 0.75 else ALONE)
        is_whole = self._random.random() < 0.4 if is_stream is None else not is_stream
        if is_whole:
            return Wish(fmt, model, "whole")
        is_array = fmt == "gemini" and self._random.random() < 0.2
        wants_usage = fmt == "openai-chat" and self._random.random() < 0.5
        return Wish(fmt, model, "array" if is_array else "stream", wants_usage)

    def _draw_key(self, wish: Wish) -> str:
        return KEYS["bob" if wish.model in MODELS and self._random.random() < 0.5 else "alice"]

    def _draw_headers(self) -> dict[str, str]:
        wishes = ("no-cache", "no-store", "max-age=5", "only-if-cached")
        headers = {"Cache-Control": self._random.choice(wishes)} if self._random.random() < 0.12 else {}
        # Conversations are remembered, up to a number that would be reached long after the warm-up: few are new.
        if self._random.random() < 0.95:
            headers["x-session-id"] = f"session-{self._random.randrange(SESSIONS)}"
        return headers

    async def _talk(self, *, pause_s: float = 0.0, question: Question | None = None) -> None:
        question, wish = question or self._draw_question(), self._draw_wish()
        path, body = write_request(wish, question)
        key, headers = self._draw_key(wish), self._draw_headers()
        answer = await self._ask("POST", path, body, headers, key=key, pause_s=pause_s)
        self._judge(lambda: read(wish, question, answer), f"{wish} {question} {headers}", answer, self._load.outcomes)

    async def _read_slowly(self) -> None:
        question = Question(f"u{self._load.next_number()}", "large", 64, 0)
        await self._talk(pause_s=0.03, question=question)

    async def _leave_at_once(self) -> None:
        await self._start_and_leave(self._random.choice((0.0, 0.001, 0.01, 0.05)))

    async def _leave_in_stream(self) -> None:
        wish = self._draw_wish(is_stream=True)
        question = Question(f"u{self._load.next_number()}", self._random.choice(("text", "thought")), 60, 20)
        line = await Line.open(self._port)
        try:
            path, body = write_request(wish, question)
            await line.send(self._write("POST", path, body, self._draw_headers(), self._draw_key(wish)))
            await line.read_head()
            await asyncio.sleep(self._random.random())
        finally:
            self._leave(line)
        self._load.others["left in a stream"] += 1

    async def _start_and_leave(self, after_s: float) -> None:
        wish, question = self._draw_wish(), self._draw_question()
        line = await Line.open(self._port)
        try:
            path, body = write_request(wish, question)
            await line.send(self._write("POST", path, body, self._draw_headers(), self._draw_key(wish)))
            await asyncio.sleep(after_s)
        finally:
            self._leave(line)
        self._load.others["left at once"] += 1

    async def _leave_in_upload(self) -> None:
        wish, question = self._draw_wish(), self._draw_question()
        path, body = write_request(wish, question)
        request = self._write("POST", path, body, self._draw_headers(), self._draw_key(wish))
        line = await Line.open(self._port)
        try:
            await line.send(request[: -len(body) // 2])
            await asyncio.sleep(0.02)
        finally:
            self._leave(line)
        self._load.others["left in an upload"] += 1

    def _leave(self, line: Line) -> None:
        if self._random.random() < 0.5:
            line.abort()
        else:
            line.close()

    # --- What is the caller's fault

    async def _send_malformed(self) -> None:
        wish = self._draw_wish()
        path, body = write_request(wish, self._draw_question())
        broken = (b"", b"{", b"[]", b'"text"', b"null", body[:-5], b"\xff" * 99)
        await self._err("malformed", wish.fmt, path, self._random.choice(broken))

    async def _ask_unknown_model(self) -> None:
        wish = self._draw_wish()._replace(model=f"nobodys-{self._random.randrange(10_000)}")
        path, body = write_request(wish, self._draw_question())
        await self._err("unknown model", wish.fmt, path, body)

    async def _show_wrong_key(self) -> None:
        wish = self._draw_wish()
        path, body = write_request(wish, self._draw_question())
        await self._err("wrong key", wish.fmt, path, body, key=f"wrong-{self._random.randrange(10_000)}")

    async def _send_too_much(self) -> None:
        wish = self._draw_wish()
        path, body = write_request(wish, self._draw_question())
        body = body[:-1] + b'  ,"x":"' + b"x" * MAX_BODY_BYTES + b'"}'
        try:
            await self._err("oversize", wish.fmt, path, body)
        except Closed:
            # It answers and closes without reading on; what was sent then makes the system forget the answer.
            self._load.others["oversize: closed"] += 1

    async def _err(self, what: str, fmt: str, path: str, body: bytes, *, key: str = KEYS["alice"]) -> None:
        answer = await self._ask("POST", path, body, key=key)
        statuses = (CALLER_ERRORS[what],)
        self._judge(lambda: f"{what}: {read_error(fmt, answer, statuses)}", f"{what} {path}", answer, self._load.others)

    # --- Everything else

    async def _upload(self) -> None:
        size = self._random.randrange(1, 2 * MAX_BODY_BYTES)
        edge = b"soak-boundary"
        head = b'--%b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n' % edge
        head += b'--%b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' % edge
        body = head + b"x" * size + b"\r\n--%b--\r\n" % edge
        headers = {"Content-Type": f"multipart/form-data; boundary={edge.decode()}"}
        headers["x-aiproxyd-upstream"] = self._random.choice(("chat", "responses"))
        answer = await self._ask("POST", "/v1/files", body, headers)

        def read_receipt() -> str:
            if answer.status != 200:
                return "upload: " + read_error("openai-chat", answer, (400, 429, 500, 502, 503, 504))
            if not answer.is_ended:
                return "upload: cut"
            told = _decode_object(answer.body)
            if told is None:
                return "upload: garbage"  # relayed as it comes
            if told.get("bytes") != len(body):
                raise WrongAnswer(f"{len(body)} bytes were sent")
            return "upload: ok"

        self._judge(read_receipt, f"upload of {size}", answer, self._load.others)

    async def _list(self) -> None:
        path, field = self._random.choice((("/v1/models", "data"), ("/v1beta/models", "models")))
        headers = {"anthropic-version": "2023-06-01"} if field == "data" and self._random.random() < 0.3 else {}
        answer = await self._ask("GET", path, b"", headers)
        self._judge(lambda: _read_list(answer, field), path, answer, self._load.others)

    async def _read_metrics(self) -> None:
        answer = await self._ask("GET", "/metrics")
        self._judge(lambda: _read_metrics(answer), "/metrics", answer, self._load.others)

    async def _count(self) -> None:
        wish = Wish("anthropic", self._random.choice((*MODELS, *ALONE)), "whole")
        _, body = write_request(wish, self._draw_question())
        answer = await self._ask("POST", "/v1/messages/count_tokens", body)
        self._judge(lambda: _read_count(answer), "count_tokens", answer, self._load.others)

    async def _embed(self) -> None:
        body = msgspec.json.encode({"model": "chat/m", "input": [f"text {self._load.next_number()}"]})
        answer = await self._ask("POST", "/v1/embeddings", body)
        self._judge(lambda: _read_embedding(answer), "embeddings", answer, self._load.others)

    def _judge(self, judge: Callable[[], str], what: str, answer: Answer, outcomes: Counter[str]) -> None:
        try:
            outcomes[judge()] += 1
        except (WrongAnswer, ValueError, KeyError, TypeError, IndexError) as exc:
            told = (
                f"{what}: {type(exc).__name__}: {str(exc)[:600]}\n    {answer.status} {answer.headers}\n"
                f"    {answer.body[:400]!r} ... {answer.body[-600:]!r} ({len(answer.body)} bytes, "
                f"{'ended' if answer.is_ended else 'cut'})"
            )
            self._load.note_wrong(told)


async def _exchange(line: Line, request: bytes) -> tuple[int, dict[str, str]]:
    await line.send(request)
    return await line.read_head()


def _make_question(name: str, drawn: random.Random) -> Question:
    shapes: tuple[Shape, ...] = ("text", "thought", "call", "large")
    (shape,) = drawn.choices(shapes, (60, 20, 18, 2))
    if shape == "large":
        return Question(name, shape, 256, 0)
    return Question(name, shape, drawn.randint(1, 60), drawn.choice((0, 0, 5, 15)))


def _decode_object(body: bytes) -> dict[str, object] | None:
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _read_list(answer: Answer, field: str) -> str:
    if answer.status != 200 or not msgspec.json.decode(answer.body).get(field):
        raise WrongAnswer("no list of models")
    return "models: ok"


def _read_metrics(answer: Answer) -> str:
    if answer.status != 200 or b"aiproxyd_attempts_total" not in answer.body or not answer.body.endswith(b"\n"):
        raise WrongAnswer("no metrics")
    return "metrics: ok"


def _read_count(answer: Answer) -> str:
    if answer.status != 200:
        return "count: " + read_error("anthropic", answer, (400, 429, 500, 502, 503, 504))
    if not msgspec.json.decode(answer.body)["input_tokens"]:
        raise WrongAnswer("nothing counted")
    return "count: ok"


def _read_embedding(answer: Answer) -> str:
    if answer.status != 200:
        return "embed: " + read_error("openai-chat", answer, (400, 429, 500, 502, 503, 504))
    if msgspec.json.decode(answer.body)["data"][0]["embedding"] != [0.25, 0.5]:
        raise WrongAnswer("another embedding")
    return "embed: ok"


_Act = Callable[[_Caller], Awaitable[None]]
_ACTS: Final[dict[str, tuple[float, _Act]]] = {
    "question": (66, _Caller._talk),
    "slow reader": (3, _Caller._read_slowly),
    "left at once": (5, _Caller._leave_at_once),
    "left in a stream": (6, _Caller._leave_in_stream),
    "left in an upload": (2, _Caller._leave_in_upload),
    "malformed": (3, _Caller._send_malformed),
    "unknown model": (2, _Caller._ask_unknown_model),
    "wrong key": (2, _Caller._show_wrong_key),
    "oversize": (1, _Caller._send_too_much),
    "upload": (3, _Caller._upload),
    "models": (3, _Caller._list),
    "metrics": (1, _Caller._read_metrics),
    "count": (2, _Caller._count),
    "embed": (1, _Caller._embed),
}
"""What callers do, and how often in a hundred."""
