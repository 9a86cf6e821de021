"""What is refused by its headers alone, before any work: loops, and bodies that say they are too large."""

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from aiproxyd.errors import LoopDetected


def admission(mark: str) -> Middleware:
    """Return the middleware that refuses requests in whose ``via`` our *mark* stands."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if "Via" in request.headers and any(mark in via for via in request.headers.getall("Via")):
            raise LoopDetected("an upstream of the gateway leads back to the gateway itself: check the base URLs")
        return await handler(request)

    return middleware
