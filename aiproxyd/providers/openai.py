"""OpenAI and everything that speaks its API: Ollama, vLLM, llama.cpp, LM Studio, Groq, OpenRouter, ..."""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from msgspec.structs import replace
from typing_extensions import override

from aiproxyd.capabilities import Capabilities
from aiproxyd.config import Secret, UpstreamSettings
from aiproxyd.errors import InvalidRequest
from aiproxyd.hub import Request
from aiproxyd.providers.base import Provider, Session

CHAT: Final = "openai-chat"
RESPONSES: Final = "openai-responses"

_FIRST_PARTY_HOSTS: Final = ("api.openai.com", ".openai.azure.com", ".cognitiveservices.azure.com")
_SPOKEN: Final = {"chat": (CHAT,), "responses": (RESPONSES,)}


class OpenAIProvider(Provider):
    """Upstreams whose base URL ends where ``/chat/completions`` follows, mostly with ``/v1``."""

    name = "openai"
    formats = (CHAT, RESPONSES)
    model_prefixes = ("gpt-", "o1", "o3", "o4", "chatgpt-", "text-embedding-", "dall-e-", "whisper-", "tts-", "codex-")

    def __init__(self, settings: UpstreamSettings, session: Session, mark: str) -> None:
        super().__init__(settings, session, mark)
        self._is_first_party = is_first_party(settings)
        # Most compatible servers have no /responses, or only a part of it.
        both = self.formats if self._is_first_party else (CHAT,)
        self.can_count = self._is_first_party
        if self._is_first_party:
            # Servers that speak like OpenAI invented it, and so do we; OpenAI refuses it.
            self.marks = (b'"reasoning_content"',)
        self.spoken = _SPOKEN.get(settings.api, both)

    @override
    def credential(self, key: Secret) -> dict[str, str]:
        return {"Authorization": f"Bearer {key.reveal()}"}

    @override
    def url(self, path: str) -> str:
        return self._base + "/" + path.removeprefix("/v1/")

    @override
    def choose_format(self, fmt: str, capabilities: Capabilities, body: bytes, decode: Callable[[], Request]) -> str:
        if len(self.spoken) == 1 or fmt == RESPONSES:
            return super().choose_format(fmt, capabilities, body, decode)
        if fmt != CHAT:
            return RESPONSES if _is_for_responses(decode(), capabilities) else CHAT
        if not capabilities.needs_responses_for_tools or b'"tools"' not in body:
            return CHAT
        try:
            return RESPONSES if _is_refused_by_chat(decode(), capabilities) else CHAT
        except InvalidRequest:
            return CHAT  # what we do not understand, the upstream may

    @override
    def find_capabilities(self, model: str, fmt: str) -> Capabilities:
        capabilities = super().find_capabilities(model, fmt)
        return capabilities if self._is_first_party else _imitate(capabilities)


def is_first_party(settings: UpstreamSettings) -> bool:
    """Tell whether an upstream is OpenAI itself, or OpenAI at Azure, and not what speaks like it."""
    if settings.flavour != "auto":
        return settings.flavour == "first-party"
    return (settings.base_url.host or "").endswith(_FIRST_PARTY_HOSTS)


@lru_cache(maxsize=256)
def _imitate(capabilities: Capabilities) -> Capabilities:
    """Return what is left of *capabilities* where a server imitates the API: the older names and nothing special."""
    return replace(
        capabilities,
        has_developer_role=False,
        has_max_completion_tokens=False,
        has_custom_tools=False,
        needs_object_output=False,
        has_metadata=True,
        needs_responses_for_tools=False,
    )


def _is_for_responses(asked: Request, capabilities: Capabilities) -> bool:
    """Tell whether the Responses API serves *asked* better: thoughts survive there, and chat's own knobs do not."""
    has_stop = capabilities.has_stop and bool(asked.stop)
    has_chat_knobs = asked.candidates > 1 or has_stop or asked.seed is not None
    return capabilities.reasoning != "none" and (not has_chat_knobs or _is_refused_by_chat(asked, capabilities))


def _is_refused_by_chat(asked: Request, capabilities: Capabilities) -> bool:
    """Tell whether chat/completions refuses *asked*: function tools, unless the model is told not to think."""
    has_functions = any(not tool.is_custom for tool in asked.tools)
    return has_functions and capabilities.needs_responses_for_tools and asked.reasoning.mode != "off"
