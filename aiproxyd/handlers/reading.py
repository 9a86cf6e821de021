"""What all handlers read from a request in the same way."""

import time
from typing import Final
from urllib.parse import unquote_plus

from aiohttp import web

from aiproxyd.appkeys import PRINCIPAL, RECORD
from aiproxyd.errors import BodyTimeout, BodyTooLarge, InvalidRequest, PermissionDenied, UpgradeRequired
from aiproxyd.formats.base import Format
from aiproxyd.tasks import Clock

BODY_TIMEOUT_S: Final = 600.0
"""How long a caller may take to send a body that is held: the default limit at the speed of a slow line."""

_PATH_STEPS: Final = frozenset((".", ".."))
_CREDENTIALS: Final = frozenset(("key", "api_key", "access_token", "oauth_token"))


async def read_body(request: web.Request) -> bytes:
    """Return the request's body, decompressed.

    Raises:
        BodyTimeout: it did not come in time.
        BodyTooLarge: longer than ``--max-body-bytes``.
        InvalidRequest: broken off, or compressed in a way that we do not know.
    """
    limit, length = request.client_max_size, request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    try:
        content = request.content
        if content.is_eof() and content.total_bytes <= limit:
            return content.read_nowait()  # mostly it has come with its head
        with Clock(request.task.get_loop(), time.monotonic() + BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError as exc:
        raise BodyTimeout(f"the request body did not come within {BODY_TIMEOUT_S:g} seconds") from exc
    except web.HTTPRequestEntityTooLarge as exc:
        raise _too_large(limit) from exc
    except web.RequestPayloadError as exc:
        raise InvalidRequest(
            "the request body cannot be read: it broke off, or its Content-Encoding is not what it says"
        ) from exc


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request body is longer than {limit_bytes} bytes, the gateway's limit (--max-body-bytes)")


def read_query(request: web.Request) -> str:
    """Return the raw query string without the caller's credentials, which stay here."""
    query: str = request.rel_url.raw_query_string
    if not query:
        return query
    return "&".join(pair for pair in query.split("&") if unquote_plus(pair.partition("=")[0]) not in _CREDENTIALS)


def use_model(request: web.Request, model: str, fmt: Format | None = None, body: bytes = b"") -> None:
    """Note which model the request is about; for a key that is limited to models, see to what else *body* names.

    Raises:
        PermissionDenied: the caller's key does not allow it.
        InvalidRequest: it is no model's name; or the key is limited, and parsers disagree about what the body names.
    """
    request[RECORD].model = model
    if not _PATH_STEPS.isdisjoint(model.split("/")):
        # The name may become a part of the upstream's URL.
        raise InvalidRequest("'.' and '..' are no parts of a model's name", param="$.model")
    principal = request[PRINCIPAL]
    if principal.allowed_models is None:
        return
    for name in (model, *(fmt.find_models(body) if fmt is not None else ())):
        if not principal.may_use(name):
            raise PermissionDenied(f"the key {principal.name} may not use the model {name[:200]!r}", param="$.model")


def refuse_upgrade(request: web.Request) -> None:
    """Refuse to speak WebSocket.

    Raises:
        UpgradeRequired: the request asks for it; on this status Codex falls back to HTTP at once, on others it fails.
    """
    if "websocket" in request.headers.get("Upgrade", "").lower():
        raise UpgradeRequired("WebSocket is not served here: use HTTP")
