"""What models the upstreams say they have: asked when first needed, kept, refreshed in the background."""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from aiproxyd.errors import UpstreamError
from aiproxyd.hub import ModelCard
from aiproxyd.providers.base import Provider
from aiproxyd.tasks import spawn

FRESH_S: Final = 300.0
"""How long a list counts as fresh."""
RETRY_S: Final = 30.0
"""How long after a failure an upstream is left in peace."""

_log: Final = logging.getLogger(__name__)


class ModelLists:
    """The lists of all upstreams."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = providers
        self._cards: dict[str, Sequence[ModelCard]] = {}
        self._fresh_until: dict[str, float] = {}
        self._refreshing: dict[str, asyncio.Task[None]] = {}
        self.version = 0
        """Grows whenever a list has changed."""

    def known(self, upstream: str) -> Sequence[ModelCard]:
        """Return what *upstream* listed when it was last asked; empty before."""
        return self._cards.get(upstream, ())

    async def ensure(self, upstreams: Collection[str]) -> None:
        """Wait until each of *upstreams* has been asked once; refresh in the background what is no longer fresh.

        Waits a few seconds at most; an upstream that does not answer is as one with an empty list.
        """
        now = time.monotonic()
        waiting: list[asyncio.Task[None]] = []
        for name in upstreams:
            if now < self._fresh_until.get(name, 0.0):
                continue
            if name not in self._refreshing:
                self._refreshing[name] = spawn(self._refresh(name), f"models of {name}")
            if name not in self._cards:
                waiting.append(self._refreshing[name])
        if waiting:
            # The task goes on for others when this caller leaves.
            await asyncio.wait(waiting)

    async def _refresh(self, name: str) -> None:
        try:
            cards = await self._providers[name].list_models()
        except UpstreamError as exc:
            _log.warning("upstream %s does not list its models: %s", name, exc.message)
            self._cards.setdefault(name, ())
            lasts_s = RETRY_S
        else:
            if self._cards.get(name) != cards:
                self._cards[name] = cards
                self.version += 1
            lasts_s = FRESH_S
        finally:
            del self._refreshing[name]
        self._fresh_until[name] = time.monotonic() + lasts_s
