"""Claude Code, Codex and Gemini CLI do errands through the gateway, with every vendor behind it.

Not part of `scripts/test`: it installs a gigabyte of programs. Run it with `scripts/clients`, which takes the arguments
of pytest: ``scripts/clients -k 'codex and gemini'``.
"""

import asyncio
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.clients.programs import PROGRAMS, Outcome, Program, Workplace, install, run
from tests.conftest import StartGateway
from tests.support import Gateway, Upstream, upstream_section
from tests.vendors import (
    Answer,
    Call,
    Decide,
    GeminiVendor,
    Media,
    Prompt,
    Vendor,
    anthropic_vendor,
    decide,
    gemini_vendor,
    openai_vendor,
)
from tests.vendors.seals import has_seal

TASK: Final = "Run the errand, and tell me when it is done."
SECRET: Final = "aurora-7431"
CLOSING: Final = "The errand is done: all is well."
COMMAND: Final = "cat note.txt && echo done > made.txt"
Tools = Mapping[str, Callable[[Path], object]]
"""What each client calls a tool, and what it is given; the path is that of the folder."""
SHELLS: Final[Tools] = {
    "Bash": lambda _: {"command": COMMAND, "description": "Run the errand"},
    "exec_command": lambda _: {"cmd": COMMAND},
    "shell_command": lambda _: {"command": COMMAND},
    "shell": lambda _: {"command": ["bash", "-c", COMMAND]},
    "run_shell_command": lambda _: {"command": COMMAND, "description": "Run the errand"},
}
VIEWERS: Final[Tools] = {
    "Read": lambda folder: {"file_path": str(folder / "dot.png")},
    "view_image": lambda folder: {"path": str(folder / "dot.png")},
    "read_file": lambda folder: {"file_path": str(folder / "dot.png")},
}


class Errand:
    """A model that has the client run one tool, and closes when it has seen what came of it."""

    def __init__(self, tools: Tools, folder: Path) -> None:
        self.tools = tools
        self.folder = folder
        self.has_thought = False
        self.results: list[str] = []
        self.media: list[Media] = []

    def __call__(self, prompt: Prompt) -> Answer:
        if prompt.results:
            self.results += prompt.results
            self.media += prompt.media
            return Answer(text=CLOSING)
        name = next((name for name in self.tools if name in prompt.tools), None)
        if name is None or TASK not in prompt.text:
            return decide(prompt)
        self.has_thought |= prompt.thinks
        call = Call(name, json.dumps(self.tools[name](self.folder)))
        return Answer(text="I will do it.", calls=(call,), thought="It takes one tool." if prompt.thinks else "")


class Behind(NamedTuple):
    """A vendor, and which of its models is asked."""

    provider: str
    model: str
    make: Callable[[Decide], Vendor]
    lines: str = ""
    has_state: bool = True
    """Whether it gives out opaque state with the calls that it has thought about."""


VENDORS: Final = (
    Behind("anthropic", "claude-sonnet-5", anthropic_vendor),
    Behind("anthropic", "claude-opus-4-5", anthropic_vendor),
    Behind("openai", "gpt-4o", openai_vendor, "api = chat"),
    Behind("openai", "gpt-5.4", openai_vendor, "api = responses"),
    Behind("gemini", "gemini-2.5-pro", gemini_vendor, has_state=False),
    Behind("gemini", "gemini-3.1-pro-preview", gemini_vendor),
)


class Stage(NamedTuple):
    """One client, one vendor, and a gateway between them."""

    program: Program
    behind: Behind
    upstream: Upstream
    gateway: Gateway
    place: Workplace

    async def play(self, errand: Errand) -> Outcome:
        """Let the client do the errand, and see to what is true of all of them."""
        vendor = self.behind.make(errand)
        if isinstance(vendor, GeminiVendor):
            vendor.takes_ids = self.behind.provider == self.program.provider  # Gemini CLI gives every call one.
        self.upstream.respond(vendor)

        outcome = await run(self.program, self.place, TASK)

        story = f"{outcome}\n{self.gateway.log()}"
        assert vendor.refusals == [], story
        assert outcome.status == 0, story
        assert CLOSING in self.program.read_output(outcome.output), story
        if errand.has_thought and self.behind.has_state:
            assert has_seal(json.dumps(vendor.bodies[-1]), self.behind.provider), story
        return outcome


@pytest.fixture(scope="session")
def _installed() -> None:
    asyncio.run(install())


@pytest.fixture(params=VENDORS, ids=lambda behind: behind.model)
def behind(request: pytest.FixtureRequest) -> Behind:
    assert isinstance(request.param, Behind)
    return request.param


@pytest.fixture(params=PROGRAMS, ids=lambda program: program.name)
def program(request: pytest.FixtureRequest) -> Program:
    assert isinstance(request.param, Program)
    return request.param


@pytest.fixture
async def stage(
    program: Program, behind: Behind, upstream: Upstream, gateway: StartGateway, tmp_path: Path, _installed: None
) -> Stage:
    section = upstream_section(upstream, behind.provider, lines=behind.lines)
    running = await gateway(f"{section}\n[model *]\ntargets = up/{behind.model}\n")
    model = behind.model if behind.provider == program.provider else program.model
    place = Workplace(tmp_path / "home", tmp_path / "work", running.url, model)
    place.home.mkdir()
    place.folder.mkdir()
    return Stage(program, behind, upstream, running, place)


pytestmark = pytest.mark.timeout(150)


async def test_a_client_runs_a_command(stage: Stage) -> None:
    errand = Errand(SHELLS, stage.place.folder)
    (stage.place.folder / "note.txt").write_text(SECRET)

    await stage.play(errand)

    assert (stage.place.folder / "made.txt").read_text() == "done\n"
    assert any(SECRET in result for result in errand.results), errand.results


async def test_a_client_looks_at_an_image(stage: Stage) -> None:
    errand = Errand(VIEWERS, stage.place.folder)
    (stage.place.folder / "dot.png").write_bytes(_make_png(8))

    await stage.play(errand)

    assert [media.kind for media in errand.media] == ["image"], errand.results
    assert errand.media[0].size_bytes


def _make_png(size: int) -> bytes:
    rows = b"".join(b"\0" + b"\x80\x40\x20" * size for _ in range(size))
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)
