import msgspec
import pytest
from hypothesis import given
from msgspec import Raw
from msgspec.structs import replace

from aiproxyd import hub
from aiproxyd.errors import NotReady
from aiproxyd.formats import GEMINI
from aiproxyd.sse import SSEDecoder
from tests.formats.gemini.strategies import responses

ASKED = hub.Request(model="gemini-3-pro", turns=[])
START = hub.Start(id="r", model="m")
REST = b'],"index":0}],"modelVersion":"m","responseId":"r"}\r\n\r\n'.replace(b"]", b"]}", 1)


def event(parts: bytes) -> bytes:
    return b'data: {"candidates":[{"content":{"role":"model","parts":[' + parts + REST


def fold(stream: bytes, candidates: int) -> hub.Response:
    decoder = GEMINI.stream_decoder(candidates)
    events = [found for piece in SSEDecoder().feed(stream) for found in decoder.feed(piece)]
    return hub.fold(events + decoder.feed_eof())


@given(response=responses())
def test_a_stream_says_what_the_whole_answer_does(response: hub.Response) -> None:
    encoder = GEMINI.stream_encoder(ASKED, "req_1")

    stream = b"".join(map(encoder.feed, hub.unfold(response)))

    assert fold(stream, len(response.candidates)) == response


@given(response=responses())
def test_a_stream_is_lines_of_data_and_nothing_else(response: hub.Response) -> None:
    encoder = GEMINI.stream_encoder(ASKED, "req_1")

    stream = b"".join(map(encoder.feed, hub.unfold(response)))

    for piece in stream.removesuffix(b"\r\n\r\n").split(b"\r\n\r\n"):
        assert piece.startswith(b'data: {"')
        assert b"\n" not in piece
        msgspec.json.decode(piece.removeprefix(b"data: "))


def test_no_line_ends_where_a_javascript_pattern_would_end_it() -> None:
    # Gemini CLI reads events with one.
    words = "a\u2028b\u2029c"
    blocks = (hub.Text(words), hub.ToolCall(id="c", name="f", arguments=f'{{"a":"{words}"}}'), hub.Reasoning(words))
    response = hub.Response(id="r", model=words, candidates=(hub.Candidate(blocks=blocks),))
    encoder = GEMINI.stream_encoder(ASKED, "req_1")

    stream = b"".join(map(encoder.feed, hub.unfold(response)))

    assert not {"\u2028", "\u2029"} & set((stream + GEMINI.encode_stream_error(NotReady(words), "req_1")).decode())
    told = fold(stream, 1)
    assert told.model == words
    text, call, thought = told.candidates[0].blocks
    assert (text, thought) == (hub.Text(words), hub.Reasoning(words))
    assert isinstance(call, hub.ToolCall)
    assert msgspec.json.decode(call.arguments) == {"a": words}


@given(response=responses())
def test_the_array_holds_the_same_answers(response: hub.Response) -> None:
    encoder, array_encoder = GEMINI.stream_encoder(ASKED, "req_1"), GEMINI.array_encoder(ASKED, "req_1")

    stream = b"".join(map(encoder.feed, hub.unfold(response)))
    array = b"".join(map(array_encoder.feed, hub.unfold(response)))

    assert msgspec.json.decode(array) == [msgspec.json.decode(piece.data) for piece in SSEDecoder().feed(stream)]


def test_the_array_is_written_as_google_writes_it() -> None:
    encoder = GEMINI.array_encoder(ASKED, "req_1")

    pieces = [
        encoder.feed(event)
        for event in (
            START,
            hub.BlockStart(0, 0, hub.Text("")),
            hub.Delta(0, 0, "Hi"),
            hub.BlockStop(0, 0),
            hub.Failed(NotReady("busy")),
        )
    ]

    assert pieces == [
        b"",
        b"",
        b'[{"candidates":[{"content":{"role":"model","parts":[{"text":"Hi"}]},"index":0}],"modelVersion":"m","responseId":"r"}',
        b"",
        b'\n,\n{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}\n]',
    ]


def test_words_go_out_as_they_come_and_the_end_says_the_rest() -> None:
    encoder = GEMINI.stream_encoder(ASKED, "req_1")

    pieces = [
        encoder.feed(event)
        for event in (
            START,
            hub.Ping(),
            hub.BlockStart(0, 0, hub.Reasoning()),
            hub.Delta(0, 0, "hm"),
            hub.BlockStop(0, 0),
            hub.BlockStart(0, 1, hub.Text("Oh")),
            hub.Delta(0, 1, ""),
            hub.Delta(0, 1, ' "Hi"\n'),
            hub.BlockStop(0, 1),
            hub.UsageSeen(hub.Usage(input_tokens=3)),
            hub.Finish(0, "end"),
            hub.UsageSeen(hub.Usage(input_tokens=3, output_tokens=4)),
            hub.End(),
        )
    ]

    assert pieces == [
        b"",
        b"",
        b"",
        event(b'{"thought":true,"text":"hm"}'),
        b"",
        event(b'{"text":"Oh"}'),
        b"",
        event(b'{"text":" \\"Hi\\"\\n"}'),
        b"",
        b"",
        b"",
        b"",
        b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":""}]},"finishReason":"STOP","index":0}],'
        b'"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":4,"totalTokenCount":7},'
        b'"modelVersion":"m","responseId":"r"}\r\n\r\n',
    ]


