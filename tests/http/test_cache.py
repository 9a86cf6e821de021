"""The same question costs once: hits, joined calls, wishes, isolation, what is not kept."""

import asyncio
import hashlib
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest

from tests.conftest import StartGateway
from tests.support import Gateway, Received, Reply, Upstream, upstream_section

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
USAGE = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
SSE = "text/event-stream"
ON = ("--cache-ttl", "60")


def chat(text: str = "Hello", finish: str = "stop", **more: object) -> Reply:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    answer = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}
    return Reply(msgspec.json.encode(answer | more))


def delta(delta: object, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def stream(*words: str, gap_s: float = 0.0, is_complete: bool = True, wait_s: float = 0.0) -> Reply:
    chunks = [delta({"role": "assistant", "content": ""}), *(delta({"content": word}) for word in words)]
    usage = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": USAGE}
    if is_complete:
        chunks += [delta({}, "stop"), b"data: " + msgspec.json.encode(usage) + b"\n\n", b"data: [DONE]\n\n"]
    return Reply(chunks=chunks, gap_s=gap_s, cut=not is_complete, content_type=SSE, wait_s=wait_s)


def speak(received: Received) -> Reply:
    """Answer as is asked, streaming or whole."""
    return stream("Hel", "lo") if b'"stream":true' in received.body.replace(b" ", b"") else chat()


class Answer(NamedTuple):
    status: int
    body: bytes
    cache: str
    headers: Any

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def text(self) -> str:
        """What was said, whole or in a stream of chat's."""
        if not self.headers["Content-Type"].startswith(SSE):
            return str(self.json["choices"][0]["message"]["content"])
        events = [line[6:] for line in self.body.split(b"\n") if line.startswith(b"data: {")]
        choices = [choice for event in events for choice in msgspec.json.decode(event)["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


async def ask(
    http: aiohttp.ClientSession,
    running: Gateway,
    body: object = CHAT,
    path: str = "/v1/chat/completions",
    **headers: str,
) -> Answer:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.post(running.url + path, data=msgspec.json.encode(body), headers=headers) as response:
        status = response.headers.get("Cache-Status", "")
        return Answer(response.status, await response.read(), status, response.headers)


async def measure(http: aiohttp.ClientSession, running: Gateway) -> dict[str, float]:
    async with http.get(running.url + "/metrics") as response:
        lines = (await response.text()).splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if "aiproxyd_cache" in line)
        if not name.startswith("#")
    }


STREAMED = CHAT | {"stream": True}


async def test_the_same_question_costs_once(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    reply = chat(system_fingerprint="fp_1", vendors_own=[1])
    upstream.script(reply)
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    first, second = [await ask(http, running) for _ in range(2)]

    assert len(upstream.received) == 1
    assert first.cache == "aiproxyd; fwd=miss"
    assert second.cache in ("aiproxyd; hit; ttl=59", "aiproxyd; hit; ttl=60")
    assert second.headers["Age"] == "0"
    assert "Age" not in first.headers
    assert second.body == first.body == reply.body
    assert second.headers["x-aiproxyd-upstream"] == "up"
    assert second.headers["x-aiproxyd-attempts"] == "0"
    lines = running.log().splitlines()
    assert " tokens=10+2 cache=miss" in lines[0]
    assert " tokens=- cache=hit saved=10+2" in lines[1]


async def test_nothing_is_kept_where_the_cache_is_off(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat())
    running = await gateway(upstream_section(upstream, "openai"))

    answers = [await ask(http, running) for _ in range(2)]

    assert len(upstream.received) == 2
    assert [answer.cache for answer in answers] == ["", ""]


@pytest.mark.parametrize("order", [(CHAT, STREAMED), (STREAMED, CHAT), (STREAMED, STREAMED)])
async def test_an_answer_serves_streams_and_whole_ones(
    order: tuple[dict[str, object], dict[str, object]],
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    upstream.respond(speak)
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    answers = [await ask(http, running, body) for body in (*order, *order)]

    assert len(upstream.received) == 1
    assert [answer.text for answer in answers] == ["Hello"] * 4
    assert [answer.cache.split(";")[1].strip() for answer in answers] == ["fwd=miss", "hit", "hit", "hit"]
    for body, answer in zip((*order, *order), answers, strict=True):
        assert answer.headers["Content-Type"].startswith(SSE if body is STREAMED else "application/json")
        if body is STREAMED:
            assert answer.body.endswith(b"data: [DONE]\n\n")
            assert b'"usage":{' not in answer.body  # which was not asked for
        else:
            assert answer.json["usage"]["prompt_tokens"] == 10


ANTHROPIC = {"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": "hi"}]}
EVERY: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT | {"max_tokens": 99},
    "/v1/responses": {"model": "m", "input": "hi", "max_output_tokens": 99},
    "/v1/messages": ANTHROPIC,
    "/v1beta/models/m:generateContent": {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "generationConfig": {"maxOutputTokens": 99},
    },
}


