"""Load generator of the benchmark: keep-alive clients over a bare asyncio.Protocol that check every answer.

Reads one JSON job per line on stdin and writes one JSON result per line on stdout; ends with its stdin. A job is a load
or a crowd of streams to hold open. A result is either figures or `{"error": ...}`: one wrong answer spoils the job.
"""

import asyncio
import gc
import importlib
import re
import sys
import time
from typing import cast

import msgspec
from typing_extensions import override

from benchmarks import wire
from benchmarks.processes import memory_mb

FIRST_WORD = wire.words(1)[0].strip()
"""Stands in the first event of a stream that says something."""

_HEAD_END = b"\r\n\r\n"
# No canned event is a lone 0, so these bytes at the end can only be the last chunk.
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_PATIENCE_S = 30
_OPENING = 50
"""Streams of a crowd that are on their way to their first event at once."""
_CROWD_SETTLE_S = 0.5


class Job(msgspec.Struct, tag="load", forbid_unknown_fields=True):
    """One cell of the table: what to send, where, from how many connections, for how long."""

    port: int
    method: str
    path: str
    body: str
    proofs: list[str]
    """Stand in every right answer."""
    ending: str
    """The last bytes of a right stream."""
    key: str
    connections: int
    seconds: float
    """No request starts later than this; those on the way are waited for and counted."""
    warm_s: float
    """The same load before the measured one, on the same connections."""
    events: int
    """Fewest `data:` lines of a right answer; 0 for a whole answer."""
    stagger_s: float
    """Time over which the connections' first requests are spread."""
    pids: list[int]
    """Processes whose CPU time is the candidate's."""
    upstream_pid: int


class Crowd(msgspec.Struct, tag="crowd", forbid_unknown_fields=True):
    """So many streams to hold open at once, and whom to weigh without and with them."""

    port: int
    path: str
    body: str
    proof: str
    """Stands in the first event that says something."""
    key: str
    streams: int
    patience_s: float
    """Longest time in which none of them begins."""
    pids: list[int]


class WrongAnswer(Exception):
    """The candidate answered with something else than the whole 200 it was to pass on."""


def _write_request(method: str, job: Job | Crowd) -> bytes:
    head = (
        f"{method} {job.path} HTTP/1.1\r\nhost: 127.0.0.1:{job.port}\r\nauthorization: Bearer {job.key}\r\n"
        f"user-agent: bench\r\naccept: */*\r\ncontent-type: application/json\r\ncontent-length: {len(job.body)}"
    )
    return (head + "\r\n\r\n" + job.body).encode()


