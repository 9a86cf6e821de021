"""Where each conversation was answered last, because there the vendor's prompt cache is warm. Sans-I/O."""

from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

from aiproxyd.routing.health import MAX_MODEL_CHARS, Candidate

MAX_CONVERSATIONS: Final = 10_000
"""Conversations that are remembered: 3 MB where configured models answer them, 6 MB where callers name the models in
as many characters as are remembered, 14 MB where these take four bytes each."""

_SESSION_HEADERS: Final = (
    "x-claude-code-session-id",
    "session_id",
    "session-id",
    "x-session-affinity",
    "x-session-id",
    "conversation_id",
    "conversation-id",
    "thread_id",
    "thread-id",
)
"""What Claude Code, Codex and opencode name their sessions in."""


class Affinity:
    """The conversations of the last minutes; one for the application."""

    def __init__(self, ttl_s: float) -> None:
        """Remember each conversation for *ttl_s* after its last answer; not at all where that is 0."""
        self.ttl_s = ttl_s
        self._seen: OrderedDict[bytes, tuple[Candidate, float]] = OrderedDict()

    def find(self, conversation: bytes, now: float) -> Candidate | None:
        """Return where *conversation* was answered last."""
        seen = self._seen.get(conversation)
        return seen[0] if seen is not None and seen[1] > now else None

    def keep(self, conversation: bytes, candidate: Candidate, now: float) -> None:
        """Note that *candidate* answers *conversation*, but for one whose model has a very long name."""
        if len(candidate.target.model) > MAX_MODEL_CHARS:
            self._seen.pop(conversation, None)
            return
        self._seen[conversation] = candidate, now + self.ttl_s
        self._seen.move_to_end(conversation)
        if len(self._seen) > MAX_CONVERSATIONS:
            self._seen.popitem(last=False)


def find_session(headers: Mapping[str, str]) -> bytes:
    """Return the name that a client gives its session in a header; empty where it gives none."""
    return next((headers[name].encode("utf-8", "replace") for name in _SESSION_HEADERS if headers.get(name)), b"")


def name_conversation(principal: str, model: str, said: bytes) -> bytes:
    """Return what a conversation is remembered by; *said* is the same in all of its requests."""
    digest = blake2b(digest_size=16)
    for part in (principal.encode(), model.encode("utf-8", "replace"), said):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()
