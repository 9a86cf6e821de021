import contextlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from aiproxyd import hub
from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import OPENAI_CHAT
from aiproxyd.formats.codec import KNOBS, Losses
from tests.formats.openai_chat.strategies import LOOSE, STRICT, requests

RECORDINGS = Path(__file__).parents[2] / "recordings" / "openai-chat"
UNKNOWN = Capabilities()
FIRST_PARTY = Capabilities(has_developer_role=True, has_max_completion_tokens=True)
HELLO = [hub.Turn("user", (hub.Text("hi"),))]


def decode(**fields: object) -> hub.Request:
    return OPENAI_CHAT.decode_request(msgspec.json.encode({"model": "m", "messages": [], **fields}))


def encode(capabilities: Capabilities = UNKNOWN, **fields: Any) -> dict[str, Any]:
    """Encode a request and return the fields that it has beside model and messages."""
    request = hub.Request(model="m", turns=HELLO, **fields)
    body = msgspec.json.decode(OPENAI_CHAT.encode_request(request, capabilities, Losses()))
    assert isinstance(body, dict)
    assert body.pop("model") == "m"
    assert body.pop("messages") == [{"role": "user", "content": "hi"}]
    return body


def test_the_format_has_words_for_every_knob_but_one() -> None:
    traits = OPENAI_CHAT.traits

    assert KNOBS - traits.knobs == {"top_k"}
    assert traits.tool_name.fullmatch("get-weather_2")
    assert not traits.tool_name.fullmatch("get.weather")
    assert traits.call_id.fullmatch("functions.Bash:0")
    assert not traits.call_id.fullmatch("x" * 41)


def test_a_request_goes_to_the_path_of_the_api() -> None:
    assert OPENAI_CHAT.request_path(hub.Request(model="m", turns=[])) == ("/v1/chat/completions", "")


def test_a_request_may_say_nothing_but_its_messages() -> None:
    assert decode() == hub.Request(model="m", turns=[], wants_usage=False)


def test_every_knob_is_read() -> None:
    assert decode(
        messages=[{"role": "user", "content": "hi"}],
        max_completion_tokens=5,
        max_tokens=6,
        temperature=1,
        top_p=0.5,
        top_k=40,
        n=2,
        stop="\n",
        presence_penalty=-1,
        frequency_penalty=1,
        logit_bias={"50256": -100},
        logprobs=True,
        top_logprobs=3,
        seed=-1,
        reasoning_effort="xhigh",
        verbosity="low",
        parallel_tool_calls=False,
        stream=True,
        stream_options={"include_usage": True},
        modalities=["text"],
        metadata={"a": "b"},
        user="u",
        safety_identifier="s",
        prompt_cache_key="k",
        service_tier="flex",
        store=False,
    ) == hub.Request(
        model="m",
        turns=HELLO,
        max_output_tokens=5,
        temperature=1.0,
        top_p=0.5,
        top_k=40,
        candidates=2,
        stop=["\n"],
        presence_penalty=-1.0,
        frequency_penalty=1.0,
        logit_bias={"50256": -100.0},
        logprobs=True,
        top_logprobs=3,
        seed=-1,
        reasoning=hub.ReasoningControl(mode="on", effort="xhigh", show=True),
        verbosity="low",
        parallel_tool_calls=False,
        stream=True,
        wants_usage=True,
        metadata={"a": "b"},
        user="s",
        cache_key="k",
        service_tier="flex",
    )


def test_older_names_of_a_field_count_where_the_newer_one_is_not_there() -> None:
    assert decode(max_tokens=6, max_completion_tokens=None).max_output_tokens == 6
    assert decode(user="u", safety_identifier=None).user == "u"
    assert decode(stop=["a", "b"]).stop == ["a", "b"]
    assert decode(n=None).candidates == 1


def test_thinking_can_be_switched_off() -> None:
    assert decode(reasoning_effort="none").reasoning == hub.ReasoningControl(mode="off")


def test_thoughts_are_asked_for_in_the_name_of_those_only_who_ask_for_thinking() -> None:
    assert decode().reasoning.show is None
    assert decode(reasoning_effort="low").reasoning.show is True


@pytest.mark.parametrize("options", [None, {}, {"include_usage": None}, {"include_usage": False}])
def test_a_stream_reports_usage_only_where_it_is_asked_to(options: object) -> None:
    assert not decode(stream=True, stream_options=options).wants_usage


@pytest.mark.parametrize(
    ("wire", "output"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, hub.OutputFormat()),
        (
            {
                "type": "json_schema",
                "json_schema": {"name": "a", "description": "d", "schema": {"x": 1}, "strict": True},
            },
            hub.OutputFormat(schema=Raw(b'{"x":1}'), name="a", description="d", is_strict=True),
        ),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, hub.OutputFormat(name="a")),
    ],
)
def test_the_shape_of_the_answer_is_read(wire: object, output: hub.OutputFormat | None) -> None:
    assert decode(response_format=wire).output == output


