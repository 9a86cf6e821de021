import time
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from aiproxyd import hub
from aiproxyd.errors import UpstreamCut, UpstreamGarbage, UpstreamKeyRefused, UpstreamRefusal
from aiproxyd.formats import GEMINI
from aiproxyd.hub import BlockStart, BlockStop, Delta, End, Failed, Finish, Reasoning, Seal, SealSet, Start, Text
from aiproxyd.sse import SSEDecoder, SSEvent
from tests.formats.gemini.strategies import cited_texts, responses

RECORDINGS = Path(__file__).parents[2] / "recordings" / "gemini"
ANSWERED = sorted(path.parent for path in RECORDINGS.glob("*/response.json"))
STREAMS = [path.read_bytes() for path in sorted(RECORDINGS.glob("*/stream.sse"))]
ASKED = hub.Request(model="m", turns=[])
SEAL = Seal("gemini", "signature", "AAAA")
CUT = "the upstream's stream ended before it was complete"
CALL = {"functionCall": {"name": "f", "args": {"a": 1}, "id": "c"}}


def answer(*parts: object, finish: object = None, **fields: object) -> dict[str, object]:
    candidate: dict[str, object] = {"content": {"role": "model", "parts": list(parts)}}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate | fields]}


def feed(*answers: object, candidates: int = 1) -> list[hub.Event]:
    decoder = GEMINI.stream_decoder(candidates)
    events = [event for body in answers for event in decoder.feed(SSEvent(b"", msgspec.json.encode(body)))]
    return events + decoder.feed_eof()


def blocks(*answers: object) -> tuple[hub.Block, ...]:
    return hub.fold(feed(*answers, answer(finish="STOP"))).candidates[0].blocks


def read(chunks: list[bytes], candidates: int = 1) -> list[hub.Event]:
    sse, decoder = SSEDecoder(), GEMINI.stream_decoder(candidates)
    pieces = [piece for chunk in chunks for piece in sse.feed(chunk)] + sse.feed_eof()
    return [event for piece in pieces for event in decoder.feed(piece)] + decoder.feed_eof()


def test_words_are_passed_on_as_they_come() -> None:
    decoder = GEMINI.stream_decoder()
    usage = b',"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":1,"totalTokenCount":4}'
    head = b'{"modelVersion":"m","responseId":"r","candidates":[{"content":{"parts":[{"text":'

    pieces = [
        decoder.feed(SSEvent(b"", data))
        for data in (
            b"{}",
            head + b'"Hel"}]},"index":0}]' + usage + b"}",
            head + b'"lo"}]},"index":0}]' + usage + b"}",
            head + b'""}]},"finishReason":"STOP","index":0}]' + usage + b"}",
        )
    ]

    assert pieces == [
        [hub.Ping()],
        [
            Start(id="r", model="m"),
            BlockStart(0, 0, Text("")),
            Delta(0, 0, "Hel"),
            hub.UsageSeen(hub.Usage(input_tokens=3, output_tokens=1)),
        ],
        [Delta(0, 0, "lo")],
        [],
    ]
    assert decoder.feed_eof() == [BlockStop(0, 0), Finish(0, "end"), End()]
    assert decoder.feed_eof() == []
    assert decoder.feed(SSEvent(b"", b"{}")) == []
    assert decoder.is_over


def test_one_answer_may_hold_everything() -> None:
    assert feed(
        answer(
            {"text": "hm", "thought": True}, {"text": "Hi"}, CALL, CALL | {"thoughtSignature": "AAAA"}, finish="STOP"
        )
    ) == [
        Start(),
        BlockStart(0, 0, Reasoning()),
        Delta(0, 0, "hm"),
        BlockStop(0, 0),
        BlockStart(0, 1, Text("")),
        Delta(0, 1, "Hi"),
        BlockStop(0, 1),
        BlockStart(0, 2, hub.ToolCall(id="c", name="f", arguments="")),
        Delta(0, 2, '{"a":1}'),
        BlockStop(0, 2),
        BlockStart(0, 3, hub.ToolCall(id="c", name="f", arguments="")),
        Delta(0, 3, '{"a":1}'),
        SealSet(0, 3, SEAL),
        BlockStop(0, 3),
        Finish(0, "end"),
        End(),
    ]


