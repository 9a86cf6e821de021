"""The calls beside generation, converted: counting tokens, and embeddings."""

from typing import Final

from msgspec.structs import replace
from multidict import CIMultiDict

from aiproxyd.attempt import JSON_TYPE, Request, WholeAnswer
from aiproxyd.conversion import Crossing
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.base import Format
from aiproxyd.formats.codec import refuse
from aiproxyd.headers import select_for_conversion
from aiproxyd.hub import Usage
from aiproxyd.providers.base import Call, Provider
from aiproxyd.routing.health import Candidate
from aiproxyd.telemetry.records import CallRecord
from aiproxyd.tokens import estimate_texts, estimate_tokens

ESTIMATED: Final = "x-aiproxyd-estimated"
"""Response header that says what of the answer is our own estimate."""

NO_COUNTER: Final = frozenset((404, 405, 501))
"""What servers answer that imitate an API but for its counter."""


async def count_tokens(
    request: Request,
    candidate: Candidate,
    provider: Provider,
    crossing: Crossing,
    deadline: float,
    record: CallRecord,
) -> WholeAnswer:
    """Have the upstream count, where its API can; else estimate.

    Raises:
        InvalidRequest: the request could not be sent to this model either.
        UpstreamError: the upstream did not answer, or with an error.
    """
    counting = crossing.encode_count(candidate.target.model)
    if counting is None:
        return estimate(request)
    path, body = counting
    counted = await _ask(request, candidate, provider, crossing.upstream, path, body, deadline, record)
    return _answer(request.fmt.encode_count(crossing.upstream.decode_count(counted)))


def estimate(request: Request) -> WholeAnswer:
    """Return our own estimate, marked as such.

    Raises:
        InvalidRequest: it is no request whose tokens can be counted, or some of them are kept elsewhere.
    """
    asked = request.decode()
    request.fmt.refuse_state(asked)
    answer = _answer(request.fmt.encode_count(estimate_tokens(asked)))
    answer.headers[ESTIMATED] = "tokens"
    return answer


async def embed(
    request: Request,
    candidate: Candidate,
    provider: Provider,
    fmt: Format,
    deadline: float,
    record: CallRecord,
    *,
    is_strict: bool = False,
) -> WholeAnswer:
    """Have the upstream, which speaks *fmt*, turn texts into vectors.

    Raises:
        InvalidRequest: it cannot, or not these; where *is_strict*, also if a setting would be lost.
        UpstreamError: it did not answer, or with an error.
    """
    asked = request.fmt.decode_embedding_request(request.body, request.path)
    asked = replace(asked, model=candidate.target.model)
    asking = fmt.encode_embedding_request(asked)
    if asking is None:
        raise InvalidRequest(
            f"model {request.model!r} makes no embeddings: its upstream's API has no such thing", param="$.model"
        )
    if is_strict and asked.extensions:
        raise refuse(", ".join(asked.extensions), fmt.name)
    path, body = asking
    embeddings = fmt.decode_embeddings(await _ask(request, candidate, provider, fmt, path, body, deadline, record))
    record.usage = embeddings.usage
    record.dropped = list(asked.extensions)
    if embeddings.usage is not None:
        return _answer(request.fmt.encode_embeddings(embeddings, asked))
    # Clients demand it where Gemini, for one, mostly does not say it: https://ai.google.dev/api/embeddings.
    embeddings = replace(embeddings, usage=Usage(input_tokens=estimate_texts(asked.inputs)))
    answer = _answer(request.fmt.encode_embeddings(embeddings, asked))
    answer.headers[ESTIMATED] = "usage"
    return answer


async def _ask(
    request: Request,
    candidate: Candidate,
    provider: Provider,
    fmt: Format,
    path: str,
    body: bytes,
    deadline: float,
    record: CallRecord,
) -> bytes:
    headers = select_for_conversion(request.headers)
    headers["Content-Type"] = JSON_TYPE
    record.begin_attempt(*candidate.target)
    answer = await provider.send(Call(path=path, headers=headers, body=body), deadline, candidate.key)
    try:
        if not 200 <= answer.status < 300:
            raise await provider.read_refusal(answer, fmt)
        return await answer.read_whole()
    finally:
        answer.close()


def _answer(body: bytes) -> WholeAnswer:
    return WholeAnswer(200, CIMultiDict({"Content-Type": JSON_TYPE}), body)
