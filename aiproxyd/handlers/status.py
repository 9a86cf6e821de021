"""Is it alive, is it ready, what is it, how is it: for those who watch over it."""

import asyncio
import math
from collections.abc import Iterable

import msgspec
from aiohttp import web

import aiproxyd
from aiproxyd.errors import NotReady
from aiproxyd.routing.choice import Router
from aiproxyd.telemetry.metrics import CONTENT_TYPE, Family, Metrics, read_process, render
from aiproxyd.telemetry.siblings import Siblings


def routes(router: Router, metrics: Metrics, siblings: Siblings | None = None) -> Iterable[web.RouteDef]:
    """Return the routes of this module; with *siblings*, whichever worker is asked shows the metrics of all."""

    async def health(_request: web.Request) -> web.Response:
        return web.Response(body=b'{"status":"alive"}', content_type="application/json")

    async def ready(_request: web.Request) -> web.Response:
        soonest_s = min(map(router.ready_in_s, router.upstreams))
        if soonest_s > 0:
            raise NotReady(
                "no upstream is usable: the last calls to each of them failed; the soonest is asked again in "
                f"{math.ceil(soonest_s)} s",
                retry_after_s=soonest_s,
            )
        return web.Response(body=b'{"status":"ready"}', content_type="application/json")

    async def measure(_request: web.Request) -> web.Response:
        if siblings is not None:
            body = await siblings.measure(metrics)
        else:
            body = await asyncio.to_thread(_render, metrics.read())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def root(_request: web.Request) -> web.Response:
        return web.Response(body=_ABOUT, content_type="application/json")

    async def hello(_request: web.Request) -> web.Response:
        return web.Response()

    yield web.get("/health", health)
    yield web.get("/ready", ready)
    yield web.get("/metrics", measure)
    yield web.get("/", root)
    yield web.head("/api/hello", hello)


def _render(families: list[Family]) -> bytes:
    return render([*read_process(), *families])


_ABOUT = msgspec.json.encode(
    {
        "name": "aiproxyd",
        "version": aiproxyd.__version__,
        "endpoints": [
            "/v1/chat/completions",
            "/v1/responses",
            "/v1/messages",
            "/v1/messages/count_tokens",
            "/v1beta/models/{model}:generateContent",
            "/v1beta/models/{model}:streamGenerateContent",
            "/v1beta/models",
            "/v1/embeddings",
            "/v1/models",
            "/health",
            "/ready",
        ],
    }
)
