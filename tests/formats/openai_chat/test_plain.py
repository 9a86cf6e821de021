from typing import Any, Final

import msgspec
import pytest

from aiproxyd.formats import OPENAI_CHAT

USER: Final[Any] = {"role": "user", "content": "hi"}
CALL: Final[Any] = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def is_plain(body: object) -> bool:
    written = msgspec.json.encode(body)
    OPENAI_CHAT.decode_request(written)
    return OPENAI_CHAT.is_plain(written)


def say(*messages: object) -> dict[str, object]:
    return {"model": "m", "messages": messages}


def ask(**fields: object) -> dict[str, object]:
    return say(USER) | fields


def call(**fields: object) -> dict[str, object]:
    called = {"role": "assistant", "tool_calls": [CALL]}
    return say(USER, called | fields, {"role": "tool", "tool_call_id": "c", "content": ""})


def see(**image: object) -> dict[str, object]:
    return say({"role": "user", "content": [{"type": "image_url", "image_url": image}]})


@pytest.mark.parametrize(
    "body",
    [
        ask(),
        ask(n=1, stop=[], tools=None, functions=[], logprobs=None),
        ask(max_tokens=5, max_completion_tokens=None),
        ask(response_format={"type": "json_object"}),
        see(url="https://a/b.png"),
        see(url="data:image/svg+xml;base64,AA==", detail="high"),
        call(content=None, refusal=None, annotations=[], audio=None, function_call=None),
        call(content=""),
        say(USER, {"role": "assistant", "content": "yo", "tool_calls": []}, USER),
    ],
)
def test_what_is_read_as_a_whole_is_plain(body: object) -> None:
    assert is_plain(body)


@pytest.mark.parametrize(
    "body",
    [
        ask(max_tokens=5, max_completion_tokens=9),
        ask(n=0),
        ask(logprobs=False),
        ask(response_format={"type": "json_object", "schema": {}}),
        ask(tools=[{"type": "function", "function": {"name": "f"}, "strict": True}]),
        ask(tools=[{"type": "custom", "custom": {"name": "f"}}]),
        see(url="data:image/PNG;base64,AA=="),
        see(url="data:image/png;a=b;base64,AA=="),
        see(url="https://a/b.png", detail=""),
        call(reasoning_content="Hm"),
        call(name="a"),
        say(USER, {"role": "assistant", "content": ""}, USER),
        say(USER, {"role": "assistant", "content": None, "tool_calls": []}, USER),
        say({"role": "system", "content": ""}, USER),
        say({"role": "user", "content": []}, USER),
        say(USER, {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": " {}"}}]}),
    ],
)
def test_what_only_its_own_models_notice_is_not(body: object) -> None:
    assert not is_plain(body)


@pytest.mark.parametrize("name", sorted(OPENAI_CHAT.volatile_fields - {"stream", "user", "metadata", "stream_options"}))
def test_labels_change_nothing(name: str) -> None:
    assert is_plain(ask(**{name: "x"}))


@pytest.mark.parametrize(("fields", "is_so"), [({}, False), ({"store": True}, True), ({"store": False}, False)])
def test_answers_are_stored_for_those_who_ask_for_it(fields: dict[str, object], is_so: bool) -> None:
    assert OPENAI_CHAT.stores(msgspec.json.encode(ask(**fields))) is is_so
