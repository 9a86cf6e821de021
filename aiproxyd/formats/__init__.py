"""The wire formats. A new one is one file here and one name in FORMATS."""

import re
from collections.abc import Mapping
from typing import Final

from aiproxyd.formats.anthropic import Anthropic
from aiproxyd.formats.base import Format
from aiproxyd.formats.gemini import Gemini
from aiproxyd.formats.openai_chat import OpenAIChat
from aiproxyd.formats.openai_responses import OpenAIResponses

OPENAI_CHAT: Final = OpenAIChat()
OPENAI_RESPONSES: Final = OpenAIResponses()
ANTHROPIC: Final = Anthropic()
GEMINI: Final = Gemini()

FORMATS: Final[dict[str, Format]] = {fmt.name: fmt for fmt in (OPENAI_CHAT, OPENAI_RESPONSES, ANTHROPIC, GEMINI)}

_GEMINI_METHOD: Final = re.compile(r":[a-z]+[A-Z][A-Za-z]*$")
"""``:generateContent`` and its like; ``:8b`` and ``:latest`` are part of a model's name."""


def format_of_caller(path: str, headers: Mapping[str, str]) -> Format:
    """Return the format that a caller speaks, by its path and, where several share one, by the headers of its SDK."""
    if path.startswith(("/v1/chat/", "/v1/embeddings", "/v1/completions")):
        return OPENAI_CHAT
    if path.startswith("/v1/responses"):
        return OPENAI_RESPONSES
    if path.startswith("/v1/messages"):
        return ANTHROPIC
    if path.startswith(("/v1beta", "/v1alpha")) or "x-goog-api-key" in headers or "x-goog-api-client" in headers:
        return GEMINI
    if "anthropic-version" in headers:
        return ANTHROPIC
    if path.startswith("/v1/models/") and _GEMINI_METHOD.search(path):
        return GEMINI
    return OPENAI_CHAT
