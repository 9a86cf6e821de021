"""The pieces that requests, answers and streams share."""

import msgspec
import pytest
from msgspec import Raw

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.openai_responses.wire import (
    ReasoningItem,
    SummaryText,
    as_text,
    decode_at,
    join_texts,
    read_citation,
    read_citations,
    read_logprobs,
    read_reasoning,
    write_citation,
    write_logprobs,
    write_reasoning,
)
from aiproxyd.hub import Citation, Reasoning, Seal, TokenLogprob

NAME = "openai-responses"
_numbers = msgspec.json.Decoder(list[int])


def test_texts_are_joined_by_blank_lines_and_empty_ones_left_out() -> None:
    assert join_texts(["a", "", "b\n\nc"]) == "a\n\nb\n\nc"


def test_what_should_be_text_and_is_not_is_none() -> None:
    assert (as_text("a"), as_text(None), as_text(7)) == ("a", "", "")


def test_a_mistake_is_reported_with_its_place_in_the_whole_body() -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_at(_numbers, b'[1,"2"]', "$.input[3]")

    assert caught.value.param == "$.input[3][1]"
    assert caught.value.message == "invalid request body: Expected `int`, got `str` - at `$.input[3][1]`"


def test_a_mistake_that_has_no_place_of_its_own_is_reported_where_the_part_stands() -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_at(_numbers, b"[1", "$.input")

    assert caught.value.param == "$.input"
    assert caught.value.message == "malformed JSON: Input data was truncated - at `$.input`"


# --- Reasoning


def test_several_summaries_are_one_thought() -> None:
    item = ReasoningItem("rs_1", [SummaryText("**A**"), SummaryText("**B**")], None, "gAAA")

    assert read_reasoning(item, is_callers=False) == Reasoning(
        "**A**\n\n**B**", Seal(NAME, "encrypted", "gAAA", "rs_1")
    )


def test_a_thought_that_is_given_as_it_is_is_its_own_seal() -> None:
    item = ReasoningItem("rs_1", [], [SummaryText("hm")])

    assert read_reasoning(item, is_callers=False) == Reasoning("hm", Seal(NAME, "plain", "", "rs_1"))


def test_a_summary_without_encrypted_content_has_no_seal() -> None:
    assert read_reasoning(ReasoningItem(summary=[SummaryText("hm")]), is_callers=True) == Reasoning("hm")


def test_only_in_what_a_caller_sends_a_seal_of_another_vendor_is_looked_for() -> None:
    item = ReasoningItem("rs_1", [], None, "gw1.s.anthropic@up/claude..c2ln")

    assert read_reasoning(item, is_callers=True).seal == Seal("anthropic@up/claude", "signature", "c2ln")
    assert read_reasoning(item, is_callers=False).seal == Seal(
        NAME, "encrypted", "gw1.s.anthropic@up/claude..c2ln", "rs_1"
    )


@pytest.mark.parametrize(
    ("block", "item"),
    [
        (Reasoning("hm"), {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}),
        (
            Reasoning("", Seal(NAME, "encrypted", "gAAA")),
            {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
        ),
        (
            Reasoning("hm", Seal("gemini@up/m", "signature", "c2ln")),
            {
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": "hm"}],
                "encrypted_content": "gw1.s.gemini@up/m..c2ln",
            },
        ),
        (
            Reasoning("hm", Seal(NAME, "plain", "")),
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        ),
        (
            Reasoning("hm", Seal("openai-chat@up/m", "plain", "")),
            {
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": "hm"}],
                "encrypted_content": "gw1.p.openai-chat@up/m..",
            },
        ),
    ],
)
def test_a_thought_is_an_item_with_its_seal(block: Reasoning, item: dict[str, object]) -> None:
    assert write_reasoning(block, "") == item
    assert write_reasoning(block, "rs_1") == item | {"id": "rs_1"}


# --- Citations and probabilities


def test_annotations_are_citations_in_their_own_words() -> None:
    link = b'{"type":"url_citation","url":"https://a.org","title":"A","start_index":1,"end_index":4}'
    file = b'{"type":"file_citation","file_id":"f","filename":"b.txt","index":2}'

    assert read_citations(Raw(b"[" + link + b"," + file + b',"odd",{"start_index":"x"}]')) == (
        Citation("https://a.org", "A", "", 1, 4, NAME, Raw(link)),
        Citation("", "b.txt", "", None, None, NAME, Raw(file)),
    )


@pytest.mark.parametrize("annotations", [b"null", b"[]", b"{}", b'"x"'])
def test_misshapen_annotations_are_none(annotations: bytes) -> None:
    assert read_citations(Raw(annotations)) == ()
    assert read_citation(Raw(b"[]")) is None


def test_a_citation_of_another_vendor_is_written_where_it_leads_to_a_url() -> None:
    assert write_citation(Citation("https://a.org", "A", "said", 1, 4, "anthropic", Raw(b"{}")), 9) == {
        "type": "url_citation",
        "url": "https://a.org",
        "title": "A",
        "start_index": 1,
        "end_index": 4,
    }
    assert write_citation(Citation("https://a.org"), 9) == {
        "type": "url_citation",
        "url": "https://a.org",
        "title": "",
        "start_index": 0,
        "end_index": 9,
    }
    assert write_citation(Citation("", "a document"), 9) is None


def test_probabilities_are_written_with_every_key_and_read_back() -> None:
    logprobs = (TokenLogprob("Hé", -0.5, (72, 195, 169), (TokenLogprob("Ho", -2.0, (72, 111)),)),)

    written = write_logprobs(logprobs)

    assert written == [
        {
            "token": "Hé",
            "bytes": [72, 195, 169],
            "logprob": -0.5,
            "top_logprobs": [{"token": "Ho", "bytes": [72, 111], "logprob": -2.0}],
        }
    ]
    assert read_logprobs(Raw(msgspec.json.encode(written))) == logprobs


def test_the_bytes_of_a_token_are_spelled_out_where_they_are_not_told() -> None:
    assert write_logprobs([TokenLogprob("é", -1.0)])[0]["bytes"] == [195, 169]


@pytest.mark.parametrize("logprobs", [b"null", b"[]", b'[{"token":7}]', b"{}"])
def test_misshapen_probabilities_are_none(logprobs: bytes) -> None:
    assert read_logprobs(Raw(logprobs)) == ()
