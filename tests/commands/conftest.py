"""The daemon as a process of its own."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest


class Daemon:
    """One ``aiproxyd`` process."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.log = ""
        self.url = ""

    async def wait_until_ready(self) -> None:
        await self.wait_for("listens on")
        self.url = self.log.split("listens on ")[1].split()[0]

    async def wait_for(self, pattern: str, count: int = 1) -> None:
        """Wait until *pattern*, a regular expression, has come *count* times in the log."""
        while len(re.findall(pattern, self.log)) < count:
            self.log += (await self._line()) or pytest.fail(f"the daemon ended: {self.log}")

    def workers(self) -> list[int]:
        """Return the ids of the processes that were started as workers, as far as the log was read."""
        return [int(pid) for pid in re.findall(r"worker \d+ is process (\d+)", self.log)]

    async def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and the log."""
        while line := await self._line():
            self.log += line
        return await self.process.wait(), self.log

    async def _line(self) -> str:
        assert self.process.stderr is not None
        return (await self.process.stderr.readline()).decode()


class Daemons:
    def __init__(self, home: Path) -> None:
        self._home = home
        self._started: list[Daemon] = []

    async def __call__(self, *arguments: str, **environment: str) -> Daemon:
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "COV", "PYTHON"))}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "aiproxyd",
            *arguments,
            env={**kept, "HOME": str(self._home), **environment},
            stdout=PIPE,
            stderr=PIPE,
        )
        self._started.append(Daemon(process))
        return self._started[-1]

    async def kill(self) -> None:
        for daemon in self._started:
            if daemon.process.returncode is None:
                daemon.process.kill()
            for (
                pid
            ) in daemon.workers():  # without a parent they should end by themselves; tests find out whether they do
                with contextlib.suppress(OSError):
                    if b"aiproxyd" in Path(f"/proc/{pid}/cmdline").read_bytes():  # noqa: ASYNC240  # there is no disk
                        os.kill(pid, signal.SIGKILL)
            await daemon.process.communicate()


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemons]:
    daemons = Daemons(tmp_path)
    yield daemons
    await daemons.kill()
