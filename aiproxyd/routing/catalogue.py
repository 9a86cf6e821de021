"""The names that callers may use and the targets each of them leads to."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace
from yarl import URL

from aiproxyd.capabilities import Capabilities
from aiproxyd.config import DEFAULT_BASE_URLS, ModelSettings, Strategy, Target
from aiproxyd.errors import UnknownModel
from aiproxyd.globs import compile_globs, is_glob, specificity
from aiproxyd.hub import ModelCard
from aiproxyd.keyring import Principal
from aiproxyd.providers.base import Provider
from aiproxyd.routing.discovery import ModelLists

MAX_REMEMBERED: Final = 4096
"""Names whose targets are remembered; callers choose names freely, so there must be a bound."""
MAX_REMEMBERED_CHARS: Final = 256
"""Longest name that is remembered."""
MAX_NAMES_IN_ERROR: Final = 20


class Route(NamedTuple):
    """Where a name leads, and how to choose among several targets."""

    targets: tuple[Target, ...]
    strategy: Strategy = "ordered"
    weights: tuple[float, ...] = ()
    """One for each target; empty: all alike."""
    section: ModelSettings | None = None
    """The ``[model]`` that leads there."""


class Catalogue:
    """All models. Resolving a name that was asked for before costs a look-up."""

    def __init__(self, models: Sequence[ModelSettings], providers: Mapping[str, Provider]) -> None:
        self._providers = providers
        self._lists = ModelLists(providers)
        self._models = [
            (compile_globs([model.name]), model)
            for model in sorted(models, key=lambda model: specificity(model.name), reverse=True)
        ]
        self._is_told = any(model.capabilities for model in models)
        self._patterns = {
            name: compile_globs(provider.settings.models)
            for name, provider in providers.items()
            if provider.settings.models
        }
        self._listing = [name for name in providers if name not in self._patterns]
        self._remembered: dict[str, Route] = {}
        self._version = 0

    async def resolve(self, name: str, principal: Principal) -> Route:
        """Return where *name* leads: to one target at least.

        Raises:
            UnknownModel: nobody serves it; the text names what *principal* may use instead.
        """
        if self._version != self._lists.version:
            self._version = self._lists.version
            self._remembered.clear()
        route = self._remembered.get(name)
        if route is None:
            route = await self._find(name)
            if route is None:
                raise await self._unknown(name, principal)
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            if len(name) <= MAX_REMEMBERED_CHARS:
                self._remembered[name] = route
        return route

    async def cards(self, principal: Principal) -> list[ModelCard]:
        """Return the models that *principal* may use, without duplicates."""
        await self._lists.ensure(self._listing)
        cards: dict[str, ModelCard] = {}
        for card in self._all_cards():
            if card.name not in cards and principal.may_use(card.name):
                cards[card.name] = card
        return list(cards.values())

    async def card(self, name: str, principal: Principal) -> ModelCard:
        """Return the model *name*.

        Raises:
            UnknownModel: there is none that *principal* may use.
        """
        for card in await self.cards(principal):
            if card.name == name:
                return card
        if principal.may_use(name) and (self._find_configured(name) or self._find_listed(name)):
            return ModelCard(name=name)
        raise await self._unknown(name, principal)

    def adjust(self, name: str, capabilities: Capabilities) -> Capabilities:
        """Return *capabilities* as the configuration of the model *name* has them."""
        for pattern, model in self._models if self._is_told else ():
            if pattern.match(name):
                return replace(capabilities, **model.capabilities)
        return capabilities

    def _all_cards(self) -> Iterable[ModelCard]:
        for _, model in self._models:
            if not is_glob(model.name):
                yield ModelCard(name=model.name)
        for name, provider in self._providers.items():
            for pattern in provider.settings.models:
                if not is_glob(pattern):
                    yield ModelCard(name=pattern, owner=name)
            yield from self._lists.known(name)

    async def _find(self, name: str) -> Route | None:
        """Look *name* up, first hit wins: a ``[model]``, ``UPSTREAM/MODEL``, who lists it, its prefix, the only one."""
        found = self._find_configured(name) or self._find_listed(name)
        if found:
            return found
        if len(self._providers) == 1:
            return Route(tuple(Target(upstream, name) for upstream in self._providers))
        # A first-party upstream is known by its models' prefixes; others have to be asked what they have.
        await self._lists.ensure([upstream for upstream in self._listing if not self._has_prefix(upstream, name)])
        return self._find_listed(name) or self._find_by_prefix(name)

    def _find_configured(self, name: str) -> Route | None:
        for pattern, model in self._models:
            if pattern.match(name):
                targets = (
                    Target(target.upstream, name if target.model == "*" else target.model) for target in model.targets
                )
                return Route(tuple(targets), model.strategy, model.weights, model)
        upstream, _, rest = name.partition("/")
        return Route((Target(upstream, rest),)) if rest and upstream in self._providers else None

    def _find_listed(self, name: str) -> Route | None:
        for upstream, pattern in self._patterns.items():
            if pattern.match(name):
                return Route((Target(upstream, name),))
        for upstream in self._listing:
            if any(card.name == name for card in self._lists.known(upstream)):
                return Route((Target(upstream, name),))
        return None

    def _find_by_prefix(self, name: str) -> Route | None:
        return self._first(name, lambda upstream: self._has_prefix(upstream, name)) or self._first(
            name, lambda upstream: name.startswith(self._providers[upstream].model_prefixes)
        )

    def _first(self, name: str, fits: Callable[[str], bool]) -> Route | None:
        upstream = next(filter(fits, self._listing), None)
        return Route((Target(upstream, name),)) if upstream else None

    def _has_prefix(self, upstream: str, name: str) -> bool:
        provider = self._providers[upstream]
        is_first_party = provider.settings.base_url == URL(DEFAULT_BASE_URLS[provider.name])
        return is_first_party and name.startswith(provider.model_prefixes)

    async def _unknown(self, name: str, principal: Principal) -> UnknownModel:
        names = [card.name for card in await self.cards(principal)]
        shown = ", ".join(names[:MAX_NAMES_IN_ERROR]) + (", ..." if len(names) > MAX_NAMES_IN_ERROR else "")
        return UnknownModel(f"there is no model {name[:200]!r} here; available: {shown or 'none'}", param="$.model")
