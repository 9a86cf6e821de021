import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from aiproxyd import hub
from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import GEMINI
from aiproxyd.formats.codec import Losses
from aiproxyd.formats.gemini.requests import PLACEHOLDER
from aiproxyd.hub import Media, Reasoning, Seal, Text, ToolCall, ToolResult, Turn
from aiproxyd.seals import wrap_base64
from tests.formats.gemini.strategies import JSON, requests

RECORDINGS = Path(__file__).parents[2] / "recordings" / "gemini"
ANY = Capabilities()
SEAL = Seal("gemini", "signature", "AAAA")
HI = Turn("user", (Text("Hi"),))


def decode(**fields: object) -> hub.Request:
    return GEMINI.decode_request(msgspec.json.encode({"contents": [{"parts": [{"text": "Hi"}]}]} | fields))


def converse(*contents: tuple[str, list[object]]) -> list[Turn]:
    return decode(contents=[{"role": role, "parts": parts} for role, parts in contents]).turns


def encode(*turns: Turn, capabilities: Capabilities = ANY, losses: Losses | None = None) -> list[dict[str, object]]:
    body = GEMINI.encode_request(hub.Request(model="m", turns=list(turns)), capabilities, losses or Losses())
    contents: list[dict[str, object]] = msgspec.json.decode(body)["contents"]
    return contents


def call(name: str = "f", **fields: object) -> dict[str, object]:
    return {"functionCall": {"name": name, **fields}}


def result(response: object = None, name: str = "f", **fields: object) -> dict[str, object]:
    return {"functionResponse": {"name": name, "response": response, **fields}}


# --- From a caller


