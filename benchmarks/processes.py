"""Processes of the benchmark: started in a clean environment, weighed, and ended with all their children."""

import contextlib
import os
import random
import resource
import signal
import socket
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
END_PATIENCE_S = 5
ENOUGH_FILES = 65_536
"""Open files that no measure needs more of."""

FOREIGN = ("OPENAI_", "ANTHROPIC_", "CLAUDE_", "GEMINI_", "GOOGLE_", "AIPROXYD_", "LITELLM_", "XDG_")
"""Prefixes of environment variables that could give a candidate other upstreams, keys or files."""
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY")


class BenchError(Exception):
    """The run is spoilt: a wrong answer, or a process of the harness gone."""


class Unavailable(Exception):
    """A candidate cannot be measured here; the text says why."""


def clean_environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give this environment without what could steer a candidate elsewhere, with a home of its own, and *extra*."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(FOREIGN) and name.upper() not in PROXIES
    }
    return kept | {"HOME": str(home), "NO_PROXY": "*"} | dict(extra or {})


def spawn(
    argv: list[str],
    directory: Path,
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes],
    stderr: IO[bytes] | None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own: an interrupt at the terminal reaches the benchmark alone."""
    return subprocess.Popen(
        argv,
        env=clean_environment(directory, environment),
        cwd=HERE.parent,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, after a while make it, and leave nothing of its tree."""
    tree = process_tree(process.pid)
    process.terminate()
    try:
        process.wait(END_PATIENCE_S)
    except subprocess.TimeoutExpired:
        for pid in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def process_tree(root: int) -> list[int]:
    """Give a process and its living descendants."""
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The command name stands in parentheses and may hold anything; state and parent follow it.
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                children[int(parent)].append(int(entry.name))
    tree = [root]
    for pid in tree:
        tree += children[pid]
    return tree


def memory_mb(pids: Iterable[int], kind: str) -> float:
    """Sum `Pss` or `Rss` of these processes."""
    total_kb = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                total_kb += int(line.split()[1])
    return total_kb * 1024 / 1e6


def raise_open_files() -> int:
    """Let this process, and those that it starts, open as many files as they may; give that number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(hard, ENOUGH_FILES)
    for limits in ((wanted, wanted), (hard, hard)):
        # More than the hard limit is for those alone who may do everything.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def free_port() -> int:
    """Find a port that nobody listens on, below those that the kernel gives to outgoing connections.

    One of those could be taken again before the candidate binds it, and polling it can connect a socket to itself.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    below = range(max(1024, lowest - 20_000), lowest)
    for port in [*random.sample(below, min(len(below), 50)), 0]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise BenchError("no free port")
