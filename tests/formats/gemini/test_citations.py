import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from aiproxyd.formats.gemini.citations import read_citations, write_grounding
from aiproxyd.hub import Citation, Text
from tests.formats.gemini.strategies import cited_texts

NULL = Raw(b"null")
CHUNK = Raw(b'{"web":{"uri":"https://x.test","title":"X","domain":"x.test"}}')
X = Citation("https://x.test", "X", origin="gemini", raw=CHUNK)


def read(grounding: object, text: str) -> list[Citation]:
    return list(read_citations(Raw(msgspec.json.encode(grounding)), NULL, text))


@given(text=cited_texts())
def test_what_is_written_is_read_back(text: Text) -> None:
    written = write_grounding([(0, text)])

    assert tuple(read_citations(written, NULL, text.text)) == text.citations


@pytest.mark.parametrize(
    ("text", "segment", "start", "end"),
    [
        ("abc", {"startIndex": 1, "endIndex": 2}, 1, 2),
        ("abc", {}, 0, None),
        ("abc", {"startIndex": -5, "endIndex": 99}, 0, 3),
        ("\u00e4\u20acb", {"startIndex": 2, "endIndex": 5}, 1, 2),
        ("\u00e4\u20acb", {"startIndex": 2, "endIndex": 6}, 1, 3),
        ("\u00e4\u20acb", {"startIndex": 3, "endIndex": 99}, 1, 3),
        ("\u00e4", {"startIndex": -1}, 0, None),
    ],
)
def test_offsets_in_bytes_become_offsets_in_characters(
    text: str, segment: dict[str, int], start: int, end: int | None
) -> None:
    supports = [{"segment": segment, "groundingChunkIndices": [0]}]

    [citation] = read({"groundingChunks": [CHUNK], "groundingSupports": supports}, text)

    assert citation == msgspec.structs.replace(X, start=start, end=end)


def test_every_source_is_named_at_least_once() -> None:
    supports = [{"groundingChunkIndices": [1, 9, -1]}, {"segment": {}}]
    chunks = [CHUNK, {"maps": {"uri": "https://m.test", "title": None}}, {}, 5, {"web": {"uri": 5}}]

    cited = read({"groundingChunks": chunks, "groundingSupports": supports}, "abc")

    assert [(citation.url, citation.title, citation.start) for citation in cited] == [
        ("https://m.test", "", None),
        ("https://x.test", "X", None),
        ("", "", None),
        ("", "", None),
        ("", "", None),
    ]


@pytest.mark.parametrize(
    "metadata", [None, 5, {}, {"groundingChunks": None}, {"groundingChunks": 5}, {"citations": None}]
)
def test_what_says_nothing_cites_nothing(metadata: object) -> None:
    raw = Raw(msgspec.json.encode(metadata))

    assert list(read_citations(raw, raw, "abc")) == []


def test_recited_sources_are_cited() -> None:
    recited = Raw(b'{"citations":[{"startIndex":2,"endIndex":3,"uri":"u","title":"t"},{}]}')

    assert list(read_citations(NULL, recited, "\u00e4b")) == [
        Citation("u", "t", start=1, end=2),
        Citation(start=0),
    ]


def test_a_citation_of_another_vendor_is_a_source_on_the_web() -> None:
    foreign = Citation("https://y.test", "", "cited", 1, 2, "anthropic", Raw(b'{"type":"x"}'))
    named = Citation("https://z.test", "Z", origin="anthropic")
    text = Text("\u00e4\u00f6\u00fc", citations=(foreign, named, foreign, X))

    assert msgspec.json.decode(write_grounding([(3, text)])) == {
        "groundingChunks": [
            {"web": {"uri": "https://y.test", "title": "https://y.test"}},
            {"web": {"uri": "https://z.test", "title": "Z"}},
            {"web": {"uri": "https://x.test", "title": "X", "domain": "x.test"}},
        ],
        "groundingSupports": [
            {
                "segment": {"startIndex": 2, "endIndex": 4, "partIndex": 3, "text": "\u00f6"},
                "groundingChunkIndices": [0],
            },
            {
                "segment": {"endIndex": 6, "partIndex": 3, "text": "\u00e4\u00f6\u00fc"},
                "groundingChunkIndices": [1],
            },
            {
                "segment": {"startIndex": 2, "endIndex": 4, "partIndex": 3, "text": "\u00f6"},
                "groundingChunkIndices": [0],
            },
            {"groundingChunkIndices": [2]},
        ],
    }


@given(text=st.text(), start=st.integers(0, 9), end=st.integers(0, 9))
def test_any_offsets_can_be_written(text: str, start: int, end: int) -> None:
    assert write_grounding([(0, Text(text, citations=(Citation("u", "t", start=start, end=end),)))])
    assert write_grounding([(0, Text(text))]) == NULL
