"""Sockets on which several processes accept connections, made before there are several. Blocks to look names up."""

import errno
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

BACKLOG: Final = 1024
"""Connections that the kernel holds while we are busy."""
SOCKET_UMASK: Final = 0o117
"""A Unix socket is for its owner and its group."""
SPREADS: Final = sys.platform == "linux"
"""Whether the kernel spreads connections over sockets that share an address; elsewhere one of them gets all."""


def hold(host: str, port: int) -> list[socket.socket]:
    """Return a socket for each address of *host*, all with one port; for ``open_shared``, closed by the caller.

    Raises:
        OSError: somebody listens there, it is not ours, or there is no such host.
    """
    held: list[socket.socket] = []
    unusable: OSError | None = None
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _, _, _, found_address in dict.fromkeys(found):
        address = (found_address[0], held[0].getsockname()[1] if held else port, *found_address[2:])
        try:
            if address[1]:
                # One who listens there and lets this user's processes share the address would not be noticed below.
                _bind(family, address, is_shared=False).close()
            held.append(_bind(family, address, is_shared=True))
        except OSError as exc:
            # A name may have addresses of a family that is switched off, such as ::1 of localhost.
            if exc.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
            unusable = exc
    if unusable is not None and not held:
        raise unusable
    if not SPREADS:
        for sock in held:
            sock.listen(BACKLOG)
    return held


def hold_unix(path: Path) -> socket.socket:
    """Return a socket that listens at *path*; one that nobody listens on any more is replaced.

    Raises:
        OSError: somebody listens there, it is no socket, or it cannot be made.
    """
    refuse_other_files(path)
    sock = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(path)
        umask = os.umask(SOCKET_UMASK)
        try:
            sock.bind(str(path))
        finally:
            os.umask(umask)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def open_shared(held: Sequence[socket.socket]) -> list[socket.socket]:
    """Return sockets for this process to listen on, at the addresses that its parent holds.

    Raises:
        OSError: one cannot be had.
    """
    return [
        _bind(sock.family, sock.getsockname(), is_shared=True) if SPREADS and sock.family != socket.AF_UNIX else sock
        for sock in held
    ]


def refuse_other_files(path: Path) -> None:
    """Raise OSError where something other than a socket is at *path*; asyncio takes it for an address in use."""
    if path.exists() and not path.is_socket():
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))


def _remove_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _bind(family: int, address: Any, *, is_shared: bool) -> socket.socket:
    # asyncio switches Nagle's algorithm off only where the protocol is named.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared and SPREADS:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock
