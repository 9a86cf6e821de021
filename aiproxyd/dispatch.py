"""The call chain: a caller's request → attempts at its targets → an answer to relay.

An attempt counts only when it has begun well; until then a failure is an ordinary error, and the next target can be
tried.
"""

import asyncio
import logging
import math
import os
import time
from typing import Final

from aiproxyd.asking import Asking, Interpreter
from aiproxyd.attempt import LiveStream, Request, WholeAnswer, attempt
from aiproxyd.config import Target
from aiproxyd.errors import InvalidRequest, NotCached, UpstreamBusy, UpstreamError, UpstreamRefusal
from aiproxyd.keyring import Principal
from aiproxyd.providers.connector import has_departed
from aiproxyd.routing.affinity import find_session, name_conversation
from aiproxyd.routing.catalogue import Catalogue, Route
from aiproxyd.routing.choice import Router
from aiproxyd.routing.faults import FINAL, Fault
from aiproxyd.routing.health import Candidate
from aiproxyd.routing.plan import Lease, Plan
from aiproxyd.sidecalls import NO_COUNTER, count_tokens, embed, estimate
from aiproxyd.telemetry.records import CallRecord, Try
from aiproxyd.tokens import estimate_usage

_log: Final = logging.getLogger(__name__)

_COSTLY: Final = frozenset((Fault.SILENT, Fault.FAILING))
"""Failures of upstreams that had got the request, and may charge for it."""


class Dispatcher:
    """Sends requests to the targets of their models."""

    def __init__(
        self,
        catalogue: Catalogue,
        router: Router,
        interpreter: Interpreter,
    ) -> None:
        self._catalogue = catalogue
        self._router = router
        self._interpreter = interpreter

    async def send(self, request: Request, principal: Principal, record: CallRecord) -> WholeAnswer | LiveStream:
        """Return the first good answer of a target; a LiveStream is closed by the caller.

        Raises:
            UnknownModel: nobody serves the model.
            InvalidRequest: none of its targets can be asked this.
            UpstreamError: what the last target that was tried said.
            NotReady: none of them is to be asked at the moment.
            NotCached: the caller wants no upstream to be asked.
        """
        if request.wishes.only_if_cached:
            raise NotCached("no answer is kept to this, and the request asks for no other (only-if-cached)")
        route = await self._catalogue.resolve(request.model, principal)
        conversation = self._name_conversation(request, route, principal)
        plan = self._router.plan(route, is_stream=request.is_stream, conversation=conversation)
        if request.kind == "count":
            asking = self._prepare(request, route.targets[0], plan, principal)
            if asking is not None and asking.is_local:
                return estimate(request)  # nobody is asked, and so nobody has to be well
        while True:
            candidate, wait_s = plan.next()
            if wait_s:
                await asyncio.sleep(wait_s)
            answer = await self._try(request, candidate, route, plan, principal, record)
            if answer is not None:
                return answer

    def _name_conversation(self, request: Request, route: Route, principal: Principal) -> bytes | None:
        """Return what the conversation of *request* is remembered by; None where it makes no difference."""
        if request.kind != "generate" or not self._router.has_choice(route):
            return None
        said = find_session(request.headers) or request.fmt.find_conversation(request.body)
        return name_conversation(principal.name, request.model, said) if said else None

    async def _try(
        self,
        request: Request,
        candidate: Candidate,
        route: Route,
        plan: Plan,
        principal: Principal,
        record: CallRecord,
    ) -> WholeAnswer | LiveStream | None:
        """Make one attempt, and tell *plan* how it went; None where it is to be asked for the next one."""
        asking = self._prepare(request, candidate.target, plan, principal)
        if asking is None:
            return None
        try:
            lease = await plan.start(candidate, principal.name)
        except UpstreamBusy as exc:
            log_failure(exc, plan.fail(candidate, exc.with_traceback(None)), candidate, record)
            return None
        if lease is None:
            return None
        is_handed_over = False
        try:
            if lease.candidate.target != candidate.target:
                asking = self._prepare(request, lease.candidate.target, plan, principal)
            if asking is None:
                lease.withdraw()
                return None
            answer = await self._make_attempt(asking, lease, route, plan, record)
            # An abstract class takes twenty times as long to ask for.
            is_handed_over = answer is not None and not isinstance(answer, WholeAnswer)
            return answer
        finally:
            if not is_handed_over:
                lease.end()

    async def _make_attempt(
        self, asking: Asking, lease: Lease, route: Route, plan: Plan, record: CallRecord
    ) -> WholeAnswer | LiveStream | None:
        started_s = time.perf_counter()
        outcome = "left"
        try:
            record.dropped = asking.dropped
            deadline = plan.deadline(lease.candidate)
            if asking.call is not None and asking.request.kind != "count":
                answer = await attempt(
                    asking.request, asking.call, lease.candidate, asking.provider, asking.crossing, deadline, record
                )
            else:
                answer = await self._ask_aside(asking, lease.candidate, deadline, record)
            plan.answer(lease, record.upstream_ms and record.upstream_ms / 1000)
            outcome = "ok"
            if isinstance(answer, WholeAnswer):
                lease.succeed()
            else:
                answer.lease = lease
        except UpstreamError as exc:
            outcome = describe(exc)
            self._note_failure(asking, exc.with_traceback(None), lease, route, plan, record)
            return None
        except InvalidRequest as exc:
            outcome = ""  # it was not asked at all
            lease.withdraw()
            plan.reject(lease.candidate.target, exc.with_traceback(None))
            return None
        except asyncio.CancelledError:
            if has_departed():
                _estimate_usage(asking.request, record)
            raise
        finally:
            if outcome:
                _note_attempt(record, lease.candidate, outcome, time.perf_counter() - started_s)
        return answer

    def _note_failure(
        self, asking: Asking, error: UpstreamError, lease: Lease, route: Route, plan: Plan, record: CallRecord
    ) -> None:
        """Tell everyone who has to know that an attempt failed, and rule out what would come to the same."""
        candidate = lease.candidate
        if asking.is_converted and isinstance(error, UpstreamRefusal):
            error.forget_format()
        asking.provider.hide_keys(error)
        lease.fail(error)
        fault = plan.fail(candidate, error)
        log_failure(error, fault, candidate, record)
        if fault in _COSTLY and not isinstance(error, UpstreamRefusal):
            _estimate_usage(asking.request, record)
        if fault is Fault.WINDOW:
            window = self._interpreter.find_window(candidate.target) or 0
            for target in route.targets:
                has_larger_window = (self._interpreter.find_window(target) or math.inf) > window
                if target == candidate.target or not has_larger_window:
                    plan.reject(target, error)

    def _prepare(self, request: Request, target: Target, plan: Plan, principal: Principal) -> Asking | None:
        """Return what *target* is to be asked; None where it cannot be, of which *plan* is told."""
        try:
            return self._interpreter.ask(request, target, principal)
        except InvalidRequest as exc:
            # Another target may speak another format, or have a place for it.
            plan.reject(target, exc.with_traceback(None))  # else it and this frame would hold each other
            return None

    async def _ask_aside(
        self, asking: Asking, candidate: Candidate, deadline: float, record: CallRecord
    ) -> WholeAnswer | LiveStream:
        """Have tokens counted, or embeddings made by a target that speaks another format."""
        request, provider, crossing = asking.request, asking.provider, asking.crossing
        try:
            if asking.call is not None:
                return await attempt(request, asking.call, candidate, provider, crossing, deadline, record)
            if crossing is not None:
                return await count_tokens(request, candidate, provider, crossing, deadline, record)
            is_strict = self._interpreter.is_strict
            return await embed(request, candidate, provider, asking.fmt, deadline, record, is_strict=is_strict)
        except UpstreamRefusal as exc:
            if request.kind == "count" and exc.status in NO_COUNTER:
                return estimate(request)
            raise


