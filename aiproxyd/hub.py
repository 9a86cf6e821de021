"""The neutral vocabulary between formats: requests, blocks, events, usage. A leaf: knows only the errors, does no I/O.

Richer than any format, and modelled on none of them. Blocks stand in turns and in answers; a stream is the same answer
as events, `fold` and `unfold` lead from one to the other. What only one vendor understands travels as `Opaque` or
`Seal` with its origin, and only ever goes back there.

A stream of events reads, for each candidate::

    Start (BlockStart Delta* BlockStop)* Finish      blocks of different keys may overlap
    ... UsageSeen anywhere ...
    End | Failed                                      nothing follows
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, TypeAlias, assert_never

from msgspec import Raw, Struct
from msgspec.structs import replace

from aiproxyd.errors import InvalidRequest, ProxyError, UpstreamCut, UpstreamGarbage

# --- Blocks

SealKind: TypeAlias = Literal["signature", "redacted", "encrypted", "plain"]
SealHolder: TypeAlias = Literal["", "call", "text"]


class Seal(Struct, frozen=True):
    """Opaque state of a vendor's model: a signature, encrypted reasoning, a redacted thought.

    Given back to its *origin* unchanged, and to nobody else.
    """

    origin: str
    """Name of the format whose vendor made it; on its way to a caller of another format with the upstream and the
    model, ``FORMAT@UPSTREAM/MODEL``."""
    kind: SealKind
    """``plain``: there is nothing but the text of the thought, which its origin wants back all the same."""
    data: str
    item: str = ""
    """Identity of the item that carried it, where the origin wants it back."""
    holder: SealHolder = ""
    """Where it belongs, while it travels as a thought of its own because the caller's format has no place for it
    there: to the call whose id is in *item*, or to the text before it, and where there is none, to the next."""


class CacheMark(Struct, frozen=True):
    """The caller wants the prompt cached up to here."""

    ttl: Literal["5m", "1h"] = "5m"


class Citation(Struct, frozen=True):
    """Where a piece of text comes from."""

    url: str = ""
    title: str = ""
    cited_text: str = ""
    start: int | None = None
    """First character of the text that it supports; None: the whole block."""
    end: int | None = None
    origin: str = ""
    """Empty where no vendor's own format has it, as of one that a caller of another format was given and sends back."""
    raw: Raw = Raw()
    """The origin's own object, for its own format."""


class Text(Struct, frozen=True):
    """Text for people, or from them."""

    text: str
    cache: CacheMark | None = None
    citations: tuple[Citation, ...] = ()
    seal: Seal | None = None


class Refusal(Struct, frozen=True):
    """The model's own words for not answering."""

    text: str


class Media(Struct, frozen=True, kw_only=True):
    """An image, a document, a sound or a film: in base64, at a URL, or a file that the origin has."""

    kind: Literal["image", "document", "audio", "video"]
    media_type: str = ""
    data: str | None = None
    """Base64 in the standard alphabet, padded; plain text for a document of media type text/plain."""
    url: str | None = None
    file_id: str | None = None
    origin: str = ""
    """Whose file *file_id* is."""
    name: str = ""
    context: str = ""
    detail: str = ""
    cache: CacheMark | None = None
    has_citations: bool = False
    extensions: dict[str, Raw] = {}
    """Fields of the caller's format that nothing here stands for, by name; only its own models get to see them."""


class Reasoning(Struct, frozen=True):
    """What the model thought, as far as it is shown; empty text with a seal is still a thought."""

    text: str = ""
    seal: Seal | None = None


class ToolCall(Struct, frozen=True, kw_only=True):
    """The model wants a tool of the caller's run."""

    id: str
    name: str
    arguments: str
    """JSON text of an object, as far as the model got it right; free text for a custom tool."""
    is_custom: bool = False
    namespace: str = ""
    seal: Seal | None = None
    cache: CacheMark | None = None


class ToolResult(Struct, frozen=True, kw_only=True):
    """What a tool answered."""

    call_id: str
    content: tuple["Text | Media", ...] = ()
    is_error: bool = False
    name: str = ""
    """Of the tool, where the format says it."""
    is_custom: bool = False
    cache: CacheMark | None = None


class Opaque(Struct, frozen=True):
    """A block that only its origin understands, such as the call of a server tool."""

    origin: str
    kind: str
    raw: Raw


Block: TypeAlias = Text | Refusal | Media | Reasoning | ToolCall | ToolResult | Opaque


# --- Requests


class Turn(Struct, frozen=True):
    """What one side says, blocks in order."""

    role: Literal["system", "user", "assistant"]
    blocks: tuple[Block, ...]
    phase: str = ""


