"""Every caller's format with every upstream's: images, documents, sound, ids, candidates, schemas, hints."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.answers import City
from tests.http.callers import Ask, Called, File, Result, Tool
from tests.http.matrix import (
    BAD_REQUESTS,
    CELLS,
    CITY,
    FLASH,
    GEMINI_3,
    GPT_4O,
    GPT_5,
    LOCAL,
    OPUS,
    SONNET,
    STREAM,
    Cell,
    Stage,
    Talk,
    is_own,
    pairs,
)
from tests.vendors.scene import LOGPROB
from tests.vendors.vendor import walk

PIXEL = File("image/png", base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\xfb\xef\xff" * 20).decode())
PAPER = File("application/pdf", base64.b64encode(b"%PDF-1.7 \xfb\xef\xff").decode())
SOUND = File("audio/wav", base64.b64encode(b"RIFF\xfb\xef\xff\x00WAVE").decode())
SEEN = "I saw an image (image/png, 68 bytes)."
IMAGE_URL = "https://pictures.example/cat.png"
WEATHER = Tool("get_weather", CITY)
OPENAI_CELLS = (GPT_4O, GPT_5, LOCAL)
CHAT_CELLS = (GPT_4O, LOCAL)
ANTHROPIC_CELLS = (OPUS, SONNET)
GEMINI_CELLS = (FLASH, GEMINI_3)


# --- Images, documents, sound


@pairs(*CELLS)
@STREAM
def test_an_image_is_seen(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    answer = Talk(stage, name, cell.model, is_stream=is_stream).say("What is it?", PIXEL)

    assert answer.text == f"You said: What is it? {SEEN}"
    assert answer.dropped == set()


@pairs(*ANTHROPIC_CELLS, without=is_own)
def test_an_image_that_an_upstream_cannot_read_is_refused(stage: Stage, name: str, cell: Cell) -> None:
    problem = Talk(stage, name, cell.model).fail("What is it?", File("image/bmp", PIXEL.data))

    assert problem[:2] == (BAD_REQUESTS[name], 400)
    assert "image/bmp" in problem.message
    assert stage.bodies(cell) == []


def point_to_image(name: str) -> Any:
    """Return a turn with an image at a URL."""
    match name:
        case "openai-chat":
            return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": IMAGE_URL}}]}
        case "openai-responses":
            return {"role": "user", "content": [{"type": "input_image", "image_url": IMAGE_URL, "detail": "auto"}]}
        case "anthropic":
            return {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": IMAGE_URL}}]}
        case _:
            file = {"file_uri": IMAGE_URL, "mime_type": "image/png"}
            return {"role": "user", "parts": [{"file_data": file}]}


@pairs(*CELLS)
def test_an_image_at_a_url_is_fetched_by_the_upstream(stage: Stage, name: str, cell: Cell) -> None:
    talk = Talk(stage, name, cell.model)
    talk.turns.append(point_to_image(name))

    answer = talk.say("What is it?")

    assert f"I saw an image ({IMAGE_URL}, by URL)." in answer.text


@pairs(*CELLS)
def test_a_document_is_seen(stage: Stage, name: str, cell: Cell) -> None:
    answer = Talk(stage, name, cell.model).say("What is it?", PAPER)

    assert answer.text == "You said: What is it? I saw a document (application/pdf, 12 bytes)."
    assert answer.dropped == set()


# Chat completions take only text in results, and FLASH has no media in them: then they stand behind the results.
@pairs(*CELLS, without=lambda name, cell: (name, cell) == ("gemini", FLASH))
@STREAM
def test_an_image_in_a_result_is_seen(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    talk = Talk(stage, name, cell.model, Ask(tools=[WEATHER]), is_stream=is_stream)

    answer = talk.say('call get_weather with {"city":"Oslo"} and call get_weather with {"city":"Rome"}')
    results = [Result("rain", (PIXEL,)), Result("sun")]
    talk.turns += answer.turn + talk.caller.answer_calls(answer.calls, results)
    second = talk.go_on()

    assert second.text.startswith("The tools said: rain")
    assert "sun" in second.text
    assert SEEN in second.text


def say_aloud(name: str) -> Any:
    """Return a turn with a sound; openai's types have none for Responses any more, but it comes."""
    part = {"type": "input_audio", "input_audio": {"data": SOUND.data, "format": "wav"}}
    if name == "gemini":
        return {"role": "user", "parts": [{"inline_data": {"mime_type": SOUND.media_type, "data": SOUND.data}}]}
    return {"role": "user", "content": [part]}