def _estimate_usage(request: Request, record: CallRecord) -> None:
    """Record what an attempt presumably cost that ended before its upstream could say."""
    if request.kind == "generate" and record.usage is None:
        record.usage = estimate_usage(None, request.count_input, 0)
        record.is_usage_estimated = True


def _note_attempt(record: CallRecord, candidate: Candidate, outcome: str, elapsed_s: float) -> None:
    told = Try(*candidate.target, candidate.key, outcome, elapsed_s * 1000)
    if outcome not in ("ok", "left"):
        # The record's own is that of the answer.
        told = told._replace(usage=record.usage, is_usage_estimated=record.is_usage_estimated)
        record.usage, record.is_usage_estimated = None, False
    record.tries.append(told)


def describe(error: UpstreamError) -> str:
    """Return what *error* is in a word or two, without what an upstream said: that may quote the prompt."""
    return str(error.status) if isinstance(error, UpstreamRefusal) else error.code or error.kind


def log_failure(error: UpstreamError, fault: Fault, candidate: Candidate, record: CallRecord) -> None:
    """Log that an attempt failed, without what an upstream said."""
    target, key = candidate
    cause = error.__cause__
    _log.log(
        logging.INFO if fault in FINAL else logging.WARNING,
        "request %s, attempt %d at %s/%s#%d failed: %s (%s)%s",
        record.request_id,
        record.attempts,
        target.upstream,
        target.model,
        key + 1,
        # What an upstream says may quote the prompt.
        f"refused with status {error.status}" if isinstance(error, UpstreamRefusal) else error.message,
        fault.name.lower(),
        f" by {describe_cause(cause)}" if cause else "",
    )


def describe_cause(cause: BaseException) -> str:
    """Return what kind of failure *cause* is; its text may hold the URL, and what the caller wrote into the query."""
    reason = f": {os.strerror(cause.errno)}" if isinstance(cause, OSError) and cause.errno else ""
    return type(cause).__name__ + reason
