"""How each target is asked: what the conversion and the clean-up themselves do is tested with them, and over HTTP."""

import aiohttp
import msgspec
import pytest
from multidict import CIMultiDict
from yarl import URL

from aiproxyd.asking import Interpreter
from aiproxyd.attempt import Kind, Request
from aiproxyd.config import ModelSettings, Target, TimeLimits, UpstreamSettings
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import FORMATS
from aiproxyd.keyring import ANONYMOUS
from aiproxyd.providers import PROVIDERS
from aiproxyd.providers.base import Provider
from aiproxyd.routing.catalogue import Catalogue

LIMITS = TimeLimits(connect_s=1, first_event_s=1, idle_s=1, request_s=1)
ASKED = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def interpreter() -> Interpreter:
    providers: dict[str, Provider] = {}
    for name, kind in (("chat", "openai"), ("messages", "anthropic")):
        settings = UpstreamSettings(name=name, provider=kind, base_url=URL("http://127.0.0.1:1"), limits=LIMITS)
        providers[name] = PROVIDERS[kind](settings, aiohttp.ClientSession(), "mark")
        await providers[name]._session.close()
    section = ModelSettings(name="small", targets=(Target("chat", "small"),), capabilities={"context_tokens": 8})
    return Interpreter(Catalogue((section,), providers), providers)


def make(fmt: str, path: str, kind: Kind = "generate", body: object = ASKED) -> Request:
    return Request(
        fmt=FORMATS[fmt],
        model="m",
        path=path,
        query="",
        headers=CIMultiDict(),
        body=msgspec.json.encode(body),
        kind=kind,
    )


def test_a_target_of_the_same_format_gets_the_callers_bytes(interpreter: Interpreter) -> None:
    request = make("openai-chat", "/v1/chat/completions")

    asking = interpreter.ask(request, Target("chat", "m"), ANONYMOUS)

    assert asking.call is not None
    assert asking.call.body == request.body
    assert (asking.is_converted, asking.crossing, asking.dropped) == (False, None, [])


def test_a_target_of_another_format_gets_its_own_and_what_is_lost_is_named(interpreter: Interpreter) -> None:
    request = make("openai-chat", "/v1/chat/completions", body={**ASKED, "seed": 7})

    asking = interpreter.ask(request, Target("messages", "claude"), ANONYMOUS)

    assert asking.call is not None
    assert asking.call.path == "/v1/messages"
    assert asking.dropped == ["seed"]
    assert asking.is_converted
    assert not asking.is_local


@pytest.mark.parametrize(("upstream", "fmt", "is_local"), [("chat", "anthropic", True), ("messages", "gemini", False)])
def test_tokens_are_counted_here_where_the_target_cannot(
    upstream: str, fmt: str, is_local: bool, interpreter: Interpreter
) -> None:
    body = {"contents": [{"parts": [{"text": "hi"}]}]} if fmt == "gemini" else ASKED
    request = make(fmt, "/v1/messages/count_tokens", "count", body)

    assert interpreter.ask(request, Target(upstream, "m"), ANONYMOUS).is_local is is_local


def test_what_only_one_vendor_has_cannot_be_asked_of_another(interpreter: Interpreter) -> None:
    request = make("gemini", "/v1beta/models/{model}:predict", "other")

    with pytest.raises(InvalidRequest, match="no such method"):
        interpreter.ask(request, Target("chat", "m"), ANONYMOUS)


def test_the_window_of_a_target_is_that_of_its_own_name(interpreter: Interpreter) -> None:
    assert interpreter.find_window(Target("chat", "small")) == 8
    assert interpreter.find_window(Target("chat", "unheard-of")) is None