AUDIO_CALLERS = ("openai-chat", "gemini")


def hears(cell: Cell) -> bool:
    return cell in (*CHAT_CELLS, *GEMINI_CELLS)


def sends_no_sound(name: str, cell: Cell) -> bool:
    return name not in AUDIO_CALLERS or (is_own(name, cell) and not hears(cell))


@pairs(*CHAT_CELLS, *GEMINI_CELLS, without=sends_no_sound)
@STREAM
def test_a_sound_is_heard(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    talk = Talk(stage, name, cell.model, is_stream=is_stream)
    talk.turns.append(say_aloud(name))

    answer = talk.say("What is it?")

    assert "I saw an audio (audio/wav, 12 bytes)." in answer.text


@pairs(GPT_5, *ANTHROPIC_CELLS, without=sends_no_sound)
@STREAM
def test_a_sound_is_refused_where_nobody_hears_it(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    talk = Talk(stage, name, cell.model, is_stream=is_stream)
    talk.turns.append(say_aloud(name))

    problem = talk.fail("What is it?")

    assert problem[:2] == (BAD_REQUESTS[name], 400)
    assert "audio" in problem.message
    assert stage.bodies(cell) == []


# --- Ids


ODD_IDS = {
    "colons": ("functions.get_weather:0", "functions.get_weather:1"),
    "unicode": ("call→é/1|x y", "call→é/2|x y"),
    "long": ("call_" + "x" * 300 + "1", "call_" + "x" * 300 + "2"),
    "escaped": ("call_2e_1", "call.1"),
}


def call_twice(name: str, ids: tuple[str, ...]) -> list[Any]:
    """Return a turn with two calls of get_weather, which have these *ids*."""
    match name:
        case "openai-chat":
            function = {"name": "get_weather", "arguments": '{"city":"Oslo"}'}
            calls = [{"id": each, "type": "function", "function": function} for each in ids]
            return [{"role": "assistant", "content": None, "tool_calls": calls}]
        case "openai-responses":
            function = {"type": "function_call", "name": "get_weather", "arguments": '{"city":"Oslo"}'}
            return [{**function, "call_id": each} for each in ids]
        case "anthropic":
            use = {"type": "tool_use", "name": "get_weather", "input": {"city": "Oslo"}}
            return [{"role": "assistant", "content": [{**use, "id": each} for each in ids]}]
        case _:
            call = {"name": "get_weather", "args": {"city": "Oslo"}}
            return [{"role": "model", "parts": [{"function_call": {**call, "id": each}} for each in ids]}]


@pairs(*CELLS, without=is_own)
@pytest.mark.parametrize("ids", ODD_IDS.values(), ids=ODD_IDS)
def test_ids_with_odd_characters_keep_calls_and_results_together(
    stage: Stage, name: str, cell: Cell, ids: tuple[str, ...]
) -> None:
    talk = Talk(stage, name, cell.model, Ask(tools=[WEATHER]))
    talk.turns += [*talk.caller.say("Hi"), *call_twice(name, ids)]
    calls = [Called("get_weather", {"city": "Oslo"}, each) for each in ids]
    talk.turns += talk.caller.answer_calls(calls[::-1], [Result("second"), Result("first")])

    answer = talk.go_on()

    assert "first" in answer.text
    assert "second" in answer.text


# --- System turns


LATE: Mapping[str, Any] = {
    "openai-chat": [{"role": "system", "content": "LATE"}, {"role": "developer", "content": "LATER"}],
    "openai-responses": [{"role": "system", "content": "LATE"}, {"role": "developer", "content": "LATER"}],
    "anthropic": [{"role": "system", "content": [{"type": "text", "text": "LATE"}]}],
}


@pairs(*CELLS, without=lambda name, cell: name not in LATE or is_own(name, cell))
@STREAM
def test_what_the_system_says_later_stays_where_it_is(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    talk = Talk(stage, name, cell.model, Ask(system="EARLY"), is_stream=is_stream)
    first = talk.say("one")
    talk.turns += first.turn
    talk.turns += [*talk.caller.say("two"), *LATE[name]]

    answer = talk.go_on()

    body = stage.body(cell)
    conversation = json.dumps(next(body[key] for key in ("messages", "input", "contents") if key in body))
    assert answer.text.startswith("You said: two")
    assert answer.dropped == set()
    assert 0 <= conversation.find('"two') < conversation.find("LATE")


# --- Candidates, probabilities


CANDIDATES: Mapping[str, Any] = {
    "openai-chat": {"n": 2},
    "gemini": {"generationConfig": {"candidateCount": 2}},
}


def read_candidates(name: str, raw: Any) -> list[str]:
    """Return the words of each candidate."""
    if name == "openai-chat":
        return [choice.message.content for choice in raw.choices]
    texts: dict[int, str] = {}
    for chunk in raw:
        for candidate in chunk.candidates or []:
            parts = (candidate.content.parts if candidate.content else None) or []
            index = candidate.index or 0
            texts[index] = texts.get(index, "") + "".join(part.text or "" for part in parts)
    return [texts[index] for index in sorted(texts)]


@pairs(*CHAT_CELLS, GPT_5, *GEMINI_CELLS, without=lambda name, cell: name not in CANDIDATES)
@STREAM
def test_several_candidates_are_answered(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    talk = Talk(stage, name, cell.model, Ask(fields=CANDIDATES[name]), is_stream=is_stream)

    answer = talk.say("Hi there")

    texts = ["You said: Hi there", "You said: Hi there (2)"]
    if name == "openai-chat" and is_stream:
        assert read_candidates(name, answer.raw)[:1] == texts[:1]  # the driver keeps the first
        assert b"(2)" in talk.caller.received
    else:
        assert read_candidates(name, answer.raw) == texts
    assert answer.dropped == set()


@pairs(*ANTHROPIC_CELLS, without=lambda name, cell: name not in CANDIDATES)
@STREAM
def test_several_candidates_are_refused_where_there_is_but_one(
    stage: Stage, name: str, cell: Cell, is_stream: bool
) -> None:
    problem = Talk(stage, name, cell.model, Ask(fields=CANDIDATES[name]), is_stream=is_stream).fail("Hi")

    assert problem[:2] == (BAD_REQUESTS[name], 400)
    assert "more than one candidate" in problem.message


LOGPROBS: Mapping[str, Any] = {
    "openai-chat": {"logprobs": True, "top_logprobs": 1},
    "openai-responses": {"include": ["message.output_text.logprobs"], "top_logprobs": 1},
    "gemini": {"generationConfig": {"responseLogprobs": True, "logprobs": 1}},
}
NO_THOUGHTS: Mapping[str, Any] = {
    "openai-chat": {"reasoning_effort": "none"},
    "openai-responses": {"reasoning": {"effort": "none"}},
    "anthropic": {"thinking": {"type": "disabled"}},
    "gemini": {"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}},
}


def read_logprobs(name: str, raw: Any) -> list[tuple[str, float, int]]:
    """Return each token with its probability, and how many others there were."""
    match name:
        case "openai-chat":
            tokens = raw.choices[0].logprobs["content"] if isinstance(raw.choices[0].logprobs, dict) else None
            tokens = tokens or raw.choices[0].logprobs.content
            return [(each.token, each.logprob, len(each.top_logprobs)) for each in tokens]
        case "openai-responses":
            tokens = next(item for item in raw.output if item.type == "message").content[0].logprobs
            return [(each.token, each.logprob, len(each.top_logprobs)) for each in tokens]
        case _:
            results = [each.logprobs_result for chunk in raw for each in chunk.candidates or []]
            return [
                (chosen.token, chosen.log_probability, len(top.candidates or []))
                for result in results
                if result
                for chosen, top in zip(result.chosen_candidates, result.top_candidates, strict=True)
            ]


@pairs(GPT_5, LOCAL, *GEMINI_CELLS, without=lambda name, cell: name not in LOGPROBS or is_own(name, cell))
@STREAM
def test_probabilities_are_shown(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    fields = {**LOGPROBS[name]}
    if cell is GPT_5:  # which has none while it thinks
        fields = {"generationConfig": {**fields["generationConfig"], "thinkingConfig": {"thinkingBudget": 0}}}

    answer = Talk(stage, name, cell.model, Ask(fields=fields), is_stream=is_stream).say("Hi there")

    assert read_logprobs(name, answer.raw) == [("You said:", LOGPROB, 1), (" Hi there", LOGPROB, 1)]


@pairs(*ANTHROPIC_CELLS, without=lambda name, cell: name not in LOGPROBS)
def test_probabilities_are_named_where_there_are_none(stage: Stage, name: str, cell: Cell) -> None:
    answer = Talk(stage, name, cell.model, Ask(fields=LOGPROBS[name])).say("Hi there")

    assert answer.dropped == {"logprobs"}


@pairs(GPT_5, OPUS, FLASH, without=is_own)
@STREAM
def test_thoughts_are_switched_off(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    answer = Talk(stage, name, cell.model, Ask(fields=NO_THOUGHTS[name]), is_stream=is_stream).say("think")

    assert answer.text == "You said: think"
    assert (answer.thoughts, answer.usage.reasoning or 0) == ("", 0)


@pairs(SONNET, without=is_own)
@STREAM
def test_a_model_that_always_thinks_does_so_unseen_and_that_is_named(
    stage: Stage, name: str, cell: Cell, is_stream: bool
) -> None:
    answer = Talk(stage, name, cell.model, Ask(fields=NO_THOUGHTS[name]), is_stream=is_stream).say("think")

    assert (answer.text, answer.thoughts) == ("You said: think", "")
    assert answer.dropped == {"reasoning"}


# --- Structured output


def parse_city(name: str, client: Any, model: str) -> Any:
    """Return what the SDK's own helper makes of an answer."""
    prompt = [{"role": "user", "content": "json, please"}]
    match name:
        case "openai-chat":
            completion = client.chat.completions.parse(model=model, messages=prompt, response_format=City)
            return completion.choices[0].message.parsed
        case "openai-responses":
            return client.responses.parse(model=model, input=prompt, text_format=City).output_parsed
        case "anthropic":
            return client.messages.parse(model=model, messages=prompt, max_tokens=100, output_format=City).parsed_output
        case _:
            config = {"response_mime_type": "application/json", "response_schema": City}
            return client.models.generate_content(model=model, contents="json, please", config=config).parsed


@pairs(*CELLS)
def test_an_answer_is_parsed_by_the_sdk(stage: Stage, name: str, cell: Cell) -> None:
    caller = stage.callers[name]

    city = parse_city(name, caller.client(stage.url), cell.model)

    assert city == City(city="text", degrees=1)
    assert "x-aiproxyd-dropped" not in caller.headers


JSON_MODE: Mapping[str, Any] = {
    "openai-chat": {"response_format": {"type": "json_object"}},
    "openai-responses": {"text": {"format": {"type": "json_object"}}},
    "gemini": {"generationConfig": {"responseMimeType": "application/json"}},
}


@pairs(*CELLS, without=lambda name, cell: name not in JSON_MODE)
@STREAM
def test_any_json_is_answered(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    talk = Talk(stage, name, cell.model, Ask(fields=JSON_MODE[name]), is_stream=is_stream)

    answer = talk.say("Hi, in JSON")

    if cell in ANTHROPIC_CELLS:
        assert answer.dropped == {"output_format"}
    else:
        assert json.loads(answer.text) == {"said": "Hi, in JSON"}
        assert answer.dropped == set()


# OpenAI refuses JSON mode where nothing says JSON; Gemini does not, and so its callers need not say it.
@pairs(*OPENAI_CELLS, *ANTHROPIC_CELLS, without=lambda name, cell: name != "gemini")
def test_any_json_is_asked_for_in_words_where_nobody_says_it(stage: Stage, name: str, cell: Cell) -> None:
    Talk(stage, name, cell.model, Ask(fields=JSON_MODE[name])).say("Hi")

    assert "JSON" in json.dumps([value for _, key, value in walk(stage.body(cell), "$") if key != "response_format"])


# --- Hints


HINTED: Mapping[str, Any] = {
    "openai-chat": {"type": "text", "text": "one", "prompt_cache_breakpoint": {"mode": "explicit"}},
    "openai-responses": {"type": "input_text", "text": "one", "prompt_cache_breakpoint": {"mode": "explicit"}},
    "anthropic": {"type": "text", "text": "one", "cache_control": {"type": "ephemeral"}},
}


@pairs(*CELLS, without=lambda name, cell: name not in HINTED or is_own(name, cell))
def test_what_is_to_be_cached_is_said_where_there_are_words_for_it(stage: Stage, name: str, cell: Cell) -> None:
    talk = Talk(stage, name, cell.model)
    talk.turns.append({"role": "user", "content": [HINTED[name]]})

    answer = talk.say("two")

    marks = [path for path, key, _ in walk(stage.body(cell), "$") if key == "cache_control"]
    assert len(marks) == (cell in ANTHROPIC_CELLS)
    assert answer.dropped == set()


@pairs(*CELLS, without=lambda name, cell: not name.startswith("openai-") or is_own(name, cell))
def test_the_key_of_a_cache_is_not_missed(stage: Stage, name: str, cell: Cell) -> None:
    answer = Talk(stage, name, cell.model, Ask(fields={"prompt_cache_key": "k"})).say("Hi")

    assert answer.dropped == set()
