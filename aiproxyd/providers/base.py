"""What every provider does: send a call to its upstream and hand back the answer. Nothing else talks to upstreams.

A provider's file says only what is particular to it: formats, addresses, credential headers.
"""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import ClassVar, Final, NoReturn, TypeAlias

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from msgspec import Struct
from multidict import CIMultiDict
from typing_extensions import override
from yarl import URL

import aiproxyd
from aiproxyd.capabilities import Capabilities, find_capabilities
from aiproxyd.config import Secret, TimeLimits, UpstreamSettings
from aiproxyd.errors import (
    BodyTimeout,
    CallerError,
    InvalidRequest,
    ProxyError,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamKeyRefused,
    UpstreamRefusal,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from aiproxyd.formats import FORMATS
from aiproxyd.formats.base import Format
from aiproxyd.headers import read_retry_after_s, select_for_caller
from aiproxyd.hub import ModelCard, Request
from aiproxyd.providers.connector import Connector, Departure
from aiproxyd.providers.exchange import Body, Content, Exchange, Head, Take
from aiproxyd.tasks import Clock, Patience

USER_AGENT: Final = f"aiproxyd/{aiproxyd.__version__}"
"""For callers that do not say what they are."""
MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
"""Longest whole answer that is held; 2,048 embeddings written out in digits come to about 80 MB."""
MAX_ERROR_BYTES: Final = 256 * 1024
"""Longest error answer that is read."""
ERROR_PATIENCE_S: Final = 2.0
"""How long the body of an error answer may take: its status says most of it, and others wait to be asked."""
MODEL_LIST_TIMEOUT_S: Final = 5.0
MAX_URLS: Final = 256
"""Addresses of calls that an upstream's provider remembers; those of Gemini have the model's name in them."""
END_PATIENCE_S: Final = 1.0
"""How long the end of the connection may come after the end of the answer."""

Session: TypeAlias = aiohttp.ClientSession  # noqa: TID251  # opened by app.py, handed over
_log: Final = logging.getLogger(__name__)

_OWN_HEADERS: Final = {"Accept-Encoding": "identity"}
"""Sent with every call: bytes are passed on as they come; what is compressed all the same is decompressed."""


class Call(Struct, kw_only=True):
    """One request on its way to an upstream, on the byte path."""

    method: str = "POST"
    path: str
    """As on our own surface, ``/v1/...`` or ``/v1beta/models/MODEL:METHOD``, quoted; MODEL is the upstream's name."""
    query: str = ""
    """Raw, without ``?`` and without the caller's key."""
    headers: CIMultiDict[str]
    """Those of the caller's that may pass; the provider adds its credential."""
    body: bytes | AsyncIterator[bytes] | None = None
    body_size_bytes: int | None = None
    """Length of a streamed body, where it is known."""


class Answer(ABC):
    """An upstream's answer whose body is still to come. Must be closed."""

    status: int
    headers: Mapping[str, str]

    @property
    def content_type(self) -> str:
        """The media type, lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @abstractmethod
    async def read(self) -> bytes:
        """Return the next bytes of the body, b"" behind its end.

        Raises:
            UpstreamTimeout: nothing came in time.
            UpstreamCut: the connection ended before the body did.
        """

    async def hand_to(self, take: Take) -> bool:
        """Call *take* with the next bytes, as they come, until it returns False.

        Returns whether it has; else the body has come to its end.

        Raises:
            UpstreamTimeout: nothing came in time.
            UpstreamCut: the connection ended before the body did.
            Exception: what *take* raised.
        """
        while chunk := await self.read():
            if not take(chunk):
                return True
        return False

    def expect_end(self) -> None:  # noqa: B027  # most answers just end
        """Wait no longer for what is still to come than a moment: nothing should."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection: back to the pool when the body was read to its end, else closed."""

    async def read_whole(self, limit_bytes: int = MAX_ANSWER_BYTES) -> bytes:
        """Return the rest of the body.

        Raises:
            UpstreamTimeout: nothing came in time.
            UpstreamCut: the connection ended before the body did.
            UpstreamGarbage: longer than *limit_bytes*.
        """
        chunks: list[bytes] = []
        size = 0
        while chunk := await self.read():
            chunks.append(chunk)
            size += len(chunk)
            if size > limit_bytes:
                raise _refuse_length(limit_bytes)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class Provider(ABC):
    """One configured upstream of one kind. Lives as long as the application."""

    name: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]
    """Names of the formats that its upstreams may speak; the first is that of its model list."""
    models_path: ClassVar[str] = "/v1/models"
    model_prefixes: ClassVar[tuple[str, ...]] = ()
    """How names of this provider's own models begin."""
    defaults: ClassVar[Mapping[str, str]] = {}
    """Headers that its upstreams want where the caller sends none."""

    def __init__(self, settings: UpstreamSettings, session: Session, mark: str) -> None:
        """Take the *session* that calls go out on, closed by whoever opened it, and the *mark* left in ``via``."""
        self.settings = settings
        self.spoken: tuple[str, ...] = self.formats
        """Names of the formats that this upstream is asked in."""
        self.marks: tuple[bytes, ...] = ()
        """What stands in the bodies, in its own formats, of conversations that were led with other upstreams too."""
        self.can_count = True
        """Whether it counts tokens, where its format has words for that."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """Found with the first call."""
        self._urls: dict[str, URL] = {}
        self._defaults = {"User-Agent": USER_AGENT, **self.defaults}
        self._session = session
        # Others know no open connections, and have no short way.
        self._connector = session.connector if isinstance(session.connector, Connector) else None
        # By itself it repeats GET, PUT and DELETE whenever a connection ends, however long the upstream had them.
        session._retry_connection = False  # there is no other way to say so
        self._mark = mark
        credentials = [self.credential(key) for key in settings.api_keys] or [{}]
        self._own_headers = [{**_OWN_HEADERS, "Via": mark, **credential} for credential in credentials]
        self._heads = [Head(own, self._defaults) for own in self._own_headers]
        self._base = str(settings.base_url)
        self.address = f"{settings.provider} {self._base} {settings.api} {settings.flavour}"
        """Whom it asks, and how: answers of one are not those of another, whatever their names."""

    @abstractmethod
    def credential(self, key: Secret) -> dict[str, str]:
        """Return the headers that carry *key*."""

    def url(self, path: str) -> str:
        """Return where *path*, as on our own surface, is found at the upstream."""
        return self._base + path

    def choose_format(self, fmt: str, capabilities: Capabilities, body: bytes, decode: Callable[[], Request]) -> str:
        """Return the name of the format in which to ask a model what a caller asks in *fmt*: that one where it can be.

        *capabilities* are the model's where it is asked in the first of the formats; *body* is the caller's request,
        *decode* returns what it means.

        Raises:
            InvalidRequest: *decode* could not.
        """
        del capabilities, body, decode  # for upstreams that are particular
        return fmt if fmt in self.spoken else self.spoken[0]

    def find_capabilities(self, model: str, fmt: str) -> Capabilities:
        """Return what *model* accepts where it is asked in *fmt*."""
        return find_capabilities(model, fmt)

    async def send(self, call: Call, deadline: float, key: int = 0) -> Answer:
        """Send *call* and return the answer, of whatever status, once its headers are there; closed by the caller.

        *deadline* is the time, on the monotonic clock, by which the whole answer must be there; *key* the number of the
        API key to send it with.

        Raises:
            UpstreamUnavailable: no connection.
            UpstreamTimeout: connected, but no answer in time.
            UpstreamCut: the connection ended before the answer began.
            UpstreamGarbage: the answer is no HTTP.
            BodyTimeout: the caller paused for too long within a streamed body.
            InvalidRequest: a streamed body broke off.
        """
        url = self._find_url(call.path)
        if call.query:
            url = URL(f"{url}?{call.query}", encoded=True)  # may hold anything, and is not kept
        limits = self.settings.limits
        loop = self._loop = self._loop or asyncio.get_running_loop()
        clock = Clock(loop, min(time.monotonic() + limits.first_event_s, deadline))
        body, upload = call.body, None
        if body is not None and not isinstance(body, bytes):
            upload = _Upload(body, clock, limits, deadline)
            body = upload.chunks()
        try:
            with clock:
                response = await self._request(call, url, body, key, loop)
        except Exception as exc:
            error: ProxyError | None = _rename(exc, self.settings.name, limits, deadline)
            if isinstance(error, UpstreamError) and upload is not None:
                error = upload.find_fault(error) or error
            if error is None:
                raise
            try:
                # aiohttp keeps what it raised, and with its traceback every frame up to the handler's.
                raise error from exc.with_traceback(None)
            finally:
                del error  # else it and this frame would hold each other
        return _HTTPAnswer(self.settings.name, response, limits, clock.when, deadline, loop)

    async def _request(
        self,
        call: Call,
        url: URL,
        body: bytes | AsyncIterator[bytes] | None,
        key: int,
        loop: asyncio.AbstractEventLoop,
    ) -> aiohttp.ClientResponse | Exchange:
        """Send a request; again, on a new connection, where it went out on one that the upstream was just closing."""
        departure = Departure()
        try:
            if self._connector is not None and isinstance(body, bytes) and "Via" not in call.headers:
                handler = self._connector.take()
                if handler is not None:
                    exchange = Exchange(self._connector, handler, loop)
                    return await exchange.ask(self._heads[key], call.method, url, call.headers, body)
            return await self._open_request(call, url, body, key)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if not departure.was_too_late() or not isinstance(body, bytes | None):
                raise
        # After a restart of the upstream, all that are waiting may be closed.
        Departure(is_on_new=True)
        return await self._open_request(call, url, body, key)

    async def _open_request(
        self, call: Call, url: URL, body: bytes | AsyncIterator[bytes] | None, key: int
    ) -> aiohttp.ClientResponse:
        headers = call.headers.copy()
        via = headers.popall("Via", ())
        headers.update(self._own_headers[key])
        if via:
            headers["Via"] = ", ".join((*via, self._mark))
        if call.body_size_bytes is not None:
            headers["Content-Length"] = str(call.body_size_bytes)
        for name, value in self._defaults.items():
            headers.setdefault(name, value)
        return await self._session.request(call.method, url, data=body, headers=headers, allow_redirects=False)

    async def list_models(self, key: int = 0) -> list[ModelCard]:
        """Ask the upstream for its models, with its key number *key*.

        Raises:
            UpstreamError: it did not answer, or not with a list of models.
        """
        fmt = FORMATS[self.formats[0]]
        path, _, query = self.models_path.partition("?")
        deadline = time.monotonic() + MODEL_LIST_TIMEOUT_S
        answer = await self.send(Call(method="GET", path=path, query=query, headers=CIMultiDict()), deadline, key)
        try:
            if answer.status != 200:
                raise await self.read_refusal(answer, fmt)
            return fmt.decode_model_list(await answer.read_whole())
        finally:
            answer.close()

    async def read_refusal(self, answer: Answer, fmt: Format) -> UpstreamError:
        """Return what *answer*, whose status is no success, says; does not close it."""
        name = self.settings.name
        body = b""
        with (
            suppress(UpstreamError, TimeoutError),
            Clock(asyncio.get_running_loop(), time.monotonic() + ERROR_PATIENCE_S),
        ):
            body = await answer.read_whole(MAX_ERROR_BYTES)
        if answer.status == 401:
            error: UpstreamError = UpstreamKeyRefused("the upstream refused the gateway's credential")
        elif answer.status < 400:
            error = UpstreamGarbage(f"the upstream answered with an unexpected status, {answer.status}")
        else:
            error = fmt.decode_error(answer.status, body)
        if isinstance(error, UpstreamKeyRefused):
            _log.error("upstream %s refuses the API key that is configured for it (status %d)", name, answer.status)
        if error.retry_after_s is None:
            error.retry_after_s = read_retry_after_s(answer.headers)
        if isinstance(error, UpstreamRefusal):
            error.headers = select_for_caller(answer.headers)
        self.hide_keys(error)
        return error

    def _find_url(self, path: str) -> URL:
        url = self._urls.get(path)
        if url is None:
            if len(self._urls) >= MAX_URLS:
                self._urls.clear()
            # Encoded: a path goes out quoted as it came in.
            url = self._urls[path] = URL(self.url(path), encoded=True)
        return url

    def hide_keys(self, error: ProxyError) -> None:
        """Take our own keys out of what the upstream says about them."""
        for key in self.settings.api_keys:
            error.message = error.message.replace(key.reveal(), "***")
        if isinstance(error, UpstreamRefusal) and error.body is not None:
            error.body = self.redact(error.body)

    def redact(self, text: bytes) -> bytes:
        """Return *text* of the upstream's without our own keys."""
        for key in self.settings.api_keys:
            text = text.replace(key.reveal().encode(), b"***")
        return text