def test_what_nobody_else_knows_of_parts_and_settings_is_named() -> None:
    extensions = decode(
        systemInstruction={"parts": [{"text": "Be brief.", "partMetadata": {"a": 1}}]},
        contents=[
            {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA", "displayName": "a"}}]},
            {"role": "model", "parts": [call(id="1", partialArgs=[{"x": 1}]), {"executableCode": {"code": "1"}}]},
            {"role": "user", "parts": [result({}, id="1", scheduling="SILENT", willContinue=False)], "mood": "good"},
        ],
        tools=[{"functionDeclarations": [{"name": "f", "behavior": "BLOCKING"}]}, {"googleSearch": {"x": 1}}],
        toolConfig={"functionCallingConfig": {"mode": "AUTO", "streamFunctionCallArguments": True}},
        generationConfig={"thinkingConfig": {"includeThoughts": True, "depth": 3}},
    ).extensions

    assert {name: bytes(raw) for name, raw in extensions.items()} == {
        "systemInstruction.parts.partMetadata": b"null",
        "contents.parts.inlineData.displayName": b"null",
        "contents.parts.functionCall.partialArgs": b"null",
        "contents.parts.functionResponse.scheduling": b"null",
        "contents.mood": b"null",
        "tools.functionDeclarations.behavior": b'"BLOCKING"',
        "toolConfig.functionCallingConfig.streamFunctionCallArguments": b"true",
        "generationConfig.thinkingConfig.depth": b"3",
    }


@pytest.mark.parametrize("text", ["Be brief.", [{"text": "Be brief."}]])
def test_instructions_in_other_shapes_lose_nothing(text: object) -> None:
    assert decode(systemInstruction=text).extensions == {}


def test_results_of_many_calls_find_them_in_linear_time() -> None:
    calls: list[object] = [call(id=f"c{number}") for number in range(20_000)]
    results: list[object] = [result({}, id=f"c{number}") for number in reversed(range(20_000))]
    start_s = time.process_time()

    turns = converse(("model", calls), ("user", results))

    assert time.process_time() - start_s < 2
    assert [len(turn.blocks) for turn in turns] == [20_000, 20_000]


def test_many_tools_and_many_pieces_of_a_text_are_read_in_linear_time() -> None:
    tools = [{"functionDeclarations": [{"name": "f"}]}, {"codeExecution": {}}] * 15_000
    pieces = [{"text": "some words of a stream "}] * 120_000
    start_s = time.process_time()

    request = decode(tools=tools, contents=[{"role": "model", "parts": pieces}])

    assert time.process_time() - start_s < 3
    assert (len(request.tools), len(request.server_tools)) == (15_000, 15_000)
    assert request.turns == [Turn("assistant", (Text("some words of a stream " * 120_000),))]


def test_results_without_ids_go_to_the_first_call_of_their_name() -> None:
    turns = converse(
        ("model", [call("f", id="a"), call("g", id="b"), call("f", id="c")]),
        ("user", [result({"output": "1"}, "f", id="c"), result({"output": "2"}, "f"), result({"output": "3"}, "g")]),
    )

    answered = [(block.call_id, block.content) for block in turns[-1].blocks if isinstance(block, ToolResult)]
    assert answered == [("a", (Text("2"),)), ("b", (Text("3"),)), ("c", (Text("1"),))]


def test_a_call_is_answered_but_once() -> None:
    with pytest.raises(InvalidRequest, match="no functionCall of 'f' waits"):
        converse(("model", [call("f", id="a")]), ("user", [result({}, "f", id="a"), result({}, "f", id="a")]))


@given(request=requests())
def test_what_is_written_is_read_back(request: hub.Request) -> None:
    assert GEMINI.decode_request(GEMINI.encode_request(request, ANY, Losses())) == request


@pytest.mark.parametrize("path", sorted(RECORDINGS.glob("*/request.json")), ids=lambda path: path.parent.name)
def test_a_recorded_request_is_read_back_when_it_was_written_anew(path: Path) -> None:
    request = GEMINI.decode_request(path.read_bytes())

    body = GEMINI.encode_request(request, Capabilities(reasoning="level", fetches_urls=True), Losses())

    assert GEMINI.decode_request(body).turns == request.turns
    assert [tool.name for tool in GEMINI.decode_request(body).tools] == [tool.name for tool in request.tools]


@given(request=requests())
def test_the_sdk_understands_what_is_said(request: hub.Request) -> None:
    body = msgspec.json.decode(GEMINI.encode_request(request, ANY, Losses()))

    for content in body["contents"]:
        types.Content.model_validate(content)
    types.GenerationConfig.model_validate(body.get("generationConfig", {}))
    for tool in body.get("tools", ()):
        types.Tool.model_validate(tool)
    types.ToolConfig.model_validate(body.get("toolConfig", {}))


def test_a_plain_request_says_nothing_but_its_words() -> None:
    request = decode()

    assert request == hub.Request(model="", turns=[HI])


@pytest.mark.parametrize(
    ("system", "texts"),
    [
        ({"role": "user", "parts": [{"text": "a"}, {"text": "b"}]}, ("a", "b")),
        ({"parts": []}, ()),
        ([{"text": "a"}], ("a",)),
        ("a", ("a",)),
        (None, ()),
    ],
)
def test_system_instructions_come_first(system: object, texts: tuple[str, ...]) -> None:
    turns = decode(systemInstruction=system).turns

    assert turns == ([Turn("system", tuple(map(Text, texts)))] if texts else []) + [HI]


def test_the_role_is_the_user_s_where_nothing_else_is_said() -> None:
    contents = [
        {"parts": [{"text": "a"}]},
        {"role": "", "parts": [{"text": "b", "thought": True}]},
        {"role": "model", "parts": [{"text": "c"}, {"text": ""}]},
        {"role": "model", "parts": None},
        {"role": "user", "parts": [{"text": "d"}]},
    ]

    assert decode(contents=contents).turns == [
        Turn("user", (Text("a"), Text("b"))),
        Turn("assistant", (Text("c"),)),
        Turn("user", (Text("d"),)),
    ]


def test_calls_and_results_without_ids_are_matched_by_name_in_their_order() -> None:
    turns = converse(
        ("user", [{"text": "Hi"}]),
        ("model", [call(args={"n": 1}), call("g"), call(args={"n": 2})]),
        ("function", [result({"output": "1"}), result({"output": "2"}), result({"output": "3"}, name="g")]),
        ("model", [call()]),
        ("user", [result({"output": "4"}), {"text": "And?"}]),
    )

    assert turns == [
        HI,
        Turn(
            "assistant",
            (
                ToolCall(id="call_1", name="f", arguments='{"n":1}'),
                ToolCall(id="call_2", name="g", arguments="{}"),
                ToolCall(id="call_3", name="f", arguments='{"n":2}'),
            ),
        ),
        Turn(
            "user",
            (
                ToolResult(call_id="call_1", name="f", content=(Text("1"),)),
                ToolResult(call_id="call_2", name="g", content=(Text("3"),)),
                ToolResult(call_id="call_3", name="f", content=(Text("2"),)),
            ),
        ),
        Turn("assistant", (ToolCall(id="call_4", name="f", arguments="{}"),)),
        Turn("user", (ToolResult(call_id="call_4", name="f", content=(Text("4"),)), Text("And?"))),
    ]


def test_ids_are_kept_and_those_made_up_differ_from_them() -> None:
    turns = converse(
        ("model", [call(id="call_1"), call(id=""), call(id=7)]),
        ("user", [result(id=7, name=""), result(id="call_1", name="other"), result()]),
    )

    assert [block.id for block in turns[0].blocks if isinstance(block, ToolCall)] == ["call_1", "call_2", "7"]
    assert [(block.call_id, block.name) for block in turns[1].blocks if isinstance(block, ToolResult)] == [
        ("call_1", "other"),
        ("call_2", "f"),
        ("7", "f"),
    ]


def test_a_longer_conversation_keeps_the_ids_of_the_shorter_one() -> None:
    # Else every upstream's prompt cache would miss.
    contents: list[tuple[str, list[object]]] = []
    for number in range(4):
        contents += [("model", [call(id=f"a{number}"), call()]), ("user", [result(), result()])]

    assert converse(*contents[:4]) == converse(*contents)[:4]


@pytest.mark.parametrize(
    ("response", "text", "is_error"),
    [
        (None, "", False),
        ({}, "", False),
        ({"output": "sunny"}, "sunny", False),
        ({"result": "sunny"}, "sunny", False),
        ({"output": ""}, "", False),
        ({"error": "no"}, "no", True),
        ({"error": ""}, "", True),
        ({"error": {"code": 5}}, '{"error":{"code":5}}', True),
        ({"error": None}, '{"error":null}', False),
        ({"error": "", "x": 1}, '{"error":"","x":1}', False),
        ({"error": "no", "x": 1}, '{"error":"no","x":1}', True),
        ({"output": {"a": 1}}, '{"output":{"a":1}}', False),
        ({"output": "a", "x": 1}, '{"output":"a","x":1}', False),
        ({"sky": "blue"}, '{"sky":"blue"}', False),
    ],
)
def test_what_a_function_answered_is_text(response: object, text: str, is_error: bool) -> None:
    turns = converse(("model", [call()]), ("user", [result(response)]))

    content = (Text(text),) if text else ()
    assert turns[1].blocks == (ToolResult(call_id="call_1", name="f", content=content, is_error=is_error),)


def test_a_result_may_hold_media() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}

    turns = converse(("model", [call()]), ("user", [result({"output": "see"}, parts=[picture, {}])]))

    media = Media(kind="image", media_type="image/png", data="AAAA")
    assert turns[1].blocks == (ToolResult(call_id="call_1", name="f", content=(Text("see"), media)),)


