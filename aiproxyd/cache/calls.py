"""Calls that the cache may answer: one is answered by what is kept, or joins one that is under way, or is made anew."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from aiproxyd.asking import Interpreter
from aiproxyd.attempt import LiveStream, Request, WholeAnswer, receive, wants_array
from aiproxyd.cache.entries import MAX_ENTRY_BYTES, Entry, is_good
from aiproxyd.cache.flights import Flight
from aiproxyd.cache.questions import Caller, Question, Reader
from aiproxyd.cache.replies import Narrator
from aiproxyd.cache.stores import Held, Store
from aiproxyd.conversion import Crossing
from aiproxyd.dispatch import Dispatcher
from aiproxyd.errors import InvalidRequest, NotCached, ProxyError, UpstreamError, UpstreamRefusal
from aiproxyd.hub import Response, Usage
from aiproxyd.keyring import Principal
from aiproxyd.providers.base import Answer
from aiproxyd.routing.catalogue import Catalogue
from aiproxyd.routing.faults import FINAL, Fault, judge
from aiproxyd.tasks import spawn
from aiproxyd.telemetry.metrics import Family
from aiproxyd.telemetry.records import CallRecord
from aiproxyd.tokens import estimate_usage

_log: Final = logging.getLogger(__name__)

CLOSE_PATIENCE_S: Final = 1.0
"""How long answers that are on their way to the cache have when the daemon stops."""
JOINED: Final = "fwd=miss; collapsed"
"""Of one that joins a call: https://www.rfc-editor.org/rfc/rfc9211.html#section-2.5."""
MAX_FAILURES: Final = 2
"""Failed calls that one caller goes through at most, its own and those that it has joined."""