class _Upload:
    """A body that goes on to the upstream while the caller is still sending it. One per call."""

    def __init__(self, body: AsyncIterator[bytes], clock: Clock, limits: TimeLimits, deadline: float) -> None:
        self._body = body
        self._clock = clock
        self._limits = limits
        self._deadline = deadline
        self._is_awaited = False
        """Whether it is the caller's turn."""
        self._is_broken = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body, giving each piece of it the time of a silence, and then the answer its own."""
        body = aiter(self._body)
        while (chunk := await self._next(body)) is not None:
            self._set_clock(self._limits.idle_s)
            yield chunk
        # An upstream may answer before it has got everything; then the clock is stopped already.
        self._set_clock(self._limits.first_event_s)

    def find_fault(self, error: UpstreamError) -> CallerError | None:
        """Return what the caller did, where that is what *error* comes of."""
        if self._is_broken:
            return InvalidRequest("the request body cannot be read: it broke off")
        if not self._is_awaited or not isinstance(error, UpstreamTimeout):
            return None
        if time.monotonic() >= self._deadline:
            return BodyTimeout(f"the call was not over within {self._limits.request_s:g} s (request-timeout)")
        return BodyTimeout(f"the request body paused for more than {self._limits.idle_s:g} s (idle-timeout)")

    async def _next(self, body: AsyncIterator[bytes]) -> bytes | None:
        """Return the next piece, None behind the last."""
        self._set_clock(self._limits.idle_s)
        self._is_awaited = True
        try:
            chunk = await anext(body, None)
        except Exception:
            self._is_broken = True
            raise
        self._is_awaited = False
        return chunk

    def _set_clock(self, patience_s: float) -> None:
        self._clock.move(min(time.monotonic() + patience_s, self._deadline))


class _HTTPAnswer(Answer):
    def __init__(
        self,
        name: str,
        response: aiohttp.ClientResponse | Exchange,
        limits: TimeLimits,
        first_event_by: float,
        deadline: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.status = response.status
        self.headers = response.headers
        self._name = name
        self._response = response
        self._content: Content = response.content
        self._limits = limits
        self._has_begun = False
        self._idle_s = limits.idle_s
        self._next_by = first_event_by
        self._deadline = deadline
        self._loop = loop
        self._patience: Patience | None = None

    @override
    async def read(self) -> bytes:
        content = self._content
        try:
            chunk = content.read_nowait()
            if not chunk and not content.at_eof():
                with self._limit_wait():
                    chunk = await content.readany()
        except Exception as exc:  # noqa: BLE001  # raised again
            self._raise(exc)
        self._next_by = time.monotonic() + self._idle_s
        self._has_begun = True
        return chunk

    @override
    async def hand_to(self, take: Take) -> bool:
        content = self._content
        if not isinstance(content, Body):
            return await super().hand_to(take)

        refusal: Exception | None = None

        def take_in_time(chunk: bytes) -> bool:
            nonlocal refusal
            self._next_by = time.monotonic() + self._idle_s
            self._has_begun = True
            try:
                is_wanted = take(chunk)
            except Exception as exc:
                refusal = exc
                raise
            patience.move(min(self._next_by, self._deadline))
            return is_wanted

        patience = self._limit_wait()
        try:
            with patience:
                return await content.hand_to(take_in_time)
        except Exception as exc:
            if exc is refusal:
                raise
            self._raise(exc)
        finally:
            refusal = None  # else it and this frame would hold each other

    def _limit_wait(self) -> Patience:
        """Return what ends the next wait where nothing comes in time."""
        if self._patience is None:
            self._patience = Patience(self._loop)
        return self._patience.until(min(self._next_by, self._deadline))

    def _raise(self, exc: Exception) -> NoReturn:
        """Raise *exc*, under the name that it has here if it is aiohttp's; for the handler of an exception."""
        error = _rename(exc, self._name, self._limits, self._deadline, has_begun=self._has_begun)
        if error is None:
            raise exc
        try:
            raise error from exc.with_traceback(None)  # as in `send`
        finally:
            del error

    @override
    async def read_whole(self, limit_bytes: int = MAX_ANSWER_BYTES) -> bytes:
        if not self._content.is_eof():
            return await super().read_whole(limit_bytes)
        body = await self.read()  # mostly it has come with its head
        if len(body) > limit_bytes:
            raise _refuse_length(limit_bytes)
        return body

    @override
    def expect_end(self) -> None:
        self._idle_s = END_PATIENCE_S
        self._next_by = time.monotonic() + END_PATIENCE_S

    @override
    def close(self) -> None:
        if self._patience is not None:
            self._patience.close()
        # Closes the connection unless the body was read to its end; then it is back in the pool already.
        self._response.close()


