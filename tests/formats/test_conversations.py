from typing import Any, Final, TypeAlias

import msgspec
import pytest

from aiproxyd.formats import FORMATS

Body: TypeAlias = dict[str, Any]

# How conversations grow: in each turn a client sends the whole history again.


def say(role: str, text: object) -> Body:
    return {"role": role, "content": text}


def show(role: str, *parts: Body) -> Body:
    return {"role": role, "parts": list(parts)}


def block(text: str, **members: object) -> Body:
    return {"type": "text", "text": text, **members}


def encode(**members: object) -> bytes:
    return msgspec.json.encode(members)


def find(name: str, **members: object) -> bytes:
    return FORMATS[name].find_conversation(encode(model="m", **members))


SYSTEM: Final = {"role": "system", "content": "S"}
CALL: Final = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
RESULT: Final = {"type": "function_call_output", "call_id": "c", "output": "1"}
CONTEXT: Final = show("user", {"text": "<session_context>Monday</session_context>"})

CONVERSATIONS: Final[dict[str, tuple[str, Body, str, list[Body]]]] = {
    "chat": ("openai-chat", {}, "messages", [say("user", "U"), say("assistant", "A"), say("user", "V")]),
    "chat with a system": (
        "openai-chat",
        {},
        "messages",
        [SYSTEM, say("developer", "D"), say("user", "U"), say("assistant", "A"), say("user", "V")],
    ),
    "chat with a greeting": (
        "openai-chat",
        {},
        "messages",
        [say("assistant", "Hello"), say("user", "U"), say("assistant", "A")],
    ),
    "messages": (
        "anthropic",
        {"system": "S"},
        "messages",
        [say("user", "U"), say("assistant", "A"), say("user", [{"type": "tool_result", "tool_use_id": "t"}])],
    ),
    "messages with a system turn": (
        "anthropic",
        {"system": [block("S")]},
        "messages",
        [say("user", "U"), say("system", "R"), say("assistant", "A"), say("user", "V")],
    ),
    "contents": (
        "gemini",
        {"systemInstruction": show("user", {"text": "S"})},
        "contents",
        [show("user", {"text": "U"}), show("model", {"text": "A"}), show("user", {"text": "V"})],
    ),
    "contents without roles": (
        "gemini",
        {"system_instruction": {"parts": [{"text": "S"}]}},
        "contents",
        [{"parts": [{"text": "U"}]}, show("model", {"text": "A"}), {"parts": [{"text": "V"}]}],
    ),
    "responses": (
        "openai-responses",
        {"instructions": "S"},
        "input",
        [say("user", "U"), {"type": "reasoning", "summary": []}, CALL, RESULT, say("assistant", "A"), say("user", "V")],
    ),
    "responses with a compacted past": (
        "openai-responses",
        {},
        "input",
        [{"type": "compaction", "encrypted_content": "x"}, say("developer", "D"), say("user", "U"), CALL, RESULT],
    ),
}


@pytest.mark.parametrize(("name", "members", "place", "turns"), CONVERSATIONS.values(), ids=list(CONVERSATIONS))
def test_a_conversation_is_known_by_its_beginning_however_it_grows(
    name: str, members: Body, place: str, turns: list[Body]
) -> None:
    asked = next(number for number, turn in enumerate(turns) if b'"U"' in encode(turn=turn))
    first, *later = (find(name, **members, **{place: turns[:end]}) for end in range(asked + 1, len(turns) + 1))
    text = encode(**members, **{place: turns})
    other = FORMATS[name].find_conversation(text.replace(b'"U"', b'"X"'))

    assert first
    assert set(later) == {first}
    assert other != first


@pytest.mark.parametrize(("name", "members", "place", "turns"), CONVERSATIONS.values(), ids=list(CONVERSATIONS))
def test_a_conversation_with_other_orders_is_another(name: str, members: Body, place: str, turns: list[Body]) -> None:
    text = encode(**members, **{place: turns})
    orders = next((order for order in (b'"S"', b'"D"', b'"Hello"') if order in text), b'"U"')

    assert FORMATS[name].find_conversation(text.replace(orders, b'"X"')) != FORMATS[name].find_conversation(text)


