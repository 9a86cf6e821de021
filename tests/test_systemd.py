"""What systemd is told, on real datagram sockets."""

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiproxyd.systemd import notify


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        yield sock


def test_the_state_is_sent_to_the_socket_of_a_path(listener: socket.socket, tmp_path: Path) -> None:
    listener.bind(str(tmp_path / "notify"))

    notify(str(tmp_path / "notify"), "READY=1")

    assert listener.recv(100) == b"READY=1"


def test_the_state_is_sent_to_the_socket_of_an_abstract_name(listener: socket.socket) -> None:
    name = f"aiproxyd-test-{secrets.token_hex(8)}"
    listener.bind(f"\0{name}")

    notify(f"@{name}", "STOPPING=1")

    assert listener.recv(100) == b"STOPPING=1"


def test_without_an_address_nothing_is_sent() -> None:
    notify(None, "READY=1")


# It must not stop the daemon that there is nobody to tell.
@pytest.mark.parametrize("address", ["/nonexistent/notify", "@aiproxyd-nobody", "/" + "x" * 200])
def test_nobody_to_tell_is_no_failure(address: str, caplog: pytest.LogCaptureFixture) -> None:
    notify(address, "READY=1")

    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("systemd cannot be told READY=1: ")
