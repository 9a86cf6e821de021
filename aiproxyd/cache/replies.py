"""How an answer that is kept is told again, in the words of whoever asks."""

from msgspec.structs import replace
from multidict import CIMultiDict

from aiproxyd.asking import Interpreter
from aiproxyd.attempt import EVENT_STREAM, JSON_TYPE, Request, WholeAnswer, open_encoder, wants_array
from aiproxyd.cache.entries import Entry
from aiproxyd.cache.questions import Caller, Question
from aiproxyd.cache.stores import Held, Rendering, Store
from aiproxyd.config import Target
from aiproxyd.errors import InvalidRequest, UpstreamError
from aiproxyd.formats import FORMATS
from aiproxyd.hub import Candidate, Refusal, Response, Text, ToolCall, unfold
from aiproxyd.hub import Request as HubRequest


class Narrator:
    """Tells answers again; one for the application."""

    def __init__(self, interpreter: Interpreter, store: Store) -> None:
        self._interpreter = interpreter
        self._store = store

    def tell(self, held: Held, question: Question, caller: Caller) -> WholeAnswer | None:
        """Return the answer that is kept, for its caller; None where it does not do."""
        request, _, record = caller
        entry = held.entry
        rendering = held.renderings.get(question.digest)
        if rendering is None:
            try:
                rendering, is_plain = self._render(entry, question, caller)
            except (UpstreamError, InvalidRequest):
                return None  # another version's; or another target may be able to say what this one cannot
            if is_plain:
                self._store.render(question.key, held, question.digest, rendering)
        record.upstream, record.upstream_model = entry.upstream, entry.model
        record.dropped = list(rendering.dropped)
        is_events = request.is_stream and not wants_array(request)
        headers = CIMultiDict({"Content-Type": EVENT_STREAM if is_events else JSON_TYPE})
        if request.is_stream:
            headers["Cache-Control"] = "no-cache"  # as streams have that come from an upstream
        return WholeAnswer(200, headers, rendering.body)

    def forget_ids(self, response: Response, request: Request, target: Target, name: str) -> Response:
        """Return *response* of *target*, in the format *name*, without ids that we gave its calls if it has none."""
        if self._interpreter.find_capabilities(request, target, name).has_call_ids:
            return response
        return replace(response, candidates=tuple(map(_forget_ids, response.candidates)))

    def _render(self, entry: Entry, question: Question, caller: Caller) -> tuple[Rendering, bool]:
        """Return *entry* as *caller* is to get it, and whether another one who asks in these words may get the same.

        Raises:
            InvalidRequest: the conversion would lose the request's meaning.
            UpstreamError: *entry* is not what it says.
        """
        request, principal, record = caller
        fmt, asked = FORMATS[entry.format], request.decode()
        if fmt is request.fmt and not request.is_stream and _may_share(entry, question.digest, asked):
            return Rendering(entry.body, ()), True
        encoder = open_encoder(request, asked, record.request_id) if request.is_stream else None
        response = fmt.decode_response(entry.body)
        target = Target(entry.upstream, entry.model)
        if fmt is request.fmt:
            response = self.forget_ids(response, request, target, entry.format)
            events = unfold(response)
            body = b"".join(map(encoder.feed, events)) if encoder else fmt.encode_response(response, asked)
            return Rendering(body, ()), True
        crossing = self._interpreter.cross(request, target, entry.format, principal)
        crossing.encode_request(entry.model)  # from now on it knows what the tools are called there
        body = crossing.replay(entry.body, encoder)
        # What belongs to a call or a thought is remembered for this caller, each time anew.
        return Rendering(body, tuple(crossing.losses.names)), _is_text(response)


def _may_share(entry: Entry, whole: bytes, asked: HubRequest) -> bool:
    """Tell whether *entry* may be given as it is: it holds nothing of another request."""
    return entry.request == whole or not (entry.has_echo or asked.echo)


def _is_text(response: Response) -> bool:
    """Tell whether *response* has nothing to go on from but its words."""
    blocks = [block for candidate in response.candidates for block in candidate.blocks]
    return all(isinstance(block, Refusal) or (isinstance(block, Text) and block.seal is None) for block in blocks)


def _forget_ids(candidate: Candidate) -> Candidate:
    blocks = (replace(block, id="") if isinstance(block, ToolCall) else block for block in candidate.blocks)
    return replace(candidate, blocks=tuple(blocks))
