"""Workers that do next to nothing, and what their parent does about it; tests/commands has those that serve."""

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

PROGRAM = """
import logging, os, resource, signal, sys, time
from aiproxyd.supervisor import Supervisor, Worker

logging.basicConfig(format="%(message)s", level="INFO", stream=sys.stdout)
def tell(text):
    print(text, flush=True)
BEFORE
outcome = Supervisor(COUNT, on_ready=lambda: tell("up"), on_stop=lambda: tell("stop")).supervise()
if isinstance(outcome, Worker):
    worker = outcome
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
    WORK
tell(f"status {outcome}")
sys.exit(outcome)
"""


Process = subprocess.Popen[str]
Act = Callable[[Process, str], None]


def run(work: str, before: str = "", count: int = 2, *acts: tuple[str, Act]) -> tuple[int, str]:
    """Run *count* workers, and do each of *acts* once the text with it is said; return the status and what was said."""
    text = PROGRAM.replace("WORK", work).replace("BEFORE", before).replace("COUNT", str(count))
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [""]
        for waited_for, act in acts:
            said.append("")
            while waited_for not in said[-1]:
                said[-1] += process.stdout.readline() or pytest.fail("".join(said))
            act(process, "".join(said))
        said.append(process.stdout.read())
        return process.wait(), "".join(said)


def stop(process: Process, _said: str) -> None:
    process.terminate()


def interrupt(process: Process, _said: str) -> None:
    process.send_signal(signal.SIGINT)


FOR_LONG = "worker.tell_ready(); time.sleep(30)"


def test_a_worker_that_ends_before_it_was_ready_ends_all_with_status_1() -> None:
    status, said = run("sys.exit(3) if worker.number == 1 else time.sleep(30)")

    assert status == 1
    assert re.findall("worker 1 (.*) before it was ready", said)[0].endswith("ended with status 3")
    assert "up" not in said
    assert said.count("is process") <= 3
    assert "was ended by" not in said  # the other one has not gone wrong


def test_a_worker_that_ends_well_is_replaced_too_once_all_were_ready() -> None:
    work = "worker.tell_ready(); time.sleep(0.3 if worker.number == 1 else 30); sys.exit(0)"

    status, said = run(work, "", 2, ("ended with status 0; the next one starts in 1 s", stop))

    assert status == 0
    assert said.count("up\n") == 1
    assert said.count("stop\n") == 1
    assert re.findall("the next one starts (.*)", said) == ["now", "in 0.5 s", "in 1 s"]


def test_what_ends_a_worker_that_was_to_stop_is_told() -> None:
    work = "signal.signal(15, lambda *_: os.kill(os.getpid(), 34)); worker.tell_ready(); time.sleep(30)"

    status, said = run(work, "", 1, ("up", stop))

    assert status == 0
    assert re.search(r"worker 1 \(process \d+\) was ended by (SIGRTMIN|signal 34)\n", said)
    assert "next one" not in said


def test_processes_that_cannot_be_started_end_all_with_status_1() -> None:
    before = "resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))"

    status, said = run(FOR_LONG, before, count=40)

    assert status == 1
    assert re.search(r"worker \d+ cannot be started \(Too many open files\) before it was ready\n", said)
    assert "Traceback" not in said


def test_a_process_that_cannot_be_started_in_the_place_of_another_is_tried_again() -> None:
    def use_up(process: Process, said: str) -> None:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, 1024))
        os.kill(int(re.findall(r"is process (\d+)", said)[0]), signal.SIGKILL)

    def give_back(process: Process, said: str) -> None:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (1024, 1024))

    refused = "worker 1 cannot be started (Too many open files); the next one starts in 0.5 s"
    then = ((refused, give_back), ("worker 1 is process", stop))

    status, said = run(FOR_LONG, "resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))", 1, ("up", use_up), *then)

    assert status == 0
    assert "was ended by SIGKILL; the next one starts now" in said


def test_a_second_signal_ends_workers_that_do_not_listen() -> None:
    work = "signal.signal(15, signal.SIG_IGN); worker.tell_ready(); time.sleep(30)"

    status, said = run(work, "", 2, ("up", interrupt), ("stop", stop))

    assert status == -signal.SIGTERM
    assert "was ended by" not in said


def test_ends_are_seen_where_whoever_started_the_parent_ignores_them() -> None:
    status, said = run("sys.exit(3)", "signal.signal(signal.SIGCHLD, signal.SIG_IGN)", count=1)

    assert status == 1
    assert "ended with status 3 before it was ready" in said