def test_what_comes_behind_the_finish_still_counts() -> None:
    # Gemini 1.5 wrote a finishReason into every answer.
    early = answer({"text": "Hel"}, finish="STOP")

    assert blocks(early, answer({"text": "lo"}), {"usageMetadata": {}}) == (Text("Hello"),)


@pytest.mark.parametrize(
    ("parts", "read"),
    [
        ([{"text": "a"}, {"text": "b"}], (Text("ab"),)),
        ([{"text": "a", "thoughtSignature": "AAAA"}, {"text": "b"}], (Text("a", seal=SEAL), Text("b"))),
        ([{"text": "a"}, {"text": "b", "thoughtSignature": "AAAA"}], (Text("ab", seal=SEAL),)),
        ([{"text": "a"}, {"text": "", "thoughtSignature": "AAAA"}], (Text("a", seal=SEAL),)),
        ([{"text": "a"}, {"thoughtSignature": "AAAA"}], (Text("a", seal=SEAL),)),
        ([{"text": "a", "thoughtSignature": "_-_-_w"}], (Text("a", seal=Seal("gemini", "signature", "/+/+/w==")),)),
        (
            [{"text": "", "thoughtSignature": "AAAA"}],
            (Reasoning("", Seal("gemini", "signature", "AAAA", holder="text")),),
        ),
        (
            [{"text": "a", "thoughtSignature": "AAAA"}, {"text": "", "thoughtSignature": "BBBB"}],
            (Text("a", seal=SEAL), Reasoning("", Seal("gemini", "signature", "BBBB", holder="text"))),
        ),
        ([{"text": "", "thought": True, "thoughtSignature": "AAAA"}], (Reasoning("", SEAL),)),
        (
            [{"text": "a", "thought": True}, {"text": "", "thought": True, "thoughtSignature": "AAAA"}],
            (Reasoning("a", SEAL),),
        ),
        (
            [{"text": "a", "thought": True, "thoughtSignature": "AAAA"}, {"text": "b", "thought": True}],
            (Reasoning("a", SEAL), Reasoning("b")),
        ),
        (
            [{"inlineData": {"mimeType": "image/png", "data": "_-8"}, "thoughtSignature": "AAAA"}],
            (
                hub.Media(kind="image", media_type="image/png", data="/+8="),
                Reasoning("", Seal("gemini", "signature", "AAAA", holder="text")),
            ),
        ),
        ([{"fileData": {"fileUri": "files/a"}}], (hub.Media(kind="document", file_id="files/a", origin="gemini"),)),
        ([{}, {"text": ""}, {"thought": True}, None, 5, {"videoMetadata": {}}], ()),
    ],
)
def test_parts_become_blocks(parts: list[object], read: tuple[hub.Block, ...]) -> None:
    assert blocks(answer(*parts)) == read
    assert blocks(*map(answer, parts)) == read


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"executableCode": {"code": "1"}, "thoughtSignature": "AAAA"}, "executableCode"),
        ({"thought": True, "somethingNew": 5}, "somethingNew"),
        ({"text": 5}, "text"),
        ({"functionCall": []}, "functionCall"),
        ({"inlineData": {"mimeType": "text/plain", "data": "AP8="}}, "inlineData"),
    ],
)
def test_a_part_that_is_not_understood_is_kept_as_it_is(part: object, kind: str) -> None:
    kept = hub.Opaque("gemini", kind, Raw(msgspec.json.encode(part)))
    candidates = [{"index": 7}, {"finishReason": "STOP"}, {"content": {"parts": [{"text": "a"}]}}, {"content": {}}]
    whole = {"candidates": [*candidates, {"content": {"parts": [{"text": "b"}, part]}}]}

    assert blocks(answer({"text": "a"}, part)) == (Text("a"), kept)
    assert blocks([answer({"text": "a"}, part)]) == (Text("a"), kept)
    assert blocks(whole, {"candidates": [{"index": 7, "finishReason": "STOP"}]}) == (Text("ab"), kept)


def test_counts_that_a_later_answer_leaves_out_keep_their_value() -> None:
    first = {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1, "totalTokenCount": 4}}
    later = {"usageMetadata": {"candidatesTokenCount": 5, "totalTokenCount": 8}}

    told = feed(answer({"text": "a"}) | first, answer(finish="STOP") | later)

    usages = [event.usage for event in told if isinstance(event, hub.UsageSeen)]
    assert [(usage.input_tokens, usage.output_tokens) for usage in usages] == [(3, 1), (3, 5)]