def test_signatures_stay_where_they_stand() -> None:
    foreign = Seal("anthropic@a/claude", "signature", "ErUB")
    seal_behind = replace(SEAL, holder="text")

    [turn, _] = converse(
        (
            "model",
            [
                {"text": "hm", "thought": True, "thoughtSignature": wrap_base64(foreign)},
                {"text": "a"},
                {"text": "", "thoughtSignature": "AAAA"},
                {"text": "", "thoughtSignature": "AAAA"},
                {"text": "b", "thoughtSignature": "_-8"},
                {"text": "", "thought": True},
                {"text": "", "thoughtSignature": "AAAA"},
                call(id="c") | {"thoughtSignature": "AAAA"},
                {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
            ],
        ),
        ("user", [result(id="c")]),
    )

    assert turn.blocks == (
        Reasoning("hm", foreign),
        Text("a", seal=SEAL),
        Reasoning("", seal_behind),
        Text("b", seal=Seal("gemini", "signature", "/+8=")),
        Reasoning(""),
        Reasoning("", seal_behind),
        ToolCall(id="c", name="f", arguments="{}", seal=SEAL),
        Media(kind="image", media_type="image/png", data="AAAA"),
    )


@pytest.mark.parametrize("kind", ["executableCode", "codeExecutionResult", "toolCall", "toolResponse"])
def test_parts_of_google_s_own_tools_are_kept_as_they_are(kind: str) -> None:
    part = {kind: {"x": 1}, "thoughtSignature": "AAAA"}

    turns = converse(("model", [{"text": "a"}, part]), ("user", [part]))

    kept = hub.Opaque("gemini", kind, Raw(msgspec.json.encode(part)))
    assert turns == [Turn("assistant", (Text("a"), kept)), Turn("user", (kept,))]
    assert encode(*turns) == [{"role": "model", "parts": [{"text": "a"}, part]}, {"role": "user", "parts": [part]}]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "$.contents"),
        ({"contents": []}, "$.contents"),
        ({"contents": {}}, "$.contents"),
        ({"contents": "Hi"}, "$.contents"),
        ({"contents": [{"parts": [{"text": 5}]}]}, "$.contents[0].parts[0].text"),
        ({"contents": [{"role": "system", "parts": []}]}, "$.contents[0].role"),
        ({"contents": [{"parts": [{"text": "a"}, {}]}]}, "$.contents[0].parts[1]"),
        ({"contents": [{"parts": [{"somethingNew": {}}]}]}, "$.contents[0].parts[0]"),
        ({"contents": [{"parts": [{"functionCall": {"name": "f"}}]}]}, "$.contents[0].parts[0]"),
        ({"contents": [{"role": "model", "parts": [{"functionCall": {}}]}]}, "$.contents[0].parts[0]"),
        (
            {"contents": [{"role": "model", "parts": [{"functionCall": {"name": "f", "args": 5}}]}]},
            "$.contents[0].parts[0]",
        ),
        ({"contents": [{"role": "model", "parts": [{"functionResponse": {}}]}]}, "$.contents[0].parts[0]"),
        ({"contents": [{"parts": [{"functionResponse": {"name": "f"}}]}]}, "$.contents[0].parts[0]"),
        (
            {"contents": [{"role": "model", "parts": [call()]}, {"parts": [result([])]}]},
            "$.contents[1].parts[0]",
        ),
        (
            {"contents": [{"parts": [{"inlineData": {"mimeType": "text/plain", "data": "AP8="}}]}]},
            "$.contents[0].parts[0]",
        ),
        (
            {"contents": [{"parts": []}], "systemInstruction": {"parts": [{"inlineData": {"data": ""}}]}},
            "$.systemInstruction",
        ),
        ({"contents": [{"parts": []}], "systemInstruction": [5]}, "$.systemInstruction[0]"),
        ({"contents": [{"parts": []}], "systemInstruction": 5}, "$.systemInstruction"),
        ({"contents": [{"parts": []}], "cachedContent": "cachedContents/a"}, "$.cachedContent"),
        ({"contents": [{"parts": []}], "continuationToken": "AAAA"}, "$.continuationToken"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(body: object, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        GEMINI.decode_request(msgspec.json.encode(body))

    assert caught.value.param == param


def test_a_call_without_a_result_is_refused_where_the_conversation_goes_on() -> None:
    with pytest.raises(InvalidRequest, match="has no result"):
        converse(("model", [call()]), ("user", [{"text": "Hi"}]))

    assert len(converse(("user", [{"text": "Hi"}]), ("model", [call()]))) == 2


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b'{"contents":', b'{"contents":[{"parts":[{"text":"\xff"}]}]}'])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        GEMINI.decode_request(body)


