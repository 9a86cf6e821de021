"""The official SDKs as callers, one class a format, with a common view of what they ask and get."""

from tests.http.callers.anthropic import AnthropicCaller
from tests.http.callers.gemini import GeminiCaller
from tests.http.callers.openai_chat import ChatCaller
from tests.http.callers.openai_responses import ResponsesCaller
from tests.http.callers.view import NOTHING_MORE, Answer, Ask, Called, Caller, File, Problem, Result, Tool, Usage

__all__ = [
    "CALLERS",
    "NOTHING_MORE",
    "Answer",
    "Ask",
    "Called",
    "Caller",
    "File",
    "Problem",
    "Result",
    "Tool",
    "Usage",
]

CALLERS: tuple[type[Caller], ...] = (ChatCaller, ResponsesCaller, AnthropicCaller, GeminiCaller)
