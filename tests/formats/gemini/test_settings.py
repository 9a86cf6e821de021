from typing import Any

import msgspec
import pytest
from msgspec import Raw

from aiproxyd import hub
from aiproxyd.capabilities import Capabilities, Effort
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import GEMINI
from aiproxyd.formats.codec import Losses
from aiproxyd.hub import OutputFormat, ReasoningControl, ServerTool, Tool, ToolChoice

ANY = Capabilities()
LEVEL = Capabilities(reasoning="level")
BUDGET = Capabilities(reasoning="budget")


def decode(**fields: object) -> hub.Request:
    return GEMINI.decode_request(msgspec.json.encode({"contents": [{"parts": [{"text": "Hi"}]}]} | fields))


def configure(**fields: object) -> hub.Request:
    return decode(generationConfig=fields)


def encode(capabilities: Capabilities = ANY, losses: Losses | None = None, **fields: Any) -> dict[str, Any]:
    request = hub.Request(model="m", turns=[], **fields)
    body: dict[str, Any] = msgspec.json.decode(GEMINI.encode_request(request, capabilities, losses or Losses()))
    del body["contents"]
    return body


# --- Tools


def test_functions_are_read_in_each_way_to_write_a_schema() -> None:
    declarations = [
        {"name": "f", "description": "F", "parameters": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}},
        {"name": "g", "parametersJsonSchema": {"type": "object", "properties": {"a": {"type": "STRING"}}}},
        {"name": "h", "description": None, "parameters": None, "response": {"type": "STRING"}},
    ]
    lowered = Raw(b'{"type":"object","properties":{"a":{"type":"string"}}}')

    request = decode(tools=[{"functionDeclarations": declarations[:2]}, {"functionDeclarations": declarations[2:]}])

    assert request.tools == [
        Tool(name="f", description="F", schema=lowered),
        Tool(name="g", schema=lowered),
        Tool(name="h"),
    ]


def test_tools_that_google_runs_are_told_apart() -> None:
    request = decode(
        tools=[
            {"googleSearch": {}, "functionDeclarations": None, "urlContext": None},
            {"googleSearchRetrieval": {"x": 1}},
            {"codeExecution": {}},
        ]
    )

    assert request.tools == []
    assert request.server_tools == [
        ServerTool("web_search", "gemini", Raw(b'{"googleSearch":{}}')),
        ServerTool("web_search", "gemini", Raw(b'{"googleSearchRetrieval":{"x":1}}'), ("x",)),
        ServerTool("codeExecution", "gemini", Raw(b'{"codeExecution":{}}')),
    ]


def test_tools_are_written() -> None:
    schema = Raw(b'{"$schema":"x","type":"object","properties":{"a":{}}}')
    tools = [Tool(name="f", description="F", schema=schema, is_strict=True), Tool(name="g", schema=Raw(b"{}"))]
    server_tools = [
        ServerTool("web_search", "anthropic", Raw(b'{"type":"web_search_20260318"}')),
        ServerTool("codeExecution", "gemini", Raw(b'{"codeExecution":{}}')),
    ]

    assert encode(tools=tools, server_tools=server_tools) == {
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "f",
                        "description": "F",
                        "parametersJsonSchema": {"type": "object", "properties": {"a": {}}},
                    },
                    {"name": "g"},
                ]
            },
            {"googleSearch": {}},
            {"codeExecution": {}},
        ]
    }


@pytest.mark.parametrize(
    ("config", "choice"),
    [
        ({"mode": "AUTO"}, ToolChoice("auto")),
        ({"mode": "any"}, ToolChoice("required")),
        ({"mode": "NONE"}, ToolChoice("none")),
        ({"mode": "ANY", "allowedFunctionNames": ["f"]}, ToolChoice("required", ("f",))),
        ({"mode": "ANY", "allowedFunctionNames": []}, ToolChoice("required")),
        ({"mode": "VALIDATED"}, ToolChoice("auto")),
        ({"mode": "VALIDATED", "allowedFunctionNames": ["f", "g"]}, ToolChoice("auto", ("f", "g"))),
        ({"mode": "MODE_UNSPECIFIED"}, None),
        ({"mode": None}, None),
        (None, None),
    ],
)
def test_the_choice_of_tools_is_read(config: object, choice: ToolChoice | None) -> None:
    request = decode(toolConfig={"functionCallingConfig": config, "retrievalConfig": {}, "includeX": True})

    assert request.tool_choice == choice
    assert request.extensions == {"toolConfig.includeX": Raw(b"true")}


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        (ToolChoice("auto"), {"mode": "AUTO"}),
        (ToolChoice("none"), {"mode": "NONE"}),
        (ToolChoice("required"), {"mode": "ANY"}),
        (ToolChoice("required", ("f",)), {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        (ToolChoice("auto", ("f",)), {"mode": "VALIDATED", "allowedFunctionNames": ["f"]}),
    ],
)
def test_the_choice_of_tools_is_written(choice: ToolChoice, config: object) -> None:
    assert encode(tool_choice=choice) == {"toolConfig": {"functionCallingConfig": config}}