def test_bytes_that_are_no_text_are_refused_wherever_they_stand() -> None:
    with pytest.raises(InvalidRequest, match="malformed JSON"):
        GEMINI.decode_request(b'{"contents":[{"parts":[{"text":"a"}]}],"labels":{"a":"\xff"}}')


def test_a_body_that_is_nested_too_deep_is_refused() -> None:
    refusals: set[str] = set()
    for depth in range(800, 1000):
        code = b'{"a":' * depth + b"1" + b"}" * depth
        body = b'{"contents":[{"parts":[{"executableCode":%s}]}]}' % code
        try:
            GEMINI.decode_request(body)
        except InvalidRequest as exc:
            refusals.add(exc.message)

    # Some are not too deep at first, but where less of the stack is left.
    assert "malformed JSON: nested too deep" in refusals


def test_what_is_said_of_a_film_goes_back_to_google() -> None:
    film = {"fileData": {"fileUri": "files/a", "mimeType": "video/mp4"}}
    said = {"videoMetadata": {"startOffset": "2s"}, "mediaResolution": {"level": "MEDIA_RESOLUTION_LOW"}}

    turns = converse(("user", [film | said, film | {"video_metadata": {"fps": 1}}]))

    assert encode(*turns)[0]["parts"] == [film | said, film | {"videoMetadata": {"fps": 1}}]


