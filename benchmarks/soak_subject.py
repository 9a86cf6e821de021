"""The daemon of the soak: what ``aiproxyd serve`` runs, and a Unix socket that tells what goes on inside.

``python -m benchmarks.soak_subject SOCKET OPTION...``; a line on the socket is answered by a line of JSON: ``sample``,
or ``objects`` after a full collection, with what the garbage collector tracks.
"""

import asyncio
import ctypes
import gc
import importlib
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from aiproxyd.cache import questions
from aiproxyd.commands.serve import GC_THRESHOLDS, start
from aiproxyd.config import load_settings
from aiproxyd.conversion.memory import Memory
from aiproxyd.routing import affinity
from aiproxyd.telemetry.logs import AccessLog, set_up_logging

TOP_TYPES: Final = 20
TABLE_SIZE: Final = 500
"""Bound of the tables of questions that the cache knows, and of conversations."""
MEMORY_BYTES: Final = 512 * 1024
"""Bound of what is kept of models' thoughts."""

_STATES: Final = {
    "01": "established",
    "02": "syn-sent",
    "04": "fin-wait",
    "05": "fin-wait",
    "08": "close-wait",
    "0A": "listening",
}
"""https://www.kernel.org/doc/Documentation/networking/proc_net_tcp.txt, include/net/tcp_states.h."""
_NUMBER: Final = re.compile(r"\d+")


_HEAP_FIELDS: Final = (
    "arena",
    "ordblks",
    "smblks",
    "hblks",
    "hblkhd",
    "usmblks",
    "fsmblks",
    "uordblks",
    "fordblks",
    "keepcost",
)


class _MallInfo(ctypes.Structure):
    """https://man7.org/linux/man-pages/man3/mallinfo.3.html."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _HEAP_FIELDS)


def run(path: str, arguments: Sequence[str]) -> int:
    """Serve, and tell on the Unix socket *path*, until SIGTERM."""
    shrink_tables()
    settings = load_settings(arguments)
    set_up_logging(settings.log_level, settings.log_format)
    try:
        new_event_loop = importlib.import_module("uvloop").new_event_loop  # as the daemon does where it is installed
    except ImportError:
        new_event_loop = asyncio.new_event_loop

    async def serve() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        runner = await start(settings, AccessLog(settings.log_format))
        port = runner.addresses[0][1]
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        teller = await asyncio.start_unix_server(lambda reader, writer: _tell(reader, writer, port), path)
        await stop.wait()
        teller.close()
        await runner.cleanup()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve())
    return 0


def shrink_tables() -> None:
    """Give the tables that are bounded by number small bounds, so that they are full by the end of the warm-up.

    Else they would fill all through the run, and what leaks could not be told from that.
    """
    # Tables have no options: nobody needs to set them but this.
    questions.MAX_KNOWN = affinity.MAX_CONVERSATIONS = TABLE_SIZE  # type: ignore[misc]
    Memory.__init__.__defaults__ = (MEMORY_BYTES, *(Memory.__init__.__defaults__ or ())[1:])


async def _tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    try:
        while wish := await reader.readline():
            report: dict[str, object] = {"pid": os.getpid(), "port": port}
            is_full = wish == b"objects\n"
            if is_full:
                gc.collect()
                report |= _count_objects()
            report |= {"tasks": _count_tasks(), "fds": _count_files(port), **_weigh()}
            if is_full:
                ctypes.CDLL(None).malloc_trim(0)
                report["trimmed_kib"] = _weigh()["private_kib"]
            writer.write(msgspec.json.encode(report) + b"\n")
    finally:
        writer.close()


def _count_tasks() -> dict[str, int]:
    """Count tasks by name, or where it was not given by what they run; without the one that asks."""
    counts: Counter[str] = Counter()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        name = task.get_name()
        work = getattr(task.get_coro(), "__qualname__", "?")
        counts[work if name.startswith("Task-") else _NUMBER.sub("N", name)] += 1
    return dict(counts)


def _count_objects() -> dict[str, object]:
    objects = gc.get_objects()
    counts = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in objects)
    return {"objects": len(objects), "types": dict(counts.most_common(TOP_TYPES))}


def _count_files(port: int) -> dict[str, int]:
    """Count what is open, by kind; callers are those who are connected to *port*."""
    counts: Counter[str] = Counter()
    sockets = _read_sockets(port)
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue  # that of the directory itself
        if target.startswith("socket:["):
            # A connection without a line was closed or reset, and still has its file: none but IPv4 is used here.
            counts[sockets.get(target[8:-1], "socket")] += 1
        else:
            counts[target.partition(":")[0] if not target.startswith("/") else f"file {target}"] += 1
    return dict(counts)


def _read_sockets(port: int) -> dict[str, str]:
    """Return the kind of each socket by its inode."""
    kinds = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *fields = line.split()
        side = "caller" if int(local.rpartition(":")[2], 16) == port else "upstream"
        kinds[fields[5]] = f"{side} {_STATES.get(state, state)}"
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        kinds[line.split()[6]] = "unix socket"
    return kinds


def _weigh() -> dict[str, int]:
    fields = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value, _ = line.split()
        fields[name] = int(value)
    return {
        "pss_kib": fields["Pss:"],
        "rss_kib": fields["Rss:"],
        "private_kib": fields["Anonymous:"],
        "heap_kib": _heap_bytes() // 1024,
        "blocks": sys.getallocatedblocks(),
    }


def _heap_bytes() -> int:
    """Return how much the C library has given out, in its arenas and in pages of their own."""
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = _MallInfo
    info = ask()
    return int(info.uordblks + info.hblkhd)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
