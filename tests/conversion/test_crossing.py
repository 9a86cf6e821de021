"""From the caller's request to the upstream's, and from its answer to the caller's."""

import re
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from aiproxyd import hub
from aiproxyd.capabilities import Capabilities
from aiproxyd.conversion import MAX_STREAM_BYTES, Crossing, Memory, StreamCrossing, rewrite_request
from aiproxyd.errors import InvalidRequest, UpstreamCut, UpstreamGarbage, UpstreamRefusal
from aiproxyd.formats.codec import Losses
from aiproxyd.hub import (
    BlockStart,
    BlockStop,
    Delta,
    End,
    Failed,
    Finish,
    OutputFormat,
    Ping,
    Reasoning,
    Request,
    Response,
    Seal,
    Start,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
    Usage,
    UsageSeen,
)
from aiproxyd.sse import MAX_EVENT_BYTES
from tests.conversion.stand_in import NamingEncoder, StandIn, make_format

SEAL = Seal("up", "signature", "s")
ASKED = Request(model="alias", turns=[Turn("user", (Text("So?"),))], tools=[Tool(name="files.read")])


def cross(
    asked: Request = ASKED, *, upstream: StandIn | None = None, caller: StandIn | None = None, **options: Any
) -> Crossing:
    parts: dict[str, Any] = {
        "capabilities": Capabilities(),
        "origin": "here/model",
        "principal": "me",
        "memory": Memory(),
    }
    return Crossing(
        asked,
        caller or make_format("caller"),
        upstream or make_format("up"),
        **(parts | options),
    )


def open_stream(script: dict[bytes, list[hub.Event]]) -> StreamCrossing:
    upstream = make_format("up")
    upstream.script = script
    return cross(upstream=upstream).open_stream(NamingEncoder())


# --- Requests


def test_a_request_is_prepared_and_encoded_for_the_upstreams_model() -> None:
    upstream = make_format("up")

    assert cross(upstream=upstream).encode_request("model") == ("/models/model", "alt=sse", b"a request")
    assert upstream.encoded.model == "model"
    assert re.fullmatch("files_read_[0-9a-f]{8}", upstream.encoded.tools[0].name)


def test_a_count_asks_about_the_prepared_request() -> None:
    upstream = make_format("up")

    assert cross(upstream=upstream).encode_count("model") == ("/count", b"a request")
    assert upstream.encoded.model == "model"


def test_what_is_lost_is_named() -> None:
    crossing = cross(replace(ASKED, seed=1, extensions={"x": Raw(b"1")}))

    crossing.encode_request("model")

    assert crossing.losses.names == ["x", "seed"]


def test_a_strict_crossing_loses_nothing() -> None:
    assert cross(is_strict=True).encode_request("model")[2] == b"a request"
    with pytest.raises(InvalidRequest, match=r"\(up\) has no place for: x, seed;"):
        cross(replace(ASKED, seed=1, extensions={"x": Raw(b"1")}), is_strict=True).encode_request("model")


# --- Requests of callers who speak the format themselves


SPOKEN = Turn("assistant", (Reasoning("hm", Seal("up", "signature", "s")), Text("Sure.")))
FOREIGN = Turn("assistant", (Reasoning("hm", Seal("other@there/m", "signature", "s")), Text("Sure.")))
CALLING = Turn("assistant", (ToolCall(id="c_gw1", name="f", arguments="{}"),))
ANSWERED = Turn("user", (ToolResult(call_id="c_gw1"),))
SIGNING = Capabilities(needs_signed_turns=True, refuses_thoughts_when_off=True)


def rewrite(
    body: bytes, *turns: Turn, fmt: StandIn | None = None, capabilities: Capabilities | None = None, **fields: Any
) -> tuple[bytes | None, list[str]]:
    losses = Losses()
    asked = Request(model="alias", turns=[*ASKED.turns, *turns, *ASKED.turns], **fields)
    written = rewrite_request(
        body,
        asked,
        fmt or make_format("up"),
        capabilities or Capabilities(),
        model="model",
        origin="here/model",
        principal="me",
        memory=Memory(),
        losses=losses,
    )
    return written, losses.names


def test_a_conversation_without_others_is_not_rewritten() -> None:
    assert rewrite(b"not even read", SPOKEN) == (None, [])


def test_only_the_conversation_is_written_anew() -> None:
    fmt = make_format("up")
    fmt.body = b'{"turns":["anew"],"think":"anew","limit":1,"model":"model"}'

    written = rewrite(
        b'{"model":"alias", "turns":["old"],"x_new":1.50,"think":"hard","tools":[ {} ]}',
        FOREIGN,
        fmt=fmt,
        seed=1,
        tools=[Tool(name="f")],
        extensions={"x_new": Raw(b"1.50")},
    )

    assert written == (b'{"model":"alias","turns":["anew"],"x_new":1.50,"think":"hard","tools":[ {} ]}', [])
    assert fmt.encoded == Request(
        model="model", turns=[*ASKED.turns, Turn("assistant", (Text("Sure."),)), *ASKED.turns]
    )