# --- Tuning


def test_tuning_is_read() -> None:
    request = configure(
        temperature=0.5,
        topP=0.9,
        topK=40.0,
        candidateCount=2,
        maxOutputTokens=100,
        stopSequences=["a"],
        seed=7,
        presencePenalty=0.1,
        frequencyPenalty=0.2,
        responseLogprobs=True,
        logprobs=3,
        responseModalities=["text", "TEXT"],
        mediaResolution="MEDIA_RESOLUTION_LOW",
        speechConfig=None,
    )

    assert (request.temperature, request.top_p, request.top_k, request.candidates) == (0.5, 0.9, 40, 2)
    assert (request.max_output_tokens, request.stop, request.seed) == (100, ["a"], 7)
    assert (request.presence_penalty, request.frequency_penalty) == (0.1, 0.2)
    assert (request.logprobs, request.top_logprobs) == (True, 3)
    assert request.extensions == {"mediaResolution": Raw(b'"MEDIA_RESOLUTION_LOW"')}


def test_tuning_is_written() -> None:
    written = encode(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        candidates=2,
        max_output_tokens=100,
        stop=["a"],
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logprobs=True,
        top_logprobs=3,
    )

    assert written == {
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 40,
            "candidateCount": 2,
            "maxOutputTokens": 100,
            "stopSequences": ["a"],
            "seed": 7,
            "presencePenalty": 0.1,
            "frequencyPenalty": 0.2,
            "responseLogprobs": True,
            "logprobs": 3,
        }
    }


@pytest.mark.parametrize(
    ("seed", "written"),
    [(2**31 - 1, 2**31 - 1), (-(2**31), -(2**31)), (2**31, 0), (2**40 + 5, 5), (-(2**31) - 1, 2**31 - 1)],
)
def test_a_seed_fits_into_32_bits(seed: int, written: int) -> None:
    assert encode(seed=seed) == {"generationConfig": {"seed": written}}


@pytest.mark.parametrize("fields", [{"stop": list("abcdef")}, {"candidates": 9}])
def test_more_than_the_api_takes_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        encode(**fields)


@pytest.mark.parametrize(
    ("word", "tier"), [("flex", "flex"), ("standard", "default"), ("PRIORITY", "priority"), ("unspecified", "")]
)
def test_the_service_tier_is_read(word: str, tier: str) -> None:
    assert decode(serviceTier=word).service_tier == tier


@pytest.mark.parametrize(
    ("tier", "written", "lost"),
    [
        ("", {}, []),
        ("auto", {}, []),
        ("default", {"serviceTier": "standard"}, []),
        ("standard_only", {"serviceTier": "standard"}, []),
        ("flex", {"serviceTier": "flex"}, []),
        ("fast", {"serviceTier": "priority"}, []),
        ("scale", {}, ["service_tier"]),
    ],
)
def test_the_service_tier_is_written(tier: str, written: object, lost: list[str]) -> None:
    losses = Losses()

    assert encode(service_tier=tier, losses=losses) == written
    assert losses.names == lost


# --- The form of the answer


@pytest.mark.parametrize(
    ("fields", "output"),
    [
        ({}, None),
        ({"responseMimeType": "text/plain"}, None),
        ({"responseMimeType": ""}, None),
        ({"responseMimeType": "application/json"}, OutputFormat()),
        (
            {"responseMimeType": "application/json", "responseSchema": {"type": "OBJECT", "nullable": True}},
            OutputFormat(schema=Raw(b'{"type":["object","null"]}')),
        ),
        (
            {"responseJsonSchema": {"type": "OBJECT", "nullable": True}},
            OutputFormat(schema=Raw(b'{"type":"object","nullable":true}')),
        ),
        ({"responseJsonSchema": {"type": "object"}}, OutputFormat(schema=Raw(b'{"type":"object"}'))),
    ],
)
def test_the_form_of_the_answer_is_read(fields: dict[str, Any], output: OutputFormat | None) -> None:
    assert configure(**fields).output == output


def test_the_form_of_the_answer_is_written() -> None:
    schema = Raw(b'{"$schema":"x","type":"object"}')

    assert encode(output=OutputFormat()) == {"generationConfig": {"responseMimeType": "application/json"}}
    assert encode(output=OutputFormat(schema=schema, name="n", is_strict=True)) == {
        "generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}}
    }


