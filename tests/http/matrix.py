"""The stage of the matrix: gateways before strict vendors, in a thread of their own, for SDKs that block."""

import asyncio
import base64
import json
import re
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from typing_extensions import override

from tests.http.callers import CALLERS, NOTHING_MORE, Answer, Ask, Caller, Problem
from tests.support import Gateway, Upstream, start_gateway, upstream_section
from tests.vendors import AnthropicVendor, GeminiVendor, OpenAIVendor, Vendor
from tests.vendors.scene import decide

T = TypeVar("T")
CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


class Cell(NamedTuple):
    """A model, and how its vendor is spoken to by callers of other formats."""

    model: str
    upstream: str
    vendor: str
    """Who makes its seals."""
    format: str
    """The format of the upstream, where the caller's is another and nothing speaks against it."""

    @override
    def __str__(self) -> str:
        return self.model


GPT_4O = Cell("gpt-4o", "openai", "openai", "openai-chat")
GPT_5 = Cell("gpt-5.4", "openai", "openai", "openai-responses")
LOCAL = Cell("local", "compatible", "openai", "openai-chat")
OPUS = Cell("claude-opus-4-5", "anthropic", "anthropic", "anthropic")
SONNET = Cell("claude-sonnet-5-5", "anthropic", "anthropic", "anthropic")
FLASH = Cell("gemini-2.5-flash", "gemini", "gemini", "gemini")
GEMINI_3 = Cell("gemini-3-pro-preview", "gemini", "gemini", "gemini")
CELLS = (GPT_4O, GPT_5, LOCAL, OPUS, SONNET, FLASH, GEMINI_3)

THINKING_CELLS = (GPT_5, OPUS, SONNET, FLASH, GEMINI_3)
NAMES = tuple(caller.name for caller in CALLERS)

BAD_REQUESTS = {
    "openai-chat": "BadRequestError",
    "openai-responses": "BadRequestError",
    "anthropic": "BadRequestError",
    "gemini": "ClientError",
}
"""What the SDKs raise for a 400."""

CALLER = pytest.mark.parametrize("name", NAMES)
STREAM = pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])


def is_relayed(name: str, cell: Cell) -> bool:
    """Tell whether a request with tools goes as bytes: what is in it, and what is missing, is the caller's business."""
    return name == cell.format or (name == "openai-responses" and cell is GPT_4O)


def is_own(name: str, cell: Cell) -> bool:
    """Tell whether the vendor speaks the caller's format, so that bytes are relayed where nothing speaks against it."""
    return name.startswith("openai-") if cell in (GPT_4O, GPT_5) else name == cell.format


def pairs(*cells: Cell, without: Callable[[str, Cell], bool] = lambda name, cell: False) -> pytest.MarkDecorator:
    """Return the parameters ``name`` and ``cell``: every caller's format with each of *cells*, but for some."""
    chosen = [(name, cell) for cell in cells for name in NAMES if not without(name, cell)]
    return pytest.mark.parametrize(("name", "cell"), chosen, ids=[f"{name}-{cell}" for name, cell in chosen])


