"""Content blocks of requests."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from aiproxyd import hub
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.anthropic.blocks import BlockWriter, Role, read_blocks
from aiproxyd.formats.anthropic.wire import encode
from aiproxyd.formats.codec import Losses

OWN = hub.Seal("anthropic", "signature", "EqQB")
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}


def read(*content: object, role: Role = "user") -> tuple[hub.Block, ...]:
    return read_blocks([Raw(msgspec.json.encode(block)) for block in content], role)


def write(*blocks: hub.Block) -> Any:
    return msgspec.json.decode(encode(BlockWriter(Losses()).write_content(blocks)))


# --- Reading


@pytest.mark.parametrize(
    ("block", "read_as"),
    [
        ({"type": "text", "text": "a"}, hub.Text("a")),
        (
            {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
            hub.Text("a", cache=hub.CacheMark("5m")),
        ),
        (
            {"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h", "scope": "global"}},
            hub.Text("a", cache=hub.CacheMark("1h")),
        ),
        ({"type": "text", "text": "a", "cache_control": None, "citations": None}, hub.Text("a")),
        (
            {"type": "image", "source": PNG, "transformations": {"oversized_image": "error"}},
            hub.Media(
                kind="image",
                media_type="image/png",
                data="iVBORw0KGgo=",
                extensions={"transformations": Raw(b'{"oversized_image":"error"}')},
            ),
        ),
        (
            {"type": "image", "source": {"type": "url", "url": "https://a/b.png"}},
            hub.Media(kind="image", url="https://a/b.png"),
        ),
        (
            {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
            hub.Media(kind="image", file_id="file_1", origin="anthropic"),
        ),
        (
            {
                "type": "document",
                "source": PDF,
                "title": "T",
                "context": "C",
                "citations": {"enabled": True},
                "cache_control": {"type": "ephemeral"},
            },
            hub.Media(
                kind="document",
                media_type="application/pdf",
                data="JVBERi0=",
                name="T",
                context="C",
                has_citations=True,
                cache=hub.CacheMark("5m"),
            ),
        ),
        (
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
            hub.Media(kind="document", media_type="text/plain", data="words"),
        ),
        (
            {"type": "document", "source": {"type": "url", "url": "https://a/b.pdf"}, "citations": None},
            hub.Media(kind="document", media_type="application/pdf", url="https://a/b.pdf"),
        ),
        (
            {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
            hub.Media(kind="document", file_id="file_1", origin="anthropic"),
        ),
        ({"type": "document", "source": {"type": "content", "content": "words"}}, hub.Text("words")),
        (
            {
                "type": "search_result",
                "title": "T",
                "source": "https://a",
                "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
                "citations": {"enabled": True},
            },
            hub.Text("T\nhttps://a\n\none\n\ntwo"),
        ),
        ({"type": "container_upload", "file_id": "f"}, hub.Opaque("anthropic", "container_upload", Raw())),
    ],
)
def test_each_block_of_the_user_is_read(block: dict[str, object], read_as: hub.Block) -> None:
    (found,) = read(block)

    if isinstance(read_as, hub.Opaque):
        read_as = msgspec.structs.replace(read_as, raw=Raw(msgspec.json.encode(block)))
    assert found == read_as


@pytest.mark.parametrize(
    ("block", "read_as"),
    [
        ({"type": "thinking", "thinking": "Hm.", "signature": "EqQB"}, hub.Reasoning("Hm.", OWN)),
        ({"type": "thinking", "thinking": "", "signature": "EqQB"}, hub.Reasoning("", OWN)),
        ({"type": "thinking", "thinking": "Hm.", "signature": ""}, hub.Reasoning("Hm.")),
        ({"type": "thinking", "thinking": "Hm."}, hub.Reasoning("Hm.")),
        (
            {"type": "thinking", "thinking": "Hm.", "signature": "gw1.e.openai-responses@up/gpt-5.rs_1.gAAA"},
            hub.Reasoning("Hm.", hub.Seal("openai-responses@up/gpt-5", "encrypted", "gAAA", "rs_1")),
        ),
        (
            {"type": "redacted_thinking", "data": "EmwK"},
            hub.Reasoning("", hub.Seal("anthropic", "redacted", "EmwK")),
        ),
        (
            {"type": "redacted_thinking", "data": "gw1.sc.gemini@google/gemini-3..CgQ="},
            hub.Reasoning("", hub.Seal("gemini@google/gemini-3", "signature", "CgQ=", holder="call")),
        ),
        (
            {"type": "tool_use", "id": "t", "name": "f", "input": {"n": 1}, "cache_control": {"type": "ephemeral"}},
            hub.ToolCall(id="t", name="f", arguments='{"n":1}', cache=hub.CacheMark("5m")),
        ),
    ],
)
def test_each_block_of_the_assistant_is_read(block: dict[str, object], read_as: hub.Block) -> None:
    assert read(block, role="assistant") == (read_as,)


def test_the_numbers_of_a_call_stay_as_they_were() -> None:
    raw = Raw(b'{"type":"tool_use","id":"t","name":"f","input":{ "n": 1.50, "big": 12345678901234567890123 }}')

    assert read_blocks([raw], "assistant") == (
        hub.ToolCall(id="t", name="f", arguments='{ "n": 1.50, "big": 12345678901234567890123 }'),
    )


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ()),
        ("", ()),
        ([], ()),
        ("ok", (hub.Text("ok"),)),
        (
            [{"type": "text", "text": "ok"}, {"type": "image", "source": PNG}],
            (hub.Text("ok"), hub.Media(kind="image", media_type="image/png", data="iVBORw0KGgo=")),
        ),
        ([{"type": "tool_reference", "tool_name": "grep"}], (hub.Text("The tool grep is now available."),)),
    ],
)
def test_the_result_of_a_tool_is_read(content: object, parts: tuple[hub.Text | hub.Media, ...]) -> None:
    results = read(
        {"type": "tool_result", "tool_use_id": "t", "content": content},
        {"type": "tool_result", "tool_use_id": "u", "is_error": True, "cache_control": {"type": "ephemeral"}},
    )

    assert results == (
        hub.ToolResult(call_id="t", content=parts),
        hub.ToolResult(call_id="u", is_error=True, cache=hub.CacheMark("5m")),
    )


def test_a_document_of_blocks_is_those_behind_what_it_is_called() -> None:
    source = {"type": "content", "content": [{"type": "text", "text": "one"}, {"type": "image", "source": PNG}]}
    mark = {"type": "ephemeral"}

    parts = read({"type": "document", "source": source, "title": "T", "context": "C", "cache_control": mark})

    assert parts == (
        hub.Text("T\nC"),
        hub.Text("one"),
        hub.Media(kind="image", media_type="image/png", data="iVBORw0KGgo=", cache=hub.CacheMark("5m")),
    )


def test_an_empty_document_of_blocks_is_nothing() -> None:
    source = {"type": "content", "content": []}

    assert read({"type": "document", "source": source, "cache_control": {"type": "ephemeral"}}) == ()


def test_citations_of_the_assistant_are_kept() -> None:
    cited = {"type": "page_location", "document_title": "T", "cited_text": "c"}

    (text,) = read({"type": "text", "text": "So.", "citations": [cited]}, role="assistant")

    raw = Raw(msgspec.json.encode(cited))
    assert text == hub.Text("So.", citations=(hub.Citation(title="T", cited_text="c", origin="anthropic", raw=raw),))


@pytest.mark.parametrize(
    ("role", "block", "path", "problem"),
    [
        ("user", {"type": "text"}, "$[1]", "missing required field `text`"),
        ("user", {"type": "text", "text": 5}, "$[1].text", "Expected `str`, got `int`"),
        ("user", {"type": 5}, "$[1].type", "Expected `str`"),
        ("user", {}, "$[1]", "missing required field `type`"),
        ("user", 5, "$[1]", "Expected `object`"),
        ("user", {"type": "text", "text": "a", "cache_control": {"ttl": "2h"}}, "$[1].cache_control.ttl", "2h"),
        ("user", {"type": "image", "source": {"type": "new"}}, "$[1].source.type", "Invalid value 'new'"),
        ("user", {"type": "tool_use", "id": "t", "name": "f", "input": {}}, "$[1]", "a message of role user"),
        ("user", {"type": "thinking", "thinking": ""}, "$[1]", "a message of role user"),
        ("assistant", {"type": "tool_result", "tool_use_id": "t"}, "$[1]", "a message of role assistant"),
        ("assistant", {"type": "tool_use", "id": "t", "name": "f", "input": "{}"}, "$[1].input", "to be an object"),
        ("assistant", {"type": "tool_use", "id": "t", "name": "f"}, "$[1]", "missing required field `input`"),
        ("system", {"type": "image", "source": PNG}, "$[1]", "a message of role system"),
        (
            "user",
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text"}]},
            "$[1].content[0]",
            "missing required field `text`",
        ),
        (
            "user",
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "browser_state"}]},
            "$[1].content[0]",
            "a browser_state block in a tool result or document cannot be sent",
        ),
        (
            "user",
            {"type": "document", "source": {"type": "content", "content": [{"type": "tool_use"}]}},
            "$[1].source.content[0]",
            "a tool_use block in a tool result or document cannot be sent",
        ),
    ],
)
def test_what_cannot_stand_there_is_refused_with_its_path(role: Role, block: object, path: str, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem) as caught:
        read({"type": "text", "text": "ok"}, block, role=role)

    assert caught.value.param == path


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        read_blocks([Raw(b'{"type":"tool_use","id":"t","name":"f","input":{"a":"\xff"}}')], "assistant")


# --- Writing


@pytest.mark.parametrize(
    ("block", "written"),
    [
        (hub.Text("a", cache=hub.CacheMark("1h")), {"text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}}),
        (
            hub.Text("a", citations=(hub.Citation(origin="anthropic", raw=Raw(b"[]")),)),
            {"text": "a", "citations": [[]]},
        ),
        (hub.Text("a", cache=hub.CacheMark("5m"), citations=(hub.Citation(origin="gemini", url="u"),)), {"text": "a"}),
        (hub.Reasoning("Hm.", OWN), {"thinking": "Hm.", "signature": "EqQB"}),
        (hub.Reasoning("", hub.Seal("anthropic", "redacted", "EmwK")), {"data": "EmwK"}),
        (hub.ToolCall(id="t", name="f", arguments='{"a":1}'), {"id": "t", "name": "f", "input": {"a": 1}}),
        (
            hub.ToolCall(id="t", name="f", arguments='{"a":'),
            {"id": "t", "name": "f", "input": {"INVALID_JSON": '{"a":'}},
        ),
        (
            hub.ToolCall(id="t", name="f", arguments="{}", cache=hub.CacheMark("5m")),
            {"id": "t", "name": "f", "input": {}, "cache_control": {"type": "ephemeral"}},
        ),
        (hub.ToolResult(call_id="t"), {"tool_use_id": "t"}),
        (
            hub.ToolResult(call_id="t", content=(hub.Text(" "),), is_error=True),
            {"tool_use_id": "t", "content": "The tool failed without a word.", "is_error": True},
        ),
        (
            hub.ToolResult(call_id="t", content=(hub.Text("ok"),), cache=hub.CacheMark("5m")),
            {"tool_use_id": "t", "content": "ok", "cache_control": {"type": "ephemeral"}},
        ),
        (
            hub.ToolResult(call_id="t", content=(hub.Text("ok"), hub.Media(kind="image", url="https://a"))),
            {
                "tool_use_id": "t",
                "content": [
                    {"type": "text", "text": "ok"},
                    {"type": "image", "source": {"type": "url", "url": "https://a"}},
                ],
            },
        ),
        (
            hub.Media(kind="image", media_type="image/jpg", data="AA=="),
            {"source": {"type": "base64", "media_type": "image/jpeg", "data": "AA=="}},
        ),
        (
            hub.Media(kind="image", file_id="f", origin="anthropic"),
            {"source": {"type": "file", "file_id": "f"}},
        ),
        (
            hub.Media(kind="document", media_type="application/pdf", data="AA==", name="T", has_citations=True),
            {
                "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="},
                "title": "T",
                "citations": {"enabled": True},
            },
        ),
        (
            hub.Media(kind="document", media_type="text/plain", data="words", context="C", cache=hub.CacheMark("5m")),
            {
                "source": {"type": "text", "media_type": "text/plain", "data": "words"},
                "context": "C",
                "cache_control": {"type": "ephemeral"},
            },
        ),
        (hub.Media(kind="document", url="https://a"), {"source": {"type": "url", "url": "https://a"}}),
        (
            hub.Media(kind="document", file_id="f", origin="anthropic"),
            {"source": {"type": "file", "file_id": "f"}},
        ),
        (hub.Opaque("anthropic", "new", Raw(b'{"n":1.5}')), {"n": 1.5}),
    ],
)
def test_each_block_is_written(block: hub.Block, written: dict[str, object]) -> None:
    (found,) = write(block)

    found.pop("type", None)
    if "cache_control" not in written:
        found.pop("cache_control", None)
    assert found == written


def test_one_plain_text_is_a_string() -> None:
    assert write(hub.Text("a")) == "a"
    assert write(hub.Refusal("No.")) == "No."
    assert write(hub.Text("a"), hub.Text("b")) == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


def test_blank_texts_and_unsigned_thoughts_are_left_out() -> None:
    assert write(hub.Text(""), hub.Text(" \n"), hub.Reasoning("Hm.")) == []


@pytest.mark.parametrize(
    ("media", "problem"),
    [
        (hub.Media(kind="image", media_type="image/tiff", data="AA=="), "not JPEG, PNG, GIF or WebP"),
        (hub.Media(kind="image", data="AA=="), "not JPEG, PNG, GIF or WebP"),
        (hub.Media(kind="image", file_id="file-1", origin="openai"), "a file that another vendor holds"),
        (hub.Media(kind="document", media_type="application/msword", data="AA=="), "neither PDF nor text"),
        (hub.Media(kind="audio", media_type="audio/wav", data="AA=="), "audio audio/wav content"),
        (hub.Media(kind="video", url="https://a"), "video content"),
    ],
)
def test_media_that_the_api_cannot_carry_are_refused(media: hub.Media, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        write(media)


def test_of_too_many_cache_marks_the_last_four_stay() -> None:
    losses = Losses()
    writer = BlockWriter(losses)
    marked = [hub.Text(word, cache=hub.CacheMark("5m")) for word in "abc"]
    result = hub.ToolResult(call_id="t", content=(hub.Text("d", cache=hub.CacheMark("1h")),), cache=hub.CacheMark("5m"))

    content = writer.write_content([*marked, result])
    writer.limit_marks()

    written = msgspec.json.decode(encode(content))
    assert ["cache_control" in block for block in written] == [False, True, True, True]
    assert written[3]["content"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert losses.names == ["cache_control"]
