"""What can be measured, and by whom."""

import hashlib

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import StartGateway
from tests.support import Gateway, Received, Reply, Upstream

OK = Reply(b'{"ok":1}')
KEY = f"[key someone]\nsecret = sha256:{hashlib.sha256(b'sk-someone').hexdigest()}\n"


def section(upstream: Upstream, lines: str = "", keys: str = "sk-1", name: str = "up") -> str:
    return f"[upstream {name}]\nprovider = openai\nbase-url = {upstream.url}/v1\napi-key = {keys}\n{lines}\n"


async def measure(http: aiohttp.ClientSession, running: Gateway) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return the numbers by name and values of the labels; those come in the order of the labels' names."""
    async with http.get(running.url + "/metrics") as response:
        assert response.status == 200
        text = await response.text()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def ask(
    http: aiohttp.ClientSession, running: Gateway, path: str = "/v1/chat/completions", **members: object
) -> int:
    async with http.post(running.url + path, json={"model": "m", **members}) as response:
        await response.read()
        return response.status


@pytest.mark.parametrize(
    ("ini", "flags", "key", "status"),
    [
        (KEY, (), None, 401),
        (KEY, (), "sk-nobody", 401),
        (KEY, (), "sk-someone", 200),
        (KEY, ("--metrics-access", "open"), None, 200),
        ("", (), None, 200),
    ],
    ids=["no key", "wrong key", "key", "open", "loopback without keys"],
)
async def test_whoever_may_call_may_read_the_metrics_and_others_where_that_is_allowed(
    ini: str, flags: tuple[str, ...], key: str | None, status: int, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(ini, "--demo", *flags)
    headers = {"Authorization": f"Bearer {key}"} if key else {}

    async with http.get(running.url + "/metrics", headers=headers) as response:
        text = await response.text()

    assert response.status == status
    assert response.headers["Content-Type"].startswith(
        "text/plain; version=0.0.4" if status == 200 else "application/json"
    )
    assert ("aiproxyd_" in text) == (status == 200)


@pytest.mark.parametrize("access", ["key", "open"])
async def test_calls_need_their_key_whoever_may_read_the_metrics(
    access: str, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(KEY, "--demo", "--metrics-access", access)

    assert await ask(http, running) == 401
    async with http.post(running.url + "/metrics") as response:
        assert response.status == 401


async def test_attempts_are_counted_by_what_came_of_them(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    def respond(received: Received) -> Reply:
        return Reply(b"{}", 401) if received.headers["Authorization"] == "Bearer sk-1" else replies.pop(0)

    replies = [OK, Reply(b"{}", 400), Reply(b"<html>"), Reply(b"{}", 503), OK, Reply(b"{}", 429)]
    upstream.respond(respond)
    running = await gateway(section(upstream, keys="sk-1, sk-2"), attempts=("--retries", "1", "--max-retry-wait", "1"))

    statuses = [await ask(http, running) for _ in range(4)]
    statuses += [await ask(http, running, "/v1/moderations")]

    measured = await measure(http, running)
    attempts = {labels[0]: count for (name, labels), count in measured.items() if name == "aiproxyd_attempts_total"}
    assert statuses == [200, 400, 502, 200, 429]
    assert attempts == {"key": 1, "ok": 2, "request": 1, "silent": 1, "failing": 1, "limit": 1}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/moderations"])
async def test_an_attempt_is_counted_once(
    path: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    """An answer that broke off on a path that is only relayed counted as good as well."""
    upstream.script(Reply(b'{"half":', cut=True), OK)
    running = await gateway(section(upstream), attempts=())

    status = await ask(http, running, path)

    measured = await measure(http, running)
    attempts = {labels[0]: count for (name, labels), count in measured.items() if name == "aiproxyd_attempts_total"}
    assert status == 200
    assert attempts == {"failing": 1, "ok": 1}


async def test_what_was_never_sent_is_no_attempt(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    """It was counted as one whose caller had left."""
    upstream.script(OK)
    running = await gateway(section(upstream))

    status = await ask(http, running, "/v1/messages", messages="none")

    assert status == 400
    assert [labels for name, labels in await measure(http, running) if name == "aiproxyd_attempts_total"] == []


async def test_what_rests_is_shown_and_for_how_long(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    def respond(received: Received) -> Reply:
        if received.headers["Authorization"] == "Bearer sk-1":
            return Reply(b"{}", 401)
        return Reply(b"{}", 429, headers={"retry-after": "40"})

    upstream.respond(respond)
    running = await gateway(
        section(upstream, "max-concurrency = 2", keys="sk-1, sk-2") + section(upstream, name="b", lines="models = b"),
        attempts=(),
    )
    before = await measure(http, running)
    await ask(http, running, model="up/m")

    measured = await measure(http, running)

    rests = {labels: left_s for (name, labels), left_s in measured.items() if name == "aiproxyd_cooldown_seconds"}
    assert rests.keys() == {("1", "", "up"), ("2", "m", "up")}
    assert 59 <= rests["1", "", "up"] <= 60
    assert 39 <= rests["2", "m", "up"] <= 40
    assert [name for name, _ in before if name == "aiproxyd_cooldown_seconds"] == []
    assert measured["aiproxyd_upstream_usable", ("up",)] == 0.0  # neither of its keys has been of use
    assert measured["aiproxyd_upstream_running", ("up",)] == 0.0
    assert measured["aiproxyd_upstream_waiting", ("up",)] == 0.0
    assert ("aiproxyd_upstream_running", ("b",)) not in measured


async def test_an_upstream_that_may_not_be_asked_is_shown_as_such(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", 401))
    running = await gateway(section(upstream), attempts=())
    before = await measure(http, running)
    await ask(http, running)

    after = await measure(http, running)

    assert before["aiproxyd_upstream_usable", ("up",)] == 1.0
    assert after["aiproxyd_upstream_usable", ("up",)] == 0.0