def test_what_a_client_tells_of_itself_first_is_not_all_that_tells_conversations_apart() -> None:
    """Gemini CLI begins each with the same turn about the day and the folder, and asks in the next one."""
    asked, other = (show("user", {"text": text}) for text in "UV")
    answered = [CONTEXT, asked, show("model", {"text": "A"})]

    assert find("gemini", contents=[CONTEXT, asked]) == find("gemini", contents=answered)
    assert find("gemini", contents=[CONTEXT, asked]) != find("gemini", contents=[CONTEXT, other])


@pytest.mark.parametrize("role", ["user", "system"])
def test_a_beginning_is_no_longer_than_a_few_turns(role: str) -> None:
    turns = [say(role, str(number)) for number in range(100)]

    assert find("openai-chat", messages=turns[:20]) == find("openai-chat", messages=turns)


def test_an_input_that_is_a_text_is_a_beginning() -> None:
    assert find("openai-responses", input="U") == find("openai-responses", input="U") != b""
    assert find("openai-responses", input="U") != find("openai-responses", input="V")


@pytest.mark.parametrize("turns", [[], [1], ["U"], [[]], [{"role": 5}], [None], {"role": "user"}, 7])
def test_what_makes_no_sense_is_no_matter(turns: object) -> None:
    assert find("openai-chat", messages=turns) == find("openai-chat", messages=turns)


# What moves through a conversation with its last turn.

MARK: Final = {"cache_control": {"type": "ephemeral"}}
LONG: Final = "U" + "x" * 100_000


@pytest.mark.parametrize(
    ("marked", "later"),
    [
        (say("user", [block("U", **MARK)]), say("user", [block("U")])),
        (say("user", [block("U", cache_control={"type": "ephemeral", "ttl": "1h"})]), say("user", [block("U")])),
        (say("user", [{**MARK, **block("U")}]), say("user", [block("U")])),
        (say("user", [{"type": "text", **MARK, "text": "U"}]), say("user", [block("U")])),
        (say("user", [block("R"), block("U", **MARK)]), say("user", [block("R"), block("U", cache_control=None)])),
        ({**say("user", "U"), **MARK}, say("user", "U")),
        # Many write a text as a block only where they mark it.
        (say("user", [block("U", **MARK)]), say("user", "U")),
        (say("user", [block("x" * 100_000 + "U", **MARK)]), say("user", "x" * 100_000 + "U")),
        (say("user", [block(LONG), block("V", **MARK)]), say("user", [block(LONG), block("V")])),
    ],
)
@pytest.mark.parametrize("spaces", [0, 1])
@pytest.mark.parametrize("name", ["anthropic", "openai-chat"])
def test_a_mark_for_the_cache_that_moves_on_leaves_no_trace(name: str, spaces: int, marked: Body, later: Body) -> None:
    bodies = (
        msgspec.json.format(encode(messages=turns), indent=spaces - 1)
        for turns in ([marked], [later, say("assistant", "A"), say("user", [block("V", **MARK)])])
    )
    first, second = map(FORMATS[name].find_conversation, bodies)

    assert first == second
    assert first != FORMATS[name].find_conversation(encode(messages=[say("user", [block("W")])]))


def test_a_mark_leaves_no_trace_however_long_the_turn_is() -> None:
    marked, later = (
        [find("anthropic", messages=[say("user", write("x" * chars))]) for chars in range(3900, 4300)]
        for write in (lambda text: [block(text, **MARK)], str)
    )

    assert marked == later
    assert len(set(later)) == len(later)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([{"type": "image", "source": 1}, block("U")], [{"type": "image", "source": 2}, block("U")]),
        ([block("U"), {"type": "image", "source": 1}], [block("U"), {"type": "image", "source": 2}]),
        ("x" * 100_000 + "U", "x" * 100_000 + "V"),
        (LONG, "V" + LONG[1:]),
        (LONG, LONG + "x"),
        ("U", "V"),
    ],
)
def test_what_is_said_beside_the_mark_counts(one: object, other: object) -> None:
    assert find("anthropic", messages=[say("user", one)]) != find("anthropic", messages=[say("user", other)])


