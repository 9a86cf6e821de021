"""What holds for every provider, and where each finds what."""

import aiohttp
import pytest
from multidict import CIMultiDict
from yarl import URL

from aiproxyd.config import Secret, TimeLimits, UpstreamSettings
from aiproxyd.formats import FORMATS
from aiproxyd.providers import PROVIDERS
from aiproxyd.providers.base import Call, Provider
from tests.support import Reply, Upstream

LIMITS = TimeLimits(connect_s=5, first_event_s=5, idle_s=5, request_s=5)


def make(name: str, base_url: str, session: aiohttp.ClientSession, *keys: str) -> Provider:
    settings = UpstreamSettings(
        name="up", provider=name, base_url=URL(base_url), api_keys=tuple(map(Secret, keys)), limits=LIMITS
    )
    return PROVIDERS[name](settings, session, "1.1 mark")


@pytest.mark.parametrize(
    ("name", "base_url", "path", "url"),
    [
        ("openai", "https://host/v1", "/v1/chat/completions", "https://host/v1/chat/completions"),
        ("openai", "https://host/openai/v1", "/v1/audio/speech", "https://host/openai/v1/audio/speech"),
        ("openai", "https://host", "/v1/embeddings", "https://host/embeddings"),
        ("anthropic", "https://host", "/v1/messages", "https://host/v1/messages"),
        ("anthropic", "https://host/v1", "/v1/messages", "https://host/v1/messages"),
        ("anthropic", "https://host/anthropic", "/v1/messages", "https://host/anthropic/v1/messages"),
        ("gemini", "https://host", "/v1beta/models/m:countTokens", "https://host/v1beta/models/m:countTokens"),
        ("gemini", "https://host", "/v1beta1/publishers/google/models/m:x", "https://host/v1beta/models/m:x"),
    ],
)
async def test_a_path_of_ours_is_found_at_the_upstream(
    name: str, base_url: str, path: str, url: str, http: aiohttp.ClientSession
) -> None:
    assert make(name, base_url, http).url(path) == url


@pytest.mark.parametrize(
    ("name", "header", "value"),
    [("openai", "Authorization", "Bearer k"), ("anthropic", "x-api-key", "k"), ("gemini", "x-goog-api-key", "k")],
)
async def test_the_key_travels_in_the_providers_own_header(
    name: str, header: str, value: str, http: aiohttp.ClientSession
) -> None:
    assert make(name, "https://host", http).credential(Secret("k")) == {header: value}


async def test_a_call_carries_the_key_that_it_is_told_and_none_means_no_header(
    upstream: Upstream, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}"))
    rich = make("openai", upstream.url, http, "a", "b")
    keyless = make("openai", upstream.url, http)

    for provider, key in ((rich, 0), (rich, 1), (rich, 0), (keyless, 0)):
        answer = await provider.send(Call(path="/v1/x", headers=CIMultiDict(), body=b""), 1e9, key)
        answer.close()

    keys = [received.headers.get("Authorization") for received in upstream.received]
    assert keys == ["Bearer a", "Bearer b", "Bearer a", None]


async def test_our_mark_is_added_to_the_via_of_the_caller(upstream: Upstream, http: aiohttp.ClientSession) -> None:
    upstream.script(Reply(b"{}"))
    provider = make("openai", upstream.url, http)

    answer = await provider.send(Call(path="/v1/x", headers=CIMultiDict(Via="1.0 fred"), body=b""), deadline=1e9)
    answer.close()

    assert upstream.received[0].headers["Via"] == "1.0 fred, 1.1 mark"


async def test_an_anthropic_version_is_sent_in_any_case(upstream: Upstream, http: aiohttp.ClientSession) -> None:
    upstream.script(Reply(b"{}"))
    provider = make("anthropic", upstream.url, http)

    for headers in (CIMultiDict[str](), CIMultiDict({"anthropic-version": "2026-10-21"})):
        answer = await provider.send(Call(path="/v1/messages", headers=headers, body=b""), deadline=1e9)
        answer.close()

    versions = [received.headers["anthropic-version"] for received in upstream.received]
    assert versions == ["2023-06-01", "2026-10-21"]


async def test_all_lines_of_via_are_kept(upstream: Upstream, http: aiohttp.ClientSession) -> None:
    # Only the first line used to be.
    upstream.script(Reply(b"{}"))
    provider = make("openai", upstream.url, http)
    headers = CIMultiDict([("Via", "1.0 fred"), ("Via", "1.1 nginx, 1.1 other")])

    answer = await provider.send(Call(path="/v1/x", headers=headers, body=b""), deadline=1e9)
    answer.close()

    assert upstream.received[0].headers.getall("Via") == ["1.0 fred, 1.1 nginx, 1.1 other, 1.1 mark"]


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_says_what_it_speaks(name: str) -> None:
    provider = PROVIDERS[name]

    assert provider.name == name
    assert set(provider.formats) <= set(FORMATS)
    assert provider.__doc__
