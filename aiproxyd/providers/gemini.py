"""The Gemini API of Google AI Studio."""

from typing import Final

from typing_extensions import override

from aiproxyd.config import Secret
from aiproxyd.providers.base import Provider

_VERTEX_MODELS: Final = "/v1beta1/publishers/google/models"
"""Where SDKs in Vertex mode look for models; the Gemini API has them elsewhere."""


class GeminiProvider(Provider):
    """Upstreams whose base URL ends where ``/v1beta/models`` follows."""

    name = "gemini"
    formats = ("gemini",)
    models_path = "/v1beta/models?pageSize=1000"
    model_prefixes = ("gemini-", "gemma-", "models/gemini-")

    @override
    def credential(self, key: Secret) -> dict[str, str]:
        return {"x-goog-api-key": key.reveal()}

    @override
    def url(self, path: str) -> str:
        if path.startswith(_VERTEX_MODELS):
            path = "/v1beta/models" + path.removeprefix(_VERTEX_MODELS)
        return self._base + path
