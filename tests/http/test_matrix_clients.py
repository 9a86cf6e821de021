"""What real clients send, byte for byte as far as it matters, to every upstream that is not of their format."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.http.matrix import CELLS, CITY, GPT_4O, GPT_5, LOCAL, OPUS, SONNET, Cell, Stage, is_own
from tests.http.raw import Body, Event, check_stream, read_events, send
from tests.vendors.vendor import walk


def foreign(name: str) -> pytest.MarkDecorator:
    """Return the parameter ``cell``: every model that is not spoken to in the format called *name*."""
    cells = [cell for cell in CELLS if not is_own(name, cell)]
    return pytest.mark.parametrize("cell", cells, ids=str)


def dropped(response: httpx2.Response) -> set[str]:
    return set(filter(None, response.headers.get("x-aiproxyd-dropped", "").split(", ")))


# --- Codex

GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin Patch" /.+/'}
SHELL: Body = {
    "type": "function",
    "name": "shell",
    "description": "Runs a command.",
    "strict": False,
    "parameters": {"type": "object", "properties": {"command": {"type": "array", "items": {"type": "string"}}}},
}
CODEX_TOOLS: list[Body] = [
    SHELL,
    {"type": "custom", "name": "apply_patch", "description": "Edits files.", "format": GRAMMAR},
    {"type": "tool_search", "execution": "client", "description": "Finds tools.", "parameters": CITY},
    {"type": "web_search", "external_web_access": True},
    {
        "type": "namespace",
        "name": "agents",
        "description": "Others.",
        "tools": [{"type": "function", "name": "spawn", "parameters": CITY, "strict": False}],
    },
]
CODEX_HISTORY: list[Body] = [
    {"type": "message", "role": "developer", "id": "msg_1", "content": [{"type": "input_text", "text": "Base."}]},
    {"type": "message", "role": "user", "id": "msg_2", "content": [{"type": "input_text", "text": "Go."}]},
    {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": "gAAAAAforeign"},
    {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "shell", "arguments": '{"command":["ls"]}'},
    {"type": "function_call_output", "id": "fco_1", "call_id": "call_1", "output": "file.txt"},
    {
        "type": "custom_tool_call",
        "id": "ctc_1",
        "status": "completed",
        "call_id": "call_2",
        "name": "apply_patch",
        "input": '*** Begin Patch\n"x"',
    },
    {"type": "custom_tool_call_output", "id": "ctco_1", "call_id": "call_2", "output": "Done!"},
    {
        "type": "message",
        "role": "assistant",
        "id": "msg_3",
        "content": [{"type": "output_text", "text": "Changed."}],
        "phase": "final_answer",
    },
]


def ask_codex(stage: Stage, cell: Cell, text: str, **changes: Any) -> tuple[httpx2.Response, list[Event]]:
    said = {"type": "message", "role": "user", "id": "msg_4", "content": [{"type": "input_text", "text": text}]}
    body = {
        "model": cell.model,
        "input": [*CODEX_HISTORY, said],
        "tools": CODEX_TOOLS,
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0199-session",
        "text": {"verbosity": "low"},
        "client_metadata": {"x-codex-installation-id": "i"},
        **changes,
    }
    if cell is LOCAL:
        del body["reasoning"]  # that model does not think
    response = send(stage, "openai-responses", "/v1/responses", body, {"x-codex-turn-metadata": "{}"})
    assert response.status_code == 200, response.text
    return response, check_stream("openai-responses", response.content)


def done_items(events: list[Event]) -> list[Body]:
    return [event.data["item"] for event in events if event.name == "response.output_item.done"]


@foreign("openai-responses")
def test_codex_is_answered(stage: Stage, cell: Cell) -> None:
    response, events = ask_codex(stage, cell, "Hi")

    assert done_items(events)[-1]["content"][0]["text"] == "You said: Hi"
    expected = {"tools.tool_search", "tools.apply_patch.format", "tools.namespace.description"}
    search = "tools.web_search" if cell is LOCAL else "tools.web_search.external_web_access"
    assert dropped(response) == {*expected, search}
    assert "gAAAA" not in json.dumps(stage.body(cell))
    assert "*** Begin Patch" in json.dumps(stage.body(cell))


@foreign("openai-responses")
def test_codex_gets_calls_of_its_own_kinds(stage: Stage, cell: Cell) -> None:
    calls = [
        ("call shell", ("function_call", "shell", None)),
        ("call apply_patch", ("custom_tool_call", "apply_patch", None)),
        ("call agents", ("function_call", "spawn", "agents")),
    ]
    for text, expected in calls:
        _, events = ask_codex(stage, cell, text)

        item = done_items(events)[-1]
        assert (item["type"], item["name"], item.get("namespace")) == expected
        if item["type"] == "custom_tool_call":
            assert item["input"] == "text"


@foreign("openai-responses")
def test_codex_compacts_a_conversation_without_its_tools(stage: Stage, cell: Cell) -> None:
    response, events = ask_codex(stage, cell, "Summarise.", tools=[], parallel_tool_calls=False)

    assert done_items(events)[-1]["content"][0]["text"] == "You said: Summarise."
    assert dropped(response) == set()


@foreign("openai-responses")
def test_codex_is_told_that_only_openai_compacts(stage: Stage, cell: Cell) -> None:
    body = {"model": cell.model, "input": [*CODEX_HISTORY, {"type": "compaction_trigger"}], "stream": True}

    response = send(stage, "openai-responses", "/v1/responses", body)

    assert response.status_code == 400
    assert "compacted" in response.json()["error"]["message"]


@foreign("openai-responses")
def test_what_openai_has_compacted_is_not_lost_in_silence(stage: Stage, cell: Cell) -> None:
    items = [{"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAA"}, *CODEX_HISTORY[:2]]

    response = send(stage, "openai-responses", "/v1/responses", {"model": cell.model, "input": items})

    assert response.status_code == 400 or "compaction" in dropped(response)


# --- Claude Code

BASH: Body = {
    "name": "Bash",
    "description": "Runs a command.",
    "input_schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "command": {"type": "string", "maxLength": 9000, "pattern": ".+"},
            "timeout": {"type": "integer", "exclusiveMinimum": 0, "default": 5},
            "mode": {"anyOf": [{"const": "a"}, {"const": "b"}]},
            "env": {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {"type": "string"}},
        },
        "required": ["command"],
        "additionalProperties": False,
    },
}
DEFERRED: Body = {"name": "mcp__tasks__list", "description": "Lists.", "input_schema": CITY, "defer_loading": True}
SEARCH: Body = {"name": "ToolSearch", "description": "Finds tools.", "input_schema": CITY}
MARK = {"cache_control": {"type": "ephemeral"}}
CLAUDE: Body = {
    "max_tokens": 32000,
    "stream": True,
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.330.abc; cc_entrypoint=cli;"},
        {"type": "text", "text": "You are a coding agent.", **MARK},
        {"type": "text", "text": "Be brief.", **MARK},
    ],
    "tools": [BASH, SEARCH, DEFERRED],
    "thinking": {"type": "adaptive", "display": "omitted"},
    "output_config": {"effort": "medium"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "safeguards": [{"type": "dangerous_tool_use"}],
    "metadata": {"user_id": '{"device_id":"d","account_uuid":"","session_id":"s"}'},
}
CLAUDE_HEADERS = {
    "x-api-key": "sk-caller",
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27",
    "x-app": "cli",
    "x-claude-code-session-id": "s",
}
CLAUDE_HISTORY: list[Body] = [
    {"role": "user", "content": [{"type": "text", "text": "<system-reminder>It is Monday.</system-reminder>"}]},
    {"role": "system", "content": [{"type": "text", "text": "The date has changed.", **MARK}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "", "signature": "Erk1foreign"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "ToolSearch", "input": {"city": "Oslo"}},
            {"type": "tool_use", "id": "toolu_2", "name": "Bash", "input": {"command": "ls"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "toolu_1",
                "content": [{"type": "tool_reference", "tool_name": "mcp__tasks__list"}],
            },
            {"type": "tool_result", "tool_use_id": "toolu_2", "content": "", "is_error": False},
            {"type": "text", "text": "<system-reminder>Go on.</system-reminder>"},
        ],
    },
    {"role": "assistant", "content": [{"type": "text", "text": "Found."}]},
]


def ask_claude(stage: Stage, cell: Cell, text: str, **changes: Any) -> tuple[httpx2.Response, list[Event]]:
    said = {"role": "user", "content": [{"type": "text", "text": text, **MARK}]}
    body = {**CLAUDE, "model": cell.model, "messages": [*CLAUDE_HISTORY, said], **changes}
    response = send(stage, "anthropic", "/v1/messages?beta=true", body, CLAUDE_HEADERS)
    assert response.status_code == 200, response.text
    return response, check_stream("anthropic", response.content)


@foreign("anthropic")
def test_claude_code_is_answered(stage: Stage, cell: Cell) -> None:
    response, events = ask_claude(stage, cell, "Hi")

    assert events[-2].data["delta"]["stop_reason"] == "end_turn"
    unthinking = {"reasoning"} if cell in (GPT_4O, LOCAL) else set()
    limited = {"max_output_tokens"} if cell in (GPT_4O, LOCAL) else set()
    assert dropped(response) == {"context_management", "safeguards"} | unthinking | limited
    sent = json.dumps(stage.body(cell))
    for word in ("billing", "Erk1foreign", "cache_control", "safeguards", "clear_thinking"):
        assert word not in sent
    assert "The date has changed." in sent
    assert "mcp__tasks__list is now available" in sent


@foreign("anthropic")
def test_claude_code_runs_its_tools(stage: Stage, cell: Cell) -> None:
    for tool in ("Bash", "mcp__tasks__list"):
        _, events = ask_claude(stage, cell, f"call {tool}")

        calls = [event.data["content_block"] for event in events if event.name == "content_block_start"]
        assert [call["name"] for call in calls if call["type"] == "tool_use"] == [tool]
        assert events[-2].data["delta"]["stop_reason"] == "tool_use"


@foreign("anthropic")
def test_claude_code_asks_for_a_title(stage: Stage, cell: Cell) -> None:
    title = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    schema = {**title, "additionalProperties": False}

    response, events = ask_claude(
        stage,
        cell,
        "json, please",
        tools=[],
        thinking={"type": "disabled"},
        temperature=1,
        output_config={"format": {"type": "json_schema", "schema": schema}},
        messages=[{"role": "user", "content": "json, please"}],
    )

    deltas = [event.data["delta"] for event in events if event.name == "content_block_delta"]
    text = "".join(delta["text"] for delta in deltas if delta["type"] == "text_delta")
    assert json.loads(text) == {"title": "text"}
    assert "temperature" not in dropped(response)


@foreign("anthropic")
def test_claude_code_counts_the_tokens_of_all_its_tools_at_once(stage: Stage, cell: Cell) -> None:
    body = {"model": cell.model, "messages": [{"role": "user", "content": "foo"}], "tools": [BASH]}
    url = f"{stage.url}/v1/messages/count_tokens?beta=true"

    with httpx2.Client(headers=CLAUDE_HEADERS, trust_env=False) as http, ThreadPoolExecutor(36) as pool:
        responses = list(pool.map(lambda _: http.post(url, json=body), range(36)))

    assert {response.status_code for response in responses} == {200}
    assert all(response.json()["input_tokens"] > 0 for response in responses)


# --- Gemini CLI

READ_FILE: Body = {
    "name": "read_file",
    "description": "Reads.",
    "parametersJsonSchema": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}
WRITE_FILE: Body = {
    "name": "write_file",
    "description": "Writes.",
    "parameters": {
        "type": "OBJECT",
        "properties": {"path": {"type": "STRING"}, "lines": {"type": "ARRAY", "items": {"type": "STRING"}}},
        "required": ["path"],
    },
}
GEMINI_CLI: Body = {
    "systemInstruction": {"role": "user", "parts": [{"text": "You are a CLI."}]},
    "tools": [{"functionDeclarations": [READ_FILE, WRITE_FILE]}],
    "contents": [
        {"role": "user", "parts": [{"text": "Look."}]},
        {
            "role": "model",
            "parts": [
                {"text": "I look."},
                {"functionCall": {"name": "read_file", "args": {"path": "a"}}, "thoughtSignature": "Zm9yZWlnbg=="},
            ],
        },
        {
            "role": "user",
            "parts": [{"functionResponse": {"id": "read_file-1", "name": "read_file", "response": {"output": "x"}}}],
        },
        {"role": "model", "parts": [{"text": "Seen."}]},
    ],
}
SPELLINGS: Mapping[str, Body] = {
    "camelCase": {
        "generationConfig": {"temperature": 1, "topP": 0.95, "thinkingConfig": {"includeThoughts": True}},
        "toolConfig": {"functionCallingConfig": {"mode": "VALIDATED"}},
        "safetySettings": [],
    },
    "snake_case": {
        "generation_config": {"thinking_config": {"thinking_level": "HIGH"}, "max_output_tokens": 4000},
        "tool_config": {"function_calling_config": {"mode": "AUTO"}},
    },
    "budget": {
        "generationConfig": {
            "candidateCount": 1,
            "responseModalities": ["TEXT"],
            "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 2048},
        },
    },
}
PREFIXES = ("/v1beta/models", "/v1/models", "/v1alpha/models", "/v1beta1/publishers/google/models")


def ask_gemini(stage: Stage, path: str, text: str, **changes: Any) -> httpx2.Response:
    said = {"role": "user", "parts": [{"text": text}]}
    body = {**GEMINI_CLI, "contents": [*GEMINI_CLI["contents"], said], **changes}
    response = send(stage, "gemini", path, body, {"x-goog-api-key": "sk-caller"})
    assert response.status_code == 200, response.text
    return response


@foreign("gemini")
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_gemini_cli_is_answered(stage: Stage, cell: Cell, spelling: str) -> None:
    path = f"/v1beta/models/{cell.model}:streamGenerateContent?alt=sse"

    response = ask_gemini(stage, path, "call write_file", **SPELLINGS[spelling])

    events = check_stream("gemini", response.content)
    parts = [part for event in events for part in event.data["candidates"][0].get("content", {}).get("parts", [])]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    assert [(call["name"], call["args"]) for call in calls] == [("write_file", {"path": "text", "lines": ["text"]})]
    sampling = {"top_p"} if cell is OPUS else {"temperature", "top_p"} if cell in (SONNET, GPT_5) else set()
    thinking = {"reasoning"} if cell in (GPT_4O, LOCAL) and spelling != "camelCase" else set()
    assert dropped(response) <= sampling | thinking
    sent = stage.body(cell)
    assert "You are a CLI." in json.dumps(sent)
    assert [value for _, key, value in walk(sent, "$") if key == "type" and str(value).isupper()] == []


@foreign("gemini")
@pytest.mark.parametrize("prefix", PREFIXES)
def test_gemini_is_asked_at_any_of_its_paths(stage: Stage, cell: Cell, prefix: str) -> None:
    whole = ask_gemini(stage, f"{prefix}/{cell.model}:generateContent", "Hi")
    streamed = ask_gemini(stage, f"{prefix}/{cell.model}:streamGenerateContent?alt=sse", "Hi")
    array = ask_gemini(stage, f"{prefix}/{cell.model}:streamGenerateContent", "Hi")

    assert whole.json()["candidates"][0]["content"]["parts"][-1]["text"] == "You said: Hi"
    check_stream("gemini", streamed.content)
    assert array.json()[-1]["candidates"][0]["finishReason"] == "STOP"


# --- AI SDK, opencode, aider, LangChain


@foreign("anthropic")
@pytest.mark.parametrize("extra", [{}, {"cache_control": {"type": "ephemeral"}}], ids=["langchain", "ai-sdk"])
def test_a_limit_that_is_meant_for_claude_is_cut(stage: Stage, cell: Cell, extra: Body) -> None:
    body = {"model": cell.model, "max_tokens": 128000, "messages": [{"role": "user", "content": "Hi"}], "stream": True}

    response = send(stage, "anthropic", "/v1/messages", body | extra, {"x-api-key": "sk-caller"})

    check_stream("anthropic", response.content)
    limited = set() if cell is GPT_5 else {"max_output_tokens"}
    assert dropped(response) == limited


@foreign("openai-responses")
def test_the_ai_sdk_is_told_how_to_go_without_references(stage: Stage, cell: Cell) -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "item_reference", "id": "rs_1"},
        {"id": "msg_1"},
    ]

    response = send(stage, "openai-responses", "/v1/responses", {"model": cell.model, "input": items})

    assert response.status_code == 400
    assert "`store: false`" in response.json()["error"]["message"]
    assert response.headers["x-should-retry"] == "false"


@foreign("openai-responses")
def test_pydantic_ai_reasons_without_an_effort(stage: Stage, cell: Cell) -> None:
    body = {
        "model": cell.model,
        "input": [{"role": "user", "content": "Hi"}],
        "stream": False,
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"context": "all_turns"},
    }

    response = send(stage, "openai-responses", "/v1/responses", body)

    assert response.json()["output"][-1]["content"][0]["text"] == "You said: Hi"
    assert dropped(response) == set()


@foreign("openai-chat")
def test_langchain_and_aider_ask_for_no_usage(stage: Stage, cell: Cell) -> None:
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": CITY}}]
    body = {
        "model": cell.model,
        "stream": True,
        "messages": [{"role": "user", "content": "call get_weather"}],
        "tools": tools,
        "temperature": 1,
    }

    response = send(stage, "openai-chat", "/v1/chat/completions", body, {"x-stainless-raw-response": "true"})

    chunks = [event.data for event in read_events(response.content)[:-1]]
    assert all(chunk["choices"] and not chunk.get("usage") for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert dropped(response) == set()
