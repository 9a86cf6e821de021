from typing import Any, Final

import msgspec
import pytest

from aiproxyd.formats import ANTHROPIC

USER: Final[Any] = {"role": "user", "content": "hi"}
MARK: Final = {"type": "ephemeral", "ttl": "1h"}


def is_plain(body: object) -> bool:
    written = msgspec.json.encode(body)
    ANTHROPIC.decode_request(written)
    return ANTHROPIC.is_plain(written)


def ask(**fields: object) -> dict[str, object]:
    return {"model": "m", "max_tokens": 9, "messages": [USER], **fields}


def say(*blocks: object) -> dict[str, object]:
    return ask(messages=[{"role": "user", "content": blocks}])


def call(called: dict[str, object], **result: object) -> dict[str, object]:
    call = {"type": "tool_use", "id": "c", "name": "f", "input": {}} | called
    answer = {"type": "tool_result", "tool_use_id": "c"} | result
    return ask(messages=[USER, {"role": "assistant", "content": [call]}, {"role": "user", "content": [answer]}])


@pytest.mark.parametrize(
    "body",
    [
        ask(system=[], tools=[], stop_sequences=None, mcp_servers=[], service_tier=None),
        ask(thinking={"type": "enabled", "budget_tokens": 1024}),
        ask(thinking={"type": "adaptive", "display": "summarized"}),
        ask(tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
        say({"type": "text", "text": "hi", "cache_control": MARK, "citations": None}),
        call({"caller": {"type": "direct"}}, content=[], is_error=False, cache_control=MARK),
    ],
)
def test_what_is_read_as_a_whole_is_plain(body: object) -> None:
    assert is_plain(body)


@pytest.mark.parametrize(
    "body",
    [
        ask(seed=1),
        ask(system=""),
        ask(thinking={"type": "adaptive"}),
        ask(thinking={"type": "enabled", "budget_tokens": 1024, "display": "summarized"}),
        ask(thinking={"type": "disabled", "budget_tokens": 1024}),
        ask(tool_choice={"type": "any", "name": "f"}),
        ask(tools=[{"name": "f", "defer_loading": True}]),
        ask(service_tier="auto"),
        ask(messages=[USER, {"role": "assistant", "content": []}, USER]),
        say({"type": "text", "text": ""}),
        say({"type": "text", "text": "hi", "id": "a"}),
        say({"type": "document", "source": {"type": "content", "content": "words"}}),
        say({"type": "image", "source": {"type": "url", "url": "https://a", "media_type": "image/png"}}),
        call({"caller": {"type": "code_execution", "tool_id": "t"}}),
        call({}, content=[{"type": "tool_reference", "tool_name": "f"}]),
    ],
)
def test_what_only_its_own_models_notice_is_not(body: object) -> None:
    assert not is_plain(body)


@pytest.mark.parametrize("field", [{"metadata": {"user_id": "u"}}, {"stream": True}, {"cache_control": MARK}])
def test_labels_change_nothing(field: dict[str, object]) -> None:
    assert field.keys() <= ANTHROPIC.volatile_fields
    assert is_plain(ask(**field))


def test_no_answer_is_stored() -> None:
    assert not ANTHROPIC.stores(msgspec.json.encode(ask(store=True)))
