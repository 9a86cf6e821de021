"""Gemini's token counts: https://ai.google.dev/api/generate-content#UsageMetadata. Sans-I/O."""

from typing import Final

import msgspec
from msgspec import Raw, Struct, structs

from aiproxyd.formats.base import Tokens, decode_view
from aiproxyd.hub import Usage


class UsageMetadata(Struct, rename="camel", omit_defaults=True):
    """Counts of one answer; cumulative in a stream."""

    prompt_token_count: Tokens | None = None
    """What was read from a cache included, the results of server tools not."""
    cached_content_token_count: Tokens | None = None
    candidates_token_count: Tokens | None = None
    """Without the thoughts, except on some backends."""
    thoughts_token_count: Tokens | None = None
    tool_use_prompt_token_count: Tokens | None = None
    total_token_count: Tokens | None = None


_usage: Final = msgspec.json.Decoder(UsageMetadata | None)


def read_usage(raw: Raw) -> Usage | None:
    """Return the counts in disjoint buckets; None where there are none, or they are misshapen."""
    metadata = decode_view(_usage, raw)
    return to_usage(metadata) if metadata is not None else None


def merge_metadata(before: UsageMetadata | None, now: UsageMetadata) -> UsageMetadata:
    """Return the counts so far: those that *now* leaves out keep their value."""
    if before is None or now.prompt_token_count is not None:
        return now  # it has them all, as nearly always
    told = {name: value for name, value in structs.asdict(now).items() if value is not None}
    return structs.replace(before, **told)


def to_usage(metadata: UsageMetadata) -> Usage:
    """Return the counts in disjoint buckets."""
    prompt = (metadata.prompt_token_count or 0) + (metadata.tool_use_prompt_token_count or 0)
    candidates, thoughts = metadata.candidates_token_count, metadata.thoughts_token_count or 0
    if candidates is None and metadata.total_token_count is not None:
        output = max(metadata.total_token_count - prompt, 0)
    elif metadata.total_token_count == prompt + (candidates or 0):
        # Some backends count the thoughts inside the candidates: then the total leaves no room for them.
        output = candidates or 0
    else:
        output = (candidates or 0) + thoughts
    return Usage(
        input_tokens=max(prompt - (metadata.cached_content_token_count or 0), 0),
        cache_read_tokens=metadata.cached_content_token_count,
        output_tokens=output,
        reasoning_tokens=metadata.thoughts_token_count,
    )


def write_usage(usage: Usage | None) -> UsageMetadata:
    """Return *usage* in Gemini's words; zeros where nothing is known."""
    usage = usage or Usage()
    prompt, output = usage.total_input_tokens, usage.output_tokens or 0
    return UsageMetadata(
        prompt_token_count=prompt,
        cached_content_token_count=usage.cache_read_tokens,
        candidates_token_count=max(output - (usage.reasoning_tokens or 0), 0),
        thoughts_token_count=usage.reasoning_tokens,
        total_token_count=prompt + output,
    )