def test_fields_that_nothing_stands_for_are_named() -> None:
    request = decode(
        safetySettings=[{"category": "x"}], labels={"a": "b"}, store=False, somethingNew=5, model="models/x", tools=[]
    )

    assert {name: bytes(raw) for name, raw in request.extensions.items()} == {
        "safetySettings": b'[{"category":"x"}]',
        "labels": b'{"a":"b"}',
        "store": b"false",
        "somethingNew": b"5",
    }
    # LangChain sends it empty.
    assert decode(safetySettings=[], labels=None).extensions == {}


@given(
    body=st.dictionaries(
        st.sampled_from(["contents", "tools", "generationConfig", "toolConfig", "systemInstruction"]), JSON
    )
)
def test_any_body_is_read_or_refused(body: object) -> None:
    with suppress(InvalidRequest):
        GEMINI.decode_request(msgspec.json.encode(body))


@given(request=requests(), noise=st.binary(max_size=20), data=st.data())
def test_a_body_with_any_part_replaced_is_read_or_refused(
    request: hub.Request, noise: bytes, data: st.DataObject
) -> None:
    body = GEMINI.encode_request(request, ANY, Losses())
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(start + 40, len(body))))

    with suppress(InvalidRequest):
        GEMINI.decode_request(body[:start] + noise + body[end:])


# --- To an upstream


def test_results_stand_in_a_content_of_their_own() -> None:
    picture = Media(kind="image", media_type="image/png", data="AAAA")
    turns = [
        HI,
        Turn("assistant", (Text("Oh"), ToolCall(id="c", name="f", arguments='{"n":1.50}'))),
        Turn(
            "user", (ToolResult(call_id="c", name="f", content=(Text("a"), Text("b"), picture)), Text("And?"), picture)
        ),
    ]
    blob = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}

    assert encode(*turns) == [
        {"role": "user", "parts": [{"text": "Hi"}]},
        {"role": "model", "parts": [{"text": "Oh"}, {"functionCall": {"name": "f", "args": {"n": 1.5}, "id": "c"}}]},
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": "f", "response": {"output": "a\nb"}, "parts": [blob], "id": "c"}}],
        },
        {"role": "user", "parts": [{"text": "And?"}, blob]},
    ]


def test_arguments_that_are_no_object_are_wrapped_in_one() -> None:
    [content] = encode(Turn("assistant", (ToolCall(id="c", name="f", arguments='{"a": "b'),)))

    assert content["parts"] == [{"functionCall": {"name": "f", "args": {"INVALID_JSON": '{"a": "b'}, "id": "c"}}]