def _refuse_length(limit_bytes: int) -> UpstreamGarbage:
    return UpstreamGarbage(f"the upstream's answer is longer than {limit_bytes} bytes")


def _rename(
    exc: Exception, name: str, limits: TimeLimits, deadline: float, *, has_begun: bool = False
) -> UpstreamError | None:
    """Return what *exc*, which aiohttp raised, is called here, of the upstream *name*; None where it is none of these.

    The order matters, because aiohttp's timeouts are client errors too.
    """
    mapped = _map_error(exc)
    if mapped is None:
        return None
    kind, text = mapped
    error = kind(text.format(name=name, limit=_name_limit(exc, limits, deadline, has_begun=has_begun)))
    if isinstance(error, UpstreamTimeout):
        error.is_call_over = has_begun and time.monotonic() >= deadline
    return error


def _name_limit(exc: Exception, limits: TimeLimits, deadline: float, *, has_begun: bool) -> str:
    """Return which of the time limits *exc* is about, if about any."""
    if isinstance(exc, aiohttp.ConnectionTimeoutError):
        return f"no connection within {limits.connect_s:g} s (connect-timeout)"
    if time.monotonic() >= deadline:
        return f"its answer was not complete within {limits.request_s:g} s (request-timeout)"
    if has_begun:
        return f"its answer paused for more than {limits.idle_s:g} s (idle-timeout)"
    return f"its answer did not begin within {limits.first_event_s:g} s (first-event-timeout)"


def _map_error(exc: Exception) -> tuple[type[UpstreamError], str] | None:
    match exc:
        case ProxyError():
            return None
        case aiohttp.ConnectionTimeoutError():
            return UpstreamUnavailable, "upstream {name} cannot be reached in time: {limit}"
        case TimeoutError():
            return UpstreamTimeout, "upstream {name} did not answer in time: {limit}"
        case aiohttp.ClientConnectorError() | aiohttp.InvalidURL():
            return UpstreamUnavailable, "upstream {name} cannot be reached"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return UpstreamGarbage, "upstream {name} does not answer in HTTP"
        case aiohttp.ClientError() | ConnectionError():
            return UpstreamCut, "upstream {name} cut the connection before its answer was complete"
        case _:
            return None
