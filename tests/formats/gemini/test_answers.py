import msgspec
import pytest
from google.genai import types
from hypothesis import given
from msgspec import Raw

from aiproxyd import hub
from aiproxyd.errors import UpstreamGarbage, UpstreamRefusal
from aiproxyd.formats import GEMINI
from aiproxyd.seals import unwrap_base64
from tests.formats.gemini.strategies import responses

ASKED = hub.Request(model="gemini-3-pro", turns=[])
CALL = hub.ToolCall(id="call_1", name="f", arguments='{"a":1.5}')
OWN = hub.Seal("gemini", "signature", "AAAA")
FOREIGN = hub.Seal("anthropic@a/claude", "signature", "ErUB")


def answer(*blocks: hub.Block, stop: hub.Stop = "end", detail: str = "") -> hub.Response:
    return hub.Response(id="r", model="m", candidates=(hub.Candidate(blocks=blocks, stop=stop, detail=detail),))


def encode(response: hub.Response) -> dict[str, object]:
    written: dict[str, object] = msgspec.json.decode(GEMINI.encode_response(response, ASKED))
    return written


def parts(*blocks: hub.Block) -> list[dict[str, object]]:
    written: list[dict[str, object]] = msgspec.json.decode(GEMINI.encode_response(answer(*blocks), ASKED))[
        "candidates"
    ][0]["content"]["parts"]
    return written


@given(response=responses())
def test_an_answer_is_read_as_it_was_written(response: hub.Response) -> None:
    assert GEMINI.decode_response(GEMINI.encode_response(response, ASKED)) == response


@given(response=responses())
def test_the_sdk_takes_every_answer(response: hub.Response) -> None:
    written = types.GenerateContentResponse.model_validate_json(GEMINI.encode_response(response, ASKED))

    assert written.response_id == response.id
    assert len(written.candidates or ()) in (len(response.candidates), 0)


def test_an_answer_has_all_that_callers_look_for() -> None:
    assert encode(answer(hub.Text("Hi"))) == {
        "candidates": [
            {"content": {"role": "model", "parts": [{"text": "Hi"}]}, "finishReason": "STOP", "index": 0},
        ],
        "usageMetadata": {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0},
        "modelVersion": "m",
        "responseId": "r",
    }


def test_an_answer_without_id_and_model_gets_them() -> None:
    written = encode(hub.Response())

    assert written["modelVersion"] == "gemini-3-pro"
    assert len(str(written["responseId"])) == 24
    assert written["responseId"] != encode(hub.Response())["responseId"]


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (hub.Text("a", seal=OWN), {"text": "a", "thoughtSignature": "AAAA"}),
        (hub.Refusal("No."), {"text": "No."}),
        (hub.Reasoning("hm"), {"text": "hm", "thought": True}),
        (hub.Reasoning("", OWN), {"text": "", "thought": True, "thoughtSignature": "AAAA"}),
        (
            hub.Reasoning("", hub.Seal("gemini", "signature", "AAAA", holder="text")),
            {"text": "", "thoughtSignature": "AAAA"},
        ),
        (CALL, {"functionCall": {"name": "f", "args": {"a": 1.5}, "id": "call_1"}}),
        (
            hub.ToolCall(id="c", name="f", arguments='{"a":', seal=OWN),
            {
                "functionCall": {"name": "f", "args": {"INVALID_JSON": '{"a":'}, "id": "c"},
                "thoughtSignature": "AAAA",
            },
        ),
        (
            hub.ToolCall(id="c", name="f", arguments="[\n"),
            {"functionCall": {"name": "f", "args": {"INVALID_JSON": "[\n"}, "id": "c"}},
        ),
        (
            hub.Media(kind="image", media_type="image/png", data="AAAA"),
            {"inlineData": {"data": "AAAA", "mimeType": "image/png"}},
        ),
        (
            hub.Media(kind="image", url="https://x.test/a.png"),
            {"fileData": {"fileUri": "https://x.test/a.png", "mimeType": "image/png"}},
        ),
        (hub.Opaque("gemini", "executableCode", Raw(b'{"executableCode":{}}')), {"executableCode": {}}),
    ],
)
def test_a_block_is_shown_as_a_part(block: hub.Block, part: dict[str, object]) -> None:
    assert parts(block) == [part]


@pytest.mark.parametrize(
    "block",
    [
        hub.Text(""),
        hub.Refusal(""),
        hub.Reasoning(""),
        hub.Opaque("anthropic", "server_tool_use", Raw(b"{}")),
        hub.Media(kind="image", data="AAAA"),
        hub.Media(kind="image", file_id="f", origin="anthropic"),
        hub.ToolResult(call_id="c"),
    ],
)
def test_what_cannot_be_shown_leaves_an_answer_that_says_nothing(block: hub.Block) -> None:
    # google-genai drops an answer without parts from its chat history.
    assert parts(block) == [{"text": ""}]


@pytest.mark.parametrize("seal", [FOREIGN, msgspec.structs.replace(OWN, data="no base64")])
@pytest.mark.parametrize("block", [hub.Text("a"), hub.Reasoning("a"), CALL], ids=lambda block: type(block).__name__)
def test_a_seal_that_is_not_gemini_s_is_wrapped_and_found_in_the_next_request(
    seal: hub.Seal, block: hub.Text | hub.Reasoning | hub.ToolCall
) -> None:
    sealed = msgspec.structs.replace(block, seal=seal)
    [part] = parts(sealed)
    content = {"role": "model", "parts": [part]}

    asked = GEMINI.decode_request(msgspec.json.encode({"contents": [content]}))

    assert unwrap_base64(str(part["thoughtSignature"])) == seal
    assert asked.turns == [hub.Turn("assistant", (sealed,))]