class _Client(asyncio.Protocol):
    """One keep-alive connection for one job: sends a request as soon as the answer before is complete."""

    def __init__(self, job: Job) -> None:
        self._request = _write_request(job.method, job)
        self._proofs = [proof.encode() for proof in job.proofs]
        self._ending = job.ending.encode()
        self._events = job.events
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._answer_bytes: int | None = None
        self._body_at = 0
        self._right = b""
        self._deadline = 0.0
        self._sent_at = 0
        self._latencies: list[int] = []
        self._ended: asyncio.Future[list[int]] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None

    async def run(self, deadline: float, delay_s: float) -> list[int]:
        """Ask until the deadline; give the nanoseconds that each answer took."""
        self._deadline, self._latencies, self._ended = deadline, [], self._loop.create_future()
        if delay_s:
            await asyncio.sleep(delay_s)
        self._send()
        return await self._ended

    def close(self) -> None:
        if self._transport:
            self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(f"connection closed after {len(self._latencies)} answers: {exc!r}")

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            if self._is_complete():
                self._check()
                self._next()
        except WrongAnswer as wrong:
            self._fail(str(wrong))

    def _send(self) -> None:
        if not self._transport:
            self._fail("connection closed between two requests")
            return
        self._sent_at = time.perf_counter_ns()
        self._transport.write(self._request)

    def _next(self) -> None:
        self._latencies.append(time.perf_counter_ns() - self._sent_at)
        self._received.clear()
        self._body_at = 0
        if self._loop.time() < self._deadline:
            self._send()
        elif not self._ended.done():
            self._ended.set_result(self._latencies)

    def _fail(self, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_exception(WrongAnswer(reason))

    def _is_complete(self) -> bool:
        if not self._body_at and not self._read_head():
            return False
        if self._answer_bytes is None:
            return self._received.endswith(_LAST_CHUNK)
        return len(self._received) >= self._answer_bytes

    def _read_head(self) -> bool:
        end = self._received.find(_HEAD_END)
        if end < 0:
            return False
        head = bytes(self._received[: end + 2])
        self._body_at = end + len(_HEAD_END)
        length = _LENGTH.search(head)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise WrongAnswer(bytes(self._received[:600]).decode(errors="replace"))
        if not length and not _CHUNKED.search(head):
            raise WrongAnswer(f"neither content-length nor chunked: {head!r}")
        self._answer_bytes = self._body_at + int(length[1]) if length else None
        return True

    def _check(self) -> None:
        """Raise WrongAnswer unless the complete answer has the content that the upstream sent.

        The bytes of the last right answer are kept: the same bytes again need no second look.
        """
        if self._answer_bytes is None:
            framed = bytes(self._received[self._body_at :])
            if framed == self._right:
                return
            body = _dechunk(framed)
        elif len(self._received) == self._answer_bytes:
            framed = body = bytes(self._received[self._body_at :])
        else:
            raise WrongAnswer("bytes after the end of the answer")
        for proof in self._proofs:
            if proof not in body:
                raise WrongAnswer(f"no {proof!r}: {body[:300]!r}")
        if self._events and not (body.endswith(self._ending) and body.count(b"data:") >= self._events):
            raise WrongAnswer(f"{body.count(b'data:')} events of {self._events}, ending in {body[-40:]!r}")
        self._right = framed


class _Listener(asyncio.Protocol):
    """One stream of a crowd: asks, waits for the first event that says something, and stays."""

    def __init__(self, request: bytes, proof: bytes) -> None:
        self._request = request
        self._proof = proof
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_open = True

    def close(self) -> None:
        if self._transport:
            self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if not self.begun.done():
            self.begun.set_exception(WrongAnswer(f"connection closed before the first event: {exc!r}"))

    @override
    def data_received(self, data: bytes) -> None:
        if self.begun.done():
            return
        self._received += data
        if not self._received.startswith(b"HTTP/1.1 200 "[: len(self._received)]):
            self.begun.set_exception(WrongAnswer(self._received[:600].decode(errors="replace")))
        elif self._proof in self._received:
            self._received = b""
            self.begun.set_result(None)


def _dechunk(answer: bytes) -> bytes:
    pieces = []
    at = 0
    while True:
        line_end = answer.index(b"\r\n", at)
        size = int(answer[at:line_end], 16)
        if not size:
            break
        at = line_end + 2 + size + 2
        pieces.append(answer[line_end + 2 : at - 2])
        if answer[at - 2 : at] != b"\r\n":
            raise WrongAnswer("broken chunked encoding")
    if line_end + len(_HEAD_END) != len(answer):
        raise WrongAnswer("bytes after the last chunk")
    return b"".join(pieces)


def _cpu_ns(pids: list[int]) -> int:
    """CPU time of these processes, user and system, all threads, ended threads too.

    Read from each process's CPU clock (the id is what clock_getcpuclockid(3) gives), which counts nanoseconds on the
    CPU up to this very moment. /proc/PID/stat holds the same sum cut to 10 ms ticks, and /proc/PID/schedstat the main
    thread alone. What the kernel does for a process in an interrupt's time, delivery over loopback for one, is charged
    to whoever runs at that moment, mostly the sender: alike for every candidate.
    """
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)


async def _drive(clients: list[_Client], seconds: float, stagger_s: float) -> list[int]:
    deadline = asyncio.get_running_loop().time() + seconds
    delays = (stagger_s * number / len(clients) for number in range(len(clients)))
    async with asyncio.timeout(seconds + _PATIENCE_S):
        answers = await asyncio.gather(
            *(client.run(deadline, delay) for client, delay in zip(clients, delays, strict=True))
        )
    return [latency for latencies in answers for latency in latencies]


