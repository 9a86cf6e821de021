import tracemalloc
from collections.abc import Mapping

import pytest

from aiproxyd.config import Target
from aiproxyd.routing.affinity import MAX_CONVERSATIONS, Affinity, find_session, name_conversation
from aiproxyd.routing.health import MAX_MODEL_CHARS, Candidate

ONE = Candidate(Target("up", "m"), 0)


def test_a_conversation_is_remembered_for_a_while_after_its_last_answer() -> None:
    affinity = Affinity(300)
    affinity.keep(b"c", ONE, 0.0)
    affinity.keep(b"c", ONE, 200.0)

    assert affinity.find(b"c", 499.0) == ONE
    assert affinity.find(b"c", 500.0) is None
    assert affinity.find(b"d", 0.0) is None


def test_the_conversations_that_rested_the_longest_are_forgotten_first() -> None:
    affinity = Affinity(300)
    affinity.keep(b"old", ONE, 0.0)
    for number in range(MAX_CONVERSATIONS - 1):
        affinity.keep(str(number).encode(), ONE, 0.0)
    affinity.keep(b"old", ONE, 0.0)

    affinity.keep(b"new", ONE, 0.0)

    assert affinity.find(b"old", 1.0) == ONE
    assert affinity.find(b"0", 1.0) is None


def test_a_name_that_would_take_megabytes_is_not_remembered() -> None:
    affinity = Affinity(300)
    longest, too_long = (Candidate(Target("up", "m" * chars), 0) for chars in (MAX_MODEL_CHARS, MAX_MODEL_CHARS + 1))

    affinity.keep(b"c", longest, 0.0)
    kept = affinity.find(b"c", 1.0)
    affinity.keep(b"c", too_long, 1.0)

    assert kept == longest
    assert affinity.find(b"c", 2.0) is None  # it is warm elsewhere by now


def test_so_many_conversations_take_no_more_memory_than_is_said() -> None:
    affinity = Affinity(300)

    tracemalloc.start()
    try:
        for number in range(MAX_CONVERSATIONS + 100):
            candidate = Candidate(Target("up", f"{number:0{MAX_MODEL_CHARS}}"), 0)
            affinity.keep(name_conversation("p", "m", str(number).encode()), candidate, float(number))
        taken_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert taken_bytes < 8_000_000


@pytest.mark.parametrize(
    ("headers", "session"),
    [
        ({"x-claude-code-session-id": "a"}, b"a"),
        ({"session_id": "b", "conversation_id": "c"}, b"b"),
        ({"x-session-affinity": "d"}, b"d"),
        ({"user-agent": "e"}, b""),
        ({"x-claude-code-session-id": "", "session_id": "f"}, b"f"),
        ({"session_id": ""}, b""),
    ],
)
def test_clients_name_their_sessions_in_headers(headers: Mapping[str, str], session: bytes) -> None:
    assert find_session(headers) == session


def test_conversations_of_different_callers_or_models_are_different_ones() -> None:
    names = [
        name_conversation("a", "m", b"x"),
        name_conversation("b", "m", b"x"),
        name_conversation("a", "n", b"x"),
        name_conversation("a", "m", b"y"),
        name_conversation("am", "", b"x"),
    ]

    assert len(set(names)) == 5
    assert name_conversation("a", "\udc80", b"x") != names[0]
