"""The call chain: a caller's request → attempts at its targets → an answer to relay.

An attempt counts only when it has begun well; until then a failure is an ordinary error, and the next target can be
tried.
"""

import logging
import time
from collections.abc import Mapping
from typing import Final

import aiohttp
from msgspec.structs import replace

from aiproxyd.attempt import LiveStream, Request, WholeAnswer, attempt
from aiproxyd.capabilities import Capabilities
from aiproxyd.config import Target
from aiproxyd.conversion import Crossing, Memory, rewrite_request
from aiproxyd.errors import InvalidRequest, UpstreamError, UpstreamKeyRefused, UpstreamRefusal
from aiproxyd.formats import FORMATS
from aiproxyd.formats.codec import Losses
from aiproxyd.keyring import Principal
from aiproxyd.providers.base import Provider
from aiproxyd.routing.catalogue import Catalogue
from aiproxyd.sidecalls import NO_COUNTER, count_tokens, embed, estimate
from aiproxyd.telemetry.records import CallRecord

_log: Final = logging.getLogger(__name__)

_TRANSIENT_STATUSES: Final = frozenset((408, 409, 429))
"""Refusals that another target may not share, beside all from 500 on; the others are about the request itself."""


class Dispatcher:
    """Sends requests to the targets of their models."""

    def __init__(self, catalogue: Catalogue, providers: Mapping[str, Provider], *, is_strict: bool = False) -> None:
        """Take the *providers* by upstream; *is_strict* refuses conversions that would lose anything."""
        self._catalogue = catalogue
        self._providers = providers
        self._is_strict = is_strict
        self._memory = Memory()

    async def send(self, request: Request, principal: Principal, record: CallRecord) -> WholeAnswer | LiveStream:
        """Return the first good answer of a target; a LiveStream is closed by the caller.

        Raises:
            UnknownModel: nobody serves the model.
            InvalidRequest: none of its targets can be asked this.
            UpstreamError: what the last target that was tried said.
        """
        targets = await self._catalogue.resolve(request.model, principal)
        started_s = time.monotonic()
        for target in targets:
            provider = self._providers[target.upstream]
            deadline = started_s + provider.settings.limits.request_s
            is_last = target is targets[-1]
            try:
                return await self._attempt(request, target, provider, principal, deadline, record)
            except InvalidRequest:
                # Another target may speak another format, or have a place for it.
                if is_last:
                    raise
            except UpstreamError as exc:
                provider.hide_keys(exc)
                _log_failure(exc, target, record)
                if isinstance(exc, UpstreamKeyRefused):
                    provider.note_failure()
                if is_last or time.monotonic() >= deadline or not _is_transient(exc):
                    raise
        raise AssertionError("a model has at least one target")  # pragma: no cover

    async def _attempt(
        self,
        request: Request,
        target: Target,
        provider: Provider,
        principal: Principal,
        deadline: float,
        record: CallRecord,
    ) -> WholeAnswer | LiveStream:
        name = self._choose_format(request, target, provider)
        is_converted = name != request.fmt.name
        record.dropped = []
        crossing = None
        if is_converted:
            crossing = self._cross(request, target, provider, name, principal)
        elif _is_marked(request, provider):
            request = self._clean(request, target, provider, principal, record)
        record.attempts += 1
        record.upstream, record.upstream_model = target
        try:
            match request.kind:
                case "count" if crossing is not None:
                    return await count_tokens(request, target, provider, crossing, deadline)
                case "embed" if is_converted:
                    fmt = FORMATS[name]
                    return await embed(request, target, provider, fmt, deadline, record, is_strict=self._is_strict)
                case _:
                    return await attempt(request, target, provider, crossing, deadline, record)
        except UpstreamRefusal as exc:
            if request.kind == "count" and exc.status in NO_COUNTER:
                return estimate(request)
            if is_converted:
                exc.forget_format()
            raise

    def _choose_format(self, request: Request, target: Target, provider: Provider) -> str:
        if request.kind != "generate":
            fitting = [name for name in provider.spoken if request.kind != "count" or FORMATS[name].counts_tokens]
            return request.fmt.name if request.fmt.name in fitting else next(iter(fitting), provider.spoken[0])
        capabilities = self._find_capabilities(request, target, provider, provider.spoken[0])
        return provider.choose_format(request.fmt.name, capabilities, request.body, request.decode)

    def _find_capabilities(self, request: Request, target: Target, provider: Provider, name: str) -> Capabilities:
        """Return what the model of *target* accepts in the format *name*, as far as data and configuration know."""
        return self._catalogue.adjust(request.model, provider.find_capabilities(target.model, name))

    def _cross(
        self, request: Request, target: Target, provider: Provider, name: str, principal: Principal
    ) -> Crossing | None:
        """Return the way from the request's format to the one called *name*, which *target* is spoken to in.

        None for embeddings, which are not asked for in a conversation.

        Raises:
            InvalidRequest: what is asked means nothing beyond its own format.
        """
        if request.kind == "embed":
            return None
        if request.kind == "other":
            raise InvalidRequest(
                f"model {request.model!r} cannot be used here: its upstream has no such method", param="$.model"
            )
        return Crossing(
            request.decode(),
            request.fmt,
            FORMATS[name],
            self._find_capabilities(request, target, provider, name),
            origin=f"{target.upstream}/{target.model}",
            principal=principal.name,
            memory=self._memory,
            is_strict=self._is_strict,
        )

    def _clean(
        self, request: Request, target: Target, provider: Provider, principal: Principal, record: CallRecord
    ) -> Request:
        """Return *request* without what models of other formats have left in it, where they have."""
        match request.kind:
            case "generate":
                return self._rewrite(request, target, provider, principal, record)
            case "count":
                return self._rewrite_count(request, target, provider, principal)
            case "embed" | "other":
                return request

    def _rewrite(
        self, request: Request, target: Target, provider: Provider, principal: Principal, record: CallRecord
    ) -> Request:
        """Return *request* without what models of other formats have left in it, where they have."""
        capabilities = self._find_capabilities(request, target, provider, request.fmt.name)
        losses = Losses()
        try:
            body = rewrite_request(
                request.body,
                request.decode(),
                request.fmt,
                capabilities,
                model=target.model,
                origin=f"{target.upstream}/{target.model}",
                principal=principal.name,
                memory=self._memory,
                losses=losses,
            )
        except InvalidRequest:
            return request  # what we do not understand, the upstream may
        record.dropped = losses.names
        return request if body is None else replace(request, body=body)

    def _rewrite_count(self, request: Request, target: Target, provider: Provider, principal: Principal) -> Request:
        """Return *request*, to count tokens, without what models of other formats have left in it."""
        try:
            crossing = self._cross(request, target, provider, request.fmt.name, principal)
            counting = crossing.encode_count(target.model) if crossing is not None else None
        except InvalidRequest:
            return request  # what we do not understand, the upstream may
        return request if counting is None else replace(request, body=counting[1])


def _is_marked(request: Request, provider: Provider) -> bool:
    """Tell whether models of other upstreams may have had a part in the conversation."""
    return any(mark in request.body for mark in (*request.fmt.marks, *provider.marks))


def _is_transient(error: UpstreamError) -> bool:
    return not isinstance(error, UpstreamRefusal) or error.status >= 500 or error.status in _TRANSIENT_STATUSES


def _log_failure(error: UpstreamError, target: Target, record: CallRecord) -> None:
    cause = error.__cause__
    _log.log(
        logging.WARNING if _is_transient(error) else logging.INFO,
        "request %s, attempt %d at %s/%s failed: %s (%s)",
        record.request_id,
        record.attempts,
        target.upstream,
        target.model,
        # What an upstream says may quote the prompt.
        f"refused with status {error.status}" if isinstance(error, UpstreamRefusal) else error.message,
        # Its text may hold the URL, and so what the caller wrote into the query.
        (type(cause).__name__ if isinstance(cause, aiohttp.ClientResponseError) else repr(cause)) if cause else "-",
    )
