"""OpenAI and everything that speaks its API: Ollama, vLLM, llama.cpp, LM Studio, Groq, OpenRouter, ..."""

from typing_extensions import override

from aiproxyd.config import Secret
from aiproxyd.providers.base import Provider


class OpenAIProvider(Provider):
    """Upstreams whose base URL ends where ``/chat/completions`` follows, mostly with ``/v1``."""

    name = "openai"
    formats = ("openai-chat", "openai-responses")
    model_prefixes = ("gpt-", "o1", "o3", "o4", "chatgpt-", "text-embedding-", "dall-e-", "whisper-", "tts-", "codex-")

    @override
    def credential(self, key: Secret) -> dict[str, str]:
        return {"Authorization": f"Bearer {key.reveal()}"}

    @override
    def url(self, path: str) -> str:
        return self._base + "/" + path.removeprefix("/v1/")