def test_many_parts_that_nothing_else_understands_are_kept_in_linear_time() -> None:
    parts = [{"executableCode": {"code": str(number)}} for number in range(5_000)]
    start_s = time.process_time()

    kept = blocks(answer({"text": "a"}, *parts))

    assert time.process_time() - start_s < 1
    assert kept[1:] == tuple(hub.Opaque("gemini", "executableCode", Raw(msgspec.json.encode(part))) for part in parts)


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ({"name": "f"}, "{}"),
        ({"name": "f", "args": None}, "{}"),
        ({"name": "f", "args": [1, 2]}, "[1,2]"),
        ({"name": "f", "args": {}}, "{}"),
    ],
)
def test_a_call_always_has_arguments(call: object, arguments: str) -> None:
    [block] = blocks(answer({"functionCall": call}))

    assert isinstance(block, hub.ToolCall)
    assert (block.name, block.arguments) == ("f", arguments)


def test_arguments_are_on_one_line_with_their_numbers_as_they_were() -> None:
    decoder = GEMINI.stream_decoder()

    events = decoder.feed(
        SSEvent(
            b"", b'{"candidates":[{"content":{"parts":[{"functionCall":{"args":{ "a":\n [1.50, 1e3, "\xff"] }}}]}}]}'
        )
    )

    assert events[2] == Delta(0, 0, '{"a":[1.50,1e3,"\ufffd"]}')


def test_calls_without_an_id_get_one_each() -> None:
    calls = [{"functionCall": {"name": "f", **given}} for given in ({}, {"id": ""}, {"id": None}, {"id": 7})]

    ids = [block.id for block in blocks(answer(*calls)) if isinstance(block, hub.ToolCall)]

    assert all(call_id.startswith("call_") for call_id in ids[:3])
    assert len(set(ids)) == 4
    assert ids[3] == "7"


def test_arguments_that_are_nested_as_deep_as_can_be_read_do_no_harm() -> None:
    for depth in range(800, 1000):
        args = '{"a":' * depth + "1" + "}" * depth
        body = '{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":' + args + "}}]}}]}"
        decoder = GEMINI.stream_decoder()

        events = decoder.feed(SSEvent(b"", body.encode()))

        assert isinstance(events[-1], BlockStop | Failed)


def test_candidates_are_told_apart_by_their_index() -> None:
    response = hub.fold(
        feed(
            {"candidates": [{"index": 1, "content": {"parts": [{"text": "b"}]}}]},
            answer({"text": "a"}, finish="STOP"),
            answer({"text": "a"}, finish="MAX_TOKENS", index=1),
            answer({"text": "!"}, finish="STOP", index=-1),
            candidates=2,
        )
    )

    assert response.candidates == (
        hub.Candidate(blocks=(Text("a!"),)),
        hub.Candidate(blocks=(Text("ba"),), stop="length"),
    )


@pytest.mark.parametrize(
    ("answers", "candidates"),
    [
        ([], 1),
        ([{}], 1),
        ([answer({"text": "a"})], 1),
        ([answer(finish="STOP")], 2),
        ([answer(finish="STOP"), answer({"text": "a"}, index=1)], 1),
        ([{"usageMetadata": {"promptTokenCount": 3}}], 1),
    ],
)
def test_a_stream_that_just_ends_is_cut(answers: list[object], candidates: int) -> None:
    last = feed(*answers, candidates=candidates)[-1]

    assert isinstance(last, Failed)
    assert isinstance(last.error, UpstreamCut)
    assert last.error.message == CUT


def test_more_candidates_than_the_api_has_are_not_waited_for() -> None:
    answers = [answer(finish="STOP", index=index) for index in range(8)]

    assert feed(*answers, candidates=100)[-1] == End()