def test_a_block_that_is_written_for_the_accounts_of_the_vendor_leaves_no_trace() -> None:
    first, second, other = (
        find(
            "anthropic",
            system=[block(f"x-anthropic-billing-header: cc_version=2.1.{suffix};"), block("C"), block(said, **MARK)],
            messages=[say("user", "U")],
        )
        for suffix, said in (("a1b", "S"), ("c2d", "S"), ("a1b", "T"))
    )

    assert first == second != other


@pytest.mark.parametrize("name", ["openai-chat", "openai-responses"])
def test_what_is_said_of_a_session_is_short(name: str) -> None:
    assert 0 < len(find(name, prompt_cache_key="k" * 1_000_000)) < 10_000


def test_what_is_said_of_a_conversation_is_short() -> None:
    bodies = [say("system", "x" * 1_000_000)] * 9 + [say("user", [block("x" * 1_000_000)])]

    assert len(find("openai-chat", messages=bodies)) < 100_000


# What clients call it.


def claude(session: str, account: str = "a") -> str:
    return msgspec.json.encode({"device_id": "d", "account_uuid": account, "session_id": session}).decode()


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("openai-chat", {"prompt_cache_key": "7f3c"}),
        ("openai-responses", {"prompt_cache_key": "7f3c"}),
        ("openai-responses", {"conversation": "conv_7f3c"}),
        ("openai-responses", {"conversation": {"id": "conv_7f3c"}}),
        ("anthropic", {"metadata": {"user_id": claude("7f3c")}}),
        ("anthropic", {"metadata": {"team": "t", "user_id": "user_1_account__session_7f3c"}}),
    ],
)
def test_a_session_that_is_named_counts_before_the_words(name: str, members: Body) -> None:
    place = "input" if name == "openai-responses" else "messages"
    said = find(name, **members, **{place: [say("user", "U")]})
    again = find(name, **members, **{place: [say("user", "V")]})
    text = encode(**members, **{place: [say("user", "U")]})
    other = FORMATS[name].find_conversation(text.replace(b"7f3c", b"8a4d"))

    assert said == again != other
    assert b"7f3c" in said


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("openai-chat", {"prompt_cache_key": ""}),
        ("openai-chat", {"prompt_cache_key": " "}),
        ("openai-chat", {"prompt_cache_key": None}),
        ("openai-responses", {"prompt_cache_key": "", "conversation": None}),
        ("openai-responses", {"conversation": ""}),
        ("openai-responses", {"conversation": {}}),
        ("openai-responses", {"conversation": {"id": ""}}),
        ("anthropic", {"metadata": {}}),
        ("anthropic", {"metadata": None}),
        ("anthropic", {"metadata": {"user_id": None}}),
        ("anthropic", {"metadata": {"user_id": ""}}),
        ("anthropic", {"metadata": {"user_id": claude("")}}),
        ("anthropic", {"metadata": {"session_id": "7f3c"}}),
        # The same in all conversations of a user: Anthropic asks for no more than that.
        ("anthropic", {"metadata": {"user_id": "user_7"}}),
    ],
)
def test_a_member_that_names_no_session_says_nothing(name: str, members: Body) -> None:
    place = "input" if name == "openai-responses" else "messages"
    said, other = (find(name, **members, **{place: [say("user", text)]}) for text in "UV")

    assert said != other
    assert said == find(name, **{place: [say("user", "U")]})


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"not JSON", b'{"messages":5,"input":5,"contents":5}', b'{"model":"m"}']
)
@pytest.mark.parametrize("name", FORMATS)
def test_what_begins_no_conversation_has_no_name(name: str, body: bytes) -> None:
    assert FORMATS[name].find_conversation(body) == b""
