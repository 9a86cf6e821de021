"""Scripted vendors, as strict as the real ones: ``upstream.respond(anthropic_vendor())``.

They refuse what the real ones refuse, with a message that names the rule and the JSON path, and remember it in
``refusals``. What they answer is decided by what the user said last:

- ``call TOOL``, ``call TOOL with {"city":"Oslo"}``: calls tools that were offered, in parallel where there are several
- behind tool results: ``The tools said: ...``; what was seen is named: ``I saw an image (image/png, 68 bytes).``
- ``think``: thinks first, where thinking is on, as it does before calls; ``redacted``: and does not show it
- ``json``: nothing special, but where JSON is asked for it fits the schema
- ``refuse``, ``long`` (ends for length), ``stop sequence``
- ``error 429`` or any other status; ``error mid-stream``; ``cut``
- anything else: ``You said: ...``

What costs how many tokens, see `scene`. *decide* replaces all of that by a function of one's own.
"""

from tests.vendors.anthropic import AnthropicVendor
from tests.vendors.gemini import GeminiVendor
from tests.vendors.openai import OpenAIVendor
from tests.vendors.scene import Answer, Call, Decide, Media, Prompt, decide
from tests.vendors.vendor import KEY, Refused, Vendor

__all__ = [
    "KEY",
    "Answer",
    "AnthropicVendor",
    "Call",
    "Decide",
    "GeminiVendor",
    "Media",
    "OpenAIVendor",
    "Prompt",
    "Refused",
    "Vendor",
    "anthropic_vendor",
    "decide",
    "gemini_vendor",
    "openai_vendor",
]


def openai_vendor(decide: Decide = decide, key: str = KEY) -> OpenAIVendor:
    return OpenAIVendor(decide, key)


def anthropic_vendor(decide: Decide = decide, key: str = KEY) -> AnthropicVendor:
    return AnthropicVendor(decide, key)


def gemini_vendor(decide: Decide = decide, key: str = KEY) -> GeminiVendor:
    return GeminiVendor(decide, key)