def test_what_stands_in_the_conversation_and_has_no_place_is_named() -> None:
    fmt = make_format("up")
    fmt.body = b"{}"

    assert rewrite(b'{"turns":[]}', FOREIGN, fmt=fmt, extensions={"turns.name": Raw(b"null")}) == (
        b"{}",
        ["turns.name"],
    )


def test_a_turn_that_another_model_began_is_gone_on_with_thoughtlessly() -> None:
    fmt = make_format("up")
    fmt.body = b'{"turns":[],"think":"no"}'
    on = hub.ReasoningControl(mode="on")
    body = b'{"turns":[],"think":"hard","forget":true}'

    assert rewrite(body, CALLING, ANSWERED, fmt=fmt, capabilities=SIGNING, reasoning=on) == (
        b'{"turns":[],"think":"no"}',
        ["reasoning", "forget"],
    )
    assert fmt.encoded.reasoning == replace(on, mode="off")
    assert fmt.encoded.turns[1:] == [
        Turn("assistant", (ToolCall(id="c", name="f", arguments="{}"),)),
        Turn("user", (ToolResult(call_id="c", name="f"), *ASKED.turns[0].blocks)),
    ]


def test_what_was_called_is_offered_where_nothing_is_and_something_has_to_be() -> None:
    fmt = make_format("up", needs_called_tools=True)
    fmt.body = b'{"turns":[],"tools":["f"]}'

    assert rewrite(b'{"turns":[]}', CALLING, ANSWERED, fmt=fmt) == (b'{"turns":[],"tools":["f"]}', [])
    assert (fmt.encoded.tools, fmt.encoded.tool_choice) == ([Tool(name="f")], ToolChoice("none"))
    assert rewrite(b'{"turns":[],"tools":["own"]}', CALLING, ANSWERED, fmt=fmt, tools=[Tool(name="g")]) == (
        b'{"turns":[],"tools":["own"]}',
        [],
    )


def test_what_a_format_does_not_know_to_change_stays() -> None:
    fmt = make_format("up")
    fmt.members = {"turns": ("turns",)}  # type: ignore[misc]
    fmt.body = b'{"turns":[]}'
    on = hub.ReasoningControl(mode="on")

    assert rewrite(b'{"think":1}', CALLING, ANSWERED, fmt=fmt, capabilities=SIGNING, reasoning=on) == (
        b'{"think":1,"turns":[]}',
        ["reasoning"],
    )


# --- Whole answers


def test_a_whole_answer_is_told_in_the_callers_terms() -> None:
    upstream, caller = make_format("up"), make_format("caller")
    crossing = cross(upstream=upstream, caller=caller)
    crossing.encode_request("model")
    call = ToolCall(id="c", name=upstream.encoded.tools[0].name, arguments="{}")
    upstream.decoded = Response(id="1", candidates=(hub.Candidate(blocks=(call,)),), usage=Usage(output_tokens=2))

    body, response = crossing.convert_answer(b"...")

    told = replace(call, id="c_gw1", name="files.read")
    assert body == b"an answer"
    assert response is caller.encoded
    assert response == Response(
        id="1",
        model="alias",
        candidates=(hub.Candidate(blocks=(told,), stop="tool"),),
        usage=Usage(output_tokens=2),
    )


def test_a_caller_that_keeps_only_words_and_calls_loses_nothing() -> None:
    upstream = make_format("up", seals_on=frozenset(("reasoning", "call", "text")))
    memory = Memory()
    blocks = (
        Reasoning("hm", SEAL),
        Text("Let me see.", seal=replace(SEAL, data="t")),
        ToolCall(id="c.1", name="read", arguments='{"a": 1}', seal=replace(SEAL, data="u")),
        ToolCall(id="c.2", name="read", arguments='{"a": 2}'),
    )
    upstream.decoded = Response(candidates=(hub.Candidate(blocks=blocks),))
    _, response = cross(upstream=upstream, memory=memory).convert_answer(b"...")
    kept = [replace(block, seal=None) for block in response.candidates[0].blocks if isinstance(block, Text | ToolCall)]
    results = [ToolResult(call_id=block.id) for block in kept if isinstance(block, ToolCall)]
    turns = [*ASKED.turns, Turn("assistant", tuple(kept)), Turn("user", tuple(results))]

    cross(replace(ASKED, turns=turns), upstream=upstream, memory=memory).encode_request("model")

    sent = upstream.encoded.turns[1].blocks
    assert [getattr(block, "seal", None) for block in sent] == [block.seal for block in blocks]
    assert sent[0] == blocks[0]


# --- Streams