@pytest.mark.parametrize(
    ("stop", "detail", "reason", "message"),
    [
        ("end", "", "STOP", None),
        ("tool", "", "STOP", None),
        ("stop_sequence", "", "STOP", None),
        ("length", "", "MAX_TOKENS", None),
        ("context", "", "MAX_TOKENS", None),
        ("pause", "", "MAX_TOKENS", None),
        ("refusal", "", "SAFETY", None),
        ("refusal", "RECITATION", "RECITATION", None),
        ("refusal", "I had rather not.", "SAFETY", "I had rather not."),
        ("blocked", "JAILBREAK", "PROHIBITED_CONTENT", None),
        ("end", "MALFORMED_FUNCTION_CALL", "MALFORMED_FUNCTION_CALL", None),
        ("end", "eos", "OTHER", "eos"),
    ],
)
def test_why_an_answer_ended_is_told_in_the_format_s_words(
    stop: hub.Stop, detail: str, reason: str, message: str | None
) -> None:
    [candidate] = msgspec.json.decode(GEMINI.encode_response(answer(hub.Text("a"), stop=stop, detail=detail), ASKED))[
        "candidates"
    ]

    assert (candidate["finishReason"], candidate.get("finishMessage")) == (reason, message)


@pytest.mark.parametrize(
    ("reason", "message", "stop", "detail"),
    [
        ("STOP", None, "end", ""),
        ("STOP", "done", "end", ""),
        ("MAX_TOKENS", None, "length", ""),
        ("CONTINUATION", None, "pause", ""),
        ("SAFETY", None, "refusal", "SAFETY"),
        ("LANGUAGE", "no Klingon", "refusal", "no Klingon"),
        ("SPII", 5, "refusal", "SPII"),
        ("MODEL_ARMOR", "", "refusal", "MODEL_ARMOR"),
        ("OTHER", None, "end", "OTHER"),
        ("OTHER", "no idea", "end", "no idea"),
        ("MALFORMED_FUNCTION_CALL", "Malformed function call: f(", "end", "MALFORMED_FUNCTION_CALL"),
        ("SOMETHING_NEW", None, "end", "SOMETHING_NEW"),
        (2, None, "end", "2"),
        (["SAFETY"], None, "end", "['SAFETY']"),
    ],
)
def test_why_an_answer_ended_is_read(reason: object, message: object, stop: hub.Stop, detail: str) -> None:
    body = {"candidates": [{"finishReason": reason, "finishMessage": message}]}

    [candidate] = GEMINI.decode_response(msgspec.json.encode(body)).candidates

    assert (candidate.stop, candidate.detail) == (stop, detail)


@pytest.mark.parametrize(
    ("detail", "feedback"),
    [
        ("JAILBREAK", {"blockReason": "JAILBREAK"}),
        ("", {"blockReason": "OTHER"}),
        ("the policy", {"blockReason": "OTHER", "blockReasonMessage": "the policy"}),
    ],
)
def test_a_blocked_prompt_has_no_candidates(detail: str, feedback: dict[str, str]) -> None:
    written = encode(answer(stop="blocked", detail=detail))

    assert written["promptFeedback"] == feedback
    assert "candidates" not in written
    [candidate] = GEMINI.decode_response(msgspec.json.encode(written)).candidates
    assert candidate == hub.Candidate(stop="blocked", detail=detail or "OTHER")


def test_probabilities_are_read_where_they_are_well_formed() -> None:
    def read(result: object) -> tuple[hub.TokenLogprob, ...]:
        body = {"candidates": [{"finishReason": "STOP", "logprobsResult": result}]}
        return GEMINI.decode_response(msgspec.json.encode(body)).candidates[0].logprobs

    chosen = [{"token": "Hi", "logProbability": -0.5, "tokenId": 7}, {"token": "!"}]

    assert read({"chosenCandidates": chosen, "topCandidates": [{"candidates": [{"token": "Ho"}]}]}) == (
        hub.TokenLogprob("Hi", -0.5, top=(hub.TokenLogprob("Ho", 0.0),)),
        hub.TokenLogprob("!", 0.0),
    )
    assert read({"topCandidates": [{}]}) == ()
    assert read({"chosenCandidates": "Hi"}) == ()
    assert read(None) == ()


@pytest.mark.parametrize(
    "body", [b"", b"no", b"[]", b"5", b"{}", b'{"usageMetadata":{}}', b'{"candidates":[]}', b'{"candidates":5}']
)
def test_what_is_no_answer_is_garbage(body: bytes) -> None:
    with pytest.raises(UpstreamGarbage):
        GEMINI.decode_response(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"code":503,"message":"busy"}}',
        b'[{"error":{"code":503,"message":"busy"}}]',
        b'{"code":503,"message":"busy"}',
    ],
)
def test_an_error_with_a_success_status_is_raised(body: bytes) -> None:
    with pytest.raises(UpstreamRefusal, match="busy") as caught:
        GEMINI.decode_response(body)

    assert caught.value.status == 503


def test_an_answer_that_does_not_say_why_it_ended_has_ended() -> None:
    response = GEMINI.decode_response(b'{"candidates":[{"content":{"parts":[{"text":"Hi"}]}}]}')

    assert response.candidates == (hub.Candidate(blocks=(hub.Text("Hi"),)),)
    assert response.usage is None