def test_a_blocked_prompt_ends_what_there_is() -> None:
    feedback = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}

    assert feed({"promptFeedback": {"safetyRatings": []}}, feedback, {"promptFeedback": {}}, candidates=2)[-2:] == [
        Finish(0, "blocked", detail="SAFETY"),
        End(),
    ]
    assert feed(answer({"text": "a"}), answer(finish="STOP", index=1), feedback)[-4:] == [
        BlockStop(0, 0),
        Finish(0, "blocked", detail="SAFETY"),
        Finish(1, "end"),
        End(),
    ]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"error": {"code": 503, "message": "busy"}}, UpstreamRefusal),
        ({"error": {"code": 401, "message": "AIza"}}, UpstreamKeyRefused),
        ([{"error": {"code": 503, "message": "busy"}}], UpstreamRefusal),
        ({"code": 503, "message": "busy", "status": "UNAVAILABLE"}, UpstreamRefusal),
        ("busy", UpstreamGarbage),
        ({"candidates": 5}, UpstreamGarbage),
        ([], UpstreamGarbage),
    ],
)
def test_an_error_ends_the_stream(body: object, error: type[Exception]) -> None:
    for before in ([], [answer({"text": "a"})]):
        events = feed(*before, body, answer(finish="STOP"))

        assert isinstance(events[-1], Failed)
        assert isinstance(events[-1].error, error)


def test_what_is_misshapen_and_does_not_matter_is_passed_over() -> None:
    odd = {
        "candidates": [
            {"content": {"parts": [{"text": "a"}], "role": "model"}, "index": "0", "finishReason": "STOP"},
            {"content": None, "index": None, "safetyRatings": 5, "citationMetadata": 5, "groundingMetadata": []},
        ],
        "usageMetadata": {"promptTokenCount": "3"},
        "modelVersion": 5,
        "responseId": None,
    }

    assert feed(odd) == [
        Start(),
        BlockStart(0, 0, Text("")),
        Delta(0, 0, "a"),
        BlockStop(0, 0),
        Finish(0, "end"),
        End(),
    ]


def test_the_end_that_imitations_write_is_passed_over() -> None:
    decoder = GEMINI.stream_decoder()
    decoder.feed(SSEvent(b"", msgspec.json.encode(answer(finish="STOP"))))

    assert decoder.feed(SSEvent(b"", b"[DONE]")) == [hub.Ping()]
    assert decoder.feed_eof() == [Finish(0, "end"), End()]


def test_citations_stand_behind_the_text_that_they_support() -> None:
    grounding = {
        "groundingChunks": [{"web": {"uri": "https://x.test", "title": "X"}}],
        "groundingSupports": [{"segment": {"endIndex": 3}, "groundingChunkIndices": [0]}],
    }
    recited = {"citations": [{"startIndex": 3, "endIndex": 4, "uri": "https://y.test"}]}
    cited = Text(
        "\u00e4bc",
        citations=(
            hub.Citation(
                "https://x.test", "X", "", 0, 2, "gemini", Raw(b'{"web":{"uri":"https://x.test","title":"X"}}')
            ),
            hub.Citation("https://y.test", "", "", 2, 3),
        ),
    )

    metadata = {"groundingMetadata": grounding, "citationMetadata": recited}
    late = {"candidates": [metadata]}

    assert blocks(answer({"text": "\u00e4bc"}, CALL, **metadata))[0] == cited
    assert blocks(answer({"text": "\u00e4b"}), answer({"text": "c"}), late) == (cited,)
    assert blocks(answer({"text": "\u00e4bc"}), late, late, answer(CALL))[0] == cited
    assert blocks(answer({"text": "\u00e4b"}, CALL, citationMetadata=recited))[0] == Text(
        "\u00e4b", citations=(hub.Citation("https://y.test", "", "", 2, 2),)
    )
    assert blocks(answer(CALL), late)[0] == hub.ToolCall(id="c", name="f", arguments='{"a":1}')


def supports(*segments: dict[str, object]) -> dict[str, object]:
    """Return metadata that support each of *segments* with a source of its own."""
    chunks = [{"web": {"uri": f"https://{number}.test", "title": "T"}} for number in range(len(segments))]
    cited = [{"segment": segment, "groundingChunkIndices": [number]} for number, segment in enumerate(segments)]
    return {"groundingMetadata": {"groundingChunks": chunks, "groundingSupports": cited}}


def places(*answers: object) -> list[tuple[str, list[tuple[str, int | None, int | None]]]]:
    """Return the texts of an answer, with the places that are cited in them."""
    texts = [block for block in blocks(*answers) if isinstance(block, Text)]
    return [(text.text, [(each.url, each.start, each.end) for each in text.citations]) for text in texts]


