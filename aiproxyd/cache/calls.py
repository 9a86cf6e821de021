"""Calls that the cache may answer: one is answered by what is kept, or joins one that is under way, or is made anew."""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace
from multidict import CIMultiDict

from aiproxyd.asking import Interpreter
from aiproxyd.attempt import (
    EVENT_STREAM,
    JSON_TYPE,
    LiveStream,
    Request,
    WholeAnswer,
    open_encoder,
    receive,
    wants_array,
)
from aiproxyd.cache.entries import MAX_ENTRY_BYTES, Entry, is_good, read_stream
from aiproxyd.cache.flights import Flight
from aiproxyd.cache.keys import digest, write_meaning
from aiproxyd.cache.stores import Held, Rendering, Store
from aiproxyd.config import Target
from aiproxyd.dispatch import Dispatcher
from aiproxyd.errors import InvalidRequest, NotCached, ProxyError, UpstreamError, UpstreamRefusal
from aiproxyd.formats import FORMATS
from aiproxyd.hub import Candidate, Refusal, Response, Text, ToolCall, Usage, unfold
from aiproxyd.hub import Request as HubRequest
from aiproxyd.keyring import Principal
from aiproxyd.providers.base import Answer
from aiproxyd.routing.catalogue import Catalogue, Route
from aiproxyd.routing.faults import FINAL, judge
from aiproxyd.tasks import spawn
from aiproxyd.telemetry.metrics import Family
from aiproxyd.telemetry.records import CallRecord
from aiproxyd.tokens import estimate_usage

MAX_KNOWN: Final = 20_000
"""Requests whose keys are remembered, so that one that comes again need not be decoded; about 4 MB."""
CLOSE_PATIENCE_S: Final = 1.0
"""How long answers that are on their way to the cache have when the daemon stops."""
MAX_FAILURES: Final = 2
"""Failed calls that one caller goes through at most, its own and those that it has joined."""


