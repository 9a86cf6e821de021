"""Who answers, over real sockets: keys take turns, conversations stay, full and failing upstreams are passed over."""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest

from tests.conftest import StartGateway
from tests.support import Gateway, Received, Reply, Upstream

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
SSE = "text/event-stream"
OK = Reply(b'{"ok":1}')
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
QUOTA = (
    b'{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}'
)
FULL = b'{"error":{"message":"This model\'s maximum context length is 8 tokens","code":"context_length_exceeded"}}'
DEFAULTS: tuple[str, ...] = ()
"""Flags of a gateway that repeats and remembers what failed as it does by default."""


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def attempts(self) -> int:
        return int(self.headers["x-aiproxyd-attempts"])

    @property
    def upstream(self) -> str:
        return self.headers["x-aiproxyd-upstream"]


Ask = Callable[..., Coroutine[Any, Any, Answer]]
MakeUpstream = Callable[[], Coroutine[Any, Any, Upstream]]


@pytest.fixture
async def ask(http: aiohttp.ClientSession) -> Ask:
    """Call a gateway: ``await ask(running, "Hello", **members_of_the_body)``."""

    async def ask(
        running: Gateway,
        said: str = "Hi",
        path: str = CHAT,
        headers: Mapping[str, str] | None = None,
        **members: object,
    ) -> Answer:
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": said}], **members}
        data = msgspec.json.encode(body)
        async with http.post(running.url + path, data=data, headers=headers) as response:
            content = await response.read()
            is_json = response.content_type == "application/json"
            return Answer(response.status, response.headers, msgspec.json.decode(content) if is_json else content)

    return ask


@pytest.fixture
async def make() -> AsyncIterator[MakeUpstream]:
    """Start further upstreams."""
    started: list[Upstream] = []

    async def start() -> Upstream:
        upstream = Upstream()
        upstream.script(OK)
        await upstream.start()
        started.append(upstream)
        return upstream

    yield start
    for upstream in started:
        await upstream.stop()


def section(
    upstream: Upstream, lines: str = "", *, name: str = "up", keys: str = "sk-1", provider: str = "openai"
) -> str:
    base_url = upstream.url
    if provider == "openai":
        base_url, lines = f"{base_url}/v1", f"flavour = first-party\n{lines}"
    return f"[upstream {name}]\nprovider = {provider}\nbase-url = {base_url}\napi-key = {keys}\n{lines}\n"


def model(targets: str, lines: str = "") -> str:
    return f"[model m]\ntargets = {targets}\n{lines}\n"


def key_of(received: Received) -> str:
    return received.headers.get("Authorization", "").removeprefix("Bearer ") or received.headers["x-api-key"]


def keys_of(upstream: Upstream) -> list[str]:
    return [key_of(received) for received in upstream.received]


def refuse(*keys: str, reply: Reply) -> Callable[[Received], Reply]:
    return lambda received: reply if key_of(received) in keys else OK


async def measure(http: aiohttp.ClientSession, running: Gateway) -> dict[str, float]:
    async with http.get(running.url + "/metrics") as response:
        assert response.status == 200
        lines = (await response.text()).splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