def test_ids_are_left_out_where_the_model_does_not_know_them() -> None:
    turns = [
        Turn("assistant", (ToolCall(id="c", name="f", arguments="{}"),)),
        Turn("user", (ToolResult(call_id="c", name="f"),)),
    ]

    assert encode(*turns, capabilities=Capabilities(has_call_ids=False)) == [
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": ""}}}]},
    ]


@pytest.mark.parametrize(
    ("text", "is_error", "response"),
    [
        ("sunny", False, b'{"output":"sunny"}'),
        ("no", True, b'{"error":"no"}'),
        ('{"sky": 1.50}', False, b'{"sky": 1.50}'),
        ('{"sky": 1.50}', True, b'{"error":"{\\"sky\\": 1.50}"}'),
        ('{"output":"x"}', False, b'{"output":"{\\"output\\":\\"x\\"}"}'),
        ("{}", False, b'{"output":"{}"}'),
        ("{sunny}", False, b'{"output":"{sunny}"}'),
        ('{"a":1} ', False, b'{"output":"{\\"a\\":1} "}'),
        ("[1]", False, b'{"output":"[1]"}'),
    ],
)
def test_what_a_tool_answered_becomes_an_object(text: str, is_error: bool, response: bytes) -> None:
    turns = [
        Turn("assistant", (ToolCall(id="c", name="f", arguments="{}"),)),
        Turn("user", (ToolResult(call_id="c", name="f", content=(Text(text),), is_error=is_error),)),
    ]

    body = GEMINI.encode_request(hub.Request(model="m", turns=turns), ANY, Losses())

    assert b'"response":' + response + b',"id":"c"' in body
    assert GEMINI.decode_request(body).turns == turns


def test_seals_go_back_to_where_they_were() -> None:
    behind = replace(SEAL, holder="text")
    turn = Turn(
        "assistant",
        (
            Reasoning("hm", SEAL),
            Text("a", seal=SEAL),
            Reasoning("", behind),
            hub.Refusal("No"),
            ToolCall(id="c", name="f", arguments="{}", seal=SEAL),
            Media(kind="image", media_type="image/png", data="AAAA"),
            Reasoning("unsigned"),
        ),
    )

    assert encode(turn)[0]["parts"] == [
        {"text": "hm", "thought": True, "thoughtSignature": "AAAA"},
        {"text": "a", "thoughtSignature": "AAAA"},
        {"text": "", "thoughtSignature": "AAAA"},
        {"text": "No"},
        {"functionCall": {"name": "f", "args": {}, "id": "c"}, "thoughtSignature": "AAAA"},
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        {"text": "unsigned", "thought": True},
    ]


def test_the_first_call_of_each_step_of_the_current_turn_is_signed() -> None:
    def step(number: int, *seals: Seal | None) -> list[Turn]:
        calls = [ToolCall(id=f"{number}{n}", name="f", arguments="{}", seal=seal) for n, seal in enumerate(seals)]
        results = [ToolResult(call_id=call.id, name="f") for call in calls]
        return [Turn("assistant", (Text("a"), *calls)), Turn("user", tuple(results))]

    turns = [HI, *step(1, None), Turn("assistant", (Text("b"),)), HI, *step(2, None, None), *step(3, SEAL, None)]
    signing = Capabilities(needs_signed_calls=True)

    def signatures(contents: list[dict[str, object]]) -> list[list[str | None]]:
        return [
            [part.get("thoughtSignature") for part in content["parts"][1:]]  # type: ignore[index]
            for content in contents
            if content["role"] == "model"
        ]

    assert signatures(encode(*turns, capabilities=signing)) == [[None], [], [PLACEHOLDER, None], ["AAAA", None]]
    assert signatures(encode(*turns)) == [[None], [], [None, None], ["AAAA", None]]
    # Without words of the user in sight, all of it is the current turn.
    assert signatures(encode(*step(1, None), *step(2, None), capabilities=signing)) == [[PLACEHOLDER], [PLACEHOLDER]]
    assert PLACEHOLDER == "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="


