"""Where answers are kept: in memory, bounded in bytes; or in Redis or Valkey, shared by all instances."""

import asyncio
import logging
import math
import os
import re
import time
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from msgspec import Struct
from typing_extensions import override

from aiproxyd.cache.entries import Entry, decode_entry, encode_entry
from aiproxyd.formats import FORMATS
from aiproxyd.tasks import Clock
from aiproxyd.telemetry.metrics import Family

if TYPE_CHECKING:
    from redis.asyncio import Redis

OVERHEAD_BYTES: Final = 640
"""What an entry takes in memory beside its answer: keys, the structs, their places in dictionaries; measured."""
MAX_RENDERINGS: Final = 8
"""Of one answer: whole and streamed in each of the formats. What means the same can be spelled endlessly."""
REDIS_TIMEOUT_S: Final = 0.25
"""How long a request waits for Redis."""
REDIS_REST_S: Final = 2.0
"""How long Redis is not asked after it failed, so that not each request waits for it."""
MAX_REDIS_CALLS: Final = 64
"""Calls to Redis at once; more wait for their turn."""
REDIS_PREFIX: Final = b"aiproxyd:cache:"

_CODE: Final = re.compile("[A-Z]+")
"""How an error begins that Redis itself answers: ``NOAUTH Authentication required.``"""

_log: Final = logging.getLogger(__name__)


class Rendering(NamedTuple):
    """An entry as one request got it."""

    body: bytes
    dropped: tuple[str, ...]
    """What its format could not say."""


class Held(Struct):
    """An entry, and what it was rendered to; lives as long as it is in memory, or as those who wait for it."""

    entry: Entry
    renderings: dict[bytes, Rendering] = {}
    """By digest of the request."""

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, about."""
        return (
            OVERHEAD_BYTES
            + len(self.entry.body)
            + sum(OVERHEAD_BYTES + len(rendering.body) for rendering in self.renderings.values())
        )

    def add(self, request: bytes, rendering: Rendering) -> None:
        """Hold what it was rendered to for the digest *request*, and of others the latest."""
        if len(self.renderings) >= MAX_RENDERINGS:
            del self.renderings[next(iter(self.renderings))]
        self.renderings[request] = rendering


class Store(ABC):
    """Keeps answers for a while. Never raises: what cannot be had is not there."""

    @abstractmethod
    async def get(self, key: bytes) -> Held | None:
        """Return what is kept under *key* and not too old."""

    @abstractmethod
    async def put(self, key: bytes, held: Held) -> None:
        """Keep *held* under *key*, for its own time."""

    @abstractmethod
    def describe(self) -> str:
        """Return where that is, for the log: without credentials."""

    def render(self, key: bytes, held: Held, request: bytes, rendering: Rendering) -> None:
        """Have *held*, of *key*, hold what it was rendered to for the digest *request*, where that is worth it."""
        del key
        held.add(request, rendering)

    async def close(self) -> None:  # noqa: B027  # most have nothing open
        """Let go of connections."""

    def families(self) -> Iterable[Family]:
        """Yield what can be measured."""
        return ()


class MemoryStore(Store):
    """The answers that were used last, as many as fit."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: OrderedDict[bytes, Held] = OrderedDict()
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """What all of it takes, about."""
        return self._size_bytes

    def __len__(self) -> int:
        return len(self._held)

    @override
    async def get(self, key: bytes) -> Held | None:
        held = self._held.get(key)
        if held is None:
            return None
        if held.entry.age_s(time.time()) >= held.entry.ttl_s:
            self._drop(key)
            return None
        self._held.move_to_end(key)
        return held

    @override
    async def put(self, key: bytes, held: Held) -> None:
        self._drop(key)
        self._drop_old()
        if held.size_bytes > self._max_bytes:
            return  # it would push out everything, and then itself
        self._held[key] = held
        self._size_bytes += held.size_bytes
        self._shrink()

    @override
    def render(self, key: bytes, held: Held, request: bytes, rendering: Rendering) -> None:
        if self._held.get(key) is not held:
            held.add(request, rendering)
            return
        before = held.size_bytes
        if before + OVERHEAD_BYTES + len(rendering.body) > self._max_bytes:
            return
        held.add(request, rendering)
        self._size_bytes += held.size_bytes - before
        self._shrink()

    @override
    def describe(self) -> str:
        return f"memory, at most {self._max_bytes} bytes"

    @override
    def families(self) -> Iterable[Family]:
        yield Family("aiproxyd_cache_entries", "gauge", "Answers in the cache.", (), [((), float(len(self)))])
        yield Family("aiproxyd_cache_bytes", "gauge", "What they take in memory.", (), [((), float(self.size_bytes))])

    def _drop(self, key: bytes) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._size_bytes -= held.size_bytes

    def _drop_old(self) -> None:
        """Drop what nobody may have any more, from what was used longest ago up to the first that is still good."""
        now = time.time()
        while self._held:
            key, held = next(iter(self._held.items()))
            if held.entry.age_s(now) < held.entry.ttl_s:
                break
            self._drop(key)

    def _shrink(self) -> None:
        while self._size_bytes > self._max_bytes:
            _, held = self._held.popitem(last=False)
            self._size_bytes -= held.size_bytes


