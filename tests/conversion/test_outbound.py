"""A request is prepared such that an encoder needs only to spell it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from aiproxyd import hub
from aiproxyd.capabilities import Capabilities
from aiproxyd.conversion.memory import Memory
from aiproxyd.conversion.outbound import Outbound, describes_object
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.codec import Losses
from aiproxyd.hub import (
    Media,
    Opaque,
    OutputFormat,
    Reasoning,
    ReasoningControl,
    Refusal,
    Request,
    Seal,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from tests.conversion.stand_in import LATIN, WORD, StandIn, make_format

PLAIN = make_format("up")
ASKED = Turn("user", (Text("So?"),))
CALL = ToolCall(id="c", name="f", arguments="{}")
RESULT = ToolResult(call_id="c", name="f", content=(Text("ok"),))
IMAGE = Media(kind="image", media_type="image/png", data="AAAA", name="a.png")


def prepare(
    *turns: Turn, fmt: StandIn = PLAIN, capabilities: Capabilities | None = None, **fields: Any
) -> tuple[Request, list[str]]:
    """Return the request as it is to be encoded, and what was named as lost."""
    losses = Losses()
    outbound = Outbound(
        fmt, capabilities or Capabilities(), origin="up@here/model", principal="me", memory=Memory(), losses=losses
    )
    return outbound.prepare(Request(model="alias", turns=list(turns), **fields), "model"), losses.names


def system(text: str) -> Turn:
    return Turn("system", (Text(text),))


def user(*blocks: hub.Block) -> Turn:
    return Turn("user", blocks)


def assistant(*blocks: hub.Block) -> Turn:
    return Turn("assistant", blocks)


# --- What is asked for


def test_a_plain_request_stays_as_it_is_but_for_the_model() -> None:
    asked = Request(model="alias", turns=[system("Be brief."), ASKED], tools=[Tool(name="f")], temperature=1.0)

    prepared, lost = prepare(*asked.turns, tools=asked.tools)

    assert prepared == Request(model="model", turns=[system("Be brief."), ASKED], tools=[Tool(name="f")])
    assert lost == []


def test_the_request_that_was_asked_is_not_changed() -> None:
    asked = Request(model="alias", turns=[ASKED], seed=1, extensions={"x": Raw(b"1")}, echo={"y": Raw(b"2")})
    before = replace(asked)
    losses = Losses()

    prepared = Outbound(PLAIN, Capabilities(), origin="", principal="", memory=Memory(), losses=losses).prepare(
        asked, "m"
    )

    assert asked == before
    assert (prepared.seed, prepared.extensions, prepared.echo) == (None, {}, {})
    assert losses.names == ["x", "seed"]


def test_an_output_limit_is_cut_to_what_the_model_can_write() -> None:
    capabilities = Capabilities(max_output_tokens=64000)

    cut, lost = prepare(ASKED, capabilities=capabilities, max_output_tokens=128000)

    assert (cut.max_output_tokens, lost) == (64000, ["max_output_tokens"])


@pytest.mark.parametrize("known", [None, 64000, 128000])
@pytest.mark.parametrize("limit", [None, 1000, 64000])
def test_an_output_limit_that_the_model_can_keep_stays(limit: int | None, known: int | None) -> None:
    prepared, lost = prepare(ASKED, capabilities=Capabilities(max_output_tokens=known), max_output_tokens=limit)

    assert (prepared.max_output_tokens, lost) == (limit, [])


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (None, True),
        ('{"type":"object"}', True),
        ('{ "type" : "object" }', True),
        ('{"properties":{}}', True),
        ('{"$ref":"#/$defs/a"}', True),
        ("{}", True),
        ('{"type":"array"}', False),
        ('{"type":["object","null"]}', False),
        ('{"enum":["a"]}', False),
        ('{"anyOf":[{"type":"object"}]}', False),
        ("true", False),
    ],
)
def test_it_is_known_whether_an_answer_is_an_object(schema: str | None, expected: bool) -> None:
    output = OutputFormat(schema=None if schema is None else Raw(schema.encode()))

    assert describes_object(output) is expected


def test_a_limit_is_set_where_the_format_wants_one() -> None:
    fmt = make_format("up", needs_output_limit=True)

    assert prepare(ASKED, fmt=fmt)[0].max_output_tokens == 8192
    assert prepare(ASKED, fmt=fmt, max_output_tokens=5)[0].max_output_tokens == 5
    assert prepare(ASKED)[0].max_output_tokens is None


def test_a_request_that_only_warms_a_cache_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="warms Anthropic's prompt cache"):
        prepare(ASKED, max_output_tokens=0)


def test_several_answers_are_refused_where_there_can_be_but_one() -> None:
    with pytest.raises(InvalidRequest, match="more than one candidate"):
        prepare(ASKED, candidates=2)

    assert prepare(ASKED, candidates=2, fmt=make_format("up", has_candidates=True))[0].candidates == 2


# --- Thoughts


SIGNATURE = Seal("up", "signature", "s")
SIGNED = assistant(Reasoning("hm", SIGNATURE), CALL)
MANUAL = Capabilities(
    reasoning="budget", min_budget_tokens=1024, needs_signed_turns=True, refuses_thoughts_when_off=True
)
ON = ReasoningControl(mode="on", budget_tokens=2048)


def test_a_turn_that_goes_on_signed_thinks_on() -> None:
    prepared, lost = prepare(ASKED, SIGNED, user(RESULT), capabilities=MANUAL, reasoning=ON)

    assert (prepared.turns, prepared.reasoning, lost) == ([ASKED, SIGNED, user(RESULT)], ON, [])


def test_a_turn_that_goes_on_unsigned_does_not_think() -> None:
    turns = (ASKED, SIGNED, user(RESULT), assistant(CALL), user(RESULT))

    prepared, lost = prepare(*turns, capabilities=MANUAL, reasoning=ON)

    assert prepared.reasoning == ReasoningControl(mode="off")
    assert not any(isinstance(block, Reasoning) for turn in prepared.turns for block in turn.blocks)
    assert lost == ["reasoning"]


def test_thoughts_are_left_out_where_the_model_does_not_think() -> None:
    assert prepare(ASKED, SIGNED, user(RESULT), capabilities=MANUAL)[0].turns == [ASKED, assistant(CALL), user(RESULT)]


def test_a_turn_of_nothing_but_foreign_thoughts_is_gone() -> None:
    prepared, _ = prepare(ASKED, assistant(Reasoning("hm", Seal("other", "signature", "s"))), user(Text("And?")))

    assert prepared.turns == [user(Text("So?"), Text("And?"))]


def test_a_demanded_tool_and_sampling_are_settled_together() -> None:
    capabilities = replace(MANUAL, can_force_tools_reasoning=False, has_sampling_reasoning=False)
    fmt = make_format("up", knobs=frozenset(("temperature",)))

    prepared, lost = prepare(
        ASKED,
        fmt=fmt,
        capabilities=capabilities,
        tools=[Tool(name="f")],
        tool_choice=ToolChoice("required"),
        reasoning=ON,
        temperature=0.5,
    )

    assert (prepared.tool_choice, prepared.reasoning.mode, prepared.temperature) == (ToolChoice("required"), "off", 0.5)
    assert lost == ["reasoning"]


# --- Calls


def test_results_get_the_names_and_ids_of_their_calls() -> None:
    named, second = replace(CALL, id="a:1", name="files.read"), replace(CALL, id="a:2")
    results = user(ToolResult(call_id="a:1"), ToolResult(call_id="a:2"), Text("well"))

    prepared, _ = prepare(ASKED, assistant(named, second), results, tools=[Tool(name="files.read")])

    (call, other), (result, other_result, text) = (turn.blocks for turn in prepared.turns[1:])
    assert isinstance(call, ToolCall)
    assert isinstance(other, ToolCall)
    assert call.name == prepared.tools[0].name == "files_read_f98a72f3"
    assert (result, other_result, text) == (
        ToolResult(call_id=call.id, name="files_read_f98a72f3"),
        ToolResult(call_id=other.id, name="f"),
        Text("well"),
    )


def test_ids_that_come_again_are_told_apart() -> None:
    loop = (assistant(CALL), user(RESULT))

    prepared, _ = prepare(ASKED, *loop, *loop)

    calls = [block for turn in prepared.turns for block in turn.blocks if isinstance(block, ToolCall)]
    results = [block for turn in prepared.turns for block in turn.blocks if isinstance(block, ToolResult)]
    assert [call.id for call in calls] == [result.call_id for result in results]
    assert len({call.id for call in calls}) == 2


# --- Blocks


def test_opaque_blocks_go_only_to_their_origin() -> None:
    own, foreign = Opaque("up", "server_tool_use", Raw(b"{}")), Opaque("other", "mcp_call", Raw(b"{}"))

    prepared, lost = prepare(ASKED, assistant(own, foreign, Text("a")), ASKED)

    assert prepared.turns[1] == assistant(own, Text("a"))
    assert lost == ["mcp_call"]


@pytest.mark.parametrize("kind", ["compaction", "container_upload"])
def test_a_block_that_stands_for_more_than_itself_cannot_be_left_out(kind: str) -> None:
    block = Opaque("other", kind, Raw(b"{}"))

    with pytest.raises(InvalidRequest, match=f"a block of type '{kind}' cannot be sent"):
        prepare(ASKED, assistant(block, Text("a")), ASKED)
    assert prepare(ASKED, assistant(replace(block, origin="up")), ASKED)[1] == []


def test_blank_texts_are_left_out_where_they_are_refused() -> None:
    turns = (ASKED, assistant(Text(" \n"), CALL), user(RESULT, Text("\t"), Text("well")))
    picky = make_format("up", refuses_blank_texts=True)

    assert prepare(*turns, fmt=picky)[0].turns == [ASKED, assistant(CALL), user(RESULT, Text("well"))]
    assert prepare(ASKED, assistant(Text(" ")), user(Text("And?")), fmt=picky)[0].turns == [
        user(Text("So?"), Text("And?"))
    ]
    assert prepare(*turns)[0].turns == list(turns)


def test_a_refusal_is_a_text_where_there_are_none() -> None:
    turns = (ASKED, assistant(Refusal("No."), Refusal("")), ASKED)

    assert prepare(*turns)[0].turns[1] == assistant(Text("No."))
    assert prepare(*turns, fmt=make_format("up", has_refusals=True))[0].turns[1] == turns[1]


def test_turns_of_several_phases_are_one_where_there_are_none() -> None:
    phased = (Turn("assistant", (Text("hm"),), "commentary"), Turn("assistant", (Text("so"),), "final_answer"))

    assert prepare(ASKED, *phased, ASKED)[0].turns[1] == assistant(Text("hm"), Text("so"))
    assert prepare(ASKED, *phased, ASKED, fmt=make_format("up", has_phases=True))[0].turns[1:3] == list(phased)


RICH = make_format("up", has_result_media=True)


@pytest.mark.parametrize(("fmt", "has_result_media"), [(PLAIN, True), (RICH, False)])
def test_media_are_lifted_out_of_results_that_hold_only_text(fmt: StandIn, has_result_media: bool) -> None:
    calls = assistant(CALL, replace(CALL, id="d"))
    seen = replace(RESULT, content=(Text("see"), IMAGE))

    prepared, _ = prepare(
        ASKED,
        calls,
        user(seen, replace(RESULT, call_id="d"), Text("well")),
        fmt=fmt,
        capabilities=Capabilities(has_result_media=has_result_media),
    )

    assert prepared.turns[2] == user(
        replace(RESULT, content=(Text("see"), Text("[image 'a.png' image/png: see below]"))),
        replace(RESULT, call_id="d"),
        Text("From the tool f:"),
        IMAGE,
        Text("well"),
    )


def test_media_stay_in_results_that_can_hold_them() -> None:
    seen = user(replace(RESULT, content=(Text("see"), IMAGE)))

    assert prepare(ASKED, assistant(CALL), seen, fmt=RICH)[0].turns[2] == seen


def test_what_only_one_format_can_say_of_media_is_left_out_and_named() -> None:
    film = Media(kind="video", data="AAAA", extensions={"videoMetadata": Raw(b"{}"), "mediaResolution": Raw(b'"LOW"')})
    cut = replace(IMAGE, extensions={"transformations": Raw(b"[]")})

    prepared, lost = prepare(
        user(film, Text("So?")), assistant(CALL), user(replace(RESULT, content=(Text("see"), cut, IMAGE))), fmt=RICH
    )

    assert prepared.turns == [
        user(replace(film, extensions={}), Text("So?")),
        assistant(CALL),
        user(replace(RESULT, content=(Text("see"), IMAGE, IMAGE))),
    ]
    assert lost == ["video.videoMetadata", "video.mediaResolution", "image.transformations"]


# --- The order of turns


LATE = make_format("up", has_system_turns=True)
BEHIND_USER = make_format("up", has_system_turns=True, has_system_behind_user=True)
NOTED = user(Text("So?"), Text("[system note] Hush."))


@pytest.mark.parametrize(
    ("fmt", "has_late_system", "turns", "placed"),
    [
        (PLAIN, True, (system("Be."), ASKED, system("Hush.")), [system("Be."), NOTED]),
        (LATE, True, (system("Be."), ASKED, system("Hush.")), [system("Be."), ASKED, system("Hush.")]),
        (LATE, False, (ASKED, system("Hush.")), [NOTED]),
        (BEHIND_USER, True, (ASKED, system("Hush.")), [ASKED, system("Hush.")]),
        (BEHIND_USER, True, (ASKED, system("Hush."), assistant(Text("a")), ASKED),
         [ASKED, system("Hush."), assistant(Text("a")), ASKED]),
        (BEHIND_USER, True, (ASKED, system("Hush."), ASKED), [user(*NOTED.blocks, Text("So?"))]),
        (BEHIND_USER, True, (ASKED, assistant(Text("a")), system("Hush."), ASKED),
         [ASKED, assistant(Text("a")), user(Text("[system note] Hush."), Text("So?"))]),
        (PLAIN, True, (ASKED, assistant(CALL), user(RESULT), system("Hush.")),
         [ASKED, assistant(CALL), user(RESULT, Text("[system note] Hush."))]),
        (PLAIN, True, (ASKED, Turn("system", (IMAGE,))), [user(Text("So?"), IMAGE)]),
    ],
)  # fmt: skip
def test_system_turns_stand_where_they_can_or_are_notes(
    fmt: StandIn, has_late_system: bool, turns: tuple[Turn, ...], placed: list[Turn]
) -> None:
    prepared, lost = prepare(*turns, fmt=fmt, capabilities=Capabilities(has_late_system=has_late_system))

    assert (prepared.turns, lost) == (placed, [])


WORDY = make_format("up", needs_json_word=True)
PLAIN_JSON = hub.OutputFormat()
HINT = system("Answer with a single JSON object.")


@pytest.mark.parametrize(
    ("fmt", "turns", "output", "hinted"),
    [
        (WORDY, (ASKED,), PLAIN_JSON, [HINT, ASKED]),
        (WORDY, (system("Be."), ASKED), PLAIN_JSON, [Turn("system", (*HINT.blocks, Text("Be."))), ASKED]),
        (WORDY, (user(Text("As Json?")),), PLAIN_JSON, [user(Text("As Json?"))]),
        (WORDY, (ASKED,), None, [ASKED]),
        (WORDY, (ASKED,), hub.OutputFormat(schema=Raw(b"{}")), [ASKED]),
        (PLAIN, (ASKED,), PLAIN_JSON, [ASKED]),
    ],
)
def test_a_model_is_told_to_write_json_where_nothing_else_says_so(
    fmt: StandIn, turns: tuple[Turn, ...], output: hub.OutputFormat | None, hinted: list[Turn]
) -> None:
    assert prepare(*turns, fmt=fmt, output=output)[0].turns == hinted


USER_FIRST = make_format("up", wants_user_first=True)
OPENING = user(Text("(The conversation begins.)"))


@pytest.mark.parametrize(
    ("turns", "opened"),
    [
        ((assistant(Text("Hi")), ASKED), [OPENING, assistant(Text("Hi")), ASKED]),
        ((system("Be."), assistant(Text("Hi")), ASKED), [system("Be."), OPENING, assistant(Text("Hi")), ASKED]),
        ((system("Be."),), [system("Be."), OPENING]),
    ],
)
def test_the_user_begins_where_the_format_wants_that(turns: tuple[Turn, ...], opened: list[Turn]) -> None:
    prepared, lost = prepare(*turns, fmt=USER_FIRST)

    assert (prepared.turns, lost) == (opened, ["order of turns"])
    assert prepare(*turns)[0].turns == list(turns)


def test_a_user_who_begins_is_not_introduced() -> None:
    assert prepare(system("Be."), ASKED, fmt=USER_FIRST) == (Request(model="model", turns=[system("Be."), ASKED]), [])


@pytest.mark.parametrize("turns", [(), (assistant(Reasoning("hm")),), (assistant(Opaque("other", "x", Raw(b"{}"))),)])
def test_an_empty_conversation_is_refused(turns: tuple[Turn, ...]) -> None:
    with pytest.raises(InvalidRequest, match="the conversation is empty"):
        prepare(*turns)


def test_words_put_into_the_models_mouth_are_named_where_it_only_answers_them() -> None:
    said = assistant(Text("It is"))

    assert prepare(ASKED, said) == (Request(model="model", turns=[ASKED, said]), ["prefill"])
    assert prepare(ASKED, said, fmt=make_format("up", has_exact_prefill=True))[1] == []


def test_words_put_into_the_models_mouth_are_refused_where_it_cannot_go_on_from_them() -> None:
    with pytest.raises(InvalidRequest, match="cannot go on from words"):
        prepare(ASKED, assistant(Text("It is")), capabilities=Capabilities(has_prefill=False))


# --- Requests of callers who speak the format themselves


def clean(*turns: Turn, fmt: StandIn = PLAIN, capabilities: Capabilities | None = None) -> Request:
    outbound = Outbound(
        fmt, capabilities or Capabilities(), origin="up@here/model", principal="me", memory=Memory(), losses=Losses()
    )
    return outbound.clean(Request(model="alias", turns=list(turns), seed=1, tools=[Tool(name="a.b")]), "model")


def test_a_native_conversation_is_left_as_it_is() -> None:
    film = Media(kind="video", data="AAAA", extensions={"videoMetadata": Raw(b"{}")})
    call = replace(CALL, name="a.b", arguments="+ x", is_custom=True)
    said = (Reasoning("hm", SIGNATURE), Text("a", seal=SIGNATURE), Opaque("up", "x", Raw(b"{}")), call)
    result = replace(RESULT, name="a.b", is_custom=True)
    turns = [user(film), assistant(*said), user(result), assistant(Text("It is"))]

    assert clean(*turns) == Request(model="model", turns=turns)


def test_ids_are_the_upstreams_own_again() -> None:
    calls = assistant(replace(CALL, id="c_gw1"), replace(CALL, id="gw1_YTox"), replace(CALL, id="d"))
    results = user(*(replace(RESULT, call_id=call_id) for call_id in ("c_gw1", "gw1_YTox", "d")))

    cleaned = clean(ASKED, calls, results, fmt=make_format("up", call_id=LATIN))

    assert cleaned.turns == [
        ASKED,
        assistant(CALL, replace(CALL, id="a:1"), replace(CALL, id="d")),
        user(*(replace(RESULT, call_id=call_id) for call_id in ("c", "a:1", "d"))),
    ]


def test_a_model_that_wants_its_thoughts_back_gets_those_that_it_thought_itself() -> None:
    own, others = assistant(Reasoning("hm"), CALL), assistant(Reasoning("ah"), replace(CALL, id="d_gw1"))
    turns = (ASKED, own, user(RESULT), others, user(replace(RESULT, call_id="d_gw1")))

    kept = clean(*turns, capabilities=Capabilities(wants_thoughts_back=True)).turns

    assert kept[1] == assistant(Reasoning("hm", Seal("up", "plain", "")), CALL)
    assert kept[3] == assistant(replace(CALL, id="d"))
    assert clean(*turns).turns[1] == assistant(CALL)


# --- Whatever is asked

IDS = st.sampled_from(["a", "b:", ""])
TEXTS = st.text(max_size=3)
SEALS = st.none() | st.just(SIGNATURE) | st.just(Seal("x", "redacted", "s"))
WORDS = st.builds(Text, TEXTS, seal=SEALS)
ASKING = WORDS | st.builds(ToolResult, call_id=IDS, content=st.just((Text("t"), IMAGE)))
ANSWERING = st.one_of(
    WORDS,
    st.builds(Reasoning, TEXTS, SEALS),
    st.builds(ToolCall, id=IDS, name=TEXTS, arguments=st.just("{}"), seal=SEALS),
    st.builds(Refusal, TEXTS),
    st.builds(Opaque, st.sampled_from(["up", "other"]), st.just("x"), st.just(Raw(b"{}"))),
)
TURNS = st.one_of(
    st.builds(Turn, st.just("system"), st.lists(WORDS, max_size=2).map(tuple)),
    st.builds(Turn, st.just("user"), st.lists(ASKING, max_size=4).map(tuple)),
    st.builds(
        Turn, st.just("assistant"), st.lists(ANSWERING, max_size=4).map(tuple), st.sampled_from(["", "commentary"])
    ),
)
FORMATS = st.builds(
    make_format,
    st.just("up"),
    call_id=st.sampled_from([WORD, LATIN]),
    has_system_turns=st.booleans(),
    has_system_behind_user=st.booleans(),
    has_result_media=st.booleans(),
    has_phases=st.booleans(),
    wants_user_first=st.booleans(),
)


@given(turns=st.lists(TURNS, max_size=6), fmt=FORMATS, capabilities=st.sampled_from([Capabilities(), MANUAL]))
def test_whatever_is_asked_is_arranged_and_legal_or_refused(
    turns: list[Turn], fmt: StandIn, capabilities: Capabilities
) -> None:
    try:
        prepared, _ = prepare(*hub.arrange(turns), fmt=fmt, capabilities=capabilities, reasoning=ON)
    except InvalidRequest:
        return

    blocks = [block for turn in prepared.turns for block in turn.blocks]
    calls = [block for block in blocks if isinstance(block, ToolCall)]
    assert hub.arrange(prepared.turns) == prepared.turns
    assert all(fmt.traits.call_id.fullmatch(call.id) and WORD.fullmatch(call.name) for call in calls)
    assert all(seal.origin == "up" for block in blocks if (seal := getattr(block, "seal", None)))
    assert not any(isinstance(block, Opaque) and block.origin != "up" for block in blocks)


def test_what_the_assistant_drew_is_handed_over_where_it_cannot_be_among_its_words() -> None:
    picture = Media(kind="image", media_type="image/png", data="AAAA")
    turns = [
        Turn("user", (Text("Draw"),)),
        Turn("assistant", (Text("Here:"), picture)),
        Turn("user", (Text("Bigger"),)),
    ]

    request, losses = prepare(*turns)

    assert request.turns == [
        Turn("user", (Text("Draw"),)),
        Turn("assistant", (Text("Here:"), Text("[image image/png: see below]"))),
        Turn("user", (Text("From your last turn:"), picture, Text("Bigger"))),
    ]
    assert losses == []


def test_what_the_assistant_drew_stays_where_it_may() -> None:
    picture = Media(kind="image", media_type="image/png", data="AAAA")
    turns = [Turn("user", (Text("Draw"),)), Turn("assistant", (picture,)), Turn("user", (Text("Bigger"),))]

    request, _ = prepare(*turns, fmt=make_format("up", has_assistant_media=True))

    assert request.turns == turns
