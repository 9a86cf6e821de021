"""From the name that was asked for to its targets: who wins, who is asked, and what is said where nobody serves it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aiproxyd.app import open_session
from aiproxyd.config import Target, load_settings
from aiproxyd.errors import UnknownModel
from aiproxyd.globs import compile_globs
from aiproxyd.hub import ModelCard
from aiproxyd.keyring import ANONYMOUS, Principal
from aiproxyd.providers import PROVIDERS
from aiproxyd.routing.catalogue import MAX_REMEMBERED, MAX_REMEMBERED_CHARS, Catalogue
from tests.support import Received, Reply, Upstream, upstream_section

MakeCatalogue = Callable[[str], Coroutine[Any, Any, Catalogue]]

DOWN = "base-url = http://127.0.0.1:9/v1\n"
"""Nobody listens on the discard port."""


@pytest.fixture
async def catalogue(tmp_path: Path) -> AsyncIterator[MakeCatalogue]:
    """Make the catalogue of an INI text, with providers that have real sessions."""
    sessions: list[aiohttp.ClientSession] = []

    async def make(ini: str) -> Catalogue:
        path = tmp_path / "config.ini"
        path.write_text(ini, encoding="utf-8")
        settings = await asyncio.to_thread(load_settings, ["--config", str(path)], {})
        sessions.extend(open_session(upstream) for upstream in settings.upstreams)
        providers = {
            upstream.name: PROVIDERS[upstream.provider](upstream, session, "1.1 test")
            for upstream, session in zip(settings.upstreams, sessions, strict=True)
        }
        return Catalogue(settings.models, providers)

    yield make
    for session in sessions:
        await session.close()


def list_of(*names: str) -> Reply:
    entries = ",".join(f'{{"id":"{name}","object":"model","created":7,"owned_by":"me"}}' for name in names)
    return Reply(f'{{"object":"list","data":[{entries}]}}'.encode())


def section(name: str, lines: str = "models = own-*\n", provider: str = "openai") -> str:
    """Return an upstream that is never asked for its list, unless *lines* say so."""
    return f"[upstream {name}]\nprovider = {provider}\n{lines}"


TWO = section("a") + section("b")


# A [model NAME].


async def test_a_model_section_wins_over_everything(catalogue: MakeCatalogue) -> None:
    ini = section("a", "models = x\n") + section("b") + "[model x]\ntargets = b/y, a/z\n[model a/q]\ntargets = b/q\n"

    found = await catalogue(ini)

    assert (await found.resolve("x", ANONYMOUS)).targets == (Target("b", "y"), Target("a", "z"))
    assert (await found.resolve("a/q", ANONYMOUS)).targets == (Target("b", "q"),)


@pytest.mark.parametrize("is_reversed", [False, True])
async def test_the_most_specific_section_wins_wherever_it_stands(is_reversed: bool, catalogue: MakeCatalogue) -> None:
    names = ["*", "claude-*", "claude-sonnet-*", "claude-sonnet-5", "claude-sonnet-5*", "claude-sonnet-?-fast"]
    sections = [f"[model {name}]\ntargets = a/{number}\n" for number, name in enumerate(names)]

    found = await catalogue(TWO + "".join(reversed(sections) if is_reversed else sections))

    assert (await found.resolve("claude-sonnet-5", ANONYMOUS)).targets == (Target("a", "3"),)
    assert (await found.resolve("claude-sonnet-7-fast", ANONYMOUS)).targets == (Target("a", "5"),)
    assert (await found.resolve("claude-sonnet-5x", ANONYMOUS)).targets == (Target("a", "4"),)
    assert (await found.resolve("claude-sonnet-7", ANONYMOUS)).targets == (Target("a", "2"),)
    assert (await found.resolve("claude-haiku", ANONYMOUS)).targets == (Target("a", "1"),)
    assert (await found.resolve("gpt-5", ANONYMOUS)).targets == (Target("a", "0"),)


async def test_a_target_with_a_star_keeps_the_name_that_was_asked_for(catalogue: MakeCatalogue) -> None:
    found = await catalogue(TWO + "[model claude-*]\ntargets = b/*, a/local\n")

    assert (await found.resolve("claude-4", ANONYMOUS)).targets == (Target("b", "claude-4"), Target("a", "local"))
    assert (await found.resolve("claude-5", ANONYMOUS)).targets == (Target("b", "claude-5"), Target("a", "local"))


async def test_a_pattern_covers_the_whole_name_and_its_case(catalogue: MakeCatalogue) -> None:
    found = await catalogue(TWO + "[model gpt-?]\ntargets = a/x\n")

    assert (await found.resolve("gpt-5", ANONYMOUS)).targets == (Target("a", "x"),)
    for name in ("gpt-55", "xgpt-5", "GPT-5", "gpt-5\n"):
        with pytest.raises(UnknownModel):
            await found.resolve(name, ANONYMOUS)


# UPSTREAM/MODEL.


async def test_an_upstream_can_be_named_in_front_of_the_model(catalogue: MakeCatalogue) -> None:
    found = await catalogue(section("a", "models = b/x\n") + section("b"))

    assert (await found.resolve("b/vendor/m:8b", ANONYMOUS)).targets == (Target("b", "vendor/m:8b"),)
    assert (await found.resolve("b/x", ANONYMOUS)).targets == (Target("b", "x"),)


@pytest.mark.parametrize("name", ["b/", "c/x", "/x", "b"])
async def test_what_only_looks_like_an_upstream_and_a_model_is_none(name: str, catalogue: MakeCatalogue) -> None:
    found = await catalogue(TWO)

    with pytest.raises(UnknownModel):
        await found.resolve(name, ANONYMOUS)


# Who has it.


async def test_an_upstream_has_what_its_patterns_match(catalogue: MakeCatalogue) -> None:
    found = await catalogue(section("a", "models = llama*, gpt-x\n") + section("b", "models = *ama-2, qwen?\n"))

    assert (await found.resolve("llama-2", ANONYMOUS)).targets == (Target("a", "llama-2"),)
    assert (await found.resolve("ollama-2", ANONYMOUS)).targets == (Target("b", "ollama-2"),)
    assert (await found.resolve("qwen3", ANONYMOUS)).targets == (Target("b", "qwen3"),)
    assert (await found.resolve("gpt-x", ANONYMOUS)).targets == (Target("a", "gpt-x"),)


async def test_a_pattern_wins_over_a_prefix_and_over_a_list(upstream: Upstream, catalogue: MakeCatalogue) -> None:
    upstream.script(list_of("gpt-5"))
    ini = section("openai", "") + upstream_section(upstream, "openai", "lister") + section("b", "models = gpt-*\n")

    found = await catalogue(ini)

    assert (await found.resolve("gpt-5", ANONYMOUS)).targets == (Target("b", "gpt-5"),)
    assert upstream.received == []


async def test_an_upstream_without_patterns_has_what_it_lists(upstream: Upstream, catalogue: MakeCatalogue) -> None:
    upstream.script(list_of("qwen3:8b", "claude-clone"))

    found = await catalogue(section("a") + upstream_section(upstream, "openai", "lister"))

    assert (await found.resolve("qwen3:8b", ANONYMOUS)).targets == (Target("lister", "qwen3:8b"),)
    assert (await found.resolve("claude-clone", ANONYMOUS)).targets == (Target("lister", "claude-clone"),)
    assert [request.target for request in upstream.received] == ["/v1/models"]
    assert upstream.received[0].headers["Authorization"] == "Bearer sk-upstream"


async def test_a_list_wins_over_the_prefix_of_the_vendor(upstream: Upstream, catalogue: MakeCatalogue) -> None:
    upstream.script(list_of("gpt-oss:20b"))

    found = await catalogue(section("openai", "") + upstream_section(upstream, "openai", "lister"))

    assert (await found.resolve("gpt-oss:20b", ANONYMOUS)).targets == (Target("lister", "gpt-oss:20b"),)


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("gpt-5-mini", "openai"),
        ("o1", "openai"),
        ("o3-pro", "openai"),
        ("o4-mini", "openai"),
        ("chatgpt-4o-latest", "openai"),
        ("text-embedding-3-small", "openai"),
        ("claude-opus-5", "anthropic"),
        ("gemini-3-flash", "gemini"),
    ],
)
async def test_a_vendor_has_what_its_prefixes_fit(
    name: str, provider: str, upstream: Upstream, catalogue: MakeCatalogue
) -> None:
    upstream.script(list_of())
    # The imitation stands in front; it is asked and has nothing. The vendor need not be asked.
    ini = upstream_section(upstream, provider, "imitation") + section("vendor", "api-key = k\n", provider)

    found = await catalogue(ini)

    assert (await found.resolve(name, ANONYMOUS)).targets == (Target("vendor", name),)
    assert len(upstream.received) == 1


async def test_an_imitation_gets_the_prefixes_of_its_provider_where_the_vendor_is_not_configured(
    upstream: Upstream, catalogue: MakeCatalogue
) -> None:
    upstream.script(Reply(b"no list here", 404))

    found = await catalogue(section("b") + upstream_section(upstream, "openai", "azure"))

    assert (await found.resolve("gpt-5", ANONYMOUS)).targets == (Target("azure", "gpt-5"),)
    with pytest.raises(UnknownModel):
        await found.resolve("claude-5", ANONYMOUS)


async def test_the_only_upstream_has_everything(upstream: Upstream, catalogue: MakeCatalogue) -> None:
    found = await catalogue(upstream_section(upstream, "openai", "one", "models = llama*\n"))

    assert (await found.resolve("anything/at all", ANONYMOUS)).targets == (Target("one", "anything/at all"),)
    assert upstream.received == []


# Nobody has it.


async def test_an_unknown_model_is_refused_with_what_there_is(upstream: Upstream, catalogue: MakeCatalogue) -> None:
    upstream.script(list_of("m1", "m2"))
    ini = section("a", "models = own, own-*\n") + upstream_section(upstream, "openai", "lister")

    found = await catalogue(ini + "[model fast]\ntargets = a/own\n[model f*]\ntargets = a/own\n")

    with pytest.raises(UnknownModel) as caught:
        await found.resolve("nope", ANONYMOUS)
    assert caught.value.message == "there is no model 'nope' here; available: fast, own, m1, m2"
    assert caught.value.param == "$.model"


async def test_what_a_key_may_not_use_is_not_named(catalogue: MakeCatalogue) -> None:
    found = await catalogue(section("a", "models = m1, m2\n") + section("b", "models = n1\n"))
    principal = Principal("kid", compile_globs(["?1"]))

    with pytest.raises(UnknownModel, match=r"available: m1, n1$"):
        await found.resolve("x1", principal)
    with pytest.raises(UnknownModel, match=r"available: none$"):
        await found.resolve("x1", Principal("nobody", compile_globs(["z"])))


async def test_a_long_list_and_a_long_name_are_cut(catalogue: MakeCatalogue) -> None:
    names = [f"m{number}" for number in range(21)]
    found = await catalogue(section("a", f"models = {', '.join(names)}\n") + section("b"))

    with pytest.raises(UnknownModel) as caught:
        await found.resolve("x" * 100_000, ANONYMOUS)

    assert caught.value.message == (
        f"there is no model '{'x' * 200}' here; available: m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, "
        "m13, m14, m15, m16, m17, m18, m19, ..."
    )


# Lists that fail.


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"", 500),
        Reply(b'{"error":{"message":"no"}}', 401),
        Reply(b"<html>", 200, "text/html"),
        Reply(b'{"data":"none"}'),
        Reply(b'{"data":[', cut=True),
        Reply(wait_s=60),
    ],
    ids=["500", "401", "html", "odd", "cut", "hangs"],
)
async def test_a_list_that_fails_counts_as_empty(reply: Reply, upstream: Upstream, catalogue: MakeCatalogue) -> None:
    upstream.script(reply)
    ini = upstream_section(upstream, "openai", "broken", "first-event-timeout = 0.2\n") + section("b")

    found = await catalogue(ini)

    assert (await found.resolve("gpt-5", ANONYMOUS)).targets == (Target("broken", "gpt-5"),)
    assert [card.name for card in await found.cards(ANONYMOUS)] == []
    assert len(upstream.received) == 1


async def test_an_upstream_that_is_down_hinders_nobody(catalogue: MakeCatalogue) -> None:
    found = await catalogue(section("down", DOWN) + section("b", "models = llama, qwen\n"))

    assert (await found.resolve("llama", ANONYMOUS)).targets == (Target("b", "llama"),)
    assert (await found.resolve("down/x", ANONYMOUS)).targets == (Target("down", "x"),)
    assert [card.name for card in await found.cards(ANONYMOUS)] == ["llama", "qwen"]
    with pytest.raises(UnknownModel):
        await found.resolve("nope", ANONYMOUS)


async def test_entries_that_are_none_do_not_spoil_a_list(upstream: Upstream, catalogue: MakeCatalogue) -> None:
    upstream.script(Reply(b'{"data":[{"id":"m1"},{"name":"m2"},7,{"id":"m3","created":null,"owned_by":null}]}'))

    found = await catalogue(upstream_section(upstream, "openai", "odd") + section("b"))

    assert [card.name for card in await found.cards(ANONYMOUS)] == ["m1", "m3"]


# What is remembered.


async def test_a_name_is_looked_up_once(upstream: Upstream, catalogue: MakeCatalogue) -> None:
    upstream.script(list_of("m"))
    found = await catalogue(upstream_section(upstream, "openai", "lister") + section("b"))

    targets = [await found.resolve("m", ANONYMOUS) for _ in range(3)]

    assert targets[2].targets == (Target("lister", "m"),)
    assert targets[2] is targets[1]  # the first answer is asked for again, because a list has come in with it
    assert len(upstream.received) == 1


async def test_names_are_forgotten_before_they_fill_the_memory(catalogue: MakeCatalogue) -> None:
    found = await catalogue(section("one", DOWN))

    for number in range(MAX_REMEMBERED + 10):
        await found.resolve(f"m{number}", ANONYMOUS)
    await found.resolve("x" * (MAX_REMEMBERED_CHARS + 1), ANONYMOUS)

    # There is no other way to see it from outside than to run out of memory.
    remembered = found._remembered
    assert len(remembered) == 10
    assert max(map(len, remembered)) < 10


# Cards.


async def test_the_cards_are_all_names_once_without_patterns(upstream: Upstream, catalogue: MakeCatalogue) -> None:
    upstream.script(list_of("listed", "fast"))
    ini = section("a", "models = own, own-*, fast\n") + upstream_section(upstream, "openai", "lister")

    found = await catalogue(ini + "[model fast]\ntargets = a/own\n[model any-*]\ntargets = a/*\n")
    cards = await found.cards(ANONYMOUS)

    assert [(card.name, card.owner, card.created) for card in cards] == [
        ("fast", "", None),
        ("own", "a", None),
        ("listed", "me", 7),
    ]
    assert bytes(cards[2].raw) == b'{"id":"listed","object":"model","created":7,"owned_by":"me"}'


async def test_the_cards_are_those_that_the_principal_may_use(catalogue: MakeCatalogue) -> None:
    found = await catalogue(section("a", "models = m1, m2, n1\n"))

    cards = await found.cards(Principal("kid", compile_globs(["m*"])))

    assert [card.name for card in cards] == ["m1", "m2"]


async def test_one_card_is_found_by_name(upstream: Upstream, catalogue: MakeCatalogue) -> None:
    upstream.script(list_of("listed"))
    ini = section("a", "models = own-*\n") + upstream_section(upstream, "openai", "lister")
    found = await catalogue(ini + "[model any-*]\ntargets = a/*\n")

    assert (await found.card("listed", ANONYMOUS)).created == 7
    assert await found.card("any-thing", ANONYMOUS) == ModelCard(name="any-thing")
    assert await found.card("own-7", ANONYMOUS) == ModelCard(name="own-7")
    assert await found.card("a/x", ANONYMOUS) == ModelCard(name="a/x")
    with pytest.raises(UnknownModel, match="there is no model 'nope' here; available: listed"):
        await found.card("nope", ANONYMOUS)


@pytest.mark.parametrize("name", ["own-7", "listed"])
async def test_a_card_that_the_principal_may_not_use_is_unknown(
    name: str, upstream: Upstream, catalogue: MakeCatalogue
) -> None:
    upstream.script(list_of("listed"))
    found = await catalogue(section("a", "models = own-*\n") + upstream_section(upstream, "openai", "lister"))

    with pytest.raises(UnknownModel, match="available: none"):
        await found.card(name, Principal("kid", compile_globs(["m*"])))


async def test_every_upstream_is_asked_at_the_same_time(upstream: Upstream, catalogue: MakeCatalogue) -> None:
    def answer(received: Received) -> Reply:
        body = list_of("m").body
        return Reply(chunks=(chunk for chunk in [body] if len(upstream.received) == 2), wait_s=0.1)

    upstream.respond(answer)
    found = await catalogue(upstream_section(upstream, "openai", "x") + upstream_section(upstream, "openai", "y"))

    cards = await found.cards(ANONYMOUS)

    assert [(card.name, card.owner) for card in cards] == [("m", "me")]
