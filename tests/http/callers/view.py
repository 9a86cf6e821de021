"""What a test asks through an SDK and what it sees of the answer, in no SDK's words."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import httpx2

from tests.answers import Tape

TIMEOUT_S = 30


class Called(NamedTuple):
    """A call, as the SDK shows it."""

    name: str
    arguments: Any
    """Parsed; free text of a custom tool."""
    id: str


class Usage(NamedTuple):
    """The counts, as the SDK shows them: what they include differs from format to format."""

    input: int | None = None
    cached: int | None = None
    output: int | None = None
    reasoning: int | None = None


@dataclass(kw_only=True)
class Answer:
    """What came back."""

    text: str = ""
    thoughts: str = ""
    calls: list[Called] = field(default_factory=list)
    stop: str = ""
    """In the words of the format."""
    refusal: str = ""
    usage: Usage = field(default_factory=Usage)
    turn: list[Any] = field(default_factory=list)
    """The SDK's own objects, as its users send them back."""
    bare: list[Any] = field(default_factory=list)
    """The same, from a client that keeps nothing but words and calls."""
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: Any = None

    @property
    def dropped(self) -> set[str]:
        """What the gateway says it has left out."""
        return set(filter(None, self.headers.get("x-aiproxyd-dropped", "").split(", ")))


class File(NamedTuple):
    """An image or a document."""

    media_type: str
    data: str
    """In base64."""

    @property
    def is_image(self) -> bool:
        return self.media_type.startswith("image/")


class Tool(NamedTuple):
    """A tool that is offered."""

    name: str
    schema: dict[str, Any] | None = None
    """None: without arguments."""


class Result(NamedTuple):
    """What a tool answers."""

    text: str
    files: tuple[File, ...] = ()
    is_error: bool = False


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What is asked beside the conversation."""

    system: str = ""
    tools: Sequence[Tool] = ()
    must_call: str = ""
    """``any``, or the name of a tool."""
    effort: str = ""
    """How much to think; empty: not said."""
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    schema: dict[str, Any] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    """More of the body, as the format has it."""

    def but(self, **changes: Any) -> "Ask":
        return replace(self, **changes)


NOTHING_MORE = Ask()


class Problem(NamedTuple):
    """An error, as the SDK raises it."""

    kind: str
    """Name of the exception's class."""
    status: int | None
    message: str


class Caller(ABC):
    """One official SDK, as the client of a gateway. Lives as long as the tests."""

    name: ClassVar[str]
    errors: ClassVar[tuple[type[Exception], ...]]
    """What it raises."""
    key = "sk-caller"

    def __init__(self) -> None:
        self._tape = Tape()
        self.http = self._tape.client()
        self.http.timeout = TIMEOUT_S
        self.http.event_hooks["response"].append(self._keep)
        self.headers: Mapping[str, str] = {}
        """Of the last answer, a refusal too."""
        self._clients: dict[str, Any] = {}

    def _keep(self, response: httpx2.Response) -> None:
        self.headers = response.headers

    @property
    def received(self) -> bytes:
        """The body of the last answer, as far as the SDK has read it."""
        return self._tape.received[-1]

    def client(self, url: str) -> Any:
        """Return the SDK's client of the gateway at *url*."""
        if url not in self._clients:
            self._clients[url] = self.connect(url)
        return self._clients[url]

    def ask(
        self, url: str, model: str, turns: Sequence[Any], ask: Ask = NOTHING_MORE, *, is_stream: bool = False
    ) -> Answer:
        """Send *turns* and what is asked beside them, and read the whole answer.

        Raises one of ``errors``.
        """
        send = self.stream if is_stream else self.create
        answer = send(self.client(url), model, list(turns), ask)
        answer.headers = self.headers
        return answer

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self.http.close()

    @abstractmethod
    def connect(self, url: str) -> Any: ...

    @abstractmethod
    def say(self, text: str, *files: File) -> list[Any]:
        """Return a turn of the user's."""

    @abstractmethod
    def answer_calls(self, calls: Sequence[Called], results: Sequence[Result]) -> list[Any]:
        """Return what the tools that were called say."""

    @abstractmethod
    def create(self, client: Any, model: str, turns: list[Any], ask: Ask) -> Answer: ...

    @abstractmethod
    def stream(self, client: Any, model: str, turns: list[Any], ask: Ask) -> Answer: ...

    @abstractmethod
    def explain(self, error: BaseException) -> Problem: ...


def thinks_by_budget(model: str) -> bool:
    """Tell whether a model of the caller's own format is told so how much to think."""
    return model.startswith(("claude-opus-4-5", "gemini-2.5"))


def data_url(file: File) -> str:
    return f"data:{file.media_type};base64,{file.data}"
