"""What every provider does: send a call to its upstream and hand back the answer. Nothing else talks to upstreams.

A provider's file says only what is particular to it: formats, addresses, credential headers.
"""

import asyncio
import itertools
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import ClassVar, Final, TypeAlias

import aiohttp
from msgspec import Struct
from multidict import CIMultiDict
from typing_extensions import override
from yarl import URL

from aiproxyd.capabilities import Capabilities, find_capabilities
from aiproxyd.config import Secret, TimeLimits, UpstreamSettings
from aiproxyd.errors import (
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
from aiproxyd.tasks import Clock

MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
"""Longest whole answer that is held; 2,048 embeddings written out in digits come to about 80 MB."""
MAX_ERROR_BYTES: Final = 256 * 1024
"""Longest error answer that is read."""
MODEL_LIST_TIMEOUT_S: Final = 5.0
MAX_URLS: Final = 256
"""Addresses of calls that an upstream's provider remembers; those of Gemini have the model's name in them."""
UNUSABLE_S: Final = 30.0
"""How long a failure counts against an upstream that nobody calls any more, because it is not ready."""
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
                raise UpstreamGarbage(f"the upstream's answer is longer than {limit_bytes} bytes")
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class Provider(ABC):
    """One configured upstream of one kind. Lives as long as the application."""

    name: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]
    """Names of the formats that its upstreams may speak; the first is that of its model list."""
    models_path: ClassVar[str] = "/v1/models"
    model_prefixes: ClassVar[tuple[str, ...]] = ()
    """How names of this provider's own models begin."""

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
        self._usable_again = 0.0
        self._urls: dict[str, URL] = {}
        self._session = session
        self._mark = mark
        credentials = [self.credential(key) for key in settings.api_keys] or [{}]
        self._own_headers = itertools.cycle([{**_OWN_HEADERS, "Via": mark, **credential} for credential in credentials])
        self._base = str(settings.base_url)

    @property
    def is_usable(self) -> bool:
        """Whether the last call reached it and was let in, or is too long ago to tell."""
        return time.monotonic() >= self._usable_again

    def note_failure(self) -> None:
        """Note that it cannot be used at the moment."""
        self._usable_again = time.monotonic() + UNUSABLE_S

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

    def prepare(self, headers: CIMultiDict[str]) -> None:  # noqa: B027  # most have nothing to add
        """Add the headers that this provider's upstreams want on every call."""

    async def send(self, call: Call, deadline: float) -> Answer:
        """Send *call* and return the answer, of whatever status, once its headers are there; closed by the caller.

        *deadline* is the time, on the monotonic clock, by which the whole answer must be there.

        Raises:
            UpstreamUnavailable: no connection.
            UpstreamTimeout: connected, but no answer in time.
            UpstreamCut: the connection ended before the answer began.
            UpstreamGarbage: the answer is no HTTP.
        """
        headers = call.headers.copy()
        via = headers.popall("Via", ())
        headers.update(next(self._own_headers))
        if via:
            headers["Via"] = ", ".join((*via, self._mark))
        if call.body_size_bytes is not None:
            headers["Content-Length"] = str(call.body_size_bytes)
        self.prepare(headers)
        url = self._find_url(call.path)
        if call.query:
            url = URL(f"{url}?{call.query}", encoded=True)  # may hold anything, and is not kept
        limits = self.settings.limits
        loop = self._loop = self._loop or asyncio.get_running_loop()
        clock = Clock(loop, min(time.monotonic() + limits.first_event_s, deadline))
        body = call.body
        if body is not None and not isinstance(body, bytes):
            body = _pace(body, clock, limits, deadline)
        try:
            with _MappedErrors(self.settings.name), clock:
                response = await self._session.request(
                    call.method, url, data=body, headers=headers, allow_redirects=False
                )
        except UpstreamUnavailable:
            self.note_failure()
            raise
        self._usable_again = 0.0
        return _HTTPAnswer(self.settings.name, response, limits, clock.when, deadline, loop)

    async def list_models(self) -> list[ModelCard]:
        """Ask the upstream for its models.

        Raises:
            UpstreamError: it did not answer, or not with a list of models.
        """
        fmt = FORMATS[self.formats[0]]
        path, _, query = self.models_path.partition("?")
        deadline = time.monotonic() + MODEL_LIST_TIMEOUT_S
        answer = await self.send(Call(method="GET", path=path, query=query, headers=CIMultiDict()), deadline)
        try:
            if answer.status != 200:
                raise await self.read_refusal(answer, fmt)
            return fmt.decode_model_list(await answer.read_whole())
        finally:
            answer.close()

    async def read_refusal(self, answer: Answer, fmt: Format) -> UpstreamError:
        """Return what *answer*, whose status is no success, says; does not close it."""
        name = self.settings.name
        try:
            body = await answer.read_whole(MAX_ERROR_BYTES)
        except UpstreamError:
            body = b""
        if answer.status == 401:
            error: UpstreamError = UpstreamKeyRefused("the upstream refused the gateway's credential")
        elif answer.status < 400:
            error = UpstreamGarbage(f"the upstream answered with an unexpected status, {answer.status}")
        else:
            error = fmt.decode_error(answer.status, body)
        if isinstance(error, UpstreamKeyRefused):
            self.note_failure()
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


