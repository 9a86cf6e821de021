"""Tells systemd how the daemon is: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html."""

import logging
import socket
from typing import Final

_log: Final = logging.getLogger(__name__)


def notify(address: str | None, state: str) -> None:
    """Send *state* to the socket at *address*, the value of ``NOTIFY_SOCKET``; nothing where it is None."""
    if address is None:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract namespace
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(address)
            sock.sendall(state.encode())
        except OSError as exc:
            # Whoever set the variable may not be systemd; we serve all the same.
            _log.warning("systemd cannot be told %s: %s", state, exc.strerror or exc)