async def wait_for(predicate: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    for _ in range(300):
        if await predicate():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come to that")


def waits_for_slots(
    http: aiohttp.ClientSession, running: Gateway, *, upstream: str = "up", busy: int = 0, waiting: int = 0
) -> Callable[[], Coroutine[Any, Any, bool]]:
    """Return what tells whether so many calls run and wait at *upstream*."""

    async def is_so() -> bool:
        measured = await measure(http, running)
        found = (
            measured[f'aiproxyd_upstream_running{{upstream="{upstream}"}}'],
            measured[f'aiproxyd_upstream_waiting{{upstream="{upstream}"}}'],
        )
        return found == (busy, waiting)

    return is_so


# Keys.


async def test_keys_take_turns(upstream: Upstream, gateway: StartGateway, ask: Ask) -> None:
    upstream.script(OK)
    running = await gateway(section(upstream, keys="sk-1, sk-2, sk-3"), attempts=DEFAULTS)

    for number in range(6):
        await ask(running, str(number))

    assert keys_of(upstream) == ["sk-1", "sk-2", "sk-3"] * 2


async def test_keys_take_turns_where_several_targets_are_at_their_upstream(
    upstream: Upstream, gateway: StartGateway, ask: Ask
) -> None:
    """The targets that were not needed took turns too, so that the first one always got the same key."""
    upstream.script(OK)
    running = await gateway(section(upstream, keys="sk-1, sk-2") + model("up/a, up/b"), attempts=DEFAULTS)

    for number in range(4):
        await ask(running, str(number))

    assert keys_of(upstream) == ["sk-1", "sk-2"] * 2


@pytest.mark.parametrize(
    "reply",
    [Reply(b"{}", 401), Reply(b"{}", 402), Reply(QUOTA, 429), Reply(QUOTA, 400)],
    ids=["401", "402", "quota 429", "quota 400"],
)
async def test_a_key_that_is_refused_is_left_out_and_another_one_serves(
    reply: Reply, upstream: Upstream, gateway: StartGateway, ask: Ask
) -> None:
    upstream.respond(refuse("sk-1", reply=reply))
    running = await gateway(section(upstream, keys="sk-1, sk-2"), attempts=DEFAULTS)

    answers = [await ask(running, str(number)) for number in range(5)]

    assert [answer.status for answer in answers] == [200] * 5
    assert [answer.attempts for answer in answers] == [2, 1, 1, 1, 1]
    assert keys_of(upstream) == ["sk-1"] + ["sk-2"] * 5


async def test_a_key_that_may_not_use_a_model_is_left_out_when_that_is_certain(
    upstream: Upstream, gateway: StartGateway, ask: Ask
) -> None:
    """A 403 may also be about one prompt: https://openrouter.ai/docs/api-reference/errors."""
    upstream.respond(refuse("sk-1", reply=Reply(b"{}", 403)))
    running = await gateway(section(upstream, keys="sk-1, sk-2"), attempts=DEFAULTS)

    answers = [await ask(running, str(number)) for number in range(10)]

    assert [answer.status for answer in answers] == [200] * 10
    assert keys_of(upstream).count("sk-1") == 3
    assert keys_of(upstream)[-4:] == ["sk-2"] * 4


async def test_a_prompt_that_is_flagged_goes_nowhere_else_and_blames_nobody(
    upstream: Upstream, gateway: StartGateway, ask: Ask
) -> None:
    flagged = b'{"error":{"message":"Your input was flagged by moderation","code":403}}'
    upstream.script(*[Reply(flagged, 403)] * 5, OK)
    running = await gateway(section(upstream, keys="sk-1, sk-2"), attempts=DEFAULTS)

    answers = [await ask(running) for _ in range(6)]

    assert [(answer.status, answer.attempts) for answer in answers] == [(403, 1)] * 5 + [(200, 1)]


async def test_a_request_that_no_upstream_survives_does_not_shut_out_others(
    upstream: Upstream, gateway: StartGateway, ask: Ask
) -> None:
    upstream.respond(lambda received: Reply(b"{}", 500) if b"poison" in received.body else OK)
    running = await gateway(section(upstream), attempts=DEFAULTS)

    poisoned = await ask(running, "poison")
    good = await ask(running)

    assert (poisoned.status, poisoned.attempts) == (500, 3)
    assert (good.status, good.attempts) == (200, 1)


async def test_a_used_up_limit_of_a_key_counts_for_its_model_alone(
    upstream: Upstream, gateway: StartGateway, ask: Ask
) -> None:
    limited = Reply(b"{}", 429, headers={"retry-after": "30"})

    def respond(received: Received) -> Reply:
        return limited if key_of(received) == "sk-1" and b'"m"' in received.body else OK

    upstream.respond(respond)
    running = await gateway(section(upstream, keys="sk-1, sk-2"), attempts=DEFAULTS)

    await ask(running, "a")
    await ask(running, "b")
    other = [await ask(running, str(number), model="n") for number in range(2)]

    assert keys_of(upstream)[:3] == ["sk-1", "sk-2", "sk-2"]
    assert sorted(keys_of(upstream)[3:]) == ["sk-1", "sk-2"]
    assert [answer.status for answer in other] == [200, 200]


async def test_a_request_that_is_too_long_is_not_sent_again_with_another_key(
    upstream: Upstream, gateway: StartGateway, ask: Ask
) -> None:
    """The window is the model's, whatever the key."""
    upstream.script(Reply(FULL, 400))
    running = await gateway(section(upstream, keys="sk-1, sk-2"), attempts=DEFAULTS)

    answer = await ask(running)

    assert (answer.status, answer.attempts) == (400, 1)
    assert len(upstream.received) == 1


# Conversations.


Grow = Callable[[str, int], dict[str, object]]
"""Returns what is sent in a turn, counted from 0, of the conversation that begins with what is said."""


def ask_anew(said: str, turn: int) -> dict[str, object]:
    text = f"{said} {turn}"
    return {
        "messages": [{"role": "user", "content": text}],
        "input": text,
        "contents": [{"role": "user", "parts": [{"text": text}]}],
    }


def grow_plainly(said: str, turn: int) -> dict[str, object]:
    texts = [said, *(f"{role}{number}" for number in range(turn) for role in ("a", "u"))]
    messages = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]
    contents = [{"parts": [{"text": text}], "role": ("user", "model")[number % 2]} for number, text in enumerate(texts)]
    return {"messages": messages, "input": messages, "contents": contents}