def test_a_document_s_context_is_said_before_it_and_its_citations_are_lost() -> None:
    losses = Losses()
    document = Media(
        kind="document", media_type="application/pdf", data="AAAA", context="From 2020.", name="a", has_citations=True
    )

    [content] = encode(Turn("user", (document,)), losses=losses)

    assert content["parts"] == [
        {"text": "From 2020."},
        {"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}},
    ]
    assert losses.names == ["citations"]


def test_a_picture_at_a_url_goes_to_models_that_fetch_it() -> None:
    turn = Turn("user", (Media(kind="image", url="https://x.test/a.png"),))

    [content] = encode(turn, capabilities=Capabilities(fetches_urls=True))

    assert content["parts"] == [{"fileData": {"fileUri": "https://x.test/a.png", "mimeType": "image/png"}}]
    with pytest.raises(InvalidRequest, match="send it in base64"):
        encode(turn)


@pytest.mark.parametrize(
    "turn",
    [
        Turn("system", (Media(kind="image", media_type="image/png", data="AAAA"),)),
        Turn("user", (Reasoning("hm"),)),
        Turn("assistant", (ToolResult(call_id="c"),)),
    ],
)
def test_what_has_no_place_is_refused(turn: Turn) -> None:
    with pytest.raises(InvalidRequest, match="has no place for it"):
        encode(turn)


def test_the_system_s_words_stand_apart() -> None:
    request = hub.Request(model="m", turns=[Turn("system", (Text("a"), Text("b"))), HI])

    assert GEMINI.encode_request(request, ANY, Losses()) == (
        b'{"contents":[{"role":"user","parts":[{"text":"Hi"}]}],"systemInstruction":{"parts":[{"text":"a"},{"text":"b"}]}}'
    )
    assert GEMINI.encode_request(hub.Request(model="m", turns=[]), ANY, Losses()) == b'{"contents":[]}'


@given(request=requests())
def test_roles_alternate_but_for_results(request: hub.Request) -> None:
    contents = encode(*request.turns)

    for before, content in pairwise(contents):
        assert before["role"] != content["role"] or "functionResponse" in before["parts"][0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        ("gemini-3-pro", False, ("/v1beta/models/gemini-3-pro:generateContent", "")),
        ("gemini-3-pro", True, ("/v1beta/models/gemini-3-pro:streamGenerateContent", "alt=sse")),
        ("a b/c?d", False, ("/v1beta/models/a%20b/c%3Fd:generateContent", "")),
    ],
)
def test_the_path_says_model_and_method(model: str, stream: bool, path: tuple[str, str]) -> None:
    assert GEMINI.request_path(hub.Request(model=model, turns=[], stream=stream)) == path


def test_the_pieces_of_a_stream_are_one_thought_and_one_text_again() -> None:
    """google-genai's chats keep every chunk as a content of its own, white space included."""
    pieces = [
        {"text": "Hm", "thought": True},
        {"text": "m.", "thought": True},
        {"text": "", "thought": True, "thoughtSignature": "c2ln"},
        {"text": "Hello"},
        {"text": " "},
        {"text": "world"},
    ]
    contents: list[object] = [{"role": "user", "parts": [{"text": "Hi"}, {"text": "there"}]}]
    contents += [{"role": "model", "parts": [piece]} for piece in pieces]

    request = decode(contents=contents)

    assert request.turns == [
        Turn("user", (Text("Hi"), Text("there"))),
        Turn("assistant", (Reasoning("Hmm.", Seal("gemini", "signature", "c2ln")), Text("Hello world"))),
    ]


def test_a_seal_that_is_lent_to_a_thought_is_not_joined_to_another() -> None:
    lent = wrap_base64(Seal("anthropic@up/m", "signature", "x", holder="call"))
    parts = [{"text": "Hm", "thought": True}, {"text": "", "thought": True, "thoughtSignature": lent}]

    request = decode(contents=[{"role": "model", "parts": parts}])

    assert [type(block) for block in request.turns[0].blocks] == [Reasoning, Reasoning]