def test_calls_that_overlap_go_out_whole_when_they_end() -> None:
    encoder = GEMINI.stream_encoder(ASKED, "req_1")
    seal = hub.Seal("gemini", "signature", "AAAA")

    pieces = [
        encoder.feed(event)
        for event in (
            START,
            hub.BlockStart(0, 0, hub.ToolCall(id="a", name="f", arguments="")),
            hub.BlockStart(0, 1, hub.ToolCall(id="b", name="g", arguments="")),
            hub.Delta(0, 1, '{"x":\n'),
            hub.Delta(0, 0, "{}"),
            hub.SealSet(0, 0, seal),
            hub.BlockStop(0, 0),
            hub.Delta(0, 1, "1}"),
            hub.BlockStop(0, 1),
            hub.BlockStart(0, 2, hub.ToolCall(id="c", name="h", arguments="")),
            hub.Delta(0, 2, '{"x":\n'),
            hub.BlockStop(0, 2),
        )
    ]

    assert pieces[:6] == [b""] * 6
    assert pieces[6] == event(b'{"thoughtSignature":"AAAA","functionCall":{"name":"f","args":{},"id":"a"}}')
    # A line break would end the event.
    assert pieces[8] == event(b'{"functionCall":{"name":"g","args":{"x":1},"id":"b"}}')
    assert pieces[11] == event(b'{"functionCall":{"name":"h","args":{"INVALID_JSON":"{\\"x\\":\\n"},"id":"c"}}')


def test_what_cannot_be_shown_is_left_out() -> None:
    encoder = GEMINI.stream_encoder(ASKED, "req_1")
    encoder.feed(START)
    hidden: list[hub.Block] = [hub.Opaque("x", "y", Raw(b"{}")), hub.ToolResult(call_id="c"), hub.Text("")]

    for key, block in enumerate(hidden):
        assert encoder.feed(hub.BlockStart(0, key, block)) == b""
        assert encoder.feed(hub.BlockStop(0, key)) == b""


def test_a_refusal_is_a_text() -> None:
    encoder = GEMINI.stream_encoder(ASKED, "req_1")
    encoder.feed(START)

    assert encoder.feed(hub.BlockStart(0, 0, hub.Refusal("No"))) == event(b'{"text":"No"}')
    assert encoder.feed(hub.Delta(0, 0, ".")) == event(b'{"text":"."}')


def test_a_prompt_that_was_blocked_after_words_is_a_candidate_that_was_stopped() -> None:
    encoder = GEMINI.stream_encoder(ASKED, "req_1")
    for event in (
        START,
        hub.BlockStart(0, 0, hub.Text("Hi")),
        hub.BlockStop(0, 0),
        hub.Finish(0, "blocked", detail="x"),
    ):
        encoder.feed(event)

    [written] = SSEDecoder().feed(encoder.feed(hub.End()))

    assert msgspec.json.decode(written.data)["candidates"][0]["finishReason"] == "PROHIBITED_CONTENT"


@pytest.mark.parametrize("model", ["", "m"])
def test_id_and_model_are_the_same_throughout(model: str) -> None:
    encoder = GEMINI.stream_encoder(ASKED, "req_1")
    response = hub.Response(model=model, candidates=(hub.Candidate(blocks=(hub.Text("a"), hub.Reasoning("b"))),))

    pieces = SSEDecoder().feed(b"".join(map(encoder.feed, hub.unfold(response))))

    seen = {
        (data["modelVersion"], data["responseId"]) for data in (msgspec.json.decode(piece.data) for piece in pieces)
    }
    assert len(pieces) == 3
    assert [name for name, _ in seen] == [model or "gemini-3-pro"]


def test_an_error_ends_the_stream_even_before_it_began() -> None:
    encoder = GEMINI.stream_encoder(ASKED, "req_1")

    assert encoder.feed(hub.Failed(NotReady("busy"))) == (
        b'data: {"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}\r\n\r\n'
    )


def test_a_citation_that_ends_beyond_its_text_is_not_about_the_next_one() -> None:
    cited = hub.Citation("https://a.example", "A", start=2, end=7)
    texts = (hub.Text("wet", citations=(cited, replace(cited, start=5, end=None))), hub.Refusal("No more."))
    response = hub.Response(candidates=(hub.Candidate(blocks=texts),))

    stream = b"".join(map(GEMINI.stream_encoder(ASKED, "").feed, hub.unfold(response)))

    for answer in (stream.split(b"data: ")[-1], GEMINI.encode_response(response, ASKED)):
        grounding = msgspec.json.decode(answer)["candidates"][0]["groundingMetadata"]
        assert [support["segment"] for support in grounding["groundingSupports"]] == [
            {"startIndex": 2, "endIndex": 3, "text": "t"},
            {"startIndex": 3, "endIndex": 3},
        ]


def test_the_citations_of_several_texts_stand_in_one_place_and_count_from_the_first_word() -> None:
    cited = hub.Citation("https://a.example", "A")
    texts = (hub.Text("Ł is "), hub.Text("wet", citations=(cited,)), hub.Text(" now", citations=(cited,)))
    encoder = GEMINI.stream_encoder(ASKED, "req_1")

    stream = b"".join(map(encoder.feed, hub.unfold(hub.Response(candidates=(hub.Candidate(blocks=texts),)))))

    assert stream.count(b"groundingMetadata") == 1
    (text,) = fold(stream, 1).candidates[0].blocks
    assert isinstance(text, hub.Text)
    assert text.text == "Ł is wet now"
    assert [(citation.start, citation.end) for citation in text.citations] == [(5, 8), (8, 12)]
