"""What is known about one request while it is served, for its log line and its response headers."""

import time
from typing import NamedTuple

from aiproxyd.hub import Usage


class Try(NamedTuple):
    """One attempt to have a call answered."""

    upstream: str
    model: str
    """As the upstream names it."""
    key: int
    """Number of the upstream's key, from 0."""
    outcome: str
    """``ok`` for an answer that began well, ``left`` where nothing came of it, as when the caller went away, else what
    went wrong."""
    ms: float
    usage: Usage | None = None
    """What a failed attempt cost all the same, where that is known or can be estimated."""
    is_usage_estimated: bool = False


class CallRecord:
    """One per request; filled in by whoever learns something."""

    __slots__ = (
        "age_s",
        "attempts",
        "cache",
        "cache_status",
        "dropped",
        "error",
        "format",
        "is_started",
        "is_stopped",
        "is_usage_estimated",
        "model",
        "principal",
        "request_id",
        "saved",
        "started_s",
        "tries",
        "upstream",
        "upstream_model",
        "upstream_ms",
        "usage",
    )

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.started_s = time.perf_counter()
        self.principal = "-"
        self.format = ""
        """Name of the format that the answer is written in, where it is known."""
        self.model = ""
        """As the caller named it."""
        self.upstream = ""
        self.upstream_model = ""
        self.attempts = 0
        self.tries: list[Try] = []
        """The story of the attempts."""
        self.upstream_ms: float | None = None
        """From the start of the last attempt to the first byte of its answer."""
        self.dropped: list[str] = []
        """What the conversion could not carry."""
        self.usage: Usage | None = None
        self.is_usage_estimated = False
        """Whether the usage is our estimate, because the answer was left before the upstream said."""
        self.cache = ""
        """What the cache did for the call: hit, collapsed, miss, bypass, absent; empty where there is none."""
        self.cache_status = ""
        """The same for the caller: https://www.rfc-editor.org/rfc/rfc9211.html."""
        self.age_s: int | None = None
        """How old the answer is that was in the cache."""
        self.saved: Usage | None = None
        """What the call would have cost."""
        self.error = ""
        """Code of the error that ended the call, also where it came in band."""
        self.is_started = False
        """Whether the response's headers are on their way, so that no other answer can be given."""

        self.is_stopped = False
        """Whether it was cancelled by us, because the daemon stops, and not by its caller's leaving."""

    def begin_attempt(self, upstream: str, model: str) -> None:
        """Note that an upstream is being asked for *model*, as it names that."""
        self.attempts += 1
        self.upstream, self.upstream_model = upstream, model

    @property
    def elapsed_ms(self) -> float:
        """Time since the request came in."""
        return (time.perf_counter() - self.started_s) * 1000