async def _pace(body: AsyncIterator[bytes], clock: Clock, limits: TimeLimits, deadline: float) -> AsyncIterator[bytes]:
    """Yield *body*, giving each piece of it the time of a silence, and the answer its own from the last piece on."""
    async for chunk in body:
        clock.set(min(time.monotonic() + limits.idle_s, deadline))
        yield chunk
    # An upstream may answer before it has got everything; then the clock is stopped already.
    clock.set(min(time.monotonic() + limits.first_event_s, deadline))


class _HTTPAnswer(Answer):
    def __init__(
        self,
        name: str,
        response: aiohttp.ClientResponse,
        limits: TimeLimits,
        first_event_by: float,
        deadline: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.status = response.status
        self.headers = response.headers
        self._name = name
        self._response = response
        self._idle_s = limits.idle_s
        self._next_by = first_event_by
        self._deadline = deadline
        self._loop = loop

    @override
    async def read(self) -> bytes:
        content = self._response.content
        with _MappedErrors(self._name):
            chunk = content.read_nowait()
            if not chunk and not content.at_eof():
                with Clock(self._loop, min(self._next_by, self._deadline)):
                    chunk = await content.readany()
        self._next_by = time.monotonic() + self._idle_s
        return chunk

    @override
    def expect_end(self) -> None:
        self._idle_s = END_PATIENCE_S
        self._next_by = time.monotonic() + END_PATIENCE_S

    @override
    def close(self) -> None:
        # Closes the connection unless the body was read to its end; then it is back in the pool already.
        self._response.close()


class _MappedErrors:
    """Renames what aiohttp raises; the order matters, because its timeouts are client errors too."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(exc, Exception) and not isinstance(exc, ProxyError) and (mapped := _map_error(exc)):
            kind_of_error, text = mapped
            # aiohttp keeps what it raised, and with its traceback every frame up to the handler's.
            raise kind_of_error(text.format(name=self._name)) from exc.with_traceback(None)


def _map_error(exc: Exception) -> tuple[type[UpstreamError], str] | None:
    match exc:
        case aiohttp.ConnectionTimeoutError():
            return UpstreamUnavailable, "upstream {name} cannot be reached: no connection in time"
        case TimeoutError():
            return UpstreamTimeout, "upstream {name} sent nothing in time"
        case aiohttp.ClientConnectorError() | aiohttp.InvalidURL():
            return UpstreamUnavailable, "upstream {name} cannot be reached"
        case aiohttp.ClientResponseError():
            return UpstreamGarbage, "upstream {name} does not answer in HTTP"
        case aiohttp.ClientError() | ConnectionError():
            return UpstreamCut, "upstream {name} cut the connection before its answer was complete"
        case _:
            return None
