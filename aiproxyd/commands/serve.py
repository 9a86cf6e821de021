"""``aiproxyd serve``: run the daemon until SIGTERM or SIGINT."""

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from aiohttp import web

import aiproxyd
from aiproxyd.app import create_app
from aiproxyd.config import Settings, load_settings
from aiproxyd.inflight import LAST_WORDS_S
from aiproxyd.listening import BACKLOG, SOCKET_UMASK, hold, hold_unix, open_shared, refuse_other_files
from aiproxyd.supervisor import SIGNALS, Supervisor, Worker
from aiproxyd.systemd import notify
from aiproxyd.telemetry.logs import AccessLog, set_up_logging
from aiproxyd.telemetry.siblings import Siblings

GC_THRESHOLDS: Final = (20_000, 20, 20)
"""Collect seldom: almost all that a request makes is freed by its reference count (the default is 700, 10, 10)."""

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
        if settings.workers > 1:
            return _supervise(settings)
        with asyncio.Runner(loop_factory=_find_loop_factory()) as runner:
            return runner.run(_serve(settings))
    except CannotListen as exc:
        _log.error("%s", exc)  # the whole story, unlike its traceback
        return 1


def _supervise(settings: Settings) -> int:
    """Serve with several processes: this one watches over the workers, or becomes one of them.

    Raises:
        CannotListen: the address cannot be had.
    """
    # What is imported here takes its memory once for all workers.
    loop_factory = _find_loop_factory()
    import_module("prometheus_client")
    held = _hold_address(settings)
    address = describe_address(settings, None if settings.unix_socket else held[0].getsockname()[1])
    try:
        siblings = Siblings.make(settings.workers)
    except OSError as exc:
        _log.error("cannot have %d workers: %s", settings.workers, exc.strerror)
        return 1

    def tell_ready() -> None:
        _log.info("aiproxyd %s listens on %s with %d workers", aiproxyd.__version__, address, settings.workers)
        notify(settings.notify_socket, "READY=1")

    def tell_stop() -> None:
        _tell_stop(settings)
        for sock in held:
            sock.close()  # else callers could still connect, and nobody would answer

    _settle()
    outcome = Supervisor(settings.workers, on_ready=tell_ready, on_stop=tell_stop).supervise()
    if isinstance(outcome, Worker):
        # Control-C in a terminal reaches every process; the parent tells us what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(_work(settings, outcome, held, siblings.seen_by(outcome.number)))
    if settings.unix_socket is not None:
        settings.unix_socket.unlink(missing_ok=True)
    return outcome


def _hold_address(settings: Settings) -> Sequence[socket.socket]:
    try:
        if settings.unix_socket is not None:
            return [hold_unix(settings.unix_socket)]
        return hold(settings.host, settings.port)
    except OSError as exc:
        raise CannotListen(f"cannot listen on {describe_address(settings)}: {_describe(exc)}") from exc


async def _work(settings: Settings, worker: Worker, held: Sequence[socket.socket], siblings: Siblings) -> int:
    """Serve as one of several, until the parent says so, or is gone."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def leave() -> None:
        loop.remove_reader(worker.line)
        _log.warning("worker %d (process %d) stops: its parent has ended", worker.number, os.getpid())
        stop.set()

    # It may come more than once, from the parent and from whoever stops all processes of a service; the parent knows
    # what a second one means.
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(worker.line, leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    runner = await start(settings, AccessLog(settings.log_format), held, siblings)
    _settle()
    worker.tell_ready()
    await stop.wait()
    await runner.cleanup()
    return 0


def _find_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's where it is installed (the extra ``uvloop``): a call costs a tenth less on it."""
    try:
        import uvloop  # optional
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.set)
    runner = await start(settings, AccessLog(settings.log_format))
    _settle()
    address = describe_address(settings, None if settings.unix_socket else runner.addresses[0][1])
    _log.info("aiproxyd %s listens on %s", aiproxyd.__version__, address)
    notify(settings.notify_socket, "READY=1")
    await stop.wait()
    _tell_stop(settings)
    for number in SIGNALS:
        # A second signal means it: the default action ends the process at once.
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
    await runner.cleanup()
    if settings.unix_socket is not None:
        settings.unix_socket.unlink(missing_ok=True)
    return 0


def _settle() -> None:
    gc.collect()
    gc.freeze()  # what is there now stays: no collection needs to look at it again, or writes to memory that is shared
    gc.set_threshold(*GC_THRESHOLDS)


def _tell_stop(settings: Settings) -> None:
    _log.info("stopping: running answers get %g s to finish", settings.shutdown_timeout_s)
    notify(settings.notify_socket, "STOPPING=1")


async def start(
    settings: Settings,
    access_log: AccessLog,
    held: Sequence[socket.socket] = (),
    siblings: Siblings | None = None,
) -> web.AppRunner:
    """Start serving; ``cleanup`` on the returned runner stops it, waiting for running answers.

    Where there are *siblings*, we listen on what the parent *held*.

    Raises:
        CannotListen: the address cannot be had.
    """
    runner = web.AppRunner(
        await create_app(settings, access_log, siblings),
        access_log=None,
        handler_cancellation=True,  # a caller that leaves stops its upstream call
        shutdown_timeout=LAST_WORDS_S,  # the application waits before, and longer
    )
    await runner.setup()
    try:
        if siblings is not None:
            for sock in open_shared(held):
                await web.SockSite(runner, sock, backlog=BACKLOG).start()
        elif settings.unix_socket is None:
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
    refuse_other_files(path)
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


def describe_address(settings: Settings, port: int | None = None) -> str:
    """Return where callers reach us, at the *port* that was found where 0 was asked for."""
    if settings.unix_socket is not None:
        return f"unix:{settings.unix_socket}"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port if port is None else port}"