async def test_one_answer_serves_callers_of_every_format(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.respond(speak)
    running = await gateway(upstream_section(upstream, "openai", lines="flavour = compatible"), *ON)

    answers = [await ask(http, running, body, path) for path, body in EVERY.items()]
    streamed = [
        await ask(http, running, body if "v1beta" in path else body | {"stream": True}, path)
        for path, body in {
            name.replace("generateContent", "streamGenerateContent?alt=sse"): body for name, body in EVERY.items()
        }.items()
    ]

    assert len(upstream.received) == 1
    assert [answer.status for answer in (*answers, *streamed)] == [200] * 8
    assert [answer.cache.split(";")[1].strip() for answer in answers] == ["fwd=miss", "hit", "hit", "hit"]
    assert all(b"Hello" in answer.body for answer in (*answers, *streamed))
    assert answers[1].json["output"][0]["content"][0]["text"] == "Hello"
    assert answers[2].json["usage"]["input_tokens"] == 10
    assert answers[3].json["candidates"][0]["finishReason"] == "STOP"
    assert streamed[1].body.count(b"response.completed") == 2
    assert b"message_stop" in streamed[2].body


@pytest.mark.parametrize(
    "reply",
    [
        chat(finish="content_filter"),
        chat(finish="length"),
        chat(text=""),
        Reply(b"{}", 500),
        Reply(b'{"error":{"message":"no","code":429}}'),
        stream("Hel", is_complete=False),
    ],
    ids=["refused", "cut by the model's limit", "empty", "500", "error with status 200", "cut"],
)
async def test_only_good_answers_are_kept(
    reply: Reply, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(reply)
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    body = STREAMED if reply.content_type == SSE else CHAT

    answers = [await ask(http, running, body) for _ in range(2)]

    assert len(upstream.received) == 2
    assert {answer.cache for answer in answers} <= {"aiproxyd; fwd=miss", ""}


async def test_an_answer_that_ends_at_the_callers_own_limit_is_good(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat(finish="length"))
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    answers = [await ask(http, running, CHAT | {"max_tokens": 2}) for _ in range(2)]

    assert len(upstream.received) == 1
    assert answers[1].json["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": [{"role": "user", "content": "ho"}]},
        {"temperature": 0.5},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"vendors_own": 1},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "vendors_own": 1}]}]},
        {"model": "n"},
    ],
)
async def test_another_question_is_another_entry(
    changes: dict[str, object], upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat())
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    for body in (CHAT, CHAT | changes, CHAT, CHAT | changes):
        await ask(http, running, body)

    assert len(upstream.received) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"user": "u"},
        {"metadata": {"a": "b"}, "store": False},
        {"stream_options": {"include_usage": True}, "stream": True},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"n": 1, "prompt_cache_key": "k"},
        {"model": "up/m"},
    ],
)
async def test_what_changes_nothing_about_the_answer_is_left_out(
    changes: dict[str, object], upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.respond(speak)
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    answers = [await ask(http, running, body) for body in (CHAT, CHAT | changes)]

    assert len(upstream.received) == 1
    assert answers[1].text == "Hello"


async def test_the_billing_line_of_claude_code_is_left_out(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 1},
    }
    upstream.script(Reply(msgspec.json.encode(message)))
    running = await gateway(upstream_section(upstream, "anthropic"), *ON)

    for suffix in ("aaa", "bbb"):
        line = f"x-anthropic-billing-header: cc_version=2.1.330.{suffix}; cc_entrypoint=cli"
        system = [{"type": "text", "text": line}, {"type": "text", "text": "Be brief."}]
        await ask(http, running, ANTHROPIC | {"system": system, "metadata": {"user_id": suffix}}, "/v1/messages")
    await ask(http, running, ANTHROPIC | {"system": "Be brief."}, "/v1/messages", anthropic_beta="other-2026-01-01")

    assert len(upstream.received) == 2


def keys(*names: str) -> str:
    return "".join(f"[key {name}]\nsecret = sha256:{hashlib.sha256(name.encode()).hexdigest()}\n" for name in names)


@pytest.mark.parametrize(("scope", "calls"), [("key", 2), ("shared", 1)])
async def test_callers_are_told_apart_unless_the_operator_says_otherwise(
    scope: str, calls: int, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat())
    ini = (
        upstream_section(upstream, "openai")
        + keys("alice", "bob")
        + f"[model m]\ntargets = up/m\ncache-scope = {scope}\n"
    )
    running = await gateway(ini, *ON)

    for name in ("alice", "bob", "alice", "bob"):
        await ask(http, running, CHAT | {"user": name}, Authorization=f"Bearer {name}")

    assert len(upstream.received) == calls