def grow_chat(said: str, turn: int) -> dict[str, object]:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": said}]
    for number in range(turn):
        messages += [{"role": "assistant", "content": f"a{number}"}, {"role": "user", "content": f"u{number}"}]
    return {"messages": messages}


def grow_input(said: str, turn: int) -> dict[str, object]:
    """As Codex: its orders are a developer's message, and a call is followed by its output, not by the user."""
    items: list[object] = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": said}]},
    ]
    for number in range(turn):
        call = f"call_{number}"
        items += [
            {"type": "reasoning", "summary": [], "content": None, "encrypted_content": "x"},
            {"type": "function_call", "call_id": call, "name": "ls", "arguments": "{}"},
            {"type": "function_call_output", "call_id": call, "output": "."},
        ]
    return {"input": items}


def grow_messages(said: str, turn: int) -> dict[str, object]:
    """As Claude Code: the last message is marked for the cache, and its text is a block only there."""
    mark = {"cache_control": {"type": "ephemeral"}}
    texts = [said, *(f"{role}{number}" for number in range(turn) for role in ("a", "u"))]
    roles = [("user", "assistant")[number % 2] for number in range(len(texts))]
    *past, last = ({"role": role, "content": text} for role, text in zip(roles, texts, strict=True))
    last["content"] = [{"type": "text", "text": last["content"], **mark}]  # type: ignore[assignment]
    billed = {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1.330.{turn:03x};"}
    return {"system": [billed, {"type": "text", "text": "Be brief.", **mark}], "messages": [*past, last]}


def grow_contents(said: str, turn: int) -> dict[str, object]:
    """As Gemini CLI: a turn about the day and the folder comes before what the user says."""
    texts = ["<session_context>Monday</session_context>", said]
    contents = [{"role": "user", "parts": [{"text": text}]} for text in texts]
    for number in range(turn):
        call, result = {"functionCall": {"name": "ls"}}, {"functionResponse": {"name": "ls", "response": {"n": number}}}
        contents += [{"role": "model", "parts": [call]}, {"role": "user", "parts": [result]}]
    return {"systemInstruction": {"role": "user", "parts": [{"text": "Be brief."}]}, "contents": contents}


class Session(NamedTuple):
    """How a client shows which conversation a request belongs to."""

    headers: Mapping[str, str] = {}
    members: Mapping[str, object] = {}
    provider: str = "openai"
    path: str = CHAT
    grow: Grow = ask_anew


CLAUDE_USER = '{"device_id":"d","account_uuid":"a","session_id":"7f3c"}'
GENERATE = "/v1beta/models/m:generateContent"
SESSIONS = {
    "claude code": Session({"x-claude-code-session-id": "7f3c"}, provider="anthropic", path=MESSAGES),
    "codex": Session({"session_id": "7f3c"}, path="/v1/responses"),
    "opencode": Session({"x-session-affinity": "7f3c"}),
    "prompt_cache_key": Session(members={"prompt_cache_key": "7f3c"}),
    "prompt_cache_key of responses": Session(members={"prompt_cache_key": "7f3c"}, path="/v1/responses"),
    "metadata.user_id": Session(members={"metadata": {"user_id": CLAUDE_USER}}, provider="anthropic", path=MESSAGES),
    "beginning": Session(grow=grow_plainly),
    "beginning of responses": Session(path="/v1/responses", grow=grow_plainly),
    "beginning of messages": Session(provider="anthropic", path=MESSAGES, grow=grow_plainly),
    "beginning of contents": Session(provider="gemini", path=GENERATE, grow=grow_plainly),
    "beginning behind a system": Session(grow=grow_chat),
    "beginning as of codex": Session(path="/v1/responses", grow=grow_input),
    "beginning as of claude code": Session(provider="anthropic", path=MESSAGES, grow=grow_messages),
    "beginning as of gemini cli": Session(provider="gemini", path=GENERATE, grow=grow_contents),
}


def key_header(received: Received) -> str:
    return next(
        received.headers[name] for name in ("x-goog-api-key", "x-api-key", "Authorization") if name in received.headers
    )


@pytest.mark.parametrize("session", SESSIONS.values(), ids=list(SESSIONS))
async def test_a_conversation_keeps_its_key_while_others_take_turns(
    session: Session, upstream: Upstream, gateway: StartGateway, ask: Ask
) -> None:
    upstream.script(OK)
    running = await gateway(section(upstream, keys="sk-1, sk-2, sk-3", provider=session.provider), attempts=DEFAULTS)

    for turn in range(5):
        await ask(running, path=session.path, headers=session.headers, **session.members, **session.grow("this", turn))
        await ask(running, path=session.path, **session.grow(f"other {turn}", 0))

    keys = [key_header(received) for received in upstream.received]
    assert len(set(keys[0::2])) == 1
    assert len(set(keys[1::2])) == 3


@pytest.mark.parametrize(
    "session",
    [
        Session({"session_id": ""}),
        Session(members={"prompt_cache_key": ""}),
        Session(members={"prompt_cache_key": "", "conversation": {}}, path="/v1/responses"),
        Session(members={"metadata": {}}, provider="anthropic", path=MESSAGES),
        Session(members={"metadata": {"user_id": "user_7"}}, provider="anthropic", path=MESSAGES),
        Session(provider="gemini", path=GENERATE, grow=grow_contents),
    ],
    ids=["header", "prompt_cache_key", "conversation", "metadata", "metadata.user_id", "context"],
)
async def test_conversations_take_turns_where_a_client_does_not_name_them(
    session: Session, upstream: Upstream, gateway: StartGateway, ask: Ask
) -> None:
    upstream.script(OK)
    running = await gateway(section(upstream, keys="sk-1, sk-2, sk-3", provider=session.provider), attempts=DEFAULTS)

    for number in range(6):
        members = {**session.members, **session.grow(f"conversation {number}", 0)}
        await ask(running, path=session.path, headers=session.headers, **members)

    assert [key_header(received)[-1] for received in upstream.received] == ["1", "2", "3"] * 2


async def test_a_conversation_is_told_from_that_of_another_caller(
    upstream: Upstream, gateway: StartGateway, ask: Ask
) -> None:
    upstream.script(OK)
    running = await gateway(section(upstream, keys="sk-1, sk-2") + virtual_keys("alice", "bob"), attempts=DEFAULTS)

    for name in ("alice", "bob", "alice", "bob"):
        await ask(running, headers={"Authorization": f"Bearer {name}", "session_id": "7f3c"})

    assert keys_of(upstream) == ["sk-1", "sk-2"] * 2


async def test_a_conversation_takes_turns_where_nothing_is_to_be_remembered(
    upstream: Upstream, gateway: StartGateway, ask: Ask
) -> None:
    upstream.script(OK)
    running = await gateway(section(upstream, keys="sk-1, sk-2"), "--affinity-ttl", "0", attempts=DEFAULTS)

    for _ in range(4):
        await ask(running)

    assert keys_of(upstream) == ["sk-1", "sk-2"] * 2


async def test_a_conversation_lets_go_of_a_key_that_fails_and_stays_with_the_next(
    upstream: Upstream, gateway: StartGateway, ask: Ask
) -> None:
    upstream.script(OK)
    running = await gateway(section(upstream, keys="sk-1, sk-2, sk-3"), attempts=DEFAULTS)
    await ask(running)

    upstream.respond(refuse("sk-1", reply=Reply(b"{}", 401)))
    answers = [await ask(running) for _ in range(4)]

    assert [answer.attempts for answer in answers] == [2, 1, 1, 1]
    assert keys_of(upstream) == ["sk-1", "sk-1"] + ["sk-2"] * 4


async def test_a_conversation_lets_go_of_an_upstream_that_is_full(
    upstream: Upstream, make: MakeUpstream, gateway: StartGateway, ask: Ask
) -> None:
    first, second = upstream, await make()
    first.script(OK)
    ini = section(first, "max-concurrency = 1", name="a") + section(second, "max-concurrency = 1", name="b")
    running = await gateway(ini + model("a/m, b/m", "strategy = weighted"), attempts=DEFAULTS)
    home = (await ask(running)).upstream
    {"a": first, "b": second}[home].script(Reply(b"{}", wait_s=0.6))

    turns = await asyncio.gather(ask(running), later(0.1, lambda: ask(running)))

    assert [turn.upstream for turn in turns] == [home, "b" if home == "a" else "a"]
    assert [turn.status for turn in turns] == [200, 200]


async def later(seconds: float, work: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
    await asyncio.sleep(seconds)
    return await work()


def virtual_keys(*names: str) -> str:
    return "".join(f"[key {name}]\nsecret = sha256:{hashlib.sha256(name.encode()).hexdigest()}\n" for name in names)


# Strategies.


async def test_weights_are_kept_to(upstream: Upstream, make: MakeUpstream, gateway: StartGateway, ask: Ask) -> None:
    upstream.script(OK)
    ini = section(upstream, name="a") + section(await make(), name="b")
    running = await gateway(ini + model("a/m, b/m", "strategy = weighted\nweights = 5, 1"), attempts=DEFAULTS)

    answered = Counter([(await ask(running, str(number))).upstream for number in range(120)])

    assert 75 <= answered["a"] <= 118  # 100 are expected, give or take 4


async def test_a_weighted_target_that_fails_is_made_up_for_by_the_other(
    upstream: Upstream, make: MakeUpstream, gateway: StartGateway, ask: Ask
) -> None:
    upstream.script(Reply(b"{}", 401))
    ini = section(upstream, name="a") + section(await make(), name="b")
    running = await gateway(ini + model("a/m, b/m", "strategy = weighted\nweights = 1000, 1"), attempts=DEFAULTS)

    answers = [await ask(running, str(number)) for number in range(10)]

    assert {(answer.status, answer.upstream) for answer in answers} == {(200, "b")}
    assert len(upstream.received) == 1


@pytest.mark.parametrize("is_stream", [False, True])
async def test_the_faster_one_is_asked(
    is_stream: bool, upstream: Upstream, make: MakeUpstream, gateway: StartGateway, ask: Ask
) -> None:
    slow, fast = upstream, await make()
    body = Reply(chunks=[DELTA, STOP], content_type=SSE) if is_stream else OK
    slow.script(Reply(body.body, chunks=body.chunks, content_type=body.content_type, wait_s=0.25))
    fast.script(body)
    ini = section(slow, name="slow") + section(fast, name="fast") + model("slow/m, fast/m", "strategy = least-latency")
    running = await gateway(ini, attempts=DEFAULTS)

    answered = Counter([(await ask(running, str(number), stream=is_stream)).upstream for number in range(20)])

    assert answered["slow"] <= 2  # before anything is known
    assert answered["fast"] >= 18


# Slots.


async def test_there_are_never_more_calls_at_once_than_allowed(
    upstream: Upstream, gateway: StartGateway, ask: Ask
) -> None:
    upstream.script(Reply(b"{}", wait_s=0.02))
    running = await gateway(section(upstream, "max-concurrency = 3", keys="sk-1, sk-2"), attempts=DEFAULTS)

    answers = await asyncio.gather(*(ask(running, str(number)) for number in range(30)))

    assert {answer.status for answer in answers} == {200}
    assert upstream.peak == 3


async def test_callers_take_turns_however_many_calls_one_of_them_has(
    upstream: Upstream, gateway: StartGateway, ask: Ask, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", wait_s=0.1))
    ini = section(upstream, "max-concurrency = 1") + virtual_keys("alice", "bob")
    running = await gateway(ini, "--metrics-access", "open", attempts=DEFAULTS)
    alice, bob = ({"Authorization": f"Bearer {name}"} for name in ("alice", "bob"))

    many = [asyncio.ensure_future(ask(running, "alice", headers=alice)) for _ in range(6)]
    await wait_for(waits_for_slots(http, running, busy=1, waiting=5))
    await ask(running, "bob", headers=bob)
    await asyncio.gather(*many)

    said = [re.search(rb"alice|bob", received.body)[0] for received in upstream.received]  # type: ignore[index]
    assert said.index(b"bob") <= 2
    assert len(said) == 7


async def test_a_queue_that_overflows_is_a_503_with_retry_after(
    upstream: Upstream, gateway: StartGateway, ask: Ask, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", wait_s=0.3))
    ini = section(upstream, "max-concurrency = 1\nmax-queue = 1")
    running = await gateway(ini, "--retries", "0", attempts=DEFAULTS)

    accepted = [asyncio.ensure_future(ask(running)) for _ in range(2)]
    await wait_for(waits_for_slots(http, running, busy=1, waiting=1))
    refused = await ask(running)

    assert (refused.status, refused.body["error"]["code"]) == (503, "upstream_busy")
    assert int(refused.headers["retry-after"]) >= 1
    assert [answer.status for answer in await asyncio.gather(*accepted)] == [200, 200]


async def test_no_call_gets_around_the_queue_and_its_time(
    upstream: Upstream, gateway: StartGateway, ask: Ask, http: aiohttp.ClientSession
) -> None:
    """Those that were refused used to pause and come again, beside the queue, for several times its time-out."""
    upstream.script(Reply(b"{}", wait_s=2.0))
    ini = section(upstream, "max-concurrency = 1\nmax-queue = 1\nqueue-timeout = 0.3")
    running = await gateway(ini, attempts=DEFAULTS)
    first = asyncio.ensure_future(ask(running))
    await wait_for(waits_for_slots(http, running, busy=1))
    begun_s = asyncio.get_running_loop().time()

    answers = await asyncio.gather(*(ask(running, str(number)) for number in range(3)))

    assert asyncio.get_running_loop().time() - begun_s < 1.0
    assert [(answer.status, answer.body["error"]["code"]) for answer in answers] == [(503, "upstream_busy")] * 3
    assert (await first).status == 200


async def test_a_call_that_finds_all_full_takes_what_is_free_first(
    upstream: Upstream, make: MakeUpstream, gateway: StartGateway, ask: Ask, http: aiohttp.ClientSession
) -> None:
    other = await make()
    upstream.script(Reply(b"{}", wait_s=3.0))
    other.script(Reply(b"{}", wait_s=0.3))
    lines = "max-concurrency = 1"
    ini = section(upstream, lines, name="slow") + section(other, lines, name="soon") + model("slow/m, soon/m")
    running = await gateway(ini, attempts=DEFAULTS)
    held = [asyncio.ensure_future(ask(running, str(number))) for number in range(2)]
    await wait_for(waits_for_slots(http, running, upstream="slow", busy=1))
    await wait_for(waits_for_slots(http, running, upstream="soon", busy=1))
    begun_s = asyncio.get_running_loop().time()

    answer = await ask(running, "third")

    assert asyncio.get_running_loop().time() - begun_s < 1.0
    assert (answer.status, answer.headers["x-aiproxyd-upstream"]) == (200, "soon")
    await asyncio.gather(*held)


@pytest.mark.parametrize("keys", ["sk-1", "sk-1, sk-2, sk-3"])
async def test_a_queue_that_is_slow_is_a_503_in_the_time_that_was_set(
    keys: str, upstream: Upstream, gateway: StartGateway, ask: Ask, http: aiohttp.ClientSession
) -> None:
    """The slots are the upstream's: to queue up for each of its keys took as many times as long."""
    upstream.script(Reply(b"{}", wait_s=1.5))
    ini = section(upstream, "max-concurrency = 1\nqueue-timeout = 0.3", keys=keys)
    running = await gateway(ini, "--retries", "0", attempts=DEFAULTS)

    first = asyncio.ensure_future(ask(running))
    await wait_for(waits_for_slots(http, running, busy=1))
    begun_s = asyncio.get_running_loop().time()
    refused = await ask(running, "other")
    took_s = asyncio.get_running_loop().time() - begun_s

    assert refused.status == 503
    assert "retry-after" in refused.headers
    assert 0.25 <= took_s < 0.8
    assert (await first).status == 200


async def test_another_target_is_taken_where_one_is_full(
    upstream: Upstream, make: MakeUpstream, gateway: StartGateway, ask: Ask, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", wait_s=0.3))
    ini = section(upstream, "max-concurrency = 1") + section(await make(), name="spare")
    running = await gateway(ini + model("up/m, spare/m"), attempts=DEFAULTS)

    first = asyncio.ensure_future(ask(running))
    await wait_for(waits_for_slots(http, running, busy=1))
    second = await ask(running)

    assert second.upstream == "spare"
    assert not first.done()
    assert (await first).upstream == "up"


STREAMED = Reply(chunks=[DELTA] * 1000, gap_s=0.02, content_type=SSE)
SILENT = Reply(b"{}", wait_s=30)


@pytest.mark.parametrize(
    ("reply", "path"),
    [(STREAMED, CHAT), (STREAMED, MESSAGES), (SILENT, CHAT), (SILENT, MESSAGES), (SILENT, "/v1/moderations")],
    ids=["in the stream", "in the converted stream", "waiting", "waiting for a conversion", "waiting for another path"],
)
async def test_a_caller_that_leaves_frees_its_slot_at_once(
    reply: Reply, path: str, upstream: Upstream, gateway: StartGateway, ask: Ask, http: aiohttp.ClientSession
) -> None:
    upstream.script(reply, OK)
    running = await gateway(section(upstream, "max-concurrency = 1"), attempts=DEFAULTS)

    leaving = asyncio.ensure_future(ask(running, path=path, stream=reply is STREAMED))
    await wait_for(waits_for_slots(http, running, busy=1))
    await asyncio.sleep(0.1)
    leaving.cancel()
    await wait_for(waits_for_slots(http, running))

    assert (await ask(running)).status == 200


async def test_a_caller_that_leaves_the_queue_takes_no_slot_with_it(
    upstream: Upstream, gateway: StartGateway, ask: Ask, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", wait_s=0.4))
    running = await gateway(section(upstream, "max-concurrency = 1"), attempts=DEFAULTS)

    first = asyncio.ensure_future(ask(running, "first"))
    await wait_for(waits_for_slots(http, running, busy=1))
    leaving = asyncio.ensure_future(ask(running, "leaving"))
    await wait_for(waits_for_slots(http, running, busy=1, waiting=1))
    leaving.cancel()
    await wait_for(waits_for_slots(http, running, busy=1))

    assert (await first).status == 200
    assert (await ask(running, "last")).status == 200
    assert [b"leaving" in received.body for received in upstream.received] == [False, False]
    assert await waits_for_slots(http, running)()


CALLS: dict[str, tuple[str, str, dict[str, object]]] = {
    "whole": ("POST", CHAT, {}),
    "stream": ("POST", CHAT, {"stream": True}),
    "converted": ("POST", MESSAGES, {}),
    "converted stream": ("POST", MESSAGES, {"stream": True}),
    "cannot be converted": (
        "POST",
        MESSAGES,
        {"messages": [{"role": "user", "content": [{"type": "container_upload"}]}]},
    ),
    "not understood": ("POST", MESSAGES, {"messages": "none"}),
    "count": ("POST", "/v1/messages/count_tokens", {}),
    "own count": ("POST", "/v1/responses/input_tokens", {"input": "a"}),
    "embeddings": ("POST", "/v1/embeddings", {"input": "a"}),
    "converted embeddings": ("POST", "/v1beta/models/m:embedContent", {"content": {"parts": [{"text": "a"}]}}),
    "moderation": ("POST", "/v1/moderations", {"input": "a"}),
    "files": ("GET", "/v1/files", {}),
    "completions": ("POST", "/v1/completions", {"prompt": "a", "stream": True}),
}
CHAT_ANSWER = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]}'
ANSWERS = {
    "good": Reply(CHAT_ANSWER),
    "stream": Reply(chunks=[DELTA, STOP], content_type=SSE),
    "cut stream": Reply(chunks=[DELTA], cut=True, content_type=SSE),
    "failed stream": Reply(chunks=[DELTA, b'data: {"error":{"message":"no"}}\n\n'], content_type=SSE),
    "early failure": Reply(chunks=[b'data: {"error":{"message":"no","code":429}}\n\n'], content_type=SSE),
    "refusal": Reply(b'{"error":{"message":"no"}}', 400),
    "failure": Reply(b'{"error":{"message":"no"}}', 503),
    "limit": Reply(b'{"error":{"message":"no"}}', 429),
    "cut": Reply(b'{"half":', cut=True),
    "garbage": Reply(b"<html>"),
    "silence": Reply(wait_s=9),
}


async def test_all_slots_are_free_after_whatever_was_asked_and_answered(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    lines = "max-concurrency = 4\nfirst-event-timeout = 0.2"
    running = await gateway(
        section(upstream, lines, keys="sk-1, sk-2"),
        "--max-cooldown",
        "0",
        "--max-retry-wait",
        "0.05",
        attempts=DEFAULTS,
    )
    served: Counter[str] = Counter()

    async def call(method: str, path: str, members: dict[str, object]) -> None:
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **members}
        sent = msgspec.json.encode(body) if method == "POST" else None
        headers = {"Content-Type": "application/json"} if sent else {}
        async with http.request(method, running.url + path, data=sent, headers=headers) as response:
            try:
                await response.read()
            except aiohttp.ClientPayloadError:
                served["cut"] += 1
            served[str(response.status)] += 1

    for reply in ANSWERS.values():
        upstream.script(reply)
        await asyncio.gather(*(call(*sent) for sent in CALLS.values()))

    assert await waits_for_slots(http, running)()
    assert {"200", "400", "502", "503", "504"} <= served.keys()
    assert sum(served.values()) >= len(CALLS) * len(ANSWERS)
    assert upstream.peak <= 4


# Cooldowns.


async def test_where_all_are_left_in_peace_the_soonest_is_named(
    upstream: Upstream, make: MakeUpstream, gateway: StartGateway, ask: Ask, http: aiohttp.ClientSession
) -> None:
    other = await make()
    upstream.script(Reply(b"{}", 429, headers={"retry-after": "70"}))
    other.script(Reply(b"{}", 429, headers={"retry-after": "40"}))
    ini = section(upstream, name="late") + section(other, name="soon") + model("late/m, soon/m")
    running = await gateway(ini, attempts=DEFAULTS)

    first = await ask(running)
    second = await ask(running)

    assert (first.status, first.attempts) == (429, 2)
    assert second.status == 503
    assert 38 <= int(second.headers["retry-after"]) <= 40
    assert "the soonest is soon (its rate limit is used up)" in second.body["error"]["message"]
    assert len(upstream.received) == len(other.received) == 1
    async with http.get(running.url + "/ready") as response:
        assert response.status == 503  # nothing is known of their other models


async def test_it_is_ready_while_one_upstream_can_be_used(
    upstream: Upstream, make: MakeUpstream, gateway: StartGateway, ask: Ask, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", 401))
    other = await make()
    ini = section(upstream, name="a", keys="sk-1, sk-2") + section(other, name="b") + model("a/m, b/m")
    running = await gateway(ini, attempts=DEFAULTS)
    waits: list[tuple[int, str]] = []

    for reply in (OK, Reply(b"{}", 401)):
        other.script(reply)
        await ask(running)
        async with http.get(running.url + "/ready") as response:
            waits.append((response.status, response.headers.get("retry-after", "")))

    assert waits in ([(200, ""), (503, "60")], [(200, ""), (503, "59")])


async def test_one_call_finds_out_whether_a_cooldown_has_helped_and_the_others_wait_for_it(
    upstream: Upstream, gateway: StartGateway, ask: Ask
) -> None:
    upstream.script(Reply(b"{}", 401))
    running = await gateway(section(upstream), "--max-cooldown", "0.2", attempts=DEFAULTS)
    await ask(running)
    await asyncio.sleep(0.25)
    upstream.script(Reply(b"{}", wait_s=0.4))

    asking = [asyncio.ensure_future(ask(running, str(number))) for number in range(6)]
    await asyncio.sleep(0.3)
    asked_meanwhile = len(upstream.received) - 1
    answers = await asyncio.gather(*asking)

    assert asked_meanwhile == 1
    assert [answer.status for answer in answers] == [200] * 6
    assert {answer.attempts for answer in answers} == {1}


async def test_calls_that_were_told_to_wait_do_not_come_back_all_at_once(
    upstream: Upstream, gateway: StartGateway, ask: Ask
) -> None:
    upstream.respond(lambda _: Reply(b"{}", 429, headers={"retry-after": "1"}))
    running = await gateway(section(upstream), attempts=DEFAULTS)
    asking = [asyncio.ensure_future(ask(running, str(number))) for number in range(8)]
    await asyncio.sleep(0.6)
    asked_at_once = len(upstream.received)
    upstream.respond(lambda _: Reply(OK.body, wait_s=1.0))

    await asyncio.sleep(1.0)
    asked_meanwhile = len(upstream.received) - asked_at_once
    answers = await asyncio.gather(*asking)

    assert asked_meanwhile == 1
    assert [answer.status for answer in answers] == [200] * 8


async def test_no_call_waits_for_a_cooldown_where_none_is_to_be_made_again(
    upstream: Upstream, gateway: StartGateway, ask: Ask
) -> None:
    upstream.script(Reply(b"{}", 429, headers={"retry-after": "1"}))
    running = await gateway(section(upstream), "--retries", "0", attempts=DEFAULTS)

    answers = [await ask(running) for _ in range(2)]

    assert [(answer.status, answer.headers["retry-after"]) for answer in answers] == [(429, "1"), (503, "1")]


async def test_a_probe_revives_an_upstream_that_nobody_asks(
    upstream: Upstream, gateway: StartGateway, ask: Ask, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", 401))
    running = await gateway(section(upstream, "probe-interval = 1"), attempts=DEFAULTS)
    await ask(running)

    async def is_ready() -> bool:
        async with http.get(running.url + "/ready") as response:
            return response.status == 200

    before = await is_ready()
    upstream.script(Reply(b'{"data":[{"id":"m"}]}'))
    await wait_for(is_ready)

    assert not before
    assert [(received.method, received.target) for received in upstream.received] == [
        ("POST", CHAT),
        ("GET", "/v1/models"),
    ]
    assert (await ask(running)).status == 200


# Conversations that are too long.


WINDOWS = (
    "[model small]\ntargets = a/small\ncontext-tokens = 8000\n"
    "[model smaller]\ntargets = b/smaller\ncontext-tokens = 4000\n"
)


@pytest.mark.parametrize(
    ("last", "lines"), [("large", "[model large]\ntargets = c/large\ncontext-tokens = 200000\n"), ("unknown", "")]
)
async def test_what_is_too_long_for_one_goes_to_one_with_a_larger_or_unknown_window(
    last: str, lines: str, upstream: Upstream, make: MakeUpstream, gateway: StartGateway, ask: Ask
) -> None:
    smaller, large = await make(), await make()
    upstream.script(Reply(FULL, 400))
    ini = section(upstream, name="a") + section(smaller, name="b") + section(large, name="c")
    running = await gateway(ini + WINDOWS + lines + model(f"a/small, b/smaller, c/{last}"), attempts=DEFAULTS)

    answer = await ask(running)

    assert (answer.status, answer.upstream, answer.attempts) == (200, "c", 2)
    assert smaller.received == []


async def test_what_is_too_long_for_all_is_told_in_the_words_of_the_upstream(
    upstream: Upstream, make: MakeUpstream, gateway: StartGateway, ask: Ask
) -> None:
    smaller = await make()
    upstream.script(Reply(FULL, 400))
    ini = section(upstream, name="a") + section(smaller, name="b")
    running = await gateway(ini + WINDOWS + model("a/small, b/smaller"), attempts=DEFAULTS)

    answer = await ask(running)

    assert (answer.status, answer.attempts) == (400, 1)
    assert answer.body["error"]["code"] == "context_length_exceeded"
    assert smaller.received == []
