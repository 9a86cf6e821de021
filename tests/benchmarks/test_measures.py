"""What the benchmark is to measure hangs together: no load here, and no sockets."""

import sys

import msgspec
import pytest

from benchmarks.bench import Plan, choose, parse_arguments
from benchmarks.measures import (
    AIPROXYD,
    APIS,
    CACHED,
    CROWDS,
    DIRECT,
    LITELLM,
    MEASURES,
    NGINX,
    ROWS,
    TARGETS,
    Ask,
)

NAMES = [measure.name for measure in MEASURES]


def plan(monkeypatch: pytest.MonkeyPatch, *argv: str) -> Plan:
    monkeypatch.setattr(sys, "argv", ["bench", *argv])
    return choose(parse_arguments())


def test_no_two_measures_and_no_two_rows_have_the_same_name() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert len({row.key for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("upstream", APIS)
@pytest.mark.parametrize("caller", APIS)
def test_whole_answers_and_streams_are_measured_for_each_caller_and_upstream(caller: str, upstream: str) -> None:
    title = caller if caller == upstream else f"{caller} to {upstream}"
    labels = {(row.group.unit, row.label) for row in ROWS if row.is_converted is (caller != upstream)}

    assert ("requests per second", f"{title}, 32 connections") in labels
    assert ("CPU us per request", f"{title}, 32 connections") in labels
    assert ("streams per second", title) in labels
    assert ("CPU us per stream", title) in labels


def test_what_stands_beside_a_conversion_is_measured_before_it_and_is_the_same_answer() -> None:
    for number, measure in enumerate(MEASURES):
        if measure.beside:
            beside = MEASURES[NAMES.index(measure.beside)]

            assert NAMES.index(measure.beside) < number
            assert not beside.only
            assert beside.connections == measure.connections
            assert beside.stagger_s == measure.stagger_s


def test_conversions_are_for_aiproxyd_alone_and_peers_get_only_what_all_have_in_common() -> None:
    for measure in MEASURES:
        assert measure.is_for(NGINX) is not (bool(measure.answer) or measure.only == CACHED)
        assert measure.is_for(AIPROXYD) is (measure.only != CACHED)
        assert measure.is_for(CACHED) is (measure.only == CACHED)
    assert [measure.name for measure in MEASURES if measure.is_for(LITELLM)] == [
        "whole-1",
        "whole-32",
        "stream",
        "paced",
    ]
    assert MEASURES[NAMES.index("whole-32")].is_for(DIRECT)
    assert not MEASURES[NAMES.index("paced")].is_for(DIRECT)


def test_each_promise_is_about_rows_that_are_there() -> None:
    keys = {row.key for row in ROWS}

    for target in TARGETS:
        assert target.rows, target.text
        assert {*target.rows, *([target.less] if target.less else [])} <= keys


@pytest.mark.parametrize("size_bytes", [0, 10_000, 1_000_000])
def test_a_request_can_be_brought_to_a_size_and_stays_json(size_bytes: int) -> None:
    ask = Ask.of("messages", "bench-chat", size_bytes=size_bytes)

    assert msgspec.json.decode(ask.body)["model"] == "bench-chat"
    assert size_bytes <= len(ask.body) < size_bytes + 2_000


def test_a_conversion_that_is_asked_for_brings_what_stands_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = plan(monkeypatch, "--only", "chat-messages-stream", "--only", "nginx", "--only", "aiproxyd")

    assert [measure.name for measure in chosen.measures] == ["messages-stream", "chat-messages-stream"]
    assert list(chosen.candidates) == ["nginx", "aiproxyd"]
    assert not chosen.crowds
    assert not chosen.has_machines


def test_a_candidate_that_is_asked_for_alone_gets_all_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = plan(monkeypatch, "--only", "nginx")

    assert (list(chosen.candidates), len(chosen.measures), len(chosen.crowds)) == (
        ["nginx"],
        len(MEASURES),
        len(CROWDS),
    )


def test_the_machines_alone_need_no_load(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = plan(monkeypatch, "--only", "machines")

    assert chosen.has_machines
    assert not chosen.has_load


def test_the_machines_beside_a_candidate_take_no_load_away(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = plan(monkeypatch, "--only", "machines", "--only", "nginx")

    assert chosen.has_machines
    assert len(chosen.measures) == len(MEASURES)


def test_a_peer_is_measured_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LITELLM not in plan(monkeypatch).candidates
    assert plan(monkeypatch, "--quick", "--peer", "litellm").candidates[-1] == LITELLM


def test_a_quick_run_has_everything_that_its_conversions_stand_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = plan(monkeypatch, "--quick")

    names = [measure.name for measure in chosen.measures]
    assert {measure.beside for measure in chosen.measures} - {""} <= set(names)
    assert len(names) < len(MEASURES) / 2


def test_a_name_that_is_nobodys_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        plan(monkeypatch, "--only", "nonesuch-*")

    assert "--only nonesuch-*: no such name" in capsys.readouterr().err