def test_a_stream_is_told_event_by_event() -> None:
    stream = open_stream(
        {
            b"1": [Start(), BlockStart(0, 0, Text("")), Delta(0, 0, "Hel")],
            b"2": [Ping(), Delta(0, 0, "lo"), BlockStop(0, 0)],
            b"3": [UsageSeen(Usage(output_tokens=1)), Finish(0, "end"), End()],
        }
    )

    assert stream.feed(b"data: 1\n\nda") == b"Start\nBlockStart\nHel\n"
    assert stream.feed(b"ta: 2\n\n") == b"Ping\nlo\nBlockStop\n"
    was_over = stream.is_over
    assert stream.feed(b"data: 3\n\n") == b"UsageSeen\nFinish\nEnd\n"
    assert (was_over, stream.is_over) == (False, True)
    assert stream.usage == Usage(output_tokens=1)
    assert stream.take_failure() is None
    assert stream.feed_eof() == b""


def test_a_stream_that_has_not_begun_says_nothing() -> None:
    stream = open_stream({b"1": [Ping()], b"2": [Start(), Ping()]})

    assert stream.feed(b"data: 1\n\n") == b""
    assert stream.feed(b"data: 2\n\n") == b"Start\nPing\n"


def test_the_last_event_may_lack_its_blank_line() -> None:
    stream = open_stream({b"1": [Start(), End()]})

    assert stream.feed(b"data: 1\n") == b""
    assert stream.feed_eof() == b"Start\nEnd\n"
    assert stream.is_over


def test_a_failure_is_for_others_to_tell() -> None:
    failure = UpstreamCut("gone")
    stream = open_stream({b"1": [Start(), Failed(failure), Ping()]})

    assert stream.feed(b"data: 1\n\n") == b"Start\n"
    assert stream.is_over
    assert stream.take_failure() is failure
    assert stream.take_failure() is None
    assert stream.is_over
    assert stream.encode_failure(failure) == b"Failed\n"


def test_a_failure_in_the_upstreams_own_words_is_put_in_common_ones() -> None:
    failure = UpstreamRefusal("prompt is too long", status=400, body=b"{}")
    stream = open_stream({b"1": [Failed(failure)]})

    stream.feed(b"data: 1\n\n")

    assert stream.take_failure() is failure
    assert (failure.body, failure.code) == (None, "context_length_exceeded")


def test_a_stream_that_just_ends_has_failed() -> None:
    stream = open_stream({b"1": [Start()]})
    stream.feed(b"data: 1\n\n")

    assert stream.feed_eof() == b""
    assert isinstance(stream.take_failure(), UpstreamCut)


def test_an_endless_event_is_a_failure() -> None:
    stream = open_stream({})

    assert stream.feed(b"data: " + b"x" * MAX_EVENT_BYTES) == b""
    assert stream.is_over
    assert isinstance(stream.take_failure(), UpstreamGarbage)


def test_an_endless_stream_is_a_failure() -> None:
    stream = open_stream({b"1": [Start()], b"2": [Delta(0, 0, "never told")]})
    comment = b":" + b" " * (2**20 - 3) + b"\n\n"
    assert stream.feed(b"data: 1\n\n") == b"Start\n"

    written = {stream.feed(comment) for _ in range(MAX_STREAM_BYTES // len(comment) - 1)}
    was_over = stream.is_over

    assert (written, was_over) == ({b""}, False)
    assert stream.feed(comment + b"data: 2\n\n") == b""
    assert stream.is_over
    failure = stream.take_failure()
    assert isinstance(failure, UpstreamGarbage)
    assert failure.message == "the upstream's stream is longer than 268435456 bytes"


def test_the_seal_of_a_call_stands_before_it_however_the_bytes_are_cut() -> None:
    call = ToolCall(id="c", name="f", arguments="")
    script: dict[bytes, list[hub.Event]] = {
        b"1": [Start(), BlockStart(0, 0, call), Delta(0, 0, "{}")],
        b"2": [hub.SealSet(0, 0, SEAL), BlockStop(0, 0)],
        b"3": [BlockStart(0, 1, call), hub.SealSet(0, 1, SEAL), BlockStop(0, 1)],
    }
    body = b"data: 1\n\ndata: 2\n\ndata: 3\n\n"

    whole, cut = open_stream(script), open_stream(script)

    thought = b"BlockStart\nSealSet\nBlockStop\n"
    told = b"Start\nBlockStart\n{}\nBlockStop\n" + thought + thought + b"BlockStart\nBlockStop\n"
    assert whole.feed(body) == told
    assert b"".join(cut.feed(bytes((byte,))) for byte in body) == told


def test_a_shape_that_the_model_cannot_give_its_answer_is_refused_by_the_callers_name_for_it() -> None:
    caller = make_format("caller", output_schema="$.text.schema")
    asked = replace(ASKED, output=OutputFormat(schema=Raw(b'{"type":"array"}')))
    picky = Capabilities(needs_object_output=True)

    with pytest.raises(InvalidRequest, match=r"make what text\.schema asks for a property of an object") as caught:
        cross(asked, caller=caller, capabilities=picky).encode_request("m")

    assert caught.value.param == "$.text.schema"
    assert cross(asked, caller=caller).encode_request("m")
    plain = replace(asked, output=OutputFormat(schema=Raw(b'{"type":"object"}')))
    assert cross(plain, caller=caller, capabilities=picky).encode_request("m")