def test_what_nothing_stands_for_is_an_extension_and_named() -> None:
    request = decode(
        messages=[{"role": "user", "content": "hi", "name": "Ann"}],
        store=True,
        prediction={"type": "content"},
        prompt_cache_retention=None,
        modalities=["text", "image"],
        enable_thinking=False,
    )

    assert request.extensions == {
        "store": Raw(b"true"),
        "prediction": Raw(b'{"type":"content"}'),
        "enable_thinking": Raw(b"false"),
        "modalities": Raw(b'["text","image"]'),
        "messages.name": Raw(b"null"),
    }


def test_what_nobody_else_knows_of_messages_and_their_parts_is_named() -> None:
    parts = [{"type": "text", "text": "hi", "voice": "low", "annotations": []}]

    assert decode(
        messages=[
            {"role": "user", "content": "hi", "mood": "good", "refusal": None, "weights": [], "extra": {}},
            {"role": "user", "content": parts, "cache_control": {"type": "ephemeral"}},
            {"role": "assistant", "prefix": True, "partial": False},
        ]
    ).extensions == {
        "messages.mood": Raw(b"null"),
        "messages.content.voice": Raw(b"null"),
        "messages.prefix": Raw(b"null"),
    }


def test_what_nobody_else_knows_of_tools_and_formats_is_named() -> None:
    call = {"id": "c", "type": "function", "index": 0, "function": {"name": "f", "arguments": "{}", "mood": "good"}}
    image = {"url": "https://a/b.png", "detail": "low", "format": "image/png"}
    function = {"name": "f", "strict": True, "parameters": {"x": 1}, "mood": "bad"}

    extensions = decode(
        messages=[
            {"role": "user", "content": [{"type": "image_url", "image_url": image}]},
            {"role": "assistant", "tool_calls": [call | {"extra_content": {"other": 1}}]},
            {"role": "tool", "tool_call_id": "c", "content": "ok"},
        ],
        tools=[
            {"type": "function", "function": function, "defer_loading": True},
            {"type": "custom", "custom": {"name": "c", "format": {"type": "text"}, "style": 1}, "kind": None},
        ],
        functions=[{"name": "g", "examples": [1]}],
        tool_choice={"type": "function", "function": {"name": "f", "force": 1}, "why": "so"},
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"y": 1}, "grammar": "g"}},
        stream_options={"include_usage": True, "include_obfuscation": True, "every": 5},
    ).extensions

    assert {name: bytes(raw) for name, raw in extensions.items()} == {
        "messages.content.image_url.format": b"null",
        "messages.tool_calls.function.mood": b"null",
        "messages.tool_calls.extra_content.other": b"null",
        "tools.function.mood": b'"bad"',
        "tools.defer_loading": b"true",
        "tools.custom.style": b"1",
        "functions.examples": b"[1]",
        "tool_choice.function.force": b"1",
        "tool_choice.why": b'"so"',
        "response_format.json_schema.grammar": b'"g"',
        "stream_options.every": b"5",
    }


@pytest.mark.parametrize("role", ["user", "assistant", "system", "developer"])
def test_the_name_of_a_speaker_is_named_as_lost(role: str) -> None:
    assert "messages.name" in decode(messages=[{"role": role, "content": "hi", "name": "Ann"}]).extensions
    assert decode(messages=[{"role": role, "content": "hi", "name": ""}]).extensions == {}