THOUGHT = {"text": "h\u00e4m", "thought": True}


def test_offsets_count_from_the_part_that_a_segment_names() -> None:
    metadata = supports(
        {"partIndex": 1, "startIndex": 1, "endIndex": 3, "text": "\u00e4"},
        {"partIndex": 2, "startIndex": 1, "endIndex": 2},
        {"partIndex": 4, "endIndex": 2},
    )
    parts = (THOUGHT, {"text": "a\u00e4"}, {"text": "bcd"}, CALL, {"text": "ef"})

    assert places(answer(*parts, **metadata)) == [
        ("a\u00e4bcd", [("https://0.test", 1, 2), ("https://1.test", 3, 4)]),
        ("ef", [("https://2.test", 0, 2)]),
    ]


def test_offsets_count_from_the_first_word_where_no_part_is_named() -> None:
    metadata = supports(
        {"startIndex": 0, "endIndex": 2, "text": "ab"},
        {"startIndex": 4, "endIndex": 6, "text": "\u00e4"},
        {"startIndex": 1, "endIndex": 4},
    )
    expected = [("abc", [("https://0.test", 0, 2), ("https://2.test", 1, 3)]), ("d\u00e4", [("https://1.test", 1, 2)])]

    assert places(answer(THOUGHT, {"text": "abc"}, CALL, {"text": "d\u00e4"}, **metadata)) == expected


def test_a_part_that_is_named_falsely_is_known_by_the_words() -> None:
    parts = (THOUGHT, {"text": "abc"}, CALL, {"text": "abcd"})
    in_all = supports(
        {"partIndex": 3, "startIndex": 3, "endIndex": 5, "text": "ab"}, {"partIndex": 3, "startIndex": 5, "endIndex": 7}
    )
    nowhere = supports({"partIndex": 3, "startIndex": 1, "endIndex": 3, "text": "zz"})

    assert places(answer(*parts, **in_all))[1] == ("abcd", [("https://0.test", 0, 2), ("https://1.test", 2, 4)])
    assert places(answer(*parts, **nowhere))[1] == ("abcd", [("https://0.test", 1, 3)])


def test_in_a_stream_offsets_count_over_all_that_was_said() -> None:
    metadata = supports(
        {"startIndex": 1, "endIndex": 3},
        {"partIndex": 0, "startIndex": 3, "endIndex": 5, "text": "\u00e4"},
        {"partIndex": 3, "startIndex": 2, "endIndex": 3, "text": "d"},
        {"partIndex": 3, "startIndex": 3, "endIndex": 99},
    )
    pieces = [answer(THOUGHT), answer({"text": "ab"}), answer({"text": "c"}), answer(CALL)]

    assert places(*pieces, answer({"text": "\u00e4d"}), answer({"text": "ef"}, **metadata)) == [
        ("abc", []),
        # What is about a text that has ended names its source, and none of these words.
        (
            "\u00e4def",
            [
                ("https://0.test", 0, 0),
                ("https://1.test", 0, 1),
                ("https://2.test", 1, 2),
                ("https://3.test", 2, 4),
            ],
        ),
    ]


@given(texts=st.lists(cited_texts(), min_size=1, max_size=3), has_thought=st.booleans())
def test_every_text_of_a_whole_answer_keeps_its_citations(texts: list[Text], has_thought: bool) -> None:
    calls = [hub.ToolCall(id=f"c{number}", name="f", arguments="{}") for number in range(len(texts))]
    said = [block for text, call in zip(texts, calls, strict=True) for block in (text, call)]
    first = [Reasoning("hm")] if has_thought else []
    candidate = hub.Candidate(blocks=(*first, *said))

    read_back = GEMINI.decode_response(GEMINI.encode_response(hub.Response(candidates=(candidate,)), ASKED))

    found = [block for block in read_back.candidates[0].blocks if isinstance(block, Text)]
    assert [text.text for text in found] == [text.text for text in texts]
    assert list(map(cited_words, found)) == list(map(cited_words, texts))


def cited_words(text: Text) -> list[hub.Citation]:
    """Return the citations of *text* that are about some of its words."""
    return [each for each in text.citations if each.start is not None and each.start != each.end]


