"""One answer of an upstream for several callers: each reads it from its beginning, and then as it comes."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from typing_extensions import override

from aiproxyd.errors import UpstreamCut, UpstreamError
from aiproxyd.providers.base import Answer

MAX_SHARED_BYTES: Final = 4 * 1024 * 1024
"""How much of an answer is held for callers who may still come; of a longer one, what all have read is let go."""
MAX_LAG_BYTES: Final = 2 * MAX_SHARED_BYTES
"""How much is held for those who read slowly, while others go on; who falls further behind is cut off."""


class SharedAnswer:
    """An upstream's answer that several read. It is read on only while someone wants more, and by one at a time.

    Whoever waits for the next bytes reads them for all; when that one leaves, another goes on.
    """

    def __init__(self, answer: Answer, at_end: Callable[["SharedAnswer"], None]) -> None:
        """Take *at_end*, which is called once: when all has come, when it broke off, or when nobody reads any more."""
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers
        self._answer = answer
        self._at_end: Callable[[SharedAnswer], None] | None = at_end
        self._chunks: list[bytes] = []
        self._dropped = 0
        """Chunks that are held no longer."""
        self._size_bytes = self._held_bytes = 0
        self._views: set[_View] = set()
        self._news: asyncio.Future[None] | None = None
        """Done when there is something new for those who wait."""
        self._is_reading = False
        self.failure: UpstreamError | None = None
        """What broke it off."""
        self.is_over = False
        """Nothing more will come."""
        self.is_left = False
        """Nobody read it to its end."""
        self._is_open = True
        """Others may still join."""

    @property
    def is_too_long(self) -> bool:
        """Whether it is longer than what is held for those who come late."""
        return self._size_bytes > MAX_SHARED_BYTES

    @property
    def is_whole(self) -> bool:
        """Whether all that has come is still here, so that it can be read from its beginning."""
        return not self._dropped

    def join(self) -> Answer:
        """Return the answer from its beginning; only while it is whole."""
        view = _View(self)
        self._views.add(view)
        return view

    def refuse_more(self) -> None:
        """Let nobody join any more, so that what all have read need not be held."""
        self._is_open = False
        self._let_go()

    def take(self) -> bytes:
        """Return all that has come, while it is whole."""
        return b"".join(self._chunks)

    async def read(self, view: "_View") -> bytes:
        """Return the next bytes for *view*, b"" behind the end."""
        while view.at >= self._dropped + len(self._chunks):
            if self.is_over:
                if self.failure is not None:
                    raise self.failure.copy()
                return b""
            await (self._wait() if self._is_reading else self._read_on())
        if view.at < self._dropped:
            raise UpstreamCut("the answer is shared with others, who have read it too far ahead of this caller")
        chunk = self._chunks[view.at - self._dropped]
        view.at += 1
        return chunk

    def expect_end(self) -> None:
        """Wait no longer for what is still to come than a moment."""
        self._answer.expect_end()

    def leave(self, view: "_View") -> None:
        """Note that *view* is read no more."""
        if view not in self._views:
            return
        self._views.remove(view)
        if not self._views:
            self.is_left = not self.is_over
            self._end()
            self._answer.close()
        if self._chunks and not self._is_open:
            self._let_go()

    async def _read_on(self) -> None:
        self._is_reading = True
        try:
            chunk = await self._answer.read()
        except UpstreamError as exc:
            self.failure = exc.with_traceback(None)
            self._end()
        else:
            if chunk:
                self._chunks.append(chunk)
                self._held_bytes += len(chunk)
                self._size_bytes += len(chunk)
                if self.is_too_long:
                    self._let_go()
            else:
                self._end()
        finally:
            self._is_reading = False
            news, self._news = self._news, None
            if news is not None:
                news.set_result(None)

    async def _wait(self) -> None:
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._news)

    def _end(self) -> None:
        self.is_over = True
        at_end, self._at_end = self._at_end, None  # whom it tells may hold it
        if at_end is not None:
            at_end(self)

    def _let_go(self) -> None:
        """Drop what all have read, and what is too far behind."""
        behind_all = self._dropped + (0 if self._is_open else len(self._chunks))
        read = min((view.at for view in self._views), default=behind_all) - self._dropped
        read = max(read, 0)
        self._held_bytes -= sum(map(len, self._chunks[:read]))
        while self._held_bytes > MAX_LAG_BYTES and read < len(self._chunks) - 1:
            self._held_bytes -= len(self._chunks[read])
            read += 1
        del self._chunks[:read]
        self._dropped += read


class _View(Answer):
    """What one caller reads."""

    def __init__(self, shared: SharedAnswer) -> None:
        self.status = shared.status
        self.headers = shared.headers
        self.at = 0
        """Number of the next chunk."""
        self._shared = shared

    @override
    async def read(self) -> bytes:
        return await self._shared.read(self)

    @override
    def expect_end(self) -> None:
        self._shared.expect_end()

    @override
    def close(self) -> None:
        self._shared.leave(self)