def test_web_search_is_a_tool_of_the_vendor() -> None:
    tool = hub.ServerTool("web_search", "openai-chat", Raw(b'{"search_context_size":"low"}'), ("search_context_size",))

    assert decode(web_search_options={"search_context_size": "low"}).server_tools == [tool]
    assert encode(server_tools=[tool]) == {"web_search_options": {"search_context_size": "low"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"audio": {"voice": "alloy", "format": "wav"}, "modalities": ["text", "audio"]}, "$.audio"),
        ({"modalities": ["audio"]}, "$.modalities"),
    ],
)
def test_sound_is_refused_and_it_is_said_what_to_do(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(**fields)

    assert caught.value.param == param
    assert "leave `audio` out, and `modalities` too" in caught.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "$.temperature"),
        ({"reasoning_effort": "huge"}, "$.reasoning_effort"),
        ({"response_format": {"type": "xml"}}, "$.response_format.type"),
        ({"stop": [1]}, "$.stop[0]"),
        ({"metadata": {"a": 1}}, "$.metadata[...]"),
        ({"logit_bias": {"a": "b"}}, "$.logit_bias[...]"),
        ({"model": 5}, "$.model"),
        ({"messages": "hi"}, "$.messages"),
    ],
)
def test_a_field_of_another_type_is_refused_with_its_place(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(**fields)

    assert caught.value.param == param


def test_a_message_of_any_depth_is_read_or_refused() -> None:
    for depth in range(400, 1101):
        nest = b"[" * depth + b"]" * depth
        with contextlib.suppress(InvalidRequest):
            OPENAI_CHAT.decode_request(b'{"model":"m","messages":[{"role":"user","content":"a","x":%b}]}' % nest)


@given(body=st.binary(max_size=40) | st.text('{}[]":,0 modelsagrct', max_size=40).map(str.encode))
def test_any_bytes_are_a_request_or_refused(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        OPENAI_CHAT.decode_request(body)


def test_a_plain_request_is_written_plainly() -> None:
    request = hub.Request(model="m", turns=HELLO)

    assert OPENAI_CHAT.encode_request(request, UNKNOWN, Losses()) == (
        b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    )


def test_every_knob_is_written() -> None:
    assert encode(
        FIRST_PARTY,
        max_output_tokens=5,
        temperature=0.0,
        top_p=0.5,
        candidates=2,
        stop=["\n"],
        presence_penalty=-1.0,
        frequency_penalty=1.0,
        logit_bias={"50256": -100.0, "1": 0.5},
        logprobs=True,
        top_logprobs=3,
        seed=0,
        reasoning=hub.ReasoningControl(mode="on", effort="high"),
        verbosity="low",
        tools=[hub.Tool(name="f")],
        tool_choice=hub.ToolChoice("required"),
        parallel_tool_calls=False,
        stream=True,
        wants_usage=False,
        metadata={"a": "b"},
        user="s",
        cache_key="k",
        service_tier="flex",
    ) == {
        "max_completion_tokens": 5,
        "temperature": 0.0,
        "top_p": 0.5,
        "n": 2,
        "stop": ["\n"],
        "presence_penalty": -1.0,
        "frequency_penalty": 1.0,
        "logit_bias": {"50256": -100, "1": 0.5},
        "logprobs": True,
        "top_logprobs": 3,
        "seed": 0,
        "reasoning_effort": "high",
        "verbosity": "low",
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "stream": True,
        "stream_options": {"include_usage": True},
        "metadata": {"a": "b"},
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "service_tier": "flex",
    }


def test_an_unknown_upstream_gets_the_older_names() -> None:
    assert encode(max_output_tokens=5, user="u") == {"max_tokens": 5, "user": "u"}


def test_labels_that_are_too_long_are_told_apart_all_the_same() -> None:
    long = encode(FIRST_PARTY, user="u" * 129, cache_key="k" * 65)

    assert long["safety_identifier"] == "4d9221bd88fe7fa3f1cdc7d81c70b9484f37615f92178eafa3f6c525e6fa786f"
    assert len(long["prompt_cache_key"]) == 64
    assert encode(user="u" * 129) == {"user": long["safety_identifier"]}
    assert encode(FIRST_PARTY, user="u" * 128, cache_key="k" * 64) == {
        "safety_identifier": "u" * 128,
        "prompt_cache_key": "k" * 64,
    }


def test_thinking_is_switched_off_by_name_and_what_is_not_said_is_left_out() -> None:
    assert encode(reasoning=hub.ReasoningControl(mode="off")) == {"reasoning_effort": "none"}
    assert encode(reasoning=hub.ReasoningControl(mode="on", budget_tokens=1024)) == {}


def test_what_depends_on_tools_is_left_out_without_them() -> None:
    assert encode(parallel_tool_calls=True, tool_choice=None) == {}


@pytest.mark.parametrize(
    ("output", "written"),
    [
        (hub.OutputFormat(), {"type": "json_object"}),
        (
            hub.OutputFormat(schema=LOOSE, name="", is_strict=True),
            {
                "type": "json_schema",
                "json_schema": {"name": "response", "schema": msgspec.json.decode(LOOSE), "strict": False},
            },
        ),
        (
            hub.OutputFormat(schema=STRICT, name="my schema!", description="d", is_strict=True),
            {
                "type": "json_schema",
                "json_schema": {
                    "name": "my_schema_",
                    "schema": msgspec.json.decode(STRICT),
                    "description": "d",
                    "strict": True,
                },
            },
        ),
        (
            hub.OutputFormat(schema=STRICT, name="a"),
            {"type": "json_schema", "json_schema": {"name": "a", "schema": msgspec.json.decode(STRICT)}},
        ),
    ],
)
def test_the_shape_of_the_answer_is_written(output: hub.OutputFormat, written: object) -> None:
    assert encode(output=output) == {"response_format": written}


def test_more_stops_than_the_api_takes_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="at most 4 stop sequences, not 5"):
        encode(stop=["a", "b", "c", "d", "e"])


@given(request=requests())
def test_what_is_written_is_read_as_it_was(request: hub.Request) -> None:
    body = OPENAI_CHAT.encode_request(request, UNKNOWN, Losses())

    assert OPENAI_CHAT.decode_request(body) == request


@given(request=requests())
def test_what_is_written_for_the_first_party_is_read_as_it_was(request: hub.Request) -> None:
    body = OPENAI_CHAT.encode_request(request, FIRST_PARTY, Losses())

    assert OPENAI_CHAT.decode_request(body) == request


@pytest.mark.parametrize("case", sorted(path.parent.name for path in RECORDINGS.glob("*/request.json")))
def test_a_recorded_request_is_read_and_written_without_loss(case: str) -> None:
    request = OPENAI_CHAT.decode_request((RECORDINGS / case / "request.json").read_bytes())

    again = OPENAI_CHAT.decode_request(OPENAI_CHAT.encode_request(request, FIRST_PARTY, Losses()))

    again.wants_usage = request.wants_usage
    assert again == request
    assert request.extensions == {}
