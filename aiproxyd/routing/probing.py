"""Asks upstreams that are left in peace whether they are back, without spending a token: for their list of models."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from aiproxyd.errors import UpstreamError
from aiproxyd.providers.base import Provider
from aiproxyd.routing.choice import Router

_log: Final = logging.getLogger(__name__)


async def probe(name: str, providers: Mapping[str, Provider], router: Router, interval_s: float) -> None:
    """Ask the upstream *name* every *interval_s*, with each of its keys that is left in peace; for ever."""
    while True:
        await asyncio.sleep(interval_s)
        for key in router.resting_keys(name):
            try:
                await providers[name].list_models(key)
            except UpstreamError as exc:
                _log.info("upstream %s is still not usable with its key %d: %s", name, key + 1, exc.message)
            else:
                _log.info("upstream %s is usable again with its key %d", name, key + 1)
                router.health.revive(name, key)
