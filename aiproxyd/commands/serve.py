"""``aiproxyd serve``: run the daemon until SIGTERM or SIGINT."""

import asyncio
import errno
import gc
import logging
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from aiohttp import web

import aiproxyd
from aiproxyd.app import create_app
from aiproxyd.config import Settings, load_settings
from aiproxyd.inflight import LAST_WORDS_S
from aiproxyd.systemd import notify
from aiproxyd.telemetry.logs import AccessLog, set_up_logging

BACKLOG: Final = 1024
"""Connections that the kernel holds while we are busy."""
GC_THRESHOLDS: Final = (20_000, 20, 20)
"""Collect seldom: almost all that a request makes is freed by its reference count (the default is 700, 10, 10)."""
SOCKET_UMASK: Final = 0o117
"""A Unix socket is for its owner and its group."""

_log: Final = logging.getLogger("aiproxyd")


class CannotListen(Exception):
    """The address is taken, or not ours; trying again later may help."""


def run(arguments: Sequence[str]) -> int:
    """Serve until told to stop.

    Raises:
        ConfigError: the configuration is not valid.
    """
    settings = load_settings(arguments)
    set_up_logging(settings.log_level, settings.log_format)
    for warning in settings.warnings:
        _log.warning("%s", warning)
    try:
        with asyncio.Runner(loop_factory=_find_loop_factory()) as runner:
            return runner.run(_serve(settings))
    except CannotListen as exc:
        _log.error("%s", exc)  # the whole story, unlike its traceback
        return 1


def _find_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's where it is installed (the extra ``uvloop``): a call costs an eighth less on it."""
    try:
        import uvloop  # optional
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = await start(settings, AccessLog(settings.log_format))
    gc.collect()
    gc.freeze()  # what is there now stays: no collection needs to look at it again
    gc.set_threshold(*GC_THRESHOLDS)
    _log.info("aiproxyd %s listens on %s", aiproxyd.__version__, describe_address(settings, runner))
    notify(settings.notify_socket, "READY=1")
    await stop.wait()
    _log.info("stopping: running answers get %g s to finish", settings.shutdown_timeout_s)
    notify(settings.notify_socket, "STOPPING=1")
    for number in (signal.SIGTERM, signal.SIGINT):
        # A second signal means it: the default action ends the process at once.
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
    await runner.cleanup()
    if settings.unix_socket is not None:
        settings.unix_socket.unlink(missing_ok=True)
    return 0


async def start(settings: Settings, access_log: AccessLog) -> web.AppRunner:
    """Start serving; ``cleanup`` on the returned runner stops it, waiting for running answers.

    Raises:
        CannotListen: the address cannot be had.
    """
    runner = web.AppRunner(
        await create_app(settings, access_log),
        access_log=None,
        handler_cancellation=True,  # a caller that leaves stops its upstream call
        shutdown_timeout=LAST_WORDS_S,  # the application waits before, and longer
    )
    await runner.setup()
    try:
        if settings.unix_socket is None:
            await web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG).start()
        else:
            await _listen_on_socket(runner, settings.unix_socket)
    except OSError as exc:
        await runner.cleanup()
        raise CannotListen(f"cannot listen on {describe_address(settings)}: {_describe(exc)}") from exc
    return runner


def _describe(exc: OSError) -> str:
    """Return what the system says, without what asyncio makes of it, and what helps where the address is taken."""
    # Errors of name resolution have numbers of their own, below 0.
    text = os.strerror(exc.errno) if exc.errno is not None and exc.errno > 0 else exc.strerror or str(exc)
    return f"{text}; choose another with --port or --unix-socket" if exc.errno == errno.EADDRINUSE else text


async def _listen_on_socket(runner: web.AppRunner, path: Path) -> None:
    """Listen on the socket *path*; one that nobody listens on any more is replaced.

    Raises:
        OSError: somebody listens there, it is no socket, or it cannot be made.
    """
    _refuse_other_files(path)
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except (FileNotFoundError, ConnectionRefusedError):
        pass
    else:
        writer.close()
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    umask = os.umask(SOCKET_UMASK)
    try:
        await web.UnixSite(runner, path, backlog=BACKLOG).start()
    finally:
        os.umask(umask)


def _refuse_other_files(path: Path) -> None:
    """Raise OSError where something other than a socket is at *path*; asyncio takes it for an address in use."""
    if path.exists() and not path.is_socket():
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))


def describe_address(settings: Settings, runner: web.AppRunner | None = None) -> str:
    """Return where callers reach us, with the port that was found where 0 was asked for."""
    if settings.unix_socket is not None:
        return f"unix:{settings.unix_socket}"
    port = runner.addresses[0][1] if runner is not None else settings.port
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port}"