class _Question(NamedTuple):
    """What is asked."""

    digest: bytes
    """Stands for all of the request."""
    key: bytes
    """Stands for what it means, and whom."""


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
        self._ttl_s = ttl_s
        self._known: OrderedDict[bytes, bytes | None] = OrderedDict()
        """Keys by digest; None for what is not to be kept."""
        self._flights: dict[bytes, Flight] = {}
        self._outcomes: Counter[tuple[str, ...]] = Counter()
        self._saved: Counter[tuple[str, ...]] = Counter()

    async def send(self, request: Request, principal: Principal, record: CallRecord) -> WholeAnswer | LiveStream:
        """Return an answer; a LiveStream is closed by the caller.

        Raises:
            NotCached: none is there, and the caller wants no other.
            ProxyError: as `Dispatcher.send`.
        """
        wishes = request.wishes
        if request.kind != "generate":
            return await self._dispatcher.send(request, principal, record)
        question = None
        if not wishes.no_store:
            route = await self._catalogue.resolve(request.model, principal)
            question = self._read(request, route, principal)
        if question is None:
            return await self._pass(request, principal, record, "request" if wishes.no_store else "bypass")
        is_refused = wishes.no_cache
        held = None if wishes.no_cache else await self._store.get(question.key)
        if held is not None:
            age_s = held.entry.age_s(time.time())
            is_refused = wishes.max_age_s is not None and age_s >= wishes.max_age_s
            answer = None if is_refused else self._replay(held, question, request, principal, record)
            if answer is not None:
                self._note(record, "hit", f"hit; ttl={max(int(held.entry.ttl_s - age_s), 0)}")
                record.age_s = int(age_s)
                self._save(record, held.entry.usage)
                return answer
        if wishes.only_if_cached:
            raise self._refuse("there is no answer in the cache", record)
        return await self._make(question, request, principal, record, is_refused=is_refused)

    async def _pass(
        self, request: Request, principal: Principal, record: CallRecord, why: str
    ) -> WholeAnswer | LiveStream:
        if request.wishes.only_if_cached:
            raise self._refuse("this request is never answered from the cache", record)
        self._note(record, "bypass", f"fwd={why}")
        return await self._dispatcher.send(request, principal, record)

    def _refuse(self, why: str, record: CallRecord) -> NotCached:
        self._note(record, "absent", "detail=only-if-cached")
        return NotCached(f"{why}, and the request asks for no other (only-if-cached)")

    # --- What is asked

    def _read(self, request: Request, route: Route, principal: Principal) -> _Question | None:
        """Return what is asked; None where the answer is not to be kept."""
        section = route.section
        owner = b"" if section is not None and section.cache_scope == "shared" else principal.name.encode()
        told = [value for name in request.fmt.telling_headers for value in request.headers.getall(name, ())]
        # How a stream is to look says nothing about the answer; all else in a query may.
        query = [pair for pair in request.query.split("&") if pair and not pair.startswith("alt=")]
        upstreams = [self._interpreter.provider(target.upstream).address for target in route.targets]
        place = msgspec.msgpack.encode((owner, route.targets, upstreams, section and section.capabilities, told, query))
        whole = digest(place, request.fmt.name.encode(), request.path.encode(), request.query.encode(), request.body)
        if whole in self._known:
            self._known.move_to_end(whole)
            key = self._known[whole]
        else:
            key = self._find_key(request, route, place)
            self._known[whole] = key
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return None if key is None else _Question(whole, key)

    def _find_key(self, request: Request, route: Route, place: bytes) -> bytes | None:
        when = "always" if route.section is None else route.section.cache_when
        if when == "never":
            return None
        try:
            asked = request.decode()
            request.fmt.refuse_state(asked)
        except InvalidRequest:
            return None  # what we do not understand, or goes on from what its vendor has
        if when == "deterministic" and asked.temperature != 0:
            return None
        spoken = b""
        if asked.reasoning.mode == "on" or asked.reasoning.show:
            # One and the same model may show its thoughts in one of its APIs only.
            try:
                spoken = self._interpreter.choose_format(request, route.targets[0]).encode()
            except InvalidRequest:
                return None
        return digest(place, spoken, write_meaning(asked, request.fmt, request.body))

    # --- What is there

    def _replay(
        self, held: Held, question: _Question, request: Request, principal: Principal, record: CallRecord
    ) -> WholeAnswer | None:
        """Return the answer that is kept, for its caller; None where it does not do."""
        entry = held.entry
        rendering = held.renderings.get(question.digest)
        if rendering is None:
            try:
                rendering, is_plain = self._render(entry, question.digest, request, principal, record)
            except (UpstreamError, InvalidRequest):
                return None  # another version's; or another target may be able to say what this one cannot
            if is_plain:
                self._store.render(question.key, held, question.digest, rendering)
        record.upstream, record.upstream_model = entry.upstream, entry.model
        record.dropped = list(rendering.dropped)
        is_events = request.is_stream and not wants_array(request)
        content_type = EVENT_STREAM if is_events else JSON_TYPE
        return WholeAnswer(200, CIMultiDict({"Content-Type": content_type}), rendering.body)

    def _render(
        self, entry: Entry, whole: bytes, request: Request, principal: Principal, record: CallRecord
    ) -> tuple[Rendering, bool]:
        """Return *entry* as *request* is to get it, and whether another one like it may get the same.

        Raises:
            InvalidRequest: the conversion would lose the request's meaning.
            UpstreamError: *entry* is not what it says.
        """
        fmt, asked = FORMATS[entry.format], request.decode()
        if fmt is request.fmt and not request.is_stream and _may_share(entry, whole, asked):
            return Rendering(entry.body, ()), True
        encoder = open_encoder(request, asked, record.request_id) if request.is_stream else None
        response = fmt.decode_response(entry.body)
        if fmt is request.fmt:
            response = self._forget_ids(response, request, Target(entry.upstream, entry.model), entry.format)
            events = unfold(response)
            body = b"".join(map(encoder.feed, events)) if encoder else fmt.encode_response(response, asked)
            return Rendering(body, ()), True
        target = Target(entry.upstream, entry.model)
        crossing = self._interpreter.cross(request, target, entry.format, principal)
        crossing.encode_request(entry.model)  # from now on it knows what the tools are called there
        body = crossing.replay(entry.body, encoder)
        # What belongs to a call or a thought is remembered for this caller, each time anew.
        return Rendering(body, tuple(crossing.losses.names)), _is_text(response)

    def _forget_ids(self, response: Response, request: Request, target: Target, name: str) -> Response:
        """Return *response* of *target*, in the format *name*, without ids that we gave its calls if it has none."""
        if self._interpreter.find_capabilities(request, target, name).has_call_ids:
            return response
        return replace(response, candidates=tuple(map(_forget_ids, response.candidates)))

    # --- What is not

    async def _make(
        self, question: _Question, request: Request, principal: Principal, record: CallRecord, *, is_refused: bool
    ) -> WholeAnswer | LiveStream:
        """Join a call that is under way, or make one; where *is_refused*, there was an answer that did not do."""
        for failures in range(1, MAX_FAILURES + 1):
            flight = self._flights.get(question.key) if not request.wishes.no_cache else None
            if flight is None or not flight.is_joinable:
                break
            is_last = failures == MAX_FAILURES
            answer = await self._follow(flight, question, request, principal, record, is_last=is_last)
            if answer is not None:
                self._note(record, "collapsed", "fwd=miss; collapsed")
                return answer
        self._note(record, "miss", f"fwd={'request' if is_refused else 'miss'}")
        return await self._lead(question, request, principal, record)

    async def _lead(
        self, question: _Question, request: Request, principal: Principal, record: CallRecord
    ) -> WholeAnswer | LiveStream:
        flight = Flight(question.key, request, question.digest, record, self._settle)
        self._flights[question.key] = flight
        flight.start(lambda asked: self._dispatcher.send(asked, principal, record))
        await flight.wait(record)
        try:
            if flight.error is not None:
                raise flight.error.copy()
            answer = flight.take()
        finally:
            flight.joined()
        assert answer is not None  # noqa: S101  # there is an answer, or an error
        return self._account(answer, flight, record)

    async def _follow(
        self,
        flight: Flight,
        question: _Question,
        request: Request,
        principal: Principal,
        record: CallRecord,
        *,
        is_last: bool,
    ) -> WholeAnswer | LiveStream | None:
        """Return the answer of *flight*; None where the caller is to go its own way.

        Raises:
            ProxyError: it has failed, and would fail again.
        """
        await flight.wait(record)
        try:
            error = _find_error(flight, question, is_last=is_last)
            if error is not None:
                raise error
            if flight.error is not None or flight.shared is None or not flight.is_joinable:
                return None
            view = flight.shared.join()
        finally:
            flight.joined()
        record.upstream, record.upstream_model = flight.target
        if not self._is_for(flight, question, request):
            return await self._wait_for_entry(flight, view, question, request, principal, record)
        crossing = None
        if flight.fmt is not request.fmt:
            try:
                crossing = self._interpreter.cross(request, flight.target, flight.fmt.name, principal)
                crossing.encode_request(flight.target.model)  # from now on it knows what the tools are called there
            except InvalidRequest:
                view.close()
                return None  # another target may be able to say it
            record.dropped = crossing.losses.names
        provider = self._interpreter.provider(flight.target.upstream)
        deadline = time.monotonic() + provider.settings.limits.request_s
        return self._account(await receive(view, request, crossing, provider, deadline, record), flight, record)

    async def _wait_for_entry(
        self,
        flight: Flight,
        view: Answer,
        question: _Question,
        request: Request,
        principal: Principal,
        record: CallRecord,
    ) -> WholeAnswer | None:
        """Return the answer of *flight* when it is whole, as *request* wants it; None where there is none."""
        try:
            with suppress(UpstreamError):
                while await view.read():
                    pass
        except asyncio.CancelledError:
            record.usage, record.is_usage_estimated = estimate_usage(None, request.count_input, 0), True
            raise
        finally:
            view.close()
            if flight.is_over:
                self._bear(flight, record)
        entry = await asyncio.shield(flight.entry)
        return self._replay(Held(entry), question, request, principal, record) if entry is not None else None

    def _is_for(self, flight: Flight, question: _Question, request: Request) -> bool:
        """Tell whether what comes from the upstream can be told to the caller of *request* as it comes."""
        led = flight.request
        is_array = wants_array(led) and flight.fmt is led.fmt
        if led.is_stream is not request.is_stream or flight.shared is None:
            return False
        if flight.fmt is not request.fmt:
            return not is_array
        is_like = flight.digest == question.digest or not (led.decode().echo or request.decode().echo)
        has_usage = self._interpreter.provider(flight.target.upstream).settings.stream_usage
        return is_like and is_array is wants_array(request) and (has_usage or led.wants_usage is request.wants_usage)

    # --- What comes of it

    def _settle(self, flight: Flight) -> None:
        """Keep the answer of *flight*, to which nothing more will come, if it is a good one."""
        entry = None
        is_failed = False
        try:
            response, body, is_failed = self._read_answer(flight)
            if response is not None:
                flight.usage = response.usage
                if len(body) <= MAX_ENTRY_BYTES and is_good(response, flight.request.decode()):
                    entry = self._write_entry(flight, body)
        finally:
            flight.end_lease(is_failed=is_failed)
            if entry is not None:
                flight.keeping = spawn(self._keep(flight, entry), "an answer on its way to the cache")
            else:
                self._forget(flight)
            flight.entry.set_result(entry)

    def _read_answer(self, flight: Flight) -> tuple[Response | None, bytes, bool]:
        """Return what the upstream has answered, and that whole in its own format; None where it cannot be told again.

        The last tells whether that is because it has failed.
        """
        shared = flight.shared
        if flight.error is not None or shared is None:
            return None, b"", False
        if not shared.is_whole:
            return None, b"", shared.failure is not None
        answer, asked = shared.take(), flight.request.decode()
        try:
            if not flight.request.is_stream:
                return flight.fmt.decode_response(answer), answer, False
            response = read_stream(flight.fmt, asked, answer)
            told = self._forget_ids(response, flight.request, flight.target, flight.fmt.name)
            return response, flight.fmt.encode_response(told, asked), False
        except ProxyError:
            return None, b"", not shared.is_left

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
            has_echo=bool(flight.request.decode().echo),
        )

    async def _keep(self, flight: Flight, entry: Entry) -> None:
        try:
            await self._store.put(flight.key, entry)
        finally:
            self._forget(flight)

    def _forget(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    def _account(
        self, answer: WholeAnswer | LiveStream, flight: Flight, record: CallRecord
    ) -> WholeAnswer | LiveStream:
        """Let one of the callers bear what the call cost, who has had all of it or left last; the others save it."""
        if isinstance(answer, LiveStream):
            answer.at_close = lambda: self._bear(flight, record)
        else:
            self._bear(flight, record)
        return answer

    def _bear(self, flight: Flight, record: CallRecord) -> None:
        """Put on *record*, of a caller who reads no more, what *flight* cost, or else what the caller has saved."""
        if flight.is_accounted:
            self._save(record, flight.usage or record.usage)
        elif not flight.is_over:
            record.usage, record.is_usage_estimated = None, False
        else:
            flight.is_accounted = True
            if flight.usage is not None:
                record.usage, record.is_usage_estimated = flight.usage, False

    def _save(self, record: CallRecord, usage: Usage | None) -> None:
        record.saved, record.usage, record.is_usage_estimated = usage, None, False
        if usage is not None:
            self._saved["input",] += usage.total_input_tokens
            self._saved["output",] += usage.output_tokens or 0

    def _note(self, record: CallRecord, outcome: str, status: str) -> None:
        record.cache, record.cache_status = outcome, f"aiproxyd; {status}"
        self._outcomes[outcome,] += 1

    async def close(self) -> None:
        """Put away what is on its way to the cache, and close that."""
        keeping = [flight.keeping for flight in self._flights.values() if flight.keeping is not None]
        if keeping:
            await asyncio.wait(keeping, timeout=CLOSE_PATIENCE_S)
        await self._store.close()

    def families(self) -> Iterable[Family]:
        """Yield what can be measured."""
        yield Family(
            "aiproxyd_cache_requests",
            "counter",
            "Calls by what the cache did for them: hit, collapsed (joined another one), miss, bypass.",
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


def _find_error(flight: Flight, question: _Question, *, is_last: bool) -> ProxyError | None:
    """Return what a caller is told whose *flight* has failed; None where it is to try again.

    An error about the leader's words is nobody else's.
    """
    if flight.error is None or flight.is_abandoned:
        return None
    is_same = flight.digest == question.digest
    is_about_request = not isinstance(flight.error, UpstreamError) or judge(flight.error) in FINAL
    if is_about_request:
        return flight.error.copy() if is_same else None
    if not is_last:
        return None
    error = flight.error.copy()
    if isinstance(error, UpstreamRefusal) and not is_same:
        error.forget_format()
    return error


def _may_share(entry: Entry, whole: bytes, asked: HubRequest) -> bool:
    """Tell whether *entry* may be given as it is: it holds nothing of another request."""
    return entry.request == whole or not (entry.has_echo or asked.echo)


def _is_text(response: Response) -> bool:
    """Tell whether *response* has nothing to go on from but its words."""
    blocks = [block for candidate in response.candidates for block in candidate.blocks]
    return all(isinstance(block, Refusal) or (isinstance(block, Text) and block.seal is None) for block in blocks)


def _forget_ids(candidate: Candidate) -> Candidate:
    blocks = (replace(block, id="") if isinstance(block, ToolCall) else block for block in candidate.blocks)
    return replace(candidate, blocks=tuple(blocks))
