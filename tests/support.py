"""A scripted upstream and a running gateway, both on real sockets."""

import asyncio
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from multidict import CIMultiDict

from aiproxyd.commands.serve import start
from aiproxyd.config import Settings, load_settings
from aiproxyd.telemetry.logs import AccessLog


@dataclass
class Reply:
    """What the scripted upstream answers to one request."""

    body: bytes = b""
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: Iterable[bytes] | None = None
    """Sent one by one, instead of *body*."""
    gap_s: float = 0.0
    """Between the chunks."""
    wait_s: float = 0.0
    """Before the headers."""
    cut: bool = False
    """Abort the connection where the end would be."""


@dataclass
class Received:
    """One request as the scripted upstream got it."""

    method: str
    target: str
    """Raw path and query."""
    headers: CIMultiDict[str]
    body: bytes
    peer: object = None
    """The other end of the connection."""


class Upstream:
    """Answers requests in the order of its script; the last reply is repeated."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.url = ""
        self.cancelled = asyncio.Event()
        """Set when a caller left before its answer was complete."""
        self.running = self.peak = 0
        """Calls that are being answered now, and the most that ever were."""
        self._script: list[Reply] = []
        self._respond: Callable[[Received], Reply] | None = None
        self._runner = web.ServerRunner(web.Server(self._handle, handler_cancellation=True), shutdown_timeout=0.1)

    def script(self, *replies: Reply) -> None:
        self._script = list(replies)

    def respond(self, function: Callable[[Received], Reply]) -> None:
        """Let *function* choose the reply to each request."""
        self._respond = function

    async def start(self) -> None:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        peer = request.transport.get_extra_info("peername") if request.transport else None
        body = await request.read()
        received = Received(request.method, request.raw_path, CIMultiDict(request.headers), body, peer)
        self.received.append(received)
        if self._respond is not None:
            reply = self._respond(received)
        else:
            reply = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await asyncio.sleep(reply.wait_s)
            return await self._send(request, reply)
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled.set()
            raise
        finally:
            self.running -= 1

    async def _send(self, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
        headers = {"Content-Type": reply.content_type, **reply.headers}
        if reply.chunks is None and not reply.cut:
            return web.Response(status=reply.status, body=reply.body, headers=headers)
        response = web.StreamResponse(status=reply.status, headers=headers)
        if reply.chunks is None:
            response.content_length = len(reply.body) + 1  # more than will come
        await response.prepare(request)
        for chunk in reply.chunks if reply.chunks is not None else [reply.body]:
            await response.write(chunk)
            await asyncio.sleep(reply.gap_s)
        if reply.cut:
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.write_eof()
        return response


class Gateway:
    """A gateway that runs in this process, started as the daemon starts it."""

    def __init__(self, runner: web.AppRunner, log: io.StringIO, access_log: AccessLog) -> None:
        self.runner = runner
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}" if isinstance(runner.addresses[0], tuple) else ""
        self._log = log
        self._access_log = access_log

    def log(self) -> str:
        """Return the access log so far."""
        self._access_log.flush()
        return self._log.getvalue()


ONE_ATTEMPT = ("--retries", "0", "--max-cooldown", "0")
"""Flags of a gateway that neither repeats what failed nor remembers it, for tests of what one attempt comes to."""


async def start_gateway(
    ini: str, path: Path, *flags: str, log_format: str = "text", attempts: Iterable[str] = ONE_ATTEMPT
) -> Gateway:
    """Start a gateway on a free port with *ini*, written to *path*, as its configuration."""
    arguments = ["--config", str(path), "--port", "0", "--log-format", log_format, *attempts, *flags]

    def configure() -> Settings:
        path.write_text(ini, encoding="utf-8")
        return load_settings(arguments, {})

    settings = await asyncio.to_thread(configure)
    log = io.StringIO()
    access_log = AccessLog(settings.log_format, log)
    return Gateway(await start(settings, access_log), log, access_log)


def upstream_section(upstream: Upstream, provider: str, name: str = "up", lines: str = "") -> str:
    """Return the INI section of a scripted upstream; one of the provider openai counts as OpenAI itself."""
    base_url = upstream.url + ("/v1" if provider == "openai" else "")
    if provider == "openai" and "flavour" not in lines:
        lines = f"flavour = first-party\n{lines}"
    return f"[upstream {name}]\nprovider = {provider}\nbase-url = {base_url}\napi-key = sk-upstream\n{lines}\n"
