"""How a target is asked what a caller asks: with the caller's own bytes, with these cleaned, or converted."""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from aiproxyd.attempt import Request, write_call
from aiproxyd.capabilities import MAX_NAME_CHARS, MAX_REMEMBERED, Capabilities
from aiproxyd.config import Target
from aiproxyd.conversion import Crossing, Memory, rewrite_request
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import FORMATS
from aiproxyd.formats.base import Format
from aiproxyd.formats.codec import Losses
from aiproxyd.keyring import Principal
from aiproxyd.providers.base import Call, Provider
from aiproxyd.routing.catalogue import Catalogue


class Asking(Struct):
    """A request as one target is asked it."""

    request: Request
    target: Target
    provider: Provider
    fmt: Format
    """That the target is spoken to in."""
    is_converted: bool
    crossing: Crossing | None
    dropped: list[str]
    """What the target will not get to know."""
    call: Call | None = None
    """None for what a side call writes."""

    @property
    def is_local(self) -> bool:
        """Whether nobody is asked, because the target's API does not count tokens."""
        is_count = self.call is None and self.crossing is not None
        return is_count and not (self.provider.can_count and self.fmt.counts_tokens)


class Interpreter:
    """Puts requests into the words of their targets; one for the application."""

    def __init__(self, catalogue: Catalogue, providers: Mapping[str, Provider], *, is_strict: bool = False) -> None:
        """Take the *providers* by upstream; *is_strict* refuses conversions that would lose anything."""
        self._catalogue = catalogue
        self._providers = providers
        self.is_strict = is_strict
        self._memory = Memory()
        self._capabilities: dict[tuple[str, Target, str], Capabilities] = {}

    def ask(self, request: Request, target: Target, principal: Principal) -> Asking:
        """Return what *target* is to be asked for a *request* of *principal*'s.

        Raises:
            InvalidRequest: it cannot be asked that.
        """
        provider = self._providers[target.upstream]
        name = self.choose_format(request, target)
        is_converted = name != request.fmt.name
        crossing, losses = None, Losses()
        if is_converted:
            # Embeddings are not asked for in a conversation.
            crossing = self.cross(request, target, name, principal) if request.kind != "embed" else None
        elif _is_marked(request, provider):
            request = self._clean(request, target, principal, losses)
        asking = Asking(request, target, provider, FORMATS[name], is_converted, crossing, losses.names)
        if not (is_converted and request.kind in ("count", "embed")):
            asking.call = write_call(request, target, provider, crossing)
        if crossing is not None:
            asking.dropped = crossing.losses.names
        return asking

    def provider(self, upstream: str) -> Provider:
        """Return who speaks to *upstream*."""
        return self._providers[upstream]

    def cross(self, request: Request, target: Target, name: str, principal: Principal) -> Crossing:
        """Return the way from the request's format to the one called *name*, which *target* is spoken to in.

        Raises:
            InvalidRequest: what is asked means nothing beyond its own format.
        """
        if request.kind == "other":
            raise InvalidRequest(
                f"model {request.model!r} cannot be used here: its upstream has no such method", param="$.model"
            )
        return Crossing(
            request.decode(),
            request.fmt,
            FORMATS[name],
            self.find_capabilities(request, target, name),
            origin=f"{target.upstream}/{target.model}",
            principal=principal.name,
            memory=self._memory,
            is_strict=self.is_strict,
        )

    def find_window(self, target: Target) -> int | None:
        """Return how many tokens a conversation with *target* may have, None where that is not known.

        The section of the target's own name says so: that of the name that was asked for stands for all targets alike.
        """
        provider = self._providers[target.upstream]
        capabilities = provider.find_capabilities(target.model, provider.spoken[0])
        return self._catalogue.adjust(target.model, capabilities).context_tokens

    def choose_format(self, request: Request, target: Target) -> str:
        """Return the name of the format in which *target* is spoken to.

        Raises:
            InvalidRequest: *request* cannot be read.
        """
        provider = self._providers[target.upstream]
        if request.kind != "generate":
            fitting = [name for name in provider.spoken if request.kind != "count" or FORMATS[name].counts_tokens]
            return request.fmt.name if request.fmt.name in fitting else next(iter(fitting), provider.spoken[0])
        if len(provider.spoken) == 1:
            return provider.spoken[0]
        capabilities = self.find_capabilities(request, target, provider.spoken[0])
        return provider.choose_format(request.fmt.name, capabilities, request.body, request.decode)

    def find_capabilities(self, request: Request, target: Target, name: str) -> Capabilities:
        """Return what the model of *target* accepts in the format *name*, as far as data and configuration know."""
        place = (request.model, target, name)
        found = self._capabilities.get(place)
        if found is None:
            capabilities = self._providers[target.upstream].find_capabilities(target.model, name)
            found = self._catalogue.adjust(request.model, capabilities)
            if len(self._capabilities) >= MAX_REMEMBERED:
                self._capabilities.clear()
            if len(request.model) <= MAX_NAME_CHARS and len(target.model) <= MAX_NAME_CHARS:
                self._capabilities[place] = found
        return found

    def _clean(self, request: Request, target: Target, principal: Principal, losses: Losses) -> Request:
        """Return *request* without what models of other formats have left in it, where they have."""
        match request.kind:
            case "generate":
                return self._rewrite(request, target, principal, losses)
            case "count":
                return self._rewrite_count(request, target, principal)
            case "embed" | "other":
                return request

    def _rewrite(self, request: Request, target: Target, principal: Principal, losses: Losses) -> Request:
        """Return *request* without what models of other formats have left in it, where they have."""
        capabilities = self.find_capabilities(request, target, request.fmt.name)
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
        return request if body is None else replace(request, body=body)

    def _rewrite_count(self, request: Request, target: Target, principal: Principal) -> Request:
        """Return *request*, to count tokens, without what models of other formats have left in it."""
        try:
            counting = self.cross(request, target, request.fmt.name, principal).encode_count(target.model)
        except InvalidRequest:
            return request  # what we do not understand, the upstream may
        return request if counting is None else replace(request, body=counting[1])


def _is_marked(request: Request, provider: Provider) -> bool:
    """Tell whether models of other upstreams may have had a part in the conversation."""
    body = request.body
    for marks in (request.fmt.marks, provider.marks):
        for mark in marks:
            if mark in body:
                return True
    return False