def test_probabilities_come_with_their_words() -> None:
    result = {"chosenCandidates": [{"token": "a", "logProbability": -1.0}]}

    events = feed(answer({"text": "a"}, logprobsResult=result), answer(finish="STOP", logprobsResult=5))

    assert events[2:4] == [Delta(0, 0, "a"), hub.LogprobsAdded(0, (hub.TokenLogprob("a", -1.0),))]


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.name)
def test_a_recorded_stream_says_what_the_whole_answer_does(case: Path) -> None:
    whole = GEMINI.decode_response((case / "response.json").read_bytes())

    assert hub.fold(read([(case / "stream.sse").read_bytes()])) == whole
    assert GEMINI.decode_response(GEMINI.encode_response(whole, ASKED)) == whole


@pytest.mark.parametrize("stream", STREAMS)
@given(offsets=st.lists(st.integers(0, 4000), max_size=8))
def test_a_stream_says_the_same_however_it_is_cut(stream: bytes, offsets: list[int]) -> None:
    bounds = [0, *sorted(offset % (len(stream) + 1) for offset in offsets), len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(bounds)]

    read_whole, read_cut = read([stream]), read(chunks)

    if isinstance(read_whole[-1], Failed):
        assert isinstance(read_cut.pop(), Failed)
        read_whole.pop()
    assert read_cut == read_whole


def fold_any(events: list[hub.Event]) -> None:
    """Fold *events* and see that they end once."""
    folder = hub.Folder()
    for event in events:
        folder.feed(event)
    assert isinstance(events[-1], End | Failed)


WORDS = st.sampled_from(
    [
        "candidates",
        "content",
        "parts",
        "text",
        "name",
        "args",
        "data",
        "mimeType",
        "fileUri",
        "groundingChunks",
        "groundingSupports",
        "groundingChunkIndices",
        "segment",
        "endIndex",
        "web",
        "uri",
        "promptTokenCount",
        "blockReason",
        "chosenCandidates",
        "token",
        "error",
        "code",
        "message",
        "executableCode",
        "STOP",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "text": JSON | WORDS,
        "thought": st.booleans(),
        "thoughtSignature": WORDS,
        "functionCall": JSON,
        "x": JSON,
    },
)
CANDIDATES = st.fixed_dictionaries(
    {"content": st.fixed_dictionaries({"parts": st.lists(PARTS | JSON, max_size=3)})},
    optional={"index": st.integers(-1, 2), "finishReason": JSON, "groundingMetadata": JSON, "logprobsResult": JSON},
)
ANSWERS = st.fixed_dictionaries(
    {}, optional={"candidates": st.lists(CANDIDATES, max_size=3), "usageMetadata": JSON, "promptFeedback": JSON}
)


@given(bodies=st.lists(ANSWERS | JSON, max_size=5), candidates=st.integers(0, 3))
def test_any_json_makes_a_legal_order_of_events(bodies: list[object], candidates: int) -> None:
    fold_any(feed(*bodies, candidates=candidates))


@given(stream=st.sampled_from(STREAMS), noise=st.binary(max_size=20), data=st.data())
def test_a_stream_with_any_part_replaced_makes_a_legal_order_of_events(
    stream: bytes, noise: bytes, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(stream)))
    end = data.draw(st.integers(start, min(start + 40, len(stream))))

    fold_any(read([stream[:start] + noise + stream[end:]]))


@given(response=responses(), data=st.data())
def test_a_stream_that_is_cut_short_is_never_taken_for_complete(response: hub.Response, data: st.DataObject) -> None:
    encoder = GEMINI.stream_encoder(ASKED, "req_1")
    *pieces, _ = [piece for event in hub.unfold(response) if (piece := encoder.feed(event))]

    events = read(pieces[: data.draw(st.integers(0, len(pieces)))], len(response.candidates))

    assert isinstance(events[-1], Failed)


def test_a_call_of_many_bytes_costs_time_in_proportion() -> None:
    body = msgspec.json.encode(answer({"functionCall": {"name": "f", "args": {"a": "x" * 6_000_000}}}))
    decoder = GEMINI.stream_decoder()
    started = time.perf_counter()

    decoder.feed(SSEvent(b"", body))

    assert time.perf_counter() - started < 0.3
