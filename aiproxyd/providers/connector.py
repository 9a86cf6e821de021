"""Connections to upstreams that tell whether a request went out on one that the other side was just closing."""

import functools
import math
import time
from abc import ABC, abstractmethod
from contextvars import ContextVar
from typing import Any, Final, TypeGuard

import aiohttp
from aiohttp.client_proto import ResponseHandler
from typing_extensions import override

STALE_S: Final = 0.1
"""How long after a request the news may come that its connection had been closed before. It was on its way when the
request went out, so that it takes half a round trip at most; whoever closes later may have begun to work."""

_departure: Final[ContextVar["Departure | None"]] = ContextVar("departure", default=None)


class Departure:
    """How a request went out: noted for the next one that the task makes after this. One per request."""

    __slots__ = ("_handler", "_left_at", "is_on_new")

    def __init__(self, *, is_on_new: bool = False) -> None:
        """Let the request go out on a connection that had been waiting, if there is one, unless *is_on_new*."""
        self.is_on_new = is_on_new
        """Whether it goes, or went, out on a new connection."""
        self._handler: Handler | None = None
        self._left_at = 0.0
        _departure.set(self)

    def note(self, handler: "Handler | None") -> None:
        """Note the connection that had been waiting, or None for a new one."""
        self.is_on_new = handler is None
        self._handler = handler
        self._left_at = time.monotonic()

    @property
    def has_left(self) -> bool:
        """Whether there was a connection for the request."""
        return self._left_at > 0.0

    def was_too_late(self) -> bool:
        """Tell, of a request whose connection has just ended, whether that was closed while it was waiting.

        Such a request was not looked at: https://www.rfc-editor.org/rfc/rfc9112.html#section-9.3.1.
        """
        if self._handler is None or self._handler.has_received:
            return False
        return time.monotonic() - self._left_at <= STALE_S


class Connector(aiohttp.TCPConnector):
    """Notes how requests go out, and uses no connection again on which something came that nobody had asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        handler: type[ResponseHandler] = Handler
        self._factory = functools.partial(handler, loop=self._loop)
        self._key: Any = None
        """What aiohttp knows connections by; all of one session lead to the same upstream."""

    def take(self) -> "Handler | None":
        """Return an open connection that waits for a request, for `give_back`; None where there is none.

        As `_get` does, which is a coroutine, and returns a wrapper.
        """
        waiting = self._conns.get(self._key)
        departure = _departure.get()
        if waiting is None or departure is None or departure.is_on_new:
            return None
        kept_since = time.monotonic() - (self._keepalive_timeout or math.inf)
        taken: Handler | None = None
        while waiting and taken is None:
            handler, since = waiting.popleft()
            self._acquired.add(handler)
            if since >= kept_since and handler.is_connected() and _is_quiet(handler):
                taken = handler
                taken.is_waiting = taken.has_received = False
                departure.note(taken)
            else:
                self._release(self._key, handler, should_close=True)
        if not waiting:
            del self._conns[self._key]
        return taken

    @override
    def _release(self, key: Any, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if isinstance(protocol, Handler):
            protocol.is_waiting = True
        super()._release(key, protocol, should_close=should_close)

    def give_back(self, handler: "Handler", *, is_spent: bool) -> None:
        """Keep an open connection for the next request; close it if it *is_spent*."""
        self._release(self._key, handler, should_close=is_spent)

    @override
    async def _create_connection(self, *arguments: Any) -> ResponseHandler:
        # The hook that aiohttp has for connectors: called for new connections only, in the task that makes the call.
        self._key = arguments[0].connection_key
        handler = await super()._create_connection(*arguments)
        if (departure := _departure.get()) is not None:
            departure.note(None)
        return handler

    @override
    async def _get(self, *arguments: Any) -> aiohttp.connector.Connection | None:
        departure = _departure.get()
        if departure is not None and departure.is_on_new:
            return None
        # What came while it was waiting, such as a 408 for having waited, would be taken for the next call's answer.
        while (connection := await super()._get(*arguments)) is not None:
            handler = connection.protocol
            if handler is not None and _is_quiet(handler):
                handler.is_waiting = handler.has_received = False
                if departure is not None:
                    departure.note(handler)
                break
            connection.close()
        return connection


def _is_quiet(handler: ResponseHandler) -> "TypeGuard[Handler]":
    """Tell whether nothing has come on a waiting connection, not even a part of what nobody had asked for."""
    return isinstance(handler, Handler) and not handler.is_disturbed and not handler.should_close


class Receiver(ABC):
    """Reads an answer itself, as its bytes come."""

    @abstractmethod
    def feed(self, data: bytes) -> None:
        """Take the next bytes."""

    @abstractmethod
    def feed_eof(self) -> None:
        """Note that the connection has ended."""


class Handler(ResponseHandler):
    """One connection."""

    has_received = False
    """Whether anything has come since the last request went out."""
    is_waiting = False
    """Whether no request is under way."""
    is_disturbed = False
    """Whether something came nevertheless, be it a part of an answer."""
    receiver: Receiver | None = None
    """Who reads what comes, instead of aiohttp."""

    @override
    def data_received(self, data: bytes) -> None:
        self.has_received = True
        if self.is_waiting and data:  # aiohttp calls itself without, to go on where it had paused
            self.is_disturbed = True
        if self.receiver is not None:
            self.receiver.feed(data)
        else:
            super().data_received(data)

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        if self.receiver is not None:
            self.receiver.feed_eof()
        super().connection_lost(exc)


def has_departed() -> bool:
    """Tell whether the last request of this task has gone out: there was a connection for it."""
    departure = _departure.get()
    return departure is None or departure.has_left
