"""Is it alive, is it ready, what is it: answered without a key."""

from collections.abc import Iterable, Mapping

import msgspec
from aiohttp import web

import aiproxyd
from aiproxyd.errors import NotReady
from aiproxyd.providers.base import Provider


def routes(providers: Mapping[str, Provider]) -> Iterable[web.RouteDef]:
    """Return the routes of this module."""

    async def health(_request: web.Request) -> web.Response:
        return web.Response(body=b'{"status":"alive"}', content_type="application/json")

    async def ready(_request: web.Request) -> web.Response:
        if not any(provider.is_usable for provider in providers.values()):
            raise NotReady("no upstream is usable: the last call to each of them failed")
        return web.Response(body=b'{"status":"ready"}', content_type="application/json")

    async def root(_request: web.Request) -> web.Response:
        return web.Response(body=_ABOUT, content_type="application/json")

    async def hello(_request: web.Request) -> web.Response:
        return web.Response()

    yield web.get("/health", health)
    yield web.get("/ready", ready)
    yield web.get("/", root)
    yield web.head("/api/hello", hello)


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