async def _measure(job: Job, clients: list[_Client]) -> dict[str, float]:
    if job.warm_s:
        await _drive(clients, job.warm_s, 0)
    gc.collect()
    before = (_cpu_ns(job.pids), _cpu_ns([job.upstream_pid]), time.process_time_ns(), time.perf_counter_ns())
    latencies = await _drive(clients, job.seconds, job.stagger_s)
    after = (_cpu_ns(job.pids), _cpu_ns([job.upstream_pid]), time.process_time_ns(), time.perf_counter_ns())
    cpu_ns, upstream_cpu_ns, load_cpu_ns, elapsed_ns = (end - start for start, end in zip(before, after, strict=True))
    latencies.sort()
    return {
        "requests": len(latencies),
        "elapsed_s": elapsed_ns / 1e9,
        "cpu_us": cpu_ns / 1e3,
        "upstream_cpu_us": upstream_cpu_ns / 1e3,
        "load_cpu_us": load_cpu_ns / 1e3,
        "p50_us": latencies[len(latencies) // 2] / 1e3,
        "p99_us": latencies[len(latencies) * 99 // 100] / 1e3,
    }


async def _do(job: Job) -> dict[str, float]:
    clients: list[_Client] = []
    loop = asyncio.get_running_loop()
    try:
        for _ in range(job.connections):
            _, client = await loop.create_connection(lambda: _Client(job), "127.0.0.1", job.port)
            clients.append(client)
        return await _measure(job, clients)
    finally:
        for client in clients:
            client.close()


async def _hold(crowd: Crowd) -> dict[str, float]:
    """Weigh without and with the crowd; a small one goes before it, since the first streams bring up what all share."""
    await _gather(crowd, _OPENING)
    return await _gather(crowd, crowd.streams)


async def _gather(crowd: Crowd, number: int) -> dict[str, float]:
    request, proof = _write_request("POST", crowd), crowd.proof.encode()
    loop = asyncio.get_running_loop()
    listeners: list[_Listener] = []
    numbers = iter(range(number))

    async def open_some(patience: asyncio.Timeout) -> None:
        for _ in numbers:
            _, listener = await loop.create_connection(lambda: _Listener(request, proof), "127.0.0.1", crowd.port)
            listeners.append(listener)
            await listener.begun
            patience.reschedule(loop.time() + crowd.patience_s)

    await asyncio.sleep(_CROWD_SETTLE_S)
    before = memory_mb(crowd.pids, "Pss")
    try:
        async with asyncio.timeout(crowd.patience_s) as patience:
            await asyncio.gather(*(open_some(patience) for _ in range(min(number, _OPENING))))
        await asyncio.sleep(_CROWD_SETTLE_S)
        after = memory_mb(crowd.pids, "Pss")
        if not all(listener.is_open for listener in listeners):
            raise WrongAnswer("a stream ended that was to stay open")
        return {"each_kb": (after - before) / number * 1e3}
    except TimeoutError as error:
        begun = sum(listener.begun.done() and not listener.begun.cancelled() for listener in listeners)
        raise WrongAnswer(f"{begun:,} of {number:,} streams began, and no more in {crowd.patience_s:g} s") from error
    finally:
        for listener in listeners:
            listener.close()


async def _try(job: Job | Crowd) -> dict[str, float] | dict[str, str]:
    try:
        return await (_do(job) if isinstance(job, Job) else _hold(job))
    except TimeoutError:
        return {"error": f"no complete answer within {_PATIENCE_S} s"}
    except (WrongAnswer, OSError, ValueError) as error:
        return {"error": str(error) if isinstance(error, WrongAnswer) else f"{type(error).__name__}: {error}"}


def main() -> None:
    gc.disable()
    try:
        new_loop = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        new_loop = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        for line in sys.stdin.buffer:
            result = runner.run(_try(msgspec.json.decode(line, type=Job | Crowd)))
            print(msgspec.json.encode(result).decode(), flush=True)


if __name__ == "__main__":
    main()