async def test_a_shared_answer_shows_nothing_of_whom_it_was_made_for(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    output = [
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
        }
    ]
    asked = {"model": "m", "input": "hi"}

    def respond(received: Received) -> Reply:
        told = msgspec.json.decode(received.body)
        answer = {"id": "resp_1", "object": "response", "status": "completed", "model": "m", "output": output}
        return Reply(msgspec.json.encode(answer | {"metadata": told.get("metadata"), "user": told.get("user")}))

    upstream.respond(respond)
    ini = (
        upstream_section(upstream, "openai")
        + keys("alice", "bob")
        + "[model m]\ntargets = up/m\ncache-scope = shared\n"
    )
    running = await gateway(ini, *ON)

    answers = [
        await ask(
            http,
            running,
            asked | {"metadata": {"by": name}, "user": name},
            "/v1/responses",
            Authorization=f"Bearer {name}",
        )
        for name in ("alice", "bob")
    ]

    assert len(upstream.received) == 1
    assert b"alice" not in answers[1].body
    assert answers[1].json["metadata"] == {"by": "bob"}


@pytest.mark.parametrize(
    ("when", "changes", "calls"),
    [
        ("always", {}, 1),
        ("deterministic", {}, 2),
        ("deterministic", {"temperature": 0}, 1),
        ("never", {"temperature": 0}, 2),
    ],
)
async def test_the_operator_says_whose_answers_are_kept(
    when: str,
    changes: dict[str, object],
    calls: int,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    upstream.script(chat())
    ini = upstream_section(upstream, "openai") + f"[model m]\ntargets = up/m\ncache-when = {when}\n"
    running = await gateway(ini, *ON)

    answers = [await ask(http, running, CHAT | changes) for _ in range(2)]

    assert len(upstream.received) == calls
    assert calls == 1 or answers[1].cache == "aiproxyd; fwd=bypass"


async def test_answers_expire(upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession) -> None:
    upstream.script(chat())
    running = await gateway(upstream_section(upstream, "openai"), "--cache-ttl", "0.3")

    answers = [await ask(http, running) for _ in range(2)]
    await asyncio.sleep(0.35)
    answers.append(await ask(http, running))

    assert [answer.cache for answer in answers] == ["aiproxyd; fwd=miss", "aiproxyd; hit; ttl=0", "aiproxyd; fwd=miss"]


# Wishes.


async def test_a_caller_can_have_a_new_answer_which_is_kept_for_the_next(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat("old"), chat("new"))
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    await ask(http, running)

    fresh = await ask(http, running, Cache_Control="no-cache")
    after = await ask(http, running)

    assert (fresh.text, fresh.cache) == ("new", "aiproxyd; fwd=request")
    assert (after.text, after.cache.split(";")[1]) == ("new", " hit")


async def test_a_caller_can_stay_out_of_the_cache(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat())
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    answers = [await ask(http, running, Cache_Control="no-store") for _ in range(2)]
    await ask(http, running)
    answers.append(await ask(http, running, Cache_Control="No-Store"))

    assert [answer.cache for answer in answers] == ["aiproxyd; fwd=request"] * 3
    assert len(upstream.received) == 4


async def test_a_caller_can_say_how_old_an_answer_may_be(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat())
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    await ask(http, running)

    answers = [await ask(http, running, Cache_Control=f"max-age={age}") for age in ("100", "0")]

    assert ["hit" in answer.cache for answer in answers] == [True, False]


@pytest.mark.parametrize(("path", "code"), [("/v1/chat/completions", "not_cached"), ("/v1/messages", None)])
async def test_a_caller_can_have_an_answer_from_the_cache_or_none(
    path: str, code: str | None, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat())
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    before = await ask(http, running, ANTHROPIC, path, Cache_Control="only-if-cached")
    await ask(http, running, ANTHROPIC, path)
    after = await ask(http, running, ANTHROPIC, path, Cache_Control="only-if-cached")
    never = await ask(http, running, ANTHROPIC, path, Cache_Control="no-store, only-if-cached")

    assert (before.status, after.status, never.status) == (504, 200, 504)
    assert before.json["error"].get("code") == code
    assert before.headers["x-should-retry"] == "false"
    assert len(upstream.received) == 1


# Calls under way.


async def test_a_thousand_callers_at_once_make_one_call(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat())
    upstream.respond(lambda _: Reply(chat().body, wait_s=1.0))
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as many:
        answers = await asyncio.gather(*(ask(many, running) for _ in range(1000)))

    assert len(upstream.received) == 1
    assert {answer.text for answer in answers} == {"Hello"}
    assert sum("fwd=miss; collapsed" in answer.cache or "hit" in answer.cache for answer in answers) == 999
    lines = running.log().splitlines()
    assert sum(" tokens=10+2 " in line for line in lines) == 1
    assert sum(" saved=10+2" in line for line in lines) == 999


async def read_slowly(http: aiohttp.ClientSession, running: Gateway, leave_after: int) -> list[bytes]:
    """Read so many events of a stream, and leave."""
    events: list[bytes] = []
    async with http.post(running.url + "/v1/chat/completions", json=STREAMED) as response:
        async for line in response.content:
            if line.startswith(b"data: "):
                events.append(line)
            if len(events) >= leave_after:
                response.close()
                break
    return events


async def test_a_later_caller_gets_what_has_come_and_then_what_comes(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(stream(*"abcdefgh", gap_s=0.05))
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    first = asyncio.ensure_future(ask(http, running, STREAMED))
    await asyncio.sleep(0.25)
    later = asyncio.ensure_future(read_slowly(http, running, 3))
    whole = asyncio.ensure_future(ask(http, running))
    other = asyncio.ensure_future(ask(http, running, ANTHROPIC | {"stream": True}, "/v1/messages"))
    at_once = await asyncio.wait_for(later, 0.15)
    answers = await asyncio.gather(first, whole)

    assert len(at_once) == 3
    assert [answer.text for answer in answers] == ["abcdefgh"] * 2
    assert len(upstream.received) == 2  # the limit of the Messages API makes that another question
    assert (await other).status == 200


@pytest.mark.parametrize("body", [CHAT, STREAMED], ids=["whole", "stream"])
@pytest.mark.parametrize("leaves_s", [0.1, 0.5], ids=["before the answer", "within it"])
async def test_the_call_goes_on_when_the_first_caller_leaves(
    leaves_s: float, body: dict[str, object], upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(
        stream(*"abcdefgh", gap_s=0.05, wait_s=0.3) if body is STREAMED else Reply(chat("abcdefgh").body, wait_s=0.8)
    )
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    first = asyncio.ensure_future(ask(http, running, body))
    await asyncio.sleep(0.05)
    others = [asyncio.ensure_future(ask(http, running, body)) for _ in range(2)]
    await asyncio.sleep(leaves_s - 0.05)

    first.cancel()
    answers = await asyncio.gather(*others)
    after = await ask(http, running, body)

    assert len(upstream.received) == 1
    assert [answer.text for answer in (*answers, after)] == ["abcdefgh"] * 3
    assert "hit" in after.cache
    await asyncio.sleep(0.05)
    lines = [line.partition(" tokens=")[2] for line in running.log().splitlines()]
    assert sorted(line.partition(" ")[0] for line in lines) == ["-", "-", "-", "10+2"]  # the upstream was paid once


async def test_a_call_that_all_have_left_is_given_up(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(chat().body, wait_s=5.0), chat())
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    callers = [asyncio.ensure_future(ask(http, running)) for _ in range(3)]
    await asyncio.sleep(0.2)

    for caller in callers:
        caller.cancel()
    await asyncio.wait_for(upstream.cancelled.wait(), 2)
    after = await ask(http, running)

    assert after.cache == "aiproxyd; fwd=miss"
    assert len(upstream.received) == 2
    assert sum(" tokens=~" in line for line in running.log().splitlines()) == 1


async def test_a_stream_that_all_have_left_is_given_up_and_not_kept(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(stream(*"abcdefgh" * 20, gap_s=0.05), chat())
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    await asyncio.gather(*(read_slowly(http, running, number) for number in (2, 4)))
    await asyncio.wait_for(upstream.cancelled.wait(), 2)
    after = await ask(http, running)

    assert after.cache == "aiproxyd; fwd=miss"
    assert len(upstream.received) == 2


async def test_when_the_call_fails_before_its_answer_another_caller_tries(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", 500, wait_s=0.3), Reply(chat().body, wait_s=0.1))
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    answers = await asyncio.gather(*(ask(http, running) for _ in range(5)))

    assert sorted(answer.status for answer in answers) == [200, 200, 200, 200, 500]
    assert len(upstream.received) == 2


async def test_a_call_that_keeps_failing_is_not_made_by_each_of_its_callers(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", 500, wait_s=0.2))
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    answers = await asyncio.gather(*(ask(http, running) for _ in range(20)))

    assert {answer.status for answer in answers} == {500}
    assert len(upstream.received) == 2


async def test_what_is_wrong_with_a_question_is_told_to_all_who_ask_it(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b'{"error":{"message":"no such thing","type":"x"}}', 400, wait_s=0.2))
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    answers = await asyncio.gather(*(ask(http, running) for _ in range(5)))

    assert {(answer.status, answer.json["error"]["message"]) for answer in answers} == {(400, "no such thing")}
    assert len(upstream.received) == 1


async def test_a_stream_that_breaks_is_told_so_to_all_who_read_it(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(stream(*"abc", gap_s=0.1, is_complete=False))
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    answers = await asyncio.gather(*(ask(http, running, STREAMED) for _ in range(3)))

    assert len(upstream.received) == 1
    assert all(b'"error"' in answer.body and b"[DONE]" not in answer.body for answer in answers)


async def test_a_call_that_is_joined_holds_one_place_at_its_upstream(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.respond(lambda received: stream(*"abcdef", gap_s=0.1) if b"stream" in received.body else chat())
    ini = upstream_section(upstream, "openai", lines="max-concurrency = 1\nqueue-timeout = 5")
    running = await gateway(ini, *ON)
    first = asyncio.ensure_future(read_slowly(http, running, 2))
    others = [asyncio.ensure_future(ask(http, running, STREAMED)) for _ in range(3)]
    await first

    third = await ask(http, running, CHAT | {"temperature": 0})
    ended = [other.done() for other in others]

    assert third.status == 200
    assert ended == [True] * 3  # the place was theirs as long as they read
    assert upstream.peak == 1


async def test_what_the_cache_does_is_measured(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat())
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    for directive in ("", "", "no-store"):
        await ask(http, running, Cache_Control=directive)

    measured = await measure(http, running)
    assert measured['aiproxyd_cache_requests_total{outcome="hit"}'] == 1
    assert measured['aiproxyd_cache_requests_total{outcome="miss"}'] == 1
    assert measured['aiproxyd_cache_requests_total{outcome="bypass"}'] == 1
    assert measured['aiproxyd_cache_saved_tokens_total{direction="input"}'] == 10
    assert measured["aiproxyd_cache_entries"] == 1
    assert measured["aiproxyd_cache_bytes"] > len(chat().body)


def respond_as_responses(received: Received) -> Reply:
    """Answer with what the real one repeats of the request."""
    told = msgspec.json.decode(received.body)
    content = [{"type": "output_text", "text": "Hello", "annotations": []}]
    item = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": content}
    answer = {"id": "resp_1", "object": "response", "status": "completed", "model": "m", "output": [item]}
    return Reply(msgspec.json.encode(answer | {name: told.get(name) for name in ("metadata", "user")}))


SHARED = keys("alice", "bob") + "[model m]\ntargets = up/m\ncache-scope = shared\n"
SECRETS = {"metadata": {"patient": "SECRET"}, "user": "alice@x"}


@pytest.mark.parametrize("is_joined", [False, True])
async def test_what_a_caller_says_of_itself_reaches_nobody_who_says_nothing(
    is_joined: bool, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    def respond(received: Received) -> Reply:
        reply = respond_as_responses(received)
        reply.wait_s = 0.3 if is_joined else 0.0
        return reply

    upstream.respond(respond)
    running = await gateway(upstream_section(upstream, "openai") + SHARED, *ON)
    asked = {"model": "m", "input": "hi"}
    first = asyncio.ensure_future(ask(http, running, asked | SECRETS, "/v1/responses", Authorization="Bearer alice"))
    await (asyncio.sleep(0.1) if is_joined else first)

    other = await ask(http, running, asked, "/v1/responses", Authorization="Bearer bob")

    assert len(upstream.received) == 1
    assert b"SECRET" in (await first).body
    assert b"SECRET" not in other.body
    assert b"alice" not in other.body
    assert other.json["output"][0]["content"][0]["text"] == "Hello"


async def test_an_error_about_one_callers_words_is_nobody_elses(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    def respond(received: Received) -> Reply:
        if b"patient" in received.body:
            return Reply(b'{"error":{"message":"metadata is too long","type":"x"}}', 400, wait_s=0.3)
        return respond_as_responses(received)

    upstream.respond(respond)
    running = await gateway(upstream_section(upstream, "openai") + SHARED, *ON)
    asked = {"model": "m", "input": "hi"}
    first = asyncio.ensure_future(ask(http, running, asked | SECRETS, "/v1/responses", Authorization="Bearer alice"))
    await asyncio.sleep(0.1)

    other = await ask(http, running, asked, "/v1/responses", Authorization="Bearer bob")

    assert ((await first).status, other.status) == (400, 200)


async def test_an_error_is_told_in_the_words_of_each_callers_api(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b'{"error":{"message":"oh","type":"x"}}', 500, wait_s=0.2))
    running = await gateway(upstream_section(upstream, "openai", lines="flavour = compatible"), *ON)

    answers = await asyncio.gather(
        *(ask(http, running, CHAT | {"max_tokens": 99}) for _ in range(2)),
        *(ask(http, running, ANTHROPIC, "/v1/messages") for _ in range(3)),
    )

    assert {answer.status for answer in answers} == {500}
    assert all(answer.json["type"] == "error" for answer in answers[2:])


GEMINI = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
GEMINI_ANSWER = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "Hello"}]}, "finishReason": "STOP", "index": 0}],
    "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 2, "totalTokenCount": 12},
}


async def test_what_is_asked_in_query_and_headers_is_a_part_of_the_question(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(msgspec.json.encode(GEMINI_ANSWER)))
    running = await gateway(upstream_section(upstream, "gemini"), *ON)
    path = "/v1beta/models/m:generateContent"

    for query, headers in (("", {}), ("?fields=candidates", {}), ("", {"x_goog_fieldmask": "usageMetadata"})):
        await ask(http, running, GEMINI, path + query, **headers)
    await ask(http, running, GEMINI, path + "?key=another&alt=json")

    assert len(upstream.received) == 3


async def test_all_lines_of_a_header_count(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat())
    running = await gateway(upstream_section(upstream, "openai", lines="flavour = compatible"), *ON)

    async def post(*headers: tuple[str, str]) -> None:
        data = msgspec.json.encode(ANTHROPIC)
        async with http.post(running.url + "/v1/messages", data=data, headers=headers) as response:
            assert response.status == 200

    await post(("anthropic-beta", "a"))
    await post(("anthropic-beta", "a"), ("anthropic-beta", "b"))
    await post(("anthropic-beta", "a"), ("Cache-Control", "max-age=5"), ("Cache-Control", "no-store"))

    assert len(upstream.received) == 3


@pytest.mark.parametrize(
    "answer",
    [
        GEMINI_ANSWER | {"candidates": [GEMINI_ANSWER["candidates"][0] | {"finishReason": "MALFORMED_FUNCTION_CALL"}]},  # type: ignore[index]
        GEMINI_ANSWER | {"candidates": [{"content": {"parts": [{"text": " "}]}, "finishReason": "STOP"}]},
        GEMINI_ANSWER
        | {"candidates": [{"content": {"parts": [{"text": "a", "thought": True}]}, "finishReason": "STOP"}]},
    ],
    ids=["malformed call", "blank", "thoughts alone"],
)
async def test_what_went_wrong_is_not_kept(
    answer: object, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(msgspec.json.encode(answer)))
    running = await gateway(upstream_section(upstream, "gemini"), *ON)

    for _ in range(2):
        await ask(http, running, GEMINI, "/v1beta/models/m:generateContent")

    assert len(upstream.received) == 2


async def test_a_long_stream_is_no_failure_and_not_kept(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(stream(*["x" * 500_000] * 12))
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    answers = [await ask(http, running, STREAMED) for _ in range(2)]

    assert [len(answer.text) for answer in answers] == [6_000_000] * 2
    assert len(upstream.received) == 2
    async with http.get(running.url + "/metrics") as response:
        assert 'outcome="failing"' not in await response.text()


async def test_a_caller_of_another_shape_is_charged_when_the_first_has_left(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(stream(*"abcdefgh", gap_s=0.05))
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    first = asyncio.ensure_future(read_slowly(http, running, 3))
    await asyncio.sleep(0.05)

    whole = await ask(http, running)
    await first
    await asyncio.sleep(0.05)

    assert whole.text == "abcdefgh"
    assert len(upstream.received) == 1
    assert sum(" tokens=10+2 " in line for line in running.log().splitlines()) == 1


async def test_a_caller_of_another_shape_that_leaves_last_is_charged_an_estimate(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(stream(*"abcdefgh" * 10, gap_s=0.05))
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    first = asyncio.ensure_future(read_slowly(http, running, 3))
    await asyncio.sleep(0.05)
    whole = asyncio.ensure_future(ask(http, running))
    await first
    await asyncio.sleep(0.1)

    whole.cancel()
    await asyncio.wait_for(upstream.cancelled.wait(), 2)
    await asyncio.sleep(0.05)

    assert sum(" tokens=~" in line for line in running.log().splitlines()) == 1


async def test_an_entry_that_one_target_has_made_does_not_hide_what_another_can_say(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 9, "output_tokens": 1},
    }
    replies = {"/v1/messages": Reply(b"{}", 500), "/v1/chat/completions": chat()}
    upstream.respond(lambda received: replies[received.target])
    ini = upstream_section(upstream, "anthropic", "a") + upstream_section(
        upstream, "openai", "b", "flavour = compatible"
    )
    running = await gateway(ini + "[model m]\ntargets = a/m, b/m\n", *ON, "--strict-conversion")
    body = ANTHROPIC | {"top_k": 5}  # which Chat Completions lacks
    plain = await ask(http, running, ANTHROPIC, "/v1/messages")
    replies["/v1/messages"] = Reply(msgspec.json.encode(message))

    answer = await ask(http, running, body, "/v1/messages")

    assert (plain.status, answer.status) == (200, 200)
    assert answer.headers["x-aiproxyd-upstream"] == "a"


async def test_a_failed_attempts_connection_is_let_go_at_once(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    slow = Upstream()
    await slow.start()
    upstream.script(Reply(b'{"choices":', cut=True))
    slow.script(Reply(chat().body, wait_s=0.5))
    ini = upstream_section(upstream, "openai", "a") + upstream_section(slow, "openai", "b")
    running = await gateway(ini + "[model m]\ntargets = a/m, b/m\n", *ON)

    asking = asyncio.ensure_future(ask(http, running))
    await asyncio.sleep(0.2)
    held = upstream.running

    assert held == 0
    assert (await asking).text == "Hello"
    await slow.stop()


async def test_each_caller_is_counted_once(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(stream(*"abcd", gap_s=0.05))
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    await asyncio.gather(
        ask(http, running, STREAMED), ask(http, running), ask(http, running, Cache_Control="max-age=0")
    )
    refused = await ask(http, running, CHAT | {"seed": 1}, Cache_Control="only-if-cached")

    measured = await measure(http, running)
    counted = {name: number for name, number in measured.items() if name.startswith("aiproxyd_cache_requests_total")}
    assert sum(counted.values()) == 4
    assert len(upstream.received) == 1
    assert refused.cache == "aiproxyd; detail=only-if-cached"


async def test_a_fresh_answer_that_is_too_old_for_its_caller_is_told_apart_from_none(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat())
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    await ask(http, running)

    answer = await ask(http, running, Cache_Control="max-age=0")

    assert answer.cache == "aiproxyd; fwd=request"


# Gemini's callers name the model in the path.


@pytest.mark.parametrize("order", ["aab", "bba"])
async def test_what_the_operator_says_of_a_model_holds_for_callers_who_name_it_in_the_path(
    order: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat())
    ini = upstream_section(upstream, "openai") + "[model a]\ntargets = up/m\n"
    running = await gateway(ini + "[model b]\ntargets = up/m\ncache-when = never\n", *ON)

    answers = {name: await ask(http, running, GEMINI, f"/v1beta/models/{name}:generateContent") for name in order}

    assert answers["a"].cache.split(";")[1].strip() == ("hit" if order == "aab" else "fwd=miss")
    assert answers["b"].cache == "aiproxyd; fwd=bypass"


async def test_two_models_that_lead_to_the_same_have_their_answers_in_common(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat())
    running = await gateway(
        upstream_section(upstream, "openai") + "[model a]\ntargets = up/m\n[model b]\ntargets = up/m\n", *ON
    )

    answers = [await ask(http, running, GEMINI, f"/v1beta/models/{name}:generateContent") for name in "ab"]

    assert len(upstream.received) == 1
    assert "hit" in answers[1].cache


async def test_a_schema_of_any_depth_is_served(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat())
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    tool = b'{"type":"function","function":{"name":"f","parameters":' + b'{"a":' * 420 + b"1" + b"}" * 420 + b"}}"
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"tools":[' + tool + b"]}"

    async with http.post(running.url + "/v1/chat/completions", data=body) as response:
        assert response.status == 200


@pytest.mark.parametrize("is_on", [False, True], ids=["off", "on"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/embeddings", {"model": "m", "input": "hi"}),
        ("/v1/messages/count_tokens", ANTHROPIC),
        ("/v1/responses/input_tokens", {"model": "m", "input": "hi"}),
        ("/v1beta/models/m:countTokens", GEMINI),
        ("/v1beta/models/m:predict", {"instances": []}),
    ],
)
async def test_who_wants_an_answer_from_the_cache_or_none_gets_none_where_none_is_kept(
    path: str,
    body: object,
    is_on: bool,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    upstream.script(chat())
    running = await gateway(upstream_section(upstream, "openai"), *(ON if is_on else ()))

    answer = await ask(http, running, body, path, Cache_Control="only-if-cached")

    assert (answer.status, len(upstream.received)) == (504, 0)
    assert answer.json["error"]["message"]


async def test_a_hit_that_streams_is_marked_as_a_stream_is(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.respond(speak)
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    answers = [await ask(http, running, body) for body in (STREAMED, STREAMED, CHAT)]

    assert [answer.headers.get("Cache-Control") for answer in answers] == ["no-cache", "no-cache", None]
    assert "hit" in answers[1].cache


@pytest.mark.parametrize("age", ["-1", "1.5", "soon", ""])
async def test_an_age_that_is_none_is_taken_for_none_at_all(
    age: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    """A caller that says how fresh an answer must be gets none from the cache where that cannot be read."""
    upstream.script(chat())
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    await ask(http, running)

    answer = await ask(http, running, Cache_Control=f"max-age={age}")

    assert answer.cache == "aiproxyd; fwd=request"


async def test_a_caller_can_say_how_long_an_answer_is_to_be_good_for(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat())
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    await ask(http, running)

    answers = [await ask(http, running, Cache_Control=f"min-fresh={left}") for left in ("30", "soon", "61")]

    assert ["hit" in answer.cache for answer in answers] == [True, True, False]


async def test_what_is_on_its_way_to_the_cache_is_put_away_before_the_end(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    """Of two calls for one question, as a caller that wants a new answer makes, both have something to put away."""
    begun = 0
    puts: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal begun, puts
        while command := await reader.read(4096):
            if b"SET" in command:
                begun += 1
                await asyncio.sleep(0.2 if begun == 1 else 0.0)
            writer.write(b"+OK\r\n" if b"GET" not in command else b"$-1\r\n")
            await writer.drain()
            puts += [command] if b"SET" in command else []
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}?protocol=2"
        upstream.script(Reply(chat().body, wait_s=0.2))
        running = await gateway(upstream_section(upstream, "openai"), *ON, "--redis-url", url)
        first = asyncio.ensure_future(ask(http, running))
        await asyncio.sleep(0.1)
        await asyncio.gather(first, ask(http, running, Cache_Control="no-cache"))
        await running.runner.cleanup()

        assert len(upstream.received) == begun == 2
        assert len(puts) == 2


# What is stored at its vendor.

IN_RESPONSES = {"model": "m", "input": "hi"}
STORING = {
    "absent": IN_RESPONSES,
    "null": IN_RESPONSES | {"store": None},
    "true": IN_RESPONSES | {"store": True},
}


@pytest.mark.parametrize("body", STORING.values(), ids=list(STORING))
async def test_who_has_an_answer_stored_gets_none_that_is_not(
    body: dict[str, object], upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    """The id of an answer leads to nothing where the vendor was told not to keep it."""
    upstream.respond(respond_as_responses)
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    unkept = IN_RESPONSES | {"store": False}

    answers = [await ask(http, running, each, "/v1/responses") for each in (unkept, body, body, unkept)]

    assert [answer.cache.split(";")[1].strip() for answer in answers] == ["fwd=miss", "fwd=miss", "hit", "hit"]
    assert len(upstream.received) == 2


async def test_chat_stores_where_it_is_told_to(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat())
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    bodies = [CHAT, CHAT | {"store": True}, CHAT | {"store": True, "user": "u"}, CHAT | {"store": False}]

    answers = [await ask(http, running, body) for body in bodies]

    assert [answer.cache.split(";")[1].strip() for answer in answers] == ["fwd=miss", "fwd=miss", "hit", "hit"]


async def test_what_is_stored_nowhere_is_shared(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    """An upstream that is spoken to in another format keeps nothing, whatever its caller's own would have kept."""
    upstream.script(chat())
    running = await gateway(upstream_section(upstream, "openai", lines="flavour = compatible"), *ON)

    await ask(http, running, IN_RESPONSES, "/v1/responses")
    answers = [
        await ask(http, running, IN_RESPONSES | {"store": False}, "/v1/responses"),
        await ask(http, running, CHAT),
    ]

    assert len(upstream.received) == 1
    assert all("hit" in answer.cache for answer in answers)


@pytest.mark.parametrize(
    ("path", "bodies"),
    [
        ("/v1/chat/completions", [CHAT | {"thinking": {"type": word}} for word in ("enabled", "disabled")]),
        ("/v1/chat/completions", [CHAT | {"thinking_budget": tokens} for tokens in (0, 8000)]),
        (
            "/v1/chat/completions",
            [CHAT | {"messages": [{"role": "user", "content": "hi", "name": name}]} for name in "ab"],
        ),
        ("/v1/responses", [IN_RESPONSES | {"reasoning_effort": effort} for effort in ("low", "high")]),
        (
            "/v1/responses",
            [
                IN_RESPONSES | {"tools": [{"type": "function", "name": "f"} | strict]}
                for strict in ({}, {"strict": False})
            ],
        ),
    ],
)
async def test_what_is_a_word_elsewhere_is_a_part_of_the_question(
    path: str, bodies: list[object], upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.respond(lambda received: respond_as_responses(received) if "responses" in path else chat())
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    answers = [await ask(http, running, body, path) for body in (*bodies, *bodies)]

    assert len(upstream.received) == 2
    assert ["hit" in answer.cache for answer in answers] == [False, False, True, True]


@pytest.mark.parametrize(
    ("flags", "place"),
    [
        ((), "memory, at most 67108864 bytes"),
        (("--redis-url", "redis://user:secret@127.0.0.1:1/2"), "Redis at 127.0.0.1:1, database 2"),
    ],
)
async def test_the_log_says_where_answers_are_kept(
    flags: tuple[str, ...], place: str, upstream: Upstream, gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "aiproxyd")

    await gateway(upstream_section(upstream, "openai"), "--cache-ttl", "90", *flags)

    assert f"answers are kept for 90 s in {place}" in caplog.messages
