import pytest
from msgspec import Raw

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.gemini.parts import read_media, read_signature, to_standard, write_media, write_signature
from aiproxyd.formats.gemini.wire import Blob, FileData, MediaPart, Part
from aiproxyd.hub import Media, Seal
from aiproxyd.seals import wrap_base64


@pytest.mark.parametrize(
    ("data", "standard"),
    [("", ""), ("AAAA", "AAAA"), ("_-8", "/+8="), ("_-", "/+=="), ("+/8=", "+/8="), ("QQ==", "QQ==")],
)
def test_base64_is_brought_into_one_spelling(data: str, standard: str) -> None:
    # google-genai writes the URL-safe alphabet.
    assert to_standard(data) == standard


@pytest.mark.parametrize(
    ("part", "media"),
    [
        (Blob("_-8", "image/png"), Media(kind="image", media_type="image/png", data="/+8=")),
        (Blob("AAAA", "audio/wav"), Media(kind="audio", media_type="audio/wav", data="AAAA")),
        (Blob("AAAA", "video/mp4"), Media(kind="video", media_type="video/mp4", data="AAAA")),
        (Blob("AAAA", "application/pdf"), Media(kind="document", media_type="application/pdf", data="AAAA")),
        (Blob("w6Q", "text/plain"), Media(kind="document", media_type="text/plain", data="\u00e4")),
        (FileData("https://x.test/a.PNG?b=c.pdf"), Media(kind="image", url="https://x.test/a.PNG?b=c.pdf")),
        (FileData("http://x.test/a", "video/mp4"), Media(kind="video", media_type="video/mp4", url="http://x.test/a")),
        (FileData("gs://b/a.png"), Media(kind="document", file_id="gs://b/a.png", origin="gemini")),
        (
            FileData("https://generativelanguage.googleapis.com/v1beta/files/a", "image/png"),
            Media(
                kind="image",
                media_type="image/png",
                file_id="https://generativelanguage.googleapis.com/v1beta/files/a",
                origin="gemini",
            ),
        ),
    ],
)
def test_media_are_read(part: Blob | FileData, media: Media) -> None:
    whole = Part(inline_data=part) if isinstance(part, Blob) else Part(file_data=part)

    assert read_media(whole) == media


def test_what_a_part_says_about_its_media_is_kept() -> None:
    described = Part(
        file_data=FileData("gs://b/a", "video/mp4"), video_metadata=Raw(b'{"fps":1}'), media_resolution=Raw(b"{}")
    )

    media = read_media(described)

    assert media is not None
    assert media.extensions == {"videoMetadata": Raw(b'{"fps":1}'), "mediaResolution": Raw(b"{}")}
    assert media.file_id == "gs://b/a"


def test_a_part_without_media_holds_none() -> None:
    assert read_media(MediaPart()) is None


def test_data_that_do_not_say_what_they_are_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="inlineData needs a mimeType"):
        read_media(MediaPart(inline_data=Blob("iVBORw0KGgo=")))


@pytest.mark.parametrize("data", ["AP8=", "\u00e4", "A"])
def test_a_text_that_is_none_is_refused(data: str) -> None:
    with pytest.raises(InvalidRequest, match="text/plain is not base64 of UTF-8"):
        read_media(Part(inline_data=Blob(data, "text/plain")))


@pytest.mark.parametrize(
    ("media", "part"),
    [
        (Media(kind="image", media_type="image/png", data="AAAA"), MediaPart(inline_data=Blob("AAAA", "image/png"))),
        (
            Media(kind="document", media_type="text/plain", data="\u00e4"),
            MediaPart(inline_data=Blob("w6Q=", "text/plain")),
        ),
        (
            Media(kind="image", url="https://x.test/a.jpg"),
            MediaPart(file_data=FileData("https://x.test/a.jpg", "image/jpeg")),
        ),
        (
            Media(kind="image", media_type="image/png", url="https://x.test/a"),
            MediaPart(file_data=FileData("https://x.test/a", "image/png")),
        ),
        (Media(kind="image", file_id="files/a", origin="gemini"), MediaPart(file_data=FileData("files/a"))),
    ],
)
def test_media_are_written(media: Media, part: MediaPart) -> None:
    assert write_media(media, fetches_urls=True) == part


@pytest.mark.parametrize(
    ("media", "fetches_urls", "message"),
    [
        (Media(kind="image", data="AAAA"), True, "the image has no media type, which this model needs"),
        (
            Media(kind="image", url="https://x.test/a.png"),
            False,
            "does not fetch the image at a URL: send it in base64",
        ),
        (Media(kind="video", url="https://x.test/a"), True, "the type of the video does not show in its URL"),
        (Media(kind="image", file_id="f", origin="anthropic"), True, "a file that was uploaded to anthropic"),
        (Media(kind="image"), True, "a file that was uploaded to another vendor"),
    ],
)
def test_media_that_the_model_cannot_get_are_refused(media: Media, fetches_urls: bool, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        write_media(media, fetches_urls=fetches_urls)


def test_a_signature_is_gemini_s_own_or_was_wrapped_here() -> None:
    foreign = Seal("anthropic@a/claude", "redacted", "E.r/U+B", holder="call")
    wrapped = wrap_base64(foreign)

    assert write_signature(foreign) == wrapped
    assert read_signature(wrapped) == foreign
    # As google-genai sends it back.
    assert read_signature(wrapped.translate(str.maketrans("+/", "-_")).rstrip("=")) == foreign
    assert read_signature("_-8") == Seal("gemini", "signature", "/+8=")
    assert write_signature(Seal("gemini", "signature", "/+8=")) == "/+8="


@pytest.mark.parametrize("data", ["/+8", "no base64", "_-8="])
def test_a_signature_that_the_sdk_would_refuse_is_wrapped(data: str) -> None:
    seal = Seal("gemini", "signature", data)

    written = write_signature(seal)

    assert written is not None
    assert written != data
    assert read_signature(written) == seal


def test_without_a_seal_there_is_no_signature() -> None:
    assert write_signature(None) is None
