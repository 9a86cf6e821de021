from typing import Any

import msgspec
import pytest

from aiproxyd import hub
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import OPENAI_CHAT
from aiproxyd.formats.openai_chat.parts import encode_content, encode_part, join_texts


def decode(*parts: object) -> tuple[hub.Block, ...]:
    body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": parts}]})
    return OPENAI_CHAT.decode_request(body).turns[0].blocks


def refusal_of(part: object) -> tuple[str, str | None]:
    with pytest.raises(InvalidRequest) as caught:
        decode({"type": "text", "text": "a"}, part)
    return caught.value.message, caught.value.param


@pytest.mark.parametrize(
    ("part", "block"),
    [
        ({"type": "text", "text": "a"}, hub.Text("a")),
        (
            {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "high"}},
            hub.Media(kind="image", url="https://x/y.png", detail="high"),
        ),
        (
            {"type": "image_url", "image_url": {"url": "data:image/PNG;base64,AA=="}},
            hub.Media(kind="image", media_type="image/png", data="AA=="),
        ),
        (
            {"type": "image_url", "image_url": {"url": "data:image/svg+xml;charset=utf-8;base64,AA=="}},
            hub.Media(kind="image", media_type="image/svg+xml", data="AA=="),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            hub.Media(kind="audio", media_type="audio/wav", data="AA=="),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}},
            hub.Media(kind="audio", media_type="audio/mpeg", data="AA=="),
        ),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}},
            hub.Media(kind="document", media_type="application/pdf", data="AA==", name="a.pdf"),
        ),
        (
            {"type": "file", "file": {"file_data": "AA==", "filename": "a.PDF"}},
            hub.Media(kind="document", media_type="application/pdf", data="AA==", name="a.PDF"),
        ),
        (
            {"type": "file", "file": {"file_id": "file-1"}},
            hub.Media(kind="document", file_id="file-1", origin="openai"),
        ),
    ],
)
def test_a_part_is_a_block(part: object, block: hub.Block) -> None:
    assert decode(part) == (block,)


@pytest.mark.parametrize(
    ("mark", "ttl"),
    [
        ({"cache_control": {"type": "ephemeral"}}, "5m"),
        ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, "1h"),
        ({"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}}, "5m"),
        ({"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}}, "1h"),
    ],
)
@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "https://x"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "file", "file": {"file_data": "AA==", "filename": "a.pdf"}},
    ],
)
def test_a_cache_mark_may_stand_on_any_part(part: dict[str, Any], mark: dict[str, Any], ttl: Any) -> None:
    (block,) = decode(part | mark)

    assert isinstance(block, hub.Text | hub.Media)
    assert block.cache == hub.CacheMark(ttl)


@pytest.mark.parametrize(
    ("part", "problem", "param"),
    [
        ({"type": "image_url", "image_url": {"url": "data:text/plain,a"}}, "base64", "[1].image_url.url"),
        ({"type": "file", "file": {"filename": "a.pdf"}}, "needs file_data or file_id", "[1].file"),
        ({"type": "file", "file": {"file_data": "AA==", "filename": "a"}}, "a media type", "[1].file.file_data"),
        ({"type": "input_audio", "input_audio": {"data": "", "format": "ogg"}}, "'ogg'", "[1].input_audio.format"),
        ({"type": "video_url", "video_url": {"url": "x"}}, "'video_url'", "[1].type"),
        ({"type": "text"}, "missing required field `text`", "[1]"),
    ],
)
def test_a_part_that_says_nothing_usable_is_refused_with_its_place(part: object, problem: str, param: str) -> None:
    message, place = refusal_of(part)

    assert problem in message
    assert place == f"$.messages[0].content{param}"


IMAGE = hub.Media(kind="image", media_type="image/png", data="AA==")


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (hub.Text("a", cache=hub.CacheMark()), {"type": "text", "text": "a"}),
        (IMAGE, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}),
        (
            hub.Media(kind="image", url="https://x", detail="low"),
            {"type": "image_url", "image_url": {"url": "https://x", "detail": "low"}},
        ),
        (
            hub.Media(kind="image", file_id="file-1", origin="openai"),
            {"type": "file", "file": {"file_id": "file-1"}},
        ),
        (
            hub.Media(kind="document", media_type="application/pdf", data="AA=="),
            {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,AA=="}},
        ),
        (
            hub.Media(kind="document", media_type="text/plain", data="b", name="a.txt", context="about"),
            {"type": "text", "text": "a.txt\n\nabout\n\nb"},
        ),
        (
            hub.Media(kind="audio", media_type="audio/x-wav", data="AA=="),
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        ),
        (
            hub.Media(kind="audio", media_type="audio/mp3", data="AA=="),
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}},
        ),
    ],
)
def test_a_block_is_a_part(block: hub.Text | hub.Media, part: object) -> None:
    assert encode_part(block) == part


@pytest.mark.parametrize(
    ("media", "words"),
    [
        (hub.Media(kind="image", file_id="files/1", origin="gemini"), "image"),
        (hub.Media(kind="document", url="https://x/y.pdf", name="y.pdf"), "document 'y.pdf'"),
        (hub.Media(kind="document", media_type="application/zip", data="AA=="), "document application/zip"),
        (hub.Media(kind="audio", media_type="audio/ogg", data="AA=="), "audio audio/ogg"),
        (hub.Media(kind="audio", media_type="audio/wav", url="https://x"), "audio audio/wav"),
        (hub.Media(kind="video", media_type="video/mp4", data="AA=="), "video video/mp4"),
    ],
)
def test_media_without_a_part_are_refused(media: hub.Media, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        encode_part(media)

    assert caught.value.message == (f"{words} cannot be sent to this model: its API (openai-chat) has no place for it")


def test_content_is_a_string_where_one_will_do() -> None:
    a, b = hub.Text("a"), hub.Text("b")

    assert encode_content([], can_split=True) == ""
    assert encode_content([a], can_split=True) == "a"
    assert encode_content([a, b], can_split=False) == "a\n\nb"
    assert encode_content([a, b], can_split=True) == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert len(encode_content([a, IMAGE], can_split=False)) == 2


def test_texts_are_joined_as_pieces_of_one_unless_something_stands_between() -> None:
    call = hub.ToolCall(id="x", name="f", arguments="{}")

    assert join_texts([]) == ("", [])
    assert join_texts([call, hub.Text("a"), hub.Text("b"), call, call, hub.Text("c")]) == ("ab\n\nc", [0, 1, 4])
