"""Who calls: the key that a caller presents → its principal."""

from collections.abc import Collection
from functools import lru_cache
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from aiproxyd.appkeys import PRINCIPAL, RECORD
from aiproxyd.config import is_address
from aiproxyd.errors import KeyRequired, PermissionDenied
from aiproxyd.keyring import ANONYMOUS, Keyring, Principal

_OPEN: Final = frozenset(
    (("GET", "/health"), ("GET", "/ready"), ("HEAD", "/health"), ("HEAD", "/ready"), ("GET", "/"), ("HEAD", "/"))
) | {("HEAD", "/api/hello")}
"""What is answered without a key. Claude Code asks for /api/hello before it has shown any."""
_LOCAL_DOMAINS: Final = (".localhost", ".local", ".lan", ".home.arpa", ".internal", ".intranet", ".test")
"""Nobody can register these: https://www.rfc-editor.org/rfc/rfc6761, 6762, 8375, and names for private use."""
_KEY_HEADERS: Final = ("x-api-key", "x-goog-api-key", "api-key")


def auth(
    keyring: Keyring,
    *,
    allow_anonymous: bool,
    origins: frozenset[str],
    hosts: frozenset[str],
    open_paths: Collection[str] = (),
) -> Middleware:
    """Return the middleware that finds the principal; *open_paths* may be read without a key.

    Callers without a key must not be web pages: any page in a browser on this machine could call us, and spend. Those
    of *origins* may; others are known by the headers that browsers send, or (DNS rebinding) by a host name that is none
    of ours: ours are *hosts*, and those that no stranger can own.
    """
    without_key = _OPEN | {("GET", path) for path in open_paths}

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if (request.method, request.rel_url.raw_path) in without_key or is_preflight(request):
            principal = ANONYMOUS
        else:
            principal = _identify(request, keyring, allow_anonymous=allow_anonymous)
            if principal is ANONYMOUS:
                _refuse_web_pages(request, origins, hosts)
        request[PRINCIPAL] = principal
        request[RECORD].principal = principal.name
        return await handler(request)

    return middleware


def _refuse_web_pages(request: web.Request, origins: frozenset[str], hosts: frozenset[str]) -> None:
    headers = request.headers
    origin = headers.get("Origin")
    if "*" in origins or (origin is not None and origin in origins):
        return
    if origin is not None or headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        page = repr(origin[:200]) if origin is not None else "another site"
        raise PermissionDenied(f"web pages of {page} may not call: name it in --cors-origins, or configure a key")
    host = headers.get("Host", "").lower()
    if host and not _is_own_host(host, hosts):
        raise PermissionDenied(
            f"the gateway is not known as {host[:200]!r}: call it by its address, or configure a key"
        )


@lru_cache(maxsize=256)
def _is_own_host(host: str, hosts: frozenset[str]) -> bool:
    """Tell whether *host*, with or without a port, is a name by which no stranger's domain can lead here."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    is_local = "." not in name or name.endswith(_LOCAL_DOMAINS) or is_address(name)
    return is_local or name in hosts


def is_preflight(request: web.Request) -> bool:
    """Tell whether this is a browser's question about CORS, which never carries a key."""
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def _identify(request: web.Request, keyring: Keyring, *, allow_anonymous: bool) -> Principal:
    if keyring.is_empty:
        return ANONYMOUS
    is_presented = False
    for secret in _presented_keys(request):
        is_presented = True
        principal = keyring.find(secret)
        if principal:
            return principal
    if is_presented:
        raise KeyRequired("this is not a key of the gateway")
    if allow_anonymous:
        return ANONYMOUS
    raise KeyRequired(
        "a key is required: send it as `Authorization: Bearer KEY`, `x-api-key: KEY` or `x-goog-api-key: KEY`"
    )


def _presented_keys(request: web.Request) -> list[str]:
    """Return every credential in the request, wherever the SDKs put theirs; Claude Code may send two."""
    headers = request.headers
    keys = [headers[name] for name in _KEY_HEADERS if name in headers]
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        keys.append(token.strip())
    query = request.rel_url.raw_query_string
    if ("key=" in query or "%" in query) and "key" in request.query:
        keys.append(request.query["key"])
    return keys
