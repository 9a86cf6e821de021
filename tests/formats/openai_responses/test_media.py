"""Content parts."""

import msgspec
import pytest

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.openai_responses.media import Part, decode_part, encode_part
from aiproxyd.hub import CacheMark, Media, Refusal, Text

_part: msgspec.json.Decoder[Part] = msgspec.json.Decoder(Part)


def decode(part: dict[str, object]) -> Text | Refusal | Media:
    return decode_part(_part.decode(msgspec.json.encode(part)), "$.input[0].content[0]")


@pytest.mark.parametrize(
    ("part", "block"),
    [
        ({"type": "input_text", "text": "Hi"}, Text("Hi")),
        ({"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}, Text("Hi")),
        ({"type": "refusal", "refusal": "No."}, Refusal("No.")),
        (
            {"type": "input_image", "image_url": "data:image/png;base64,iVBO", "detail": "auto"},
            Media(kind="image", media_type="image/png", data="iVBO"),
        ),
        (
            {"type": "input_image", "image_url": "https://a.org/b.png", "detail": "low"},
            Media(kind="image", url="https://a.org/b.png", detail="low"),
        ),
        ({"type": "input_image", "file_id": "file-1"}, Media(kind="image", file_id="file-1", origin="openai")),
        (
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
            Media(kind="document", media_type="application/pdf", data="JVBE", name="a.pdf"),
        ),
        (
            {"type": "input_file", "filename": "a.pdf", "file_data": "JVBE"},
            Media(kind="document", media_type="application/pdf", data="JVBE", name="a.pdf"),
        ),
        (
            {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,SGk="},
            Media(kind="document", media_type="text/plain", data="Hi", name="a.txt"),
        ),
        (
            {"type": "input_file", "file_url": "https://a.org/b.pdf"},
            Media(kind="document", url="https://a.org/b.pdf"),
        ),
        ({"type": "input_file", "file_id": "file-1"}, Media(kind="document", file_id="file-1", origin="openai")),
        (
            {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
            Media(kind="audio", media_type="audio/wav", data="UklG"),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
            Media(kind="audio", media_type="audio/mpeg", data="SUQz"),
        ),
    ],
)
def test_a_part_is_a_block(part: dict[str, object], block: object) -> None:
    assert decode(part) == block


@pytest.mark.parametrize(
    ("mark", "ttl"),
    [
        ({"mode": "explicit"}, "5m"),
        ({"mode": "explicit", "ttl": "30m"}, "5m"),
        ({"mode": "explicit", "ttl": "12h"}, "1h"),
    ],
)
def test_a_breakpoint_marks_the_prompt_for_the_cache(mark: dict[str, str], ttl: str) -> None:
    marked = {"prompt_cache_breakpoint": mark}

    assert decode({"type": "input_text", "text": "Hi", **marked}).cache == CacheMark(ttl)  # type: ignore[union-attr,arg-type]
    assert decode({"type": "input_file", "file_id": "f", **marked}).cache == CacheMark(ttl)  # type: ignore[union-attr,arg-type]


@pytest.mark.parametrize(
    ("part", "message", "param"),
    [
        ({"type": "input_image"}, "an image needs an image_url or a file_id", ""),
        ({"type": "input_image", "image_url": "data:image/png,x"}, "a data URL has to read data:TYPE", ".image_url"),
        ({"type": "input_file", "filename": "a.pdf"}, "a file needs file_data, a file_url or a file_id", ""),
        ({"type": "input_file", "file_data": "JVBE"}, "a file needs a media type", ".file_data"),
    ],
)
def test_media_that_are_not_there_are_refused(part: dict[str, object], message: str, param: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        decode(part)

    assert caught.value.param == "$.input[0].content[0]" + param


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (Text("Hi", CacheMark()), {"type": "input_text", "text": "Hi"}),
        (
            Media(kind="image", media_type="image/png", data="iVBO", detail="high"),
            {"type": "input_image", "detail": "high", "image_url": "data:image/png;base64,iVBO"},
        ),
        (
            Media(kind="image", url="https://a.org/b.png", detail="MEDIA_RESOLUTION_LOW"),
            {"type": "input_image", "detail": "auto", "image_url": "https://a.org/b.png"},
        ),
        (
            Media(kind="image", file_id="file-1", origin="openai"),
            {"type": "input_image", "detail": "auto", "file_id": "file-1"},
        ),
        (
            Media(kind="document", media_type="application/pdf", data="JVBE"),
            {"type": "input_file", "filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBE"},
        ),
        (
            Media(kind="document", media_type="application/pdf", data="JVBE", name="a.pdf"),
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
        ),
        (
            Media(kind="document", url="https://a.org/b.pdf", name="b"),
            {"type": "input_file", "file_url": "https://a.org/b.pdf"},
        ),
        (Media(kind="document", file_id="file-1", origin="openai"), {"type": "input_file", "file_id": "file-1"}),
        (
            Media(kind="document", media_type="text/plain", data="Once.", name="tale.txt", context="A tale."),
            {"type": "input_text", "text": "tale.txt\nA tale.\nOnce."},
        ),
    ],
)
def test_a_block_is_a_part(block: Text | Media, part: dict[str, object]) -> None:
    assert encode_part(block) == part


@pytest.mark.parametrize(
    ("media", "what"),
    [
        (Media(kind="audio", media_type="audio/wav", data="UklG"), "audio content cannot be sent to this model"),
        (Media(kind="video", url="https://a.org/b.mp4"), "video content cannot be sent to this model"),
        (
            Media(kind="document", file_id="files/1", origin="gemini"),
            r"a file that is stored elsewhere \(document\) cannot be sent",
        ),
    ],
)
def test_media_that_the_api_has_no_place_for_are_refused(media: Media, what: str) -> None:
    with pytest.raises(InvalidRequest, match=what):
        encode_part(media)
