"""The providers, kinds of upstream services. A new one is one file here and one name in the tuple."""

from typing import Final

from aiproxyd.providers.anthropic import AnthropicProvider
from aiproxyd.providers.base import Provider
from aiproxyd.providers.demo import DemoProvider
from aiproxyd.providers.gemini import GeminiProvider
from aiproxyd.providers.openai import OpenAIProvider

PROVIDERS: Final[dict[str, type[Provider]]] = {
    provider.name: provider for provider in (OpenAIProvider, AnthropicProvider, GeminiProvider, DemoProvider)
}
