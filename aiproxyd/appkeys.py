"""What a request carries through the chain of middlewares."""

from typing import Final

from aiohttp import web

from aiproxyd.keyring import Principal
from aiproxyd.telemetry.records import CallRecord

RECORD: Final = web.RequestKey("record", CallRecord)
PRINCIPAL: Final = web.RequestKey("principal", Principal)
