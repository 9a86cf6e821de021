"""Calls under way that several callers wait for: one asks the upstream, all get the answer, whoever leaves."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from msgspec.structs import replace

from aiproxyd.attempt import LiveStream, Request, WholeAnswer
from aiproxyd.cache.entries import Entry
from aiproxyd.cache.sharing import SharedAnswer
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
    """One call. Its first caller leads: what that asked is what the upstream is asked."""

    def __init__(self, key: bytes, request: Request, digest: bytes, record: CallRecord, settle: Settle) -> None:
        """Take what is called when nothing more will come, once; *digest* stands for all of *request*.

        *record* is the leader's.
        """
        self.key = key
        self.request = replace(request, share=self.share)
        self.digest = digest
        self.target = Target("", "")
        self.fmt: Format = request.fmt
        """That the upstream answers in."""
        self.shared: SharedAnswer | None = None
        self.error: ProxyError | None = None
        """Why there is no answer."""
        self.answer: WholeAnswer | LiveStream | None = None
        """As the leader gets it."""
        self.entry: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        """The whole answer, once it is there; None where it is none that can be told again."""
        self.is_abandoned = False
        """It was given up, because nobody waited for it."""
        self.usage: Usage | None = None
        """What it cost, once it is over, as far as the upstream has said."""
        self.keeping: asyncio.Task[None] | None = None
        """Puts the answer into the cache."""
        self.is_accounted = False
        """One of the callers bears what it cost."""
        self._record = record
        self._settle = settle
        self._began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._lease: Lease | None = None
        self._anchor: Answer | None = None
        """Keeps the answer while some have not joined yet."""
        self._waiting = 0
        self._is_settled = False

    @property
    def is_joinable(self) -> bool:
        """Whether one more may have the answer from its beginning."""
        if not self._began.done():
            return True
        return self.error is None and self.shared is not None and self.shared.is_whole and not self.shared.is_left

    def start(self, ask: Ask) -> None:
        """Have the request answered, in a task of its own, so that its caller may leave."""
        self._task = spawn(self._run(ask), "a call that the cache may answer")

    async def wait(self, record: CallRecord) -> None:
        """Wait until the answer has begun, or failed; to be followed by `joined`, without a pause between.

        *record* is that of who waits.
        """
        self._waiting += 1
        try:
            await asyncio.shield(self._began)
        except asyncio.CancelledError:
            self.joined()
            if self._waiting == 0 and not self._began.done() and self._task is not None:
                self._task.cancel()
                with suppress(asyncio.CancelledError):
                    await self._task  # so that what it cost is on record: on that of who has left last
                record.usage, record.is_usage_estimated = self._record.usage, self._record.is_usage_estimated
            raise

    def joined(self) -> None:
        """Note that one of those who waited has what it waited for, or waits no more."""
        self._waiting -= 1
        if self._waiting == 0 and self._began.done():
            self._let_go()

    def take(self) -> WholeAnswer | LiveStream | None:
        """Return the answer as the leader gets it."""
        answer, self.answer = self.answer, None
        return answer

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.shared is None or self.shared.is_over

    def share(self, answer: Answer, target: Target, fmt: Format) -> Answer:
        """Return *answer*, of *target* in *fmt*, as the leader reads it; what was there before it has failed."""
        self.target, self.fmt = target, fmt
        self.shared = SharedAnswer(answer, self._end)
        return self.shared.join()

    async def _run(self, ask: Ask) -> None:
        try:
            self.answer = await ask(self.request)
        except ProxyError as exc:
            self.error = exc.with_traceback(None)
        except asyncio.CancelledError:
            self.is_abandoned = True
            self.error = UpstreamCut("its callers have left")
            raise
        except Exception:
            self.error = InternalError("internal error; the log of the gateway knows more")
            raise
        finally:
            self._begin()

    def _begin(self) -> None:
        if isinstance(self.answer, LiveStream) and self.shared is not None:
            # It is held by all who read.
            self._lease, self.answer.lease = self.answer.lease, None
            self._anchor = self.shared.join()
        self._began.set_result(None)
        if self.error is not None or self.shared is None or self.shared.is_over:
            self._finish()
        if self._waiting == 0:
            self._let_go()

    def _let_go(self) -> None:
        anchor, self._anchor = self._anchor, None
        if anchor is not None:
            anchor.close()
        if self._began.done() and isinstance(self.answer, LiveStream):
            self.answer.close()  # nobody has taken it
            self.answer = None

    def _end(self, shared: SharedAnswer) -> None:
        if self._began.done() and shared is self.shared:
            self._finish()

    def _finish(self) -> None:
        if not self._is_settled:
            self._is_settled = True
            self._settle(self)

    def end_lease(self, *, is_failed: bool) -> None:
        """Note how the attempt ended that the answer comes of."""
        if self._lease is None or self.shared is None:
            return
        if is_failed:
            self._lease.fail(self.shared.failure or UpstreamCut("the upstream's stream was not complete"))
        elif not self.shared.is_left:
            self._lease.succeed()
        self._lease.end()
