"""The wiring, all of it: settings → application. Both chains stand here, in order."""

import logging
import random
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

import aiohttp
import aiohttp_cors
from aiohttp import web

from aiproxyd.asking import Interpreter
from aiproxyd.cache.calls import CachedCalls
from aiproxyd.cache.stores import MemoryStore, RedisStore, Store
from aiproxyd.config import CacheSettings, Settings, UpstreamSettings
from aiproxyd.dispatch import Dispatcher
from aiproxyd.handlers import generation, models, passthrough, status
from aiproxyd.inflight import InFlight
from aiproxyd.keyring import Keyring
from aiproxyd.middlewares.admission import admission
from aiproxyd.middlewares.auth import auth
from aiproxyd.middlewares.context import context, stamp
from aiproxyd.middlewares.errors import errors
from aiproxyd.providers import PROVIDERS
from aiproxyd.providers.base import Provider
from aiproxyd.providers.connector import Connector
from aiproxyd.providers.exchange import READ_BUFFER_BYTES
from aiproxyd.routing.catalogue import Catalogue
from aiproxyd.routing.choice import Router
from aiproxyd.routing.figures import families
from aiproxyd.routing.probing import probe
from aiproxyd.tasks import spawn
from aiproxyd.telemetry.logs import AccessLog
from aiproxyd.telemetry.metrics import Metrics
from aiproxyd.telemetry.siblings import Siblings

KEEP_ALIVE_S: Final = 30.0
"""How long an idle connection to an upstream is kept; the vendors' own keep it for longer, so that few go stale."""
LOCAL_KEEP_ALIVE_S: Final = 4.0
"""The same without TLS: uvicorn (vLLM) and Node close after 5 s, and a new connection costs next to nothing."""

_log: Final = logging.getLogger(__name__)


async def create_app(settings: Settings, access_log: AccessLog, siblings: Siblings | None = None) -> web.Application:
    """Return the application, with a session for each upstream that it closes when it is cleaned up.

    With *siblings*, it is one of several that callers take for one. Must run in the event loop that is to serve it.
    """
    mark = f"1.1 aiproxyd-{siblings.token if siblings is not None else secrets.token_hex(8)}"
    store = await open_store(settings.cache)
    sessions = {upstream.name: open_session(upstream) for upstream in settings.upstreams}
    providers: dict[str, Provider] = {
        upstream.name: PROVIDERS[upstream.provider](upstream, sessions[upstream.name], mark)
        for upstream in settings.upstreams
    }
    catalogue = Catalogue(settings.models, providers)
    router = Router(settings.upstreams, settings.retry, random.Random())  # noqa: S311  # no secret is drawn
    interpreter = Interpreter(catalogue, providers, is_strict=settings.strict_conversion)
    dispatcher = Dispatcher(catalogue, router, interpreter)
    cached = CachedCalls(dispatcher, catalogue, interpreter, store, settings.cache.ttl_s) if store is not None else None
    keyring = Keyring(settings.keys)
    in_flight = InFlight()

    app = web.Application(
        client_max_size=settings.max_body_bytes,
        middlewares=(
            context(access_log, in_flight),
            errors(),
            auth(
                keyring,
                allow_anonymous=settings.allow_anonymous,
                origins=frozenset(settings.cors_origins),
                hosts=frozenset((settings.host.lower(), socket.gethostname().lower())),
                open_paths=("/metrics",) if settings.metrics_access == "open" else (),
            ),
            admission(mark),
        ),
    )
    app.on_response_prepare.append(stamp)
    app.on_shutdown.append(_draining(in_flight, settings.shutdown_timeout_s))
    metrics = Metrics(lambda: families(router), *([cached.families] if cached else []))
    app.add_routes(status.routes(router, metrics, siblings))
    app.add_routes(models.routes(catalogue))
    app.add_routes(generation.routes(cached or dispatcher))
    app.add_routes(passthrough.routes(catalogue, router, providers))
    allow_origins(app, settings.cors_origins)
    app.cleanup_ctx.append(_closing(sessions, cached, access_log))
    app.cleanup_ctx.append(_probing(providers, router))
    if siblings is not None:
        app.cleanup_ctx.append(_answering(siblings, metrics))
    return app


def open_session(upstream: UpstreamSettings) -> aiohttp.ClientSession:
    """Open the session of one upstream: own connections, no cookies, no limit on how long a stream may take."""
    return aiohttp.ClientSession(
        connector=Connector(
            limit=0,  # `max-concurrency` is for those that must not get as many calls as there are
            keepalive_timeout=LOCAL_KEEP_ALIVE_S if upstream.base_url.scheme == "http" else KEEP_ALIVE_S,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=upstream.limits.connect_s),
        read_bufsize=READ_BUFFER_BYTES,
        skip_auto_headers=("Accept", "Content-Type"),
    )


async def open_store(settings: CacheSettings) -> Store | None:
    """Return where answers are kept; None where none is."""
    if not settings.ttl_s:
        return None
    if settings.redis_url is None:
        return MemoryStore(settings.max_bytes)
    return await RedisStore.open(settings.redis_url.reveal())


def allow_origins(app: web.Application, origins: tuple[str, ...]) -> None:
    """Let web pages of *origins* call every route."""
    if not origins:
        return
    allowed = aiohttp_cors.ResourceOptions(
        allow_headers="*", allow_methods="*", expose_headers="*", allow_credentials=False, max_age=3600
    )
    cors = aiohttp_cors.setup(app, defaults=dict.fromkeys(origins, allowed))
    for route in list(app.router.routes()):
        cors.add(route)


def _draining(in_flight: InFlight, timeout_s: float) -> Callable[[web.Application], Awaitable[None]]:
    async def draining(_app: web.Application) -> None:
        await in_flight.drain(timeout_s)

    return draining


def _probing(providers: Mapping[str, Provider], router: Router) -> Callable[[web.Application], AsyncIterator[None]]:
    async def probing(_app: web.Application) -> AsyncIterator[None]:
        probes = [
            spawn(probe(name, providers, router, provider.settings.probe_interval_s), f"probe of {name}")
            for name, provider in providers.items()
            if provider.settings.probe_interval_s is not None
        ]
        yield
        for task in probes:
            task.cancel()

    return probing


def _answering(siblings: Siblings, metrics: Metrics) -> Callable[[web.Application], AsyncIterator[None]]:
    async def answering(_app: web.Application) -> AsyncIterator[None]:
        siblings.start_answering(metrics)
        yield
        await siblings.stop_answering()

    return answering


def _closing(
    sessions: dict[str, aiohttp.ClientSession], cached: CachedCalls | None, access_log: AccessLog
) -> Callable[[web.Application], AsyncIterator[None]]:
    async def closing(_app: web.Application) -> AsyncIterator[None]:
        yield
        for session in sessions.values():
            await session.close()
        if cached is not None:
            await cached.close()
        access_log.flush()

    return closing