class Stage:
    """Two gateways with the same upstreams, a strict one, a hasty one and one with a cache. Lives as long as the tests.

    Each begins with `reset`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._gateways: list[Gateway] = []
        self.upstreams: dict[str, Upstream] = {}
        compatible = OpenAIVendor()
        compatible.is_imitation = True
        self.vendors: dict[str, Vendor] = {
            "openai": OpenAIVendor(),
            "compatible": compatible,
            "anthropic": AnthropicVendor(),
            "gemini": GeminiVendor(),
        }
        self.callers: dict[str, Caller] = {caller.name: caller() for caller in CALLERS}
        self.expects_refusals = False
        self.url = self.other_url = self.strict_url = self.hasty_url = self.cached_url = ""

    def start(self) -> None:
        self._thread.start()
        for name in self.vendors:
            self.upstreams[name] = self.run(self._start_upstream())
        ini = _write_ini(self.upstreams)
        self.url, self.other_url = self.start_gateway(ini), self.start_gateway(ini)
        self.strict_url = self.start_gateway(ini, "--strict-conversion")
        self.hasty_url = self.start_gateway(ini, "--first-event-timeout", "0.2", "--idle-timeout", "0.2")
        self.cached_url = self.start_gateway(ini, "--cache-ttl", "600")

    def start_gateway(self, ini: str, *flags: str) -> str:
        path = self._folder / f"config-{len(self._gateways)}.ini"
        self._gateways.append(self.run(start_gateway(ini, path, *flags)))
        return self._gateways[-1].url

    async def _start_upstream(self) -> Upstream:
        upstream = Upstream()
        await upstream.start()
        return upstream

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def stop(self) -> None:
        for caller in self.callers.values():
            caller.close()
        for gateway in self._gateways:
            self.run(gateway.runner.cleanup())
        for upstream in self.upstreams.values():
            self.run(upstream.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def reset(self) -> None:
        self.expects_refusals = False
        for name, vendor in self.vendors.items():
            vendor.decide = decide
            vendor.bodies.clear()
            vendor.refusals.clear()
            self.upstreams[name].received.clear()
            self.upstreams[name].respond(vendor)

    @property
    def refusals(self) -> list[str]:
        return [refusal for vendor in self.vendors.values() for refusal in vendor.refusals]

    def log(self) -> str:
        """Return what the gateways have logged of the requests so far, those of the first one last."""
        return "".join(self.run(_read_log(gateway)) for gateway in self._gateways[::-1])

    def body(self, cell: Cell) -> Any:
        """Return the last request that the vendor of *cell* was sent."""
        return self.vendors[cell.upstream].bodies[-1]

    def bodies(self, cell: Cell) -> list[Any]:
        return self.vendors[cell.upstream].bodies

    def path(self, cell: Cell) -> str:
        """Return where that went to."""
        return self.upstreams[cell.upstream].received[-1].target


async def _read_log(gateway: Gateway) -> str:
    return gateway.log()


def _write_ini(upstreams: dict[str, Upstream]) -> str:
    patterns = {"openai": "gpt-*", "compatible": "none", "anthropic": "claude-*", "gemini": "gemini-*"}
    sections = [
        upstream_section(
            upstreams[name],
            "openai" if name == "compatible" else name,
            name,
            f"models = {pattern}\n" + ("flavour = compatible" if name == "compatible" else ""),
        )
        for name, pattern in patterns.items()
    ]
    models = ["[model local]\ntargets = compatible/gpt-4o\n"]
    for first in CELLS:
        for second in CELLS:
            if first.upstream != second.upstream:
                targets = f"{_write_target(first)}, {_write_target(second)}"
                models.append(f"[model {first}-or-{second}]\ntargets = {targets}\n")
    return "\n".join(sections + models)


def _write_target(cell: Cell) -> str:
    return f"{cell.upstream}/{'gpt-4o' if cell is LOCAL else cell.model}"


@contextmanager
def set_stage(folder: Path) -> Iterator[Stage]:
    stage = Stage(folder)
    stage.start()
    try:
        yield stage
    finally:
        stage.stop()


class Talk:
    """A conversation of one caller with one model, of which every answer is kept."""

    def __init__(
        self, stage: Stage, name: str, model: str, ask: Ask = NOTHING_MORE, *, is_stream: bool = False
    ) -> None:
        self.stage = stage
        self.caller = stage.callers[name]
        self.model = model
        self.asks = ask
        self.is_stream = is_stream
        self.turns: list[Any] = []
        self.url = stage.url

    def say(self, text: str, *files: Any, **changes: Any) -> Answer:
        self.turns += self.caller.say(text, *files)
        return self.go_on(**changes)

    def go_on(self, **changes: Any) -> Answer:
        ask = self.asks.but(**changes)
        return self.caller.ask(self.url, self.model, self.turns, ask, is_stream=self.is_stream)

    def fail(self, text: str, *files: Any, **changes: Any) -> Problem:
        """Say *text*, and return what the SDK raises."""
        with pytest.raises(self.caller.errors) as caught:
            self.say(text, *files, **changes)
        return self.caller.explain(caught.value)


def count_seals(body: Any, vendor: str) -> int:
    """Return how many seals of *vendor*'s there are in what it was sent; Gemini's are in base64."""
    text = json.dumps(body)
    for word in re.findall(r'"(c2ln[A-Za-z0-9+/_-]+={0,2})"', text):
        text += base64.urlsafe_b64decode(word.replace("+", "-").replace("/", "_") + "=" * (-len(word) % 4)).decode()
    return len(set(re.findall(rf"sig-{vendor}-\d{{6}}-", text)))
