"""Addresses that several processes listen on; tests/commands has the processes."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from aiproxyd.listening import SPREADS, hold, hold_unix, open_shared


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not SPREADS, reason="elsewhere one socket is shared")
def test_connections_are_spread_over_all_who_share_an_address_and_none_goes_to_whoever_holds_it(
    closing: ExitStack,
) -> None:
    held = [closing.enter_context(sock) for sock in hold("127.0.0.1", 0)]
    sharing = [closing.enter_context(sock) for _ in range(2) for sock in open_shared(held)]
    for sock in sharing:
        sock.listen(100)
        sock.setblocking(False)

    calls = [closing.enter_context(socket.create_connection(held[0].getsockname())) for _ in range(64)]

    accepted = [count_accepted(sock) for sock in sharing]
    assert sum(accepted) == len(calls)
    assert min(accepted) > 0


def count_accepted(sock: socket.socket) -> int:
    count = 0
    while True:
        try:
            sock.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_a_port_is_held_as_long_as_its_socket_is_and_can_be_had_again_at_once(closing: ExitStack) -> None:
    (held,) = hold("127.0.0.1", 0)
    port = held.getsockname()[1]
    with held:
        (sharing,) = open_shared([held])
        with sharing:
            sharing.listen()
            caller = closing.enter_context(socket.create_connection(("127.0.0.1", port)))
            sharing.accept()[0].close()  # we close first, and so the port stays in TIME_WAIT
            with pytest.raises(OSError, match="in use") as caught:
                hold("127.0.0.1", port)
    caller.close()

    (again,) = hold("127.0.0.1", port)

    assert caught.value.errno == errno.EADDRINUSE
    assert again.getsockname() == ("127.0.0.1", port)
    again.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_an_address_is_refused_where_another_one_listens_on_part_of_it(host: str, closing: ExitStack) -> None:
    other = closing.enter_context(socket.socket())
    if SPREADS:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    other.bind(("127.0.0.1", 0))
    other.listen()

    with pytest.raises(OSError, match="in use"):
        hold(host, other.getsockname()[1])


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
def test_all_addresses_of_the_sixth_version_leave_the_fourth_alone(closing: ExitStack) -> None:
    (sixth,) = (closing.enter_context(sock) for sock in hold("::", 0))

    (fourth,) = (closing.enter_context(sock) for sock in hold("0.0.0.0", sixth.getsockname()[1]))

    assert fourth.getsockname()[1] == sixth.getsockname()[1]


def test_a_host_without_an_address_of_ours_is_refused_in_the_words_of_the_system() -> None:
    with pytest.raises(OSError, match="Cannot assign"):
        hold("192.0.2.1", 0)


def test_a_unix_socket_takes_the_place_of_one_that_nobody_listens_on_and_of_no_other(tmp_path: Path) -> None:
    path = tmp_path / "s"
    hold_unix(path).close()
    listening = hold_unix(path)

    with listening, pytest.raises(OSError, match="in use") as caught:
        hold_unix(path)

    assert caught.value.errno == errno.EADDRINUSE
    assert path.stat().st_mode & 0o777 == 0o660


def test_a_unix_socket_is_shared_as_it_is(tmp_path: Path) -> None:
    with hold_unix(tmp_path / "s") as held:
        assert open_shared([held]) == [held]