class Tool(Struct, frozen=True, kw_only=True):
    """A function that the caller offers."""

    name: str
    description: str = ""
    schema: Raw | None = None
    """JSON Schema of the arguments; None: it takes none, or is a custom tool."""
    is_strict: bool | None = None
    is_custom: bool = False
    """It takes free text instead of an object."""
    grammar: Raw | None = None
    """What a custom tool's text must look like, as the ``format`` of the Responses API has it."""
    namespace: str = ""
    """Of a tool that Codex offers as one of a group."""
    cache: CacheMark | None = None


class ServerTool(Struct, frozen=True):
    """A tool that the vendor runs itself."""

    kind: str
    """``web_search`` is known to several vendors; any other is its origin's own word."""
    origin: str
    raw: Raw
    options: tuple[str, ...] = ()
    """Names of what the caller says about how it is to be run; only the origin understands that."""


class ToolChoice(Struct, frozen=True):
    """Which tools the model may or must call."""

    mode: Literal["auto", "none", "required"]
    names: tuple[str, ...] | None = None
    """The only ones in question; None: all. One name and ``required`` force that tool."""


class ReasoningControl(Struct, frozen=True, kw_only=True):
    """How much the model is to think, and whether that is shown."""

    mode: Literal["default", "on", "off"] = "default"
    effort: Literal["minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    budget_tokens: int | None = None
    show: bool | None = None


class OutputFormat(Struct, frozen=True, kw_only=True):
    """The answer is to be JSON; with a schema, of that shape."""

    schema: Raw | None = None
    name: str = ""
    description: str = ""
    is_strict: bool | None = None


class Request(Struct, kw_only=True):
    """What a caller asks of a model."""

    model: str
    turns: list[Turn]
    """As `arrange` leaves them. System turns stand where the caller put them."""
    tools: list[Tool] = []
    server_tools: list[ServerTool] = []
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: list[str] = []
    candidates: int = 1
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    reasoning: ReasoningControl = ReasoningControl()
    output: OutputFormat | None = None
    user: str = ""
    service_tier: str = ""
    verbosity: str = ""
    cache_key: str = ""
    metadata: dict[str, str] = {}
    stream: bool = False
    wants_usage: bool = True
    extensions: dict[str, Raw] = {}
    """Fields of the caller's format that nothing here stands for, by name: tuning at most. Carried nowhere, but named
    to the caller; what would change the meaning is refused instead. Null: it stands somewhere in the conversation."""
    echo: dict[str, Raw] = {}
    """Fields that the answer repeats in the caller's own words; for openai-responses."""


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    """Texts that a model is to turn into vectors."""

    model: str
    inputs: tuple[str, ...]
    dimensions: int | None = None
    wants_base64: bool = False
    """The vectors are to come as base64 of little-endian 32-bit floats."""
    is_single: bool = False
    """There is one text, and the answer is to hold one vector and no list."""
    extensions: dict[str, Raw] = {}
    """Fields that only the caller's own format understands, by name."""


# --- Answers


class Usage(Struct, frozen=True, kw_only=True):
    """Token counts of one call as billed, in disjoint buckets. None: the upstream did not say; 0: it said none."""

    input_tokens: int | None = None
    """Fresh input: neither read from nor written to a prompt cache."""
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    """All output, reasoning included."""
    reasoning_tokens: int | None = None
    """The part of the output that was reasoning."""

    @property
    def total_input_tokens(self) -> int:
        """Input of every kind."""
        return (self.input_tokens or 0) + (self.cache_read_tokens or 0) + (self.cache_write_tokens or 0)


Stop: TypeAlias = Literal["end", "length", "tool", "stop_sequence", "refusal", "blocked", "pause", "context"]
"""Why a candidate ended. ``refusal``: the model declined or was stopped; ``blocked``: the prompt was, nothing was said;
``pause``: a server tool's loop stopped, sending the turn back goes on; ``context``: the window is full."""


class TokenLogprob(Struct, frozen=True):
    """One token with its logarithmic probability, and what else might have stood there."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top: tuple["TokenLogprob", ...] = ()


class Candidate(Struct, frozen=True, kw_only=True):
    """One answer of perhaps several."""

    blocks: tuple[Block, ...] = ()
    stop: Stop = "end"
    stop_sequence: str | None = None
    detail: str = ""
    """What the vendor says about a refusal."""
    logprobs: tuple[TokenLogprob, ...] = ()


class Response(Struct, frozen=True, kw_only=True):
    """What a model answered."""

    id: str = ""
    model: str = ""
    created: int | None = None
    """Unix time, in seconds."""
    candidates: tuple[Candidate, ...] = (Candidate(),)
    usage: Usage | None = None
    service_tier: str = ""


class Embeddings(Struct, frozen=True, kw_only=True):
    """The vectors of the texts, in their order."""

    vectors: tuple[tuple[float, ...], ...]
    model: str = ""
    usage: Usage | None = None


class ModelCard(Struct, frozen=True, kw_only=True):
    """One model as a list of models shows it."""

    name: str
    created: int | None = None
    """Unix time, in seconds."""
    owner: str = ""
    origin: str = ""
    """Name of the format that *raw* is written in."""
    raw: Raw = Raw()
    """The upstream's own entry, for callers of the same format; empty where we made this one."""


# --- Events


class Start(Struct, frozen=True, kw_only=True):
    """The answer begins."""

    id: str = ""
    model: str = ""
    created: int | None = None
    service_tier: str = ""


class BlockStart(Struct, frozen=True):
    """A block begins, as *block* without what its deltas will add."""

    candidate: int
    key: int
    """Names the block among those of its candidate; never used again."""
    block: Block


class Delta(Struct, frozen=True, gc=False):
    """A piece of an open block's text: words, thoughts, or the JSON text of arguments."""

    candidate: int
    key: int
    text: str


class SealSet(Struct, frozen=True):
    """The seal of an open block, whole; at most one for a block."""

    candidate: int
    key: int
    seal: Seal


class CitationAdded(Struct, frozen=True):
    """One more citation of an open text block."""

    candidate: int
    key: int
    citation: Citation


class BlockStop(Struct, frozen=True, gc=False):
    """A block is complete."""

    candidate: int
    key: int


class LogprobsAdded(Struct, frozen=True):
    """The probabilities of the tokens since the last."""

    candidate: int
    logprobs: tuple[TokenLogprob, ...]


class Finish(Struct, frozen=True):
    """A candidate is complete; all of its blocks are closed."""

    candidate: int
    stop: Stop
    stop_sequence: str | None = None
    detail: str = ""


class UsageSeen(Struct, frozen=True):
    """The usage so far; replaces what was seen before."""

    usage: Usage


class Ping(Struct, frozen=True, gc=False):
    """The upstream is alive."""


class End(Struct, frozen=True, gc=False):
    """The answer is complete; every candidate has finished."""


class Failed(Struct, frozen=True):
    """The answer will never be complete."""

    error: ProxyError


BlockEvent: TypeAlias = Delta | SealSet | CitationAdded | BlockStop
CandidateEvent: TypeAlias = BlockEvent | BlockStart | LogprobsAdded | Finish
Event: TypeAlias = CandidateEvent | Start | UsageSeen | Ping | End | Failed


def arrange(turns: Iterable[Turn]) -> list[Turn]:
    """Return *turns* in the one order that every format can be written from.

    Neighbours of one role are merged; tool results stand directly behind the turn that holds their calls, in the order
    of the calls and before anything else of their turn, wherever the caller put them; empty texts and turns are gone.

    Raises:
        InvalidRequest: a result without a call, a call without a result although the conversation goes on, or one whose
            id comes again before that.
    """
    turns = list(turns)
    if _is_arranged(turns):
        return turns
    merged = merge_turns(turns)
    answers = _find_answers(merged)
    arranged: list[Turn] = []
    for index, turn in enumerate(merged):
        arranged.append(
            replace(turn, blocks=tuple(block for block in turn.blocks if not isinstance(block, ToolResult)))
        )
        calls = [block.id for block in turn.blocks if isinstance(block, ToolCall)]
        arranged.append(Turn("user", tuple(answers[index, call] for call in calls if (index, call) in answers)))
    return merge_turns(arranged)


def _is_arranged(turns: Sequence[Turn]) -> bool:
    """Tell whether there is nothing to do for `arrange`, as with most conversations."""
    before = Turn("user", (), phase="none is called so")
    waiting: list[str] = []
    for turn in turns:
        if (turn.role == before.role and turn.phase == before.phase) or not _answers(turn.blocks, waiting):
            return False
        waiting = [block.id for block in turn.blocks if type(block) is ToolCall]
        if len(waiting) > 1 and len(set(waiting)) < len(waiting):
            return False
        before = turn
    return True


def _answers(blocks: Sequence[Block], waiting: Sequence[str]) -> bool:
    """Tell whether *blocks* begin with the results of the calls *waiting*, have no others, and no empty text."""
    first = [block.call_id for block in blocks[: len(waiting)] if type(block) is ToolResult]
    return first == waiting and all(_is_plain(block) for block in blocks[len(waiting) :]) and bool(blocks)


def _is_plain(block: Block) -> bool:
    return bool(block.text) if type(block) is Text else type(block) is not ToolResult


def _find_answers(turns: Sequence[Turn]) -> dict[tuple[int, str], ToolResult]:
    """Return each tool result by the index of the turn that holds its call, and the call's id.

    Ids may come again in a long conversation: several servers count them anew for each answer.
    """
    answers: dict[tuple[int, str], ToolResult] = {}
    waiting: dict[str, int] = {}
    for index, turn in enumerate(turns):
        for block in turn.blocks:
            if isinstance(block, ToolCall):
                if block.id in waiting:
                    raise InvalidRequest(f"the tool call {block.id!r} comes again before it has a result")
                waiting[block.id] = index
            elif isinstance(block, ToolResult):
                answers[_find_call(block, waiting), block.call_id] = block
    for call, index in waiting.items():
        if index < len(turns) - 1:
            raise InvalidRequest(f"the tool call {call!r} has no result")
    return answers


def _find_call(result: ToolResult, waiting: dict[str, int]) -> int:
    """Return the index of the turn whose call *result* answers, and wait for that no longer."""
    if result.call_id not in waiting:
        raise InvalidRequest(f"the tool result {result.call_id!r} has no call that waits for it")
    return waiting.pop(result.call_id)


def merge_turns(turns: Iterable[Turn]) -> list[Turn]:
    """Return *turns* with neighbours of one role and phase as one, and without empty texts and turns."""
    groups: list[list[Turn]] = []
    for turn in turns:
        if any([type(block) is Text and not block.text for block in turn.blocks]):
            turn = replace(turn, blocks=tuple(block for block in turn.blocks if type(block) is not Text or block.text))
        if not turn.blocks:
            continue
        if groups and groups[-1][0].role == turn.role and groups[-1][0].phase == turn.phase:
            groups[-1].append(turn)
        else:
            groups.append([turn])
    return [group[0] if len(group) == 1 else _join(group) for group in groups]


def _join(turns: Sequence[Turn]) -> Turn:
    return replace(turns[0], blocks=tuple(block for turn in turns for block in turn.blocks))


def fold(events: Iterable[Event]) -> Response:
    """Return the response that *events* make.

    Raises:
        ProxyError: the events end with a failure: that one.
        UpstreamCut: they end without an end.
        UpstreamGarbage: their order is illegal.
    """
    folder = Folder()
    for event in events:
        folder.feed(event)
    return folder.result()


def unfold(response: Response) -> Iterator[Event]:
    """Yield the events that make *response*."""
    yield Start(id=response.id, model=response.model, created=response.created, service_tier=response.service_tier)
    for number, candidate in enumerate(response.candidates):
        for key, block in enumerate(candidate.blocks):
            yield from _unfold_block(number, key, block)
        if candidate.logprobs:
            yield LogprobsAdded(number, candidate.logprobs)
        yield Finish(number, candidate.stop, candidate.stop_sequence, candidate.detail)
    if response.usage is not None:
        yield UsageSeen(response.usage)
    yield End()


def _unfold_block(candidate: int, key: int, block: Block) -> Iterator[Event]:
    skeleton, text, citations, seal = _take_apart(block)
    yield BlockStart(candidate, key, skeleton)
    if text:
        yield Delta(candidate, key, text)
    for citation in citations:
        yield CitationAdded(candidate, key, citation)
    if seal is not None:
        yield SealSet(candidate, key, seal)
    yield BlockStop(candidate, key)


def _take_apart(block: Block) -> tuple[Block, str, tuple[Citation, ...], Seal | None]:
    """Return *block* as it begins, and what its deltas add."""
    match block:
        case Text(text=text, citations=citations, seal=seal):
            return replace(block, text="", seal=None, citations=()), text, citations, seal
        case Refusal(text=text):
            return Refusal(""), text, (), None
        case Reasoning(text=text, seal=seal):
            return Reasoning(), text, (), seal
        case ToolCall(arguments=text, seal=seal):
            return replace(block, arguments="", seal=None), text, (), seal
        case Media() | ToolResult() | Opaque():
            return block, "", (), None
        case _ as never:
            assert_never(never)


class _OpenBlock:
    """A block while its deltas come."""

    __slots__ = ("block", "citations", "is_open", "pieces", "seal")

    def __init__(self, block: Block) -> None:
        self.block = block
        self.pieces: list[str] = []
        self.citations: list[Citation] = []
        self.seal: Seal | None = None
        self.is_open = True

    def feed(self, event: BlockEvent) -> None:
        match event:
            case Delta(text=text):
                self.pieces.append(text)
            case SealSet(seal=seal):
                self.seal = seal
            case CitationAdded(citation=citation):
                self.citations.append(citation)
            case BlockStop():
                self.is_open = False
            case _ as never:
                assert_never(never)

    def close(self) -> Block:
        text = "".join(self.pieces)
        match self.block:
            case Text() as block:
                citations = (*block.citations, *self.citations)
                return replace(block, text=block.text + text, citations=citations, seal=self.seal or block.seal)
            case Refusal() as block:
                return Refusal(block.text + text)
            case Reasoning() as block:
                return Reasoning(block.text + text, self.seal or block.seal)
            case ToolCall() as block:
                return replace(block, arguments=block.arguments + text, seal=self.seal or block.seal)
            case Media() | ToolResult() | Opaque() as block:
                return block
            case _ as never:
                assert_never(never)


class _OpenCandidate:
    """A candidate while its events come."""

    __slots__ = ("blocks", "finish", "logprobs")

    def __init__(self) -> None:
        self.blocks: dict[int, _OpenBlock] = {}
        """By key, in the order in which they were started."""
        self.logprobs: list[TokenLogprob] = []
        self.finish: Finish | None = None

    def close(self, finish: Finish) -> Candidate:
        return Candidate(
            blocks=tuple(block.close() for block in self.blocks.values()),
            stop=finish.stop,
            stop_sequence=finish.stop_sequence,
            detail=finish.detail,
            logprobs=tuple(self.logprobs),
        )


class Folder:
    """Folds events into a response, and refuses those whose order is illegal. One per answer."""

    def __init__(self) -> None:
        self._start: Start | None = None
        self._candidates: dict[int, _OpenCandidate] = {}
        self._usage: Usage | None = None
        self._failure: ProxyError | None = None
        self._is_over = False

    def feed(self, event: Event) -> None:
        """Take the next event.

        Raises:
            UpstreamGarbage: it cannot stand here.
        """
        if self._is_over:
            raise _illegal(event, "behind the end")
        if self._start is None and not isinstance(event, Start | Ping | Failed):
            raise _illegal(event, "before the start")
        match event:
            case Ping():
                pass
            case Start() if self._start is None:
                self._start = event
            case Start():
                raise _illegal(event, "twice")
            case UsageSeen(usage=usage):
                self._usage = usage
            case End() | Failed():
                self._feed_end(event)
            case _:
                self._feed_candidate(event)

    def result(self) -> Response:
        """Return the response.

        Raises:
            ProxyError: the answer failed.
            UpstreamCut: it has not come to its end.
        """
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # else the error holds this frame, and the frame the error
        start = self._start
        if start is None or not self._is_over:
            raise UpstreamCut("the upstream's stream ended before it was complete")
        numbered = sorted(self._candidates.items())
        return Response(
            id=start.id,
            model=start.model,
            created=start.created,
            candidates=tuple(candidate.close(candidate.finish) for _, candidate in numbered if candidate.finish),
            usage=self._usage,
            service_tier=start.service_tier,
        )

    def _feed_end(self, event: End | Failed) -> None:
        if isinstance(event, Failed):
            self._failure = event.error
        elif not all(candidate.finish for candidate in self._candidates.values()):
            raise _illegal(event, "while a candidate has not finished")
        self._is_over = True

    def _feed_candidate(self, event: CandidateEvent) -> None:
        candidate = self._candidates.setdefault(event.candidate, _OpenCandidate())
        if candidate.finish is not None:
            raise _illegal(event, "behind the finish of its candidate")
        match event:
            case BlockStart(key=key, block=block):
                if key in candidate.blocks:
                    raise _illegal(event, "with a key that was used before")
                candidate.blocks[key] = _OpenBlock(block)
            case LogprobsAdded(logprobs=logprobs):
                candidate.logprobs += logprobs
            case Finish():
                if any(block.is_open for block in candidate.blocks.values()):
                    raise _illegal(event, "while a block is open")
                candidate.finish = event
            case _:
                _feed_block(candidate.blocks.get(event.key), event)


def _feed_block(block: _OpenBlock | None, event: BlockEvent) -> None:
    if block is None or not block.is_open:
        raise _illegal(event, "outside of an open block")
    block.feed(event)


def _illegal(event: Event, where: str) -> UpstreamGarbage:
    return UpstreamGarbage(f"illegal order of events: {type(event).__name__} {where}")