# --- Reasoning


@pytest.mark.parametrize(
    ("config", "control"),
    [
        ({}, ReasoningControl()),
        ({"includeThoughts": True}, ReasoningControl(show=True)),
        ({"includeThoughts": False, "thinkingBudget": 0}, ReasoningControl(mode="off", show=False)),
        ({"thinkingBudget": -1}, ReasoningControl(mode="on")),
        ({"thinkingBudget": 2048}, ReasoningControl(mode="on", budget_tokens=2048)),
        ({"thinkingLevel": "MINIMAL"}, ReasoningControl(mode="on", effort="minimal")),
        ({"thinkingLevel": "xhigh", "includeThoughts": True}, ReasoningControl(mode="on", effort="xhigh", show=True)),
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, ReasoningControl()),
    ],
)
def test_how_much_to_think_is_read(config: object, control: ReasoningControl) -> None:
    assert configure(thinkingConfig=config).reasoning == control


@pytest.mark.parametrize(
    ("control", "capabilities", "config"),
    [
        (ReasoningControl(), LEVEL, None),
        (ReasoningControl(show=True), LEVEL, {"includeThoughts": True}),
        (ReasoningControl(show=True), ANY, None),
        (ReasoningControl(show=False), BUDGET, {"includeThoughts": False}),
        (
            ReasoningControl(mode="on", effort="minimal", show=True),
            LEVEL,
            {"includeThoughts": True, "thinkingLevel": "MINIMAL"},
        ),
        (ReasoningControl(mode="on", effort="max"), LEVEL, {"thinkingLevel": "HIGH"}),
        (ReasoningControl(mode="off", show=True), LEVEL, {"thinkingLevel": "LOW"}),
        (ReasoningControl(mode="on", effort="low", budget_tokens=512), BUDGET, {"thinkingBudget": 512}),
        (ReasoningControl(mode="off", show=True), BUDGET, {"thinkingBudget": 0}),
        (
            ReasoningControl(mode="off"),
            Capabilities(reasoning="budget", can_stop_reasoning=False, min_budget_tokens=128),
            {"thinkingBudget": 128},
        ),
    ],
)
def test_how_much_to_think_is_written(
    control: ReasoningControl, capabilities: Capabilities, config: dict[str, object] | None
) -> None:
    expected = {"generationConfig": {"thinkingConfig": config}} if config else {}

    assert encode(capabilities, reasoning=control) == expected


@pytest.mark.parametrize("effort", ["minimal", "low", "medium", "high", "xhigh"])
def test_an_effort_is_read_back(effort: Effort) -> None:
    control = ReasoningControl(mode="on", effort=effort, show=True)

    assert configure(**encode(LEVEL, reasoning=control)["generationConfig"]).reasoning == control


# --- What is wrong


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": 5}, "$.tools"),
        ({"tools": [5]}, "$.tools[0]"),
        ({"tools": [{}, {"functionDeclarations": [{"name": 5}]}]}, "$.tools[1].functionDeclarations[0].name"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "SOME"}}}, "$.toolConfig.functionCallingConfig.mode"),
        ({"toolConfig": {"functionCallingConfig": {"mode": 5}}}, "$.toolConfig.functionCallingConfig.mode"),
        ({"serviceTier": "gold"}, "$.serviceTier"),
        ({"generationConfig": 5}, "$.generationConfig"),
        ({"generationConfig": {"seed": "a"}}, "$.generationConfig.seed"),
        ({"generationConfig": {"responseFormat": [{}]}}, "$.generationConfig.responseFormat"),
        ({"generationConfig": {"responseModalities": ["TEXT", "IMAGE"]}}, "$.generationConfig.responseModalities"),
        ({"generationConfig": {"responseMimeType": "text/x.enum"}}, "$.generationConfig.responseMimeType"),
        ({"generationConfig": {"responseMimeType": "text/csv"}}, "$.generationConfig.responseMimeType"),
        (
            {
                "generationConfig": {
                    "responseMimeType": "text/x.enum",
                    "responseSchema": {"type": "STRING", "enum": ["a", "b"]},
                }
            },
            "$.generationConfig.responseMimeType",
        ),
        (
            {"generationConfig": {"thinkingConfig": {"thinkingLevel": "ULTRA"}}},
            "$.generationConfig.thinkingConfig.thinkingLevel",
        ),
        (
            {"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW", "thinkingBudget": 5}}},
            "$.generationConfig.thinkingConfig",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(fields: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(**fields)

    assert caught.value.param == param
