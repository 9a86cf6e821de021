"""Anthropic and what speaks its Messages API."""

from typing import Final

from typing_extensions import override

from aiproxyd.config import Secret
from aiproxyd.providers.base import Provider

DEFAULT_VERSION: Final = "2023-06-01"
"""The ``anthropic-version`` of callers that send none: https://docs.anthropic.com/en/api/versioning."""


class AnthropicProvider(Provider):
    """Upstreams whose base URL ends where ``/v1/messages`` follows; one that names ``/v1`` itself is understood too."""

    name = "anthropic"
    formats = ("anthropic",)
    models_path = "/v1/models?limit=1000"
    model_prefixes = ("claude-",)
    defaults = {"anthropic-version": DEFAULT_VERSION}  # noqa: RUF012  # read only

    @override
    def credential(self, key: Secret) -> dict[str, str]:
        return {"x-api-key": key.reveal()}

    @override
    def url(self, path: str) -> str:
        return self._base.removesuffix("/v1") + path
