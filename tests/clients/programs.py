"""The coding agents: how each is installed, pointed at a gateway and given a task."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "aiproxyd" / "clients"
INSTALL_TIMEOUT_S: Final = 600
RUN_TIMEOUT_S: Final = 100
CALLER_KEY: Final = "sk-caller"

CODEX_CONFIG: Final = """\
model = "{model}"
model_provider = "gateway"
model_reasoning_summary = "auto"
[model_providers.gateway]
name = "gateway"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "GATEWAY_KEY"
"""
GEMINI_SETTINGS: Final = {
    "security": {"auth": {"selectedType": "gemini-api-key"}},
    "privacy": {"usageStatisticsEnabled": False},
    "general": {"disableAutoUpdate": True, "disableUpdateNag": True},
}


@dataclass(frozen=True)
class Workplace:
    """What one run has: its own home, an empty folder to work in, and a gateway."""

    home: Path
    folder: Path
    url: str
    model: str


@dataclass(frozen=True)
class Outcome:
    status: int
    output: str
    errors: str


@dataclass(frozen=True)
class Program:
    """A coding agent."""

    name: str
    provider: str
    """Whose format it speaks."""
    model: str
    prepare: Callable[[Workplace], dict[str, str]]
    """Writes its settings, returns its environment."""
    command: Callable[[Workplace, str], Sequence[str]]
    read_output: Callable[[str], str]
    """Returns what it said last."""


def _prepare_claude(place: Workplace) -> dict[str, str]:
    return {
        "ANTHROPIC_BASE_URL": place.url,
        "ANTHROPIC_API_KEY": CALLER_KEY,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "IS_SANDBOX": "1",
    }


def _command_claude(place: Workplace, task: str) -> Sequence[str]:
    flags = ("--output-format", "json", "--model", place.model, "--allowedTools", "Bash")
    return ("claude", "-p", task, *flags)


def _prepare_codex(place: Workplace) -> dict[str, str]:
    (place.home / ".codex").mkdir()
    (place.home / ".codex" / "config.toml").write_text(CODEX_CONFIG.format(url=place.url, model=place.model))
    return {"GATEWAY_KEY": CALLER_KEY}


def _command_codex(_place: Workplace, task: str) -> Sequence[str]:
    return ("codex", "exec", "--sandbox", "danger-full-access", "--skip-git-repo-check", "--json", task)


def _prepare_gemini(place: Workplace) -> dict[str, str]:
    (place.home / ".gemini").mkdir()
    (place.home / ".gemini" / "settings.json").write_text(json.dumps(GEMINI_SETTINGS))
    return {"GOOGLE_GEMINI_BASE_URL": place.url, "GEMINI_API_KEY": CALLER_KEY}


def _command_gemini(place: Workplace, task: str) -> Sequence[str]:
    return ("gemini", "-m", place.model, "--skip-trust", "--yolo", "-p", task)


def _read_claude(output: str) -> str:
    return str(json.loads(output)["result"])


def _read_codex(output: str) -> str:
    events: list[Any] = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    items = [event["item"] for event in events if event.get("type") == "item.completed"]
    return "\n".join(item["text"] for item in items if item["type"] == "agent_message")


CLAUDE_CODE: Final = Program(
    "claude-code", "anthropic", "claude-sonnet-5", _prepare_claude, _command_claude, _read_claude
)
CODEX: Final = Program("codex", "openai", "gpt-5.4", _prepare_codex, _command_codex, _read_codex)
GEMINI_CLI: Final = Program("gemini-cli", "gemini", "gemini-2.5-pro", _prepare_gemini, _command_gemini, str)
PROGRAMS: Final = (CLAUDE_CODE, CODEX, GEMINI_CLI)


def _find_folders() -> list[Path]:
    """Return where the programs are. Claude Code's own is in a package for the platform."""
    modules = CACHE / "node_modules"
    return [*modules.glob("@anthropic-ai/claude-code-*-*"), modules / ".bin"]


async def install() -> None:
    """Install what package.json names, unless it is there; npm has to be."""
    wanted = (HERE / "package.json").read_bytes()
    done = CACHE / "installed.json"
    if done.exists() and done.read_bytes() == wanted:
        return
    shutil.rmtree(CACHE, ignore_errors=True)
    CACHE.mkdir(parents=True)
    (CACHE / "package.json").write_bytes(wanted)
    flags = ("--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
    outcome = await _execute(("npm", "install", *flags), CACHE, dict(os.environ), INSTALL_TIMEOUT_S)
    assert outcome.status == 0, outcome.errors
    done.write_bytes(wanted)


async def run(program: Program, place: Workplace, task: str) -> Outcome:
    """Let *program* do *task*, with nothing of this machine's settings."""
    folders = [str(folder) for folder in _find_folders()]
    environment = {
        "PATH": os.pathsep.join([*folders, os.environ["PATH"]]),
        "HOME": str(place.home),
        "TMPDIR": str(place.home),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        **program.prepare(place),
    }
    return await _execute(program.command(place, task), place.folder, environment, RUN_TIMEOUT_S)


async def _execute(command: Sequence[str], folder: Path, environment: dict[str, str], timeout_s: float) -> Outcome:
    """Run a command in a session of its own, and end all that it started."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, errors = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    assert process.returncode is not None
    return Outcome(process.returncode, output.decode(errors="replace"), errors.decode(errors="replace"))
