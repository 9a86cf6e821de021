"""The lists of models, in the shape that the caller's SDK expects: three SDKs ask for them on one path."""

from collections.abc import Iterable
from urllib.parse import unquote

from aiohttp import web

from aiproxyd.appkeys import PRINCIPAL
from aiproxyd.formats import format_of_caller
from aiproxyd.handlers.generation import GEMINI_PREFIXES
from aiproxyd.routing.catalogue import Catalogue


def routes(catalogue: Catalogue) -> Iterable[web.RouteDef]:
    """Return the routes of this module."""

    async def list_models(request: web.Request) -> web.Response:
        cards = await catalogue.cards(request[PRINCIPAL])
        fmt = format_of_caller(request.path, request.headers)
        return web.Response(body=fmt.encode_model_list(cards, request.query), content_type="application/json")

    async def get_model(request: web.Request) -> web.Response:
        name = unquote(request.rel_url.raw_path.partition("/models/")[2]).removeprefix("models/")
        card = await catalogue.card(name, request[PRINCIPAL])
        fmt = format_of_caller(request.path, request.headers)
        return web.Response(body=fmt.encode_model(card), content_type="application/json")

    for prefix in GEMINI_PREFIXES:
        yield web.get(prefix, list_models)
        yield web.get(prefix + "/{tail:.+}", get_model)
