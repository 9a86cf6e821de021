"""What callers ask: which requests are one question, and whose."""

from collections import OrderedDict
from typing import Final, NamedTuple

import msgspec

from aiproxyd.asking import Interpreter
from aiproxyd.attempt import Request
from aiproxyd.cache.keys import digest, write_meaning
from aiproxyd.errors import InvalidRequest
from aiproxyd.keyring import Principal
from aiproxyd.routing.catalogue import Route
from aiproxyd.telemetry.records import CallRecord

MAX_KNOWN: Final = 20_000
"""Requests whose keys are remembered, so that one that comes again need not be decoded; about 4 MB."""


class Caller(NamedTuple):
    """Who asks, in which words; what is known of it goes on the record."""

    request: Request
    principal: Principal
    record: CallRecord


class Question(NamedTuple):
    """What is asked."""

    digest: bytes
    """Stands for all of the request."""
    key: bytes
    """Stands for what it means, and whom."""


class Reader:
    """Finds out what is asked; one for the application."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        self._known: OrderedDict[bytes, bytes | None] = OrderedDict()
        """Keys by digest; None for what is not to be kept."""

    def read(self, request: Request, route: Route, principal: Principal) -> Question | None:
        """Return what is asked; None where the answer is not to be kept."""
        section = route.section
        owner = b"" if section is not None and section.cache_scope == "shared" else principal.name.encode()
        told = [value for name in request.fmt.telling_headers for value in request.headers.getall(name, ())]
        # How a stream is to look says nothing about the answer; all else in a query may.
        query = [pair for pair in request.query.split("&") if pair and not pair.startswith("alt=")]
        upstreams = [self._interpreter.provider(target.upstream).address for target in route.targets]
        place = msgspec.msgpack.encode((owner, route.targets, upstreams, section and section.capabilities, told, query))
        said = (request.model, request.fmt.name, request.path, request.query)  # Gemini's bodies name no model
        whole = digest(place, *map(str.encode, said), request.body)
        if whole in self._known:
            self._known.move_to_end(whole)
            key = self._known[whole]
        else:
            key = self._find_key(request, route, place)
            self._known[whole] = key
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return None if key is None else Question(whole, key)

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
        stores = request.fmt.stores(request.body)
        # One and the same model may show its thoughts in one of its APIs only.
        has_thoughts = asked.reasoning.mode == "on" or bool(asked.reasoning.show)
        spoken = ""
        if stores or has_thoughts:
            try:
                spoken = self._interpreter.choose_format(request, route.targets[0])
            except InvalidRequest:
                return None
        apart = spoken if has_thoughts else ""
        # Who goes on from an answer by its id has to find it at its vendor. Where that is spoken to in other words,
        # nothing is stored anyway.
        stored = "stored" if stores and spoken == request.fmt.name else ""
        try:
            return digest(place, apart.encode(), stored.encode(), write_meaning(asked, request.fmt, request.body))
        except RecursionError:
            return None  # its brackets stand too deep inside one another
