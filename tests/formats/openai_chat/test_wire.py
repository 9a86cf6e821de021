import msgspec
import pytest

from aiproxyd.formats.openai_chat.wire import (
    AssistantMessage,
    ChatRequest,
    DeveloperMessage,
    UserMessage,
    request_decoder,
)


def test_messages_are_told_apart_by_their_role() -> None:
    body = b"""{"model":"m","x_new":1,"messages":[
        {"role":"developer","content":"a"},{"role":"user","content":"b","x_new":1},{"role":"assistant"}]}"""

    assert request_decoder.decode(body) == ChatRequest(
        model="m", messages=[DeveloperMessage(content="a"), UserMessage(content="b"), AssistantMessage()]
    )


def test_a_field_that_is_null_is_not_there() -> None:
    names = [field.name for field in msgspec.structs.fields(ChatRequest) if field.name not in ("model", "messages")]
    body = {"model": "m", "messages": []} | dict.fromkeys(names)

    assert request_decoder.decode(msgspec.json.encode(body)) == ChatRequest(model="m", messages=[])


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_request_needs_a_model_and_messages(missing: str) -> None:
    body = {"model": "m", "messages": []}
    del body[missing]

    with pytest.raises(msgspec.ValidationError, match=f"missing required field `{missing}`"):
        request_decoder.decode(msgspec.json.encode(body))
