from typing import Any, Final

import msgspec
import pytest

from aiproxyd.formats import GEMINI

PNG: Final[Any] = {"mimeType": "image/png", "data": "iVBORw0KGgo="}
USER: Final[Any] = {"role": "user", "parts": [{"text": "hi"}]}


def is_plain(body: object) -> bool:
    written = body if isinstance(body, bytes) else msgspec.json.encode(body)
    GEMINI.decode_request(written)
    return GEMINI.is_plain(written)


def ask(*contents: object, **fields: object) -> dict[str, object]:
    return {"contents": contents or [USER], **fields}


def say(*texts: str, role: str = "model") -> dict[str, object]:
    return {"role": role, "parts": [{"text": text} for text in texts]}


def respond(response: object, **fields: object) -> dict[str, object]:
    call = {"role": "model", "parts": [{"functionCall": {"name": "f"}}]}
    part = {"functionResponse": {"name": "f", "response": response, **fields}}
    return ask(USER, call, {"role": "user", "parts": [part]})


def offer(**fields: object) -> dict[str, object]:
    return ask(tools=[{"functionDeclarations": [{"name": "f", **fields}]}])


def configure(**fields: object) -> dict[str, object]:
    return ask(generationConfig=fields)


SCHEMA: Final = {"type": "OBJECT", "properties": {"a": {"type": "ARRAY", "items": {"type": "STRING"}}}}


@pytest.mark.parametrize(
    "body",
    [
        ask(safetySettings=[], tools=[{}], toolConfig={}),
        ask({"parts": [{"inlineData": PNG}]}, system_instruction={"role": "user", "parts": [{"text": "Be brief."}]}),
        ask(USER, say("We", "ll"), say(""), USER),
        respond({"output": "x"}, parts=[{"inlineData": PNG}]),
        respond({"error": "x"}, id="1"),
        offer(parameters=SCHEMA),
        offer(parameters_json_schema={"type": "object"}),
        configure(responseMimeType="application/json", responseSchema=SCHEMA),
        configure(thinking_config={"thinkingBudget": -1}),
    ],
)
def test_what_is_read_as_a_whole_is_plain(body: object) -> None:
    assert is_plain(body)


@pytest.mark.parametrize(
    "body",
    [
        ask(seed=1),
        ask(safetySettings=[{"category": "x"}]),
        ask({"role": "function", "parts": [{"text": "hi"}]}),
        ask({"parts": [{"text": "hi", "inlineData": PNG}]}),
        ask({"parts": [{"inlineData": {"mimeType": "text/plain", "data": "aGk="}}]}),
        ask(USER, say("", role="user")),
        # An empty turn is one to the model.
        ask(USER, say(""), USER),
        ask(USER, say("a"), USER, say(""), USER),
        respond({"result": "x"}),
        respond({"output": "x", "error": "y"}),
        respond({"sky": "rain"}),
        offer(parameters=SCHEMA, parametersJsonSchema={"type": "object"}),
        offer(parameters=SCHEMA | {"propertyOrdering": ["a"]}),
        offer(parameters=SCHEMA | {"property_ordering": ["a"]}),
        offer(parameters={"type": "STRING", "example": "x"}),
        offer(response={"type": "STRING"}),
        configure(topK=40.5),
        configure(candidateCount=2),
        configure(responseJsonSchema={"type": "object"}),
        configure(
            responseMimeType="application/json",
            responseJsonSchema={"type": "object"},
            responseSchema={"type": "OBJECT"},
        ),
        ask(toolConfig={"functionCallingConfig": {"mode": "any"}}),
        ask(generationConfig={"temperature": 1}, generation_config={"temperature": 2}),
    ],
)
def test_what_only_its_own_models_notice_is_not(body: object) -> None:
    assert not is_plain(body)


@pytest.mark.parametrize("name", [*sorted(GEMINI.volatile_fields), "model"])
def test_labels_change_nothing(name: str) -> None:
    assert is_plain(ask(**{name: "x"}))


def test_no_answer_is_stored() -> None:
    assert not GEMINI.stores(msgspec.json.encode(ask(store=True)))
