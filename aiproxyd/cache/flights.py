"""Calls under way that several callers wait for: one asks the upstream, all get the answer, whoever leaves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from msgspec.structs import replace
from typing_extensions import override

from aiproxyd.attempt import LiveStream, Request, WholeAnswer
from aiproxyd.cache.entries import StreamReader
from aiproxyd.cache.sharing import SharedAnswer
from aiproxyd.cache.stores import Held
from aiproxyd.config import Target
from aiproxyd.errors import InternalError, ProxyError, UpstreamCut
from aiproxyd.formats.base import Format
from aiproxyd.hub import Usage
from aiproxyd.providers.base import Answer
from aiproxyd.routing.plan import Lease
from aiproxyd.tasks import spawn
from aiproxyd.telemetry.records import CallRecord

Ask = Callable[[Request], Awaitable[WholeAnswer | LiveStream]]
"""Has a request answered by an upstream."""
Settle = Callable[["Flight"], None]


class Flight:
    """One call. Its first caller leads: what that asked is what the upstream is asked.

    Holds nothing that holds it once it has come to its end: it is gone with the last of its callers.
    """

    def __init__(self, key: bytes, request: Request, digest: bytes, record: CallRecord, settle: Settle) -> None:
        """Take what is called when nothing more will come, once; *digest* stands for all of *request*.

        *record* is the leader's.
        """
        self.key = key
        self.request = replace(request, share=self.share)
        self.digest = digest
        self.record = record
        self.target = Target("", "")
        self.fmt: Format = request.fmt
        """That the upstream answers in."""
        self.shared: SharedAnswer | None = None
        self.reader: StreamReader | None = None
        """Reads the answer as it comes, where that is a stream."""
        self.error: ProxyError | None = None
        """Why there is no answer."""
        self.held: Held | None = None
        """The whole answer, once it is there; None where it is none that can be told again."""
        self.is_abandoned = False
        """It was given up, because nobody waited for it."""
        self.is_failed = False
        """Its answer broke off, or is none."""
        self.usage: Usage | None = None
        """What it cost, once it is over, as far as the upstream has said."""
        self.events = 0
        """How many of a stream had come when it was over."""
        self.is_accounted = False
        """One of the callers bears what it cost."""
        self.bearers = 0
        """Callers with a share in the answer who have not said yet what came of it."""
        self._settle = settle
        self._began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answer: WholeAnswer | LiveStream | None = None
        """As the leader gets it."""
        self._task: asyncio.Task[None] | None = None
        self._lease: Lease | None = None
        self._anchor: Answer | None = None
        """Keeps the answer while some have not joined yet."""
        self._waiting = 0
        self._is_settled = False
        self._is_known = True
        """Others may still come."""

    @property
    def is_joinable(self) -> bool:
        """Whether one more may have the answer from its beginning."""
        if not self._began.done():
            return True
        return self.error is None and self.shared is not None and self.shared.is_whole and not self.shared.is_left

    @property
    def is_too_long(self) -> bool:
        """Whether another call for the same would come to as long an answer, which nobody could join either."""
        return self.error is None and self.shared is not None and self.shared.is_too_long

    def start(self, ask: Ask) -> None:
        """Have the request answered, in a task of its own, so that its caller may leave."""
        self._task = spawn(self._run(ask), "a call that the cache may answer")

    @asynccontextmanager
    async def begun(self, record: CallRecord) -> AsyncIterator[None]:
        """Wait until the answer has begun, or failed; it does not go away within the block, which must not pause.

        *record* is that of who waits.
        """
        self._waiting += 1
        is_waiting = True
        try:
            await asyncio.shield(self._began)
            is_waiting = False
            yield
        finally:
            self._waiting -= 1
            if self._waiting == 0:
                await self._go_on_without(record)
            elif is_waiting:
                record.usage, record.is_usage_estimated = None, False  # one of those who stay bears it

    def take(self) -> WholeAnswer | LiveStream:
        """Return the answer as the leader gets it, once it has begun.

        Raises:
            ProxyError: there is none.
        """
        if self.error is not None:
            raise self.error.copy()
        answer, self._answer = self._answer, None
        assert answer is not None  # noqa: S101  # there is an answer, or an error
        self.bearers += 1
        return answer

    def join(self) -> Answer:
        """Return the answer of the upstream from its beginning; only while it is joinable, and has begun."""
        assert self.shared is not None  # noqa: S101  # it has begun
        self.bearers += 1
        return self.shared.join()

    def forget(self) -> None:
        """Note that nobody else will come."""
        self._is_known = False
        if self._waiting == 0:
            self._let_go()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.shared is None or self.shared.is_over

    def share(self, answer: Answer, target: Target, fmt: Format) -> Answer:
        """Return *answer*, of *target* in *fmt*, as the leader reads it; what was there before it has failed."""
        self.target, self.fmt = target, fmt
        if self.request.is_stream:
            self.reader = StreamReader(fmt, self.request.decode())
            answer = _ReadAnswer(answer, self.reader)
        self.shared = SharedAnswer(answer, self._end)
        return self.shared.join()

    async def _run(self, ask: Ask) -> None:
        error: ProxyError | None = InternalError("internal error; the log of the gateway knows more")
        try:
            self._answer = await ask(self.request)
            error = None
        except ProxyError as exc:
            error = exc.with_traceback(None)
        except asyncio.CancelledError:
            self.is_abandoned = True
            error = UpstreamCut("its callers have left")
            raise
        finally:
            self.error = error
            self._begin()

    def _begin(self) -> None:
        self._task = None
        if isinstance(self._answer, LiveStream) and self.shared is not None:
            # It is held by all who read.
            self._lease, self._answer.lease = self._answer.lease, None
            self._anchor = self.shared.join()
        self._began.set_result(None)
        if self.error is not None or self.shared is None or self.shared.is_over:
            self._finish()
        if self._waiting == 0:
            self._let_go()

    async def _go_on_without(self, record: CallRecord) -> None:
        """Note that nobody waits any more, after the one of *record*."""
        if self._began.done():
            self._let_go()
        elif self._task is not None:
            task = self._task
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task  # so that what it cost is on record: on that of who has left last
            record.usage, record.is_usage_estimated = self.record.usage, self.record.is_usage_estimated

    def _let_go(self) -> None:
        anchor, self._anchor = self._anchor, None
        if anchor is not None:
            anchor.close()
        answer, self._answer = self._answer, None
        if isinstance(answer, LiveStream):
            answer.close()  # nobody has taken it
        if self.shared is not None and not self._is_known:
            self.shared.refuse_more()

    def _end(self, shared: SharedAnswer) -> None:
        if self._began.done() and shared is self.shared:
            self._finish()

    def _finish(self) -> None:
        if self._is_settled:
            return
        self._is_settled = True
        try:
            self._settle(self)
        finally:
            self.request.share = None
            if self.reader is not None:
                self.events, self.reader = self.reader.events, None

    def end_lease(self) -> None:
        """Note how the attempt ended that the answer comes of."""
        if self._lease is None or self.shared is None:
            return
        if self.is_failed:
            self._lease.fail(self.shared.failure or UpstreamCut("the upstream's stream was not complete"))
        elif not self.shared.is_left:
            self._lease.succeed()
        self._lease.end()


class _ReadAnswer(Answer):
    """An answer that is read along as it comes."""

    def __init__(self, answer: Answer, reader: StreamReader) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._answer = answer
        self._reader = reader

    @override
    async def read(self) -> bytes:
        chunk = await self._answer.read()
        self._reader.feed(chunk)
        return chunk

    @override
    def expect_end(self) -> None:
        self._answer.expect_end()

    @override
    def close(self) -> None:
        self._answer.close()
