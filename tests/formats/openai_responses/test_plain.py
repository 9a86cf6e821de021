from typing import Any, Final

import msgspec
import pytest

from aiproxyd.formats import FORMATS
from aiproxyd.formats.openai_responses.wire import NAME

RESPONSES: Final = FORMATS[NAME]
USER: Final[Any] = {"role": "user", "content": "hi"}
CALL: Final[Any] = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT: Final[Any] = {"type": "function_call_output", "call_id": "c", "output": "x"}
SAID: Final[Any] = {"type": "output_text", "text": "yo"}


def is_plain(body: object) -> bool:
    written = msgspec.json.encode(body)
    RESPONSES.decode_request(written)
    return RESPONSES.is_plain(written)


def ask(*items: object, **fields: object) -> dict[str, object]:
    return {"model": "m", "input": items or "hi", **fields}


def offer(**fields: object) -> dict[str, object]:
    return ask(tools=[{"type": "function", "name": "f", **fields}])


def answer(part: dict[str, object], **fields: object) -> dict[str, object]:
    return ask(USER, {"role": "assistant", "content": [SAID | part], **fields}, USER)


@pytest.mark.parametrize(
    "body",
    [
        ask(include=[], truncation=None, reasoning={}, text={}, tools=[]),
        ask(USER, CALL | {"id": "fc_1", "status": "completed", "namespace": None}, OUTPUT | {"id": None}),
        ask(text={"format": {"type": "json_object"}}),
        answer({"annotations": [], "logprobs": []}, type="message", id="msg_1", status="completed", phase=None),
        offer(strict=False),
        offer(strict=True, parameters=None),
    ],
)
def test_what_is_read_as_a_whole_is_plain(body: object) -> None:
    assert is_plain(body)


@pytest.mark.parametrize(
    "body",
    [
        ask(seed=1),
        ask(include=["reasoning.encrypted_content"]),
        ask(reasoning={"summary": "detailed"}),
        ask(text={"format": {"type": "json_object", "name": "n"}}),
        ask(USER | {"arguments": "{}"}),
        ask(USER | {"name": "a"}),
        ask(USER, CALL | {"content": "x"}, OUTPUT),
        ask(USER, CALL | {"arguments": ""}, OUTPUT),
        ask(USER, {"type": "reasoning", "summary": []}, USER),
        ask(USER | {"type": None}),
        answer({}, phase="commentary"),
        answer({}, status="incomplete"),
        offer(),
        offer(strict=None),
        offer(strict=False, defer_loading=True),
    ],
)
def test_what_only_its_own_models_notice_is_not(body: object) -> None:
    assert not is_plain(body)


@pytest.mark.parametrize("name", sorted(RESPONSES.volatile_fields - {"stream", "user", "metadata"}))
def test_labels_change_nothing(name: str) -> None:
    assert is_plain(ask(**{name: "x"}))


@pytest.mark.parametrize("store", [None, True, "absent"])
def test_answers_are_stored_unless_that_is_declined(store: object) -> None:
    fields = {} if store == "absent" else {"store": store}

    assert RESPONSES.stores(msgspec.json.encode(ask(**fields)))
    assert not RESPONSES.stores(msgspec.json.encode(ask(store=False)))