class CachedCalls:
    """Answers calls from the cache, or has the dispatcher do it; one for the application."""

    def __init__(
        self, dispatcher: Dispatcher, catalogue: Catalogue, interpreter: Interpreter, store: Store, ttl_s: float
    ) -> None:
        """Keep answers in *store* for *ttl_s*."""
        self._dispatcher = dispatcher
        self._catalogue = catalogue
        self._interpreter = interpreter
        self._store = store
        self._reader = Reader(interpreter)
        self._narrator = Narrator(interpreter, store)
        self._ttl_s = ttl_s
        self._flights: dict[bytes, Flight] = {}
        self._keeping: set[asyncio.Task[None]] = set()
        """Answers on their way to the cache."""
        self._outcomes: Counter[tuple[str, ...]] = Counter()
        self._saved: Counter[tuple[str, ...]] = Counter()
        _log.info("answers are kept for %g s in %s", ttl_s, store.describe())

    async def send(self, request: Request, principal: Principal, record: CallRecord) -> WholeAnswer | LiveStream:
        """Return an answer; a LiveStream is closed by the caller.

        Raises:
            NotCached: none is there, and the caller wants no other.
            ProxyError: as `Dispatcher.send`.
        """
        wishes, caller = request.wishes, Caller(request, principal, record)
        if request.kind != "generate":
            return await self._pass(caller, "bypass")
        question = None
        if not wishes.no_store:
            route = await self._catalogue.resolve(request.model, principal)
            question = self._reader.read(request, route, principal)
        if question is None:
            return await self._pass(caller, "request" if wishes.no_store else "bypass")
        is_refused = wishes.no_cache
        held = None if wishes.no_cache else await self._store.get(question.key)
        if held is not None:
            age_s = held.entry.age_s(time.time())
            is_refused = not wishes.accept(age_s, held.entry.ttl_s - age_s)
            answer = None if is_refused else self._narrator.tell(held, question, caller)
            if answer is not None:
                self._note(record, "hit", f"hit; ttl={max(int(held.entry.ttl_s - age_s), 0)}")
                record.age_s = int(age_s)
                self._save(record, held.entry.usage)
                return answer
        if wishes.only_if_cached:
            raise self._refuse("there is no answer in the cache", record)
        return await self._make(question, caller, is_refused=is_refused)

    async def _pass(self, caller: Caller, why: str) -> WholeAnswer | LiveStream:
        if caller.request.wishes.only_if_cached:
            raise self._refuse("this request is never answered from the cache", caller.record)
        self._note(caller.record, "bypass", f"fwd={why}")
        return await self._dispatcher.send(*caller)

    def _refuse(self, why: str, record: CallRecord) -> NotCached:
        self._note(record, "absent", "detail=only-if-cached")
        return NotCached(f"{why}, and the request asks for no other (only-if-cached)")

    # --- What is not there

    async def _make(self, question: Question, caller: Caller, *, is_refused: bool) -> WholeAnswer | LiveStream:
        """Join a call that is under way, or make one; where *is_refused*, there was an answer that did not do."""
        for failures in range(1, MAX_FAILURES + 1):
            flight = self._flights.get(question.key) if not caller.request.wishes.no_cache else None
            if flight is None or not flight.is_joinable:
                break
            answer = await self._follow(flight, question, caller, is_last=failures == MAX_FAILURES)
            if answer is not None:
                return answer
            if flight.is_too_long:
                break
        self._note(caller.record, "miss", f"fwd={'request' if is_refused else 'miss'}")
        return await self._lead(question, caller)

    async def _lead(self, question: Question, caller: Caller) -> WholeAnswer | LiveStream:
        request, principal, record = caller
        flight = Flight(question.key, request, question.digest, record, self._settle)
        self._flights[question.key] = flight
        flight.start(lambda asked: self._dispatcher.send(asked, principal, record))
        async with flight.begun(record):
            answer = flight.take()
        return self._account(answer, flight, record)

    async def _follow(
        self, flight: Flight, question: Question, caller: Caller, *, is_last: bool
    ) -> WholeAnswer | LiveStream | None:
        """Return the answer of *flight*; None where the caller is to go its own way.

        Raises:
            ProxyError: it has failed, and would fail again; or its answer broke off before this caller had any of it.
        """
        request, _, record = caller
        async with flight.begun(record):
            error = _find_error(flight, question, is_last=is_last)
            if error is not None:
                self._note_failed(flight, record)
                try:
                    raise error
                finally:
                    del error  # else the error holds this frame, and the frame the error
            if not flight.is_joinable:
                return None
            is_for = self._is_for(flight, question, request)
            try:
                crossing = self._cross(flight, caller) if is_for and flight.fmt is not request.fmt else None
            except InvalidRequest:
                return None  # another target may be able to say it
            view = flight.join()
        record.upstream, record.upstream_model = flight.target
        if not is_for:
            return await self._wait_for_whole(flight, view, question, caller)
        provider = self._interpreter.provider(flight.target.upstream)
        deadline = time.monotonic() + provider.settings.limits.request_s
        answer = None
        try:
            answer = await receive(view, request, crossing, provider, deadline, record)
        finally:
            if answer is None:
                self._note_failed(flight, record)
                self._bear(flight, record, is_served=False)
        self._note(record, "collapsed", JOINED)
        return self._account(answer, flight, record)

    def _cross(self, flight: Flight, caller: Caller) -> Crossing:
        """Return what the answer of *flight* goes through on its way to *caller*.

        Raises:
            InvalidRequest: its upstream could not have been asked what *caller* asks.
        """
        request, principal, record = caller
        crossing = self._interpreter.cross(request, flight.target, flight.fmt.name, principal)
        crossing.encode_request(flight.target.model)  # from now on it knows what the tools are called there
        record.dropped = crossing.losses.names
        return crossing

    async def _wait_for_whole(
        self, flight: Flight, view: Answer, question: Question, caller: Caller
    ) -> WholeAnswer | None:
        """Return the answer of *flight* when it is whole, as *caller* wants it; None where there is none."""
        record = caller.record
        answer = None
        is_waiting = True
        try:
            with suppress(UpstreamError):
                while await view.read() and not flight.is_too_long:
                    pass
            is_waiting = False
            if flight.held is not None:
                answer = self._narrator.tell(flight.held, question, caller)
        finally:
            view.close()
            if is_waiting or answer is not None:
                self._note(record, "collapsed", JOINED)
            self._bear(flight, record, is_served=answer is not None)
        if answer is None:
            _put_aside(flight, record)
        return answer

    def _is_for(self, flight: Flight, question: Question, request: Request) -> bool:
        """Tell whether what comes from the upstream can be told to the caller of *request* as it comes."""
        led = flight.request
        is_array = wants_array(led) and flight.fmt is led.fmt
        if led.is_stream is not request.is_stream or flight.shared is None:
            return False
        if flight.fmt is not request.fmt:
            return not is_array
        is_like = flight.digest == question.digest or (
            # A conversion writes more of the request for the upstream than the caller's own API would repeat.
            led.fmt is flight.fmt and not (led.decode().echo or request.decode().echo)
        )
        has_usage = self._interpreter.provider(flight.target.upstream).settings.stream_usage
        return is_like and is_array is wants_array(request) and (has_usage or led.wants_usage is request.wants_usage)

    # --- What comes of it

    def _settle(self, flight: Flight) -> None:
        """Keep the answer of *flight*, to which nothing more will come, if it is a good one."""
        try:
            response, body = self._read_answer(flight)
            if response is not None:
                flight.usage = response.usage
                if len(body) <= MAX_ENTRY_BYTES and is_good(response, flight.request.decode()):
                    flight.held = Held(self._write_entry(flight, body))
        finally:
            flight.end_lease()
            if flight.held is None:
                self._forget(flight)
            else:
                task = spawn(self._keep(flight, flight.held), "an answer on its way to the cache")
                self._keeping.add(task)
                task.add_done_callback(self._keeping.discard)

    def _read_answer(self, flight: Flight) -> tuple[Response | None, bytes]:
        """Return what the upstream has answered, and that whole in its own format; None where it cannot be told again.

        Notes whether that is because it has failed.
        """
        shared, asked = flight.shared, flight.request
        if flight.error is not None or shared is None:
            return None, b""
        if not shared.is_whole:
            flight.is_failed = shared.failure is not None
            return None, b""
        try:
            if flight.reader is None:
                body = shared.take()
                return flight.fmt.decode_response(body), body
            response = flight.reader.result()
            told = self._narrator.forget_ids(response, asked, flight.target, flight.fmt.name)
            return response, flight.fmt.encode_response(told, asked.decode())
        except ProxyError:
            flight.is_failed = not shared.is_left
            return None, b""

    def _write_entry(self, flight: Flight, body: bytes) -> Entry:
        return Entry(
            format=flight.fmt.name,
            upstream=flight.target.upstream,
            model=flight.target.model,
            made_at=time.time(),
            ttl_s=self._ttl_s,
            request=flight.digest,
            body=body,
            usage=flight.usage,
            # A conversion writes more of the request for the upstream than the caller's own API would repeat.
            has_echo=flight.fmt is not flight.request.fmt or bool(flight.request.decode().echo),
        )

    async def _keep(self, flight: Flight, held: Held) -> None:
        try:
            await self._store.put(flight.key, held)
        finally:
            self._forget(flight)

    def _forget(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        flight.forget()

    def _account(
        self, answer: WholeAnswer | LiveStream, flight: Flight, record: CallRecord
    ) -> WholeAnswer | LiveStream:
        """Let one of the callers bear what the call cost, who has had all of it or left last; the others save it."""
        if isinstance(answer, LiveStream):
            # Of what did not come to its end, the usage is an estimate.
            answer.at_close = lambda: self._bear(
                flight, record, is_served=not record.is_usage_estimated and not flight.is_failed
            )
        else:
            self._bear(flight, record, is_served=True)
        return answer

    def _bear(self, flight: Flight, record: CallRecord, *, is_served: bool) -> None:
        """Put on *record*, of a caller who reads no more, what *flight* cost, or else what the caller has saved."""
        flight.bearers -= 1
        if flight.is_accounted and is_served:
            self._save(record, flight.usage or record.usage)
        elif is_served or (flight.is_over and not flight.is_accounted and not flight.bearers):
            flight.is_accounted = True
            if flight.usage is not None:
                record.usage, record.is_usage_estimated = flight.usage, False
            elif record.usage is None and not is_served:
                record.usage = estimate_usage(None, flight.request.count_input, flight.events)
                record.is_usage_estimated = True
        else:
            record.usage, record.is_usage_estimated = None, False

    def _save(self, record: CallRecord, usage: Usage | None) -> None:
        record.saved, record.usage, record.is_usage_estimated = usage, None, False
        if usage is not None:
            self._saved["input",] += usage.total_input_tokens
            self._saved["output",] += usage.output_tokens or 0

    def _note(self, record: CallRecord, outcome: str, status: str) -> None:
        record.cache, record.cache_status = outcome, f"aiproxyd; {status}"
        self._outcomes[outcome,] += 1

    def _note_failed(self, flight: Flight, record: CallRecord) -> None:
        """Note that the caller of *record* has joined *flight* and got nothing of it, and whom that has asked."""
        self._note(record, "collapsed", JOINED)
        led = flight.record
        record.upstream, record.upstream_model, record.attempts = led.upstream, led.upstream_model, led.attempts

    async def close(self) -> None:
        """Put away what is on its way to the cache, and close that."""
        if self._keeping:
            await asyncio.wait(self._keeping, timeout=CLOSE_PATIENCE_S)
        await self._store.close()

    def families(self) -> Iterable[Family]:
        """Yield what can be measured."""
        yield Family(
            "aiproxyd_cache_requests",
            "counter",
            "Calls by what the cache did for them: hit, collapsed (joined another one), miss, bypass, or absent (not "
            "there, and no other wanted).",
            ("outcome",),
            list(self._outcomes.items()),
        )
        yield Family(
            "aiproxyd_cache_saved_tokens",
            "counter",
            "Tokens that no upstream had to count again.",
            ("direction",),
            list(self._saved.items()),
        )
        yield from self._store.families()


def _find_error(flight: Flight, question: Question, *, is_last: bool) -> ProxyError | None:
    """Return what a caller is told whose *flight* has failed; None where it is to try again.

    An error about the leader's words is nobody else's.
    """
    if flight.error is None or flight.is_abandoned:
        return None
    is_same = flight.digest == question.digest
    fault = judge(flight.error) if isinstance(flight.error, UpstreamError) else None
    is_about_request = fault is None or fault in FINAL
    # What is used up has been waited for already, as long as that made sense.
    is_for_all = is_last or fault is Fault.LIMIT
    if not (is_same if is_about_request else is_for_all):
        return None
    error = flight.error.copy()
    if isinstance(error, UpstreamRefusal) and not is_same:
        error.forget_format()
    return error


def _put_aside(flight: Flight, record: CallRecord) -> None:
    """Tell what *flight* cost among the attempts of its last caller, where that now makes a call of its own."""
    if record.usage is None:
        return
    made = flight.record.tries[-1]
    record.tries.append(made._replace(outcome="left", usage=record.usage, is_usage_estimated=record.is_usage_estimated))
    record.attempts += 1
    record.usage, record.is_usage_estimated = None, False