class RedisStore(Store):
    """A server that all instances share. Where it fails or is slow, requests go on without it."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._slots = asyncio.Semaphore(MAX_REDIS_CALLS)
        self._rests_until = {"get": 0.0, "set": 0.0}
        self._failing: dict[str, str] = {}
        """What goes wrong with each of the two."""
        self._outcomes: Counter[tuple[str, ...]] = Counter()
        place = redis.connection_pool.connection_kwargs
        self._address = place.get("path") or f"{place.get('host', 'localhost')}:{place.get('port', 6379)}"
        self._database = place.get("db", 0)

    @classmethod
    async def open(cls, url: str) -> "RedisStore":
        """Return the store at *url*: ``redis://``, ``rediss://`` or ``unix://``, with user, password and number.

        Does not connect yet.
        """
        return cls(await asyncio.to_thread(_prepare, url))

    @override
    async def get(self, key: bytes) -> Held | None:
        data = await self._try("get", lambda: self._redis.get(_name(key)))
        if not isinstance(data, bytes):
            return None
        try:
            entry = decode_entry(data)
            FORMATS[entry.format].read_answer(entry.body)
        except (msgspec.DecodeError, KeyError):
            return None  # another version's
        return Held(entry) if entry.age_s(time.time()) < entry.ttl_s else None

    @override
    async def put(self, key: bytes, held: Held) -> None:
        lasts_ms = max(int(held.entry.ttl_s * 1000), 1)
        await self._try("set", lambda: self._redis.set(_name(key), encode_entry(held.entry), px=lasts_ms))

    @override
    def describe(self) -> str:
        return f"Redis at {self._address}, database {self._database}"

    @override
    async def close(self) -> None:
        await self._redis.aclose()

    @override
    def families(self) -> Iterable[Family]:
        yield Family(
            "aiproxyd_cache_redis_calls",
            "counter",
            "Questions to Redis, by what came of them.",
            ("outcome",),
            list(self._outcomes.items()),
        )

    async def _try(self, kind: str, ask: Callable[[], Awaitable[object]]) -> object:
        """Return what Redis answers; None where it does not, or has not lately."""
        from redis.exceptions import RedisError, ResponseError

        loop = asyncio.get_running_loop()
        if loop.time() < self._rests_until[kind]:
            return None
        asked_at = math.inf
        try:
            # Waiting for its turn counts: who has one may wait for what hangs.
            with Clock(loop, loop.time() + REDIS_TIMEOUT_S):
                async with self._slots:
                    asked_at = loop.time()
                    if asked_at < self._rests_until[kind]:
                        return None
                    answer = await ask()
        except ResponseError as exc:
            self._note_failure((kind,), exc)  # such as a full memory, in which one can still read
            return None
        except TimeoutError as exc:
            if loop.time() - asked_at >= REDIS_TIMEOUT_S / 2:  # else there is only much to do
                self._note_failure(tuple(self._rests_until), exc)
            return None
        except (RedisError, OSError, ValueError) as exc:  # the last of these for what is no Redis
            self._note_failure(tuple(self._rests_until), exc)
            return None
        self._outcomes["ok",] += 1
        if self._failing.pop(kind, None) and not self._failing:
            _log.info("Redis at %s answers again", self._address)
        return answer

    def _note_failure(self, kinds: Iterable[str], error: Exception) -> None:
        self._outcomes["failed",] += 1
        told = _describe(error)
        if told not in self._failing.values():
            _log.warning("Redis at %s fails, and calls go on without the cache: %s", self._address, told)
        for kind in kinds:
            self._failing[kind] = told
            self._rests_until[kind] = asyncio.get_running_loop().time() + REDIS_REST_S


def _name(key: bytes) -> bytes:
    """Return what *key* is called in Redis, so that its tools can show it."""
    return REDIS_PREFIX + key.hex().encode()


def _describe(error: Exception) -> str:
    """Return what kind of failure *error* is; its text may hold what was asked."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, OSError) and cause.errno:
        return f"{type(error).__name__}: {os.strerror(cause.errno)}"
    word = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    return f"{type(error).__name__}{f': {word}' if _CODE.fullmatch(word) else ''}"


def _prepare(url: str) -> "Redis":
    """Return a client; reads files, to import the library."""
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return Redis.from_url(
        url,
        socket_timeout=REDIS_TIMEOUT_S,
        socket_connect_timeout=REDIS_TIMEOUT_S,
        retry=Retry(NoBackoff(), 1),  # a connection that was closed while it waited
        driver_info=None,  # to find out its own version, the library would read files for each connection
    )
