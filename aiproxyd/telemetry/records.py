"""What is known about one request while it is served, for its log line and its response headers."""

import time

from aiproxyd.hub import Usage


class CallRecord:
    """One per request; filled in by whoever learns something."""

    __slots__ = (
        "attempts",
        "dropped",
        "error",
        "format",
        "is_started",
        "is_stopped",
        "model",
        "principal",
        "request_id",
        "started_s",
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
        self.upstream_ms: float | None = None
        """From the start of the last attempt to the first byte of its answer."""
        self.dropped: list[str] = []
        """What the conversion could not carry."""
        self.usage: Usage | None = None
        self.error = ""
        """Code of the error that ended the call, also where it came in band."""
        self.is_started = False
        """Whether the response's headers are on their way, so that no other answer can be given."""

        self.is_stopped = False
        """Whether it was cancelled by us, because the daemon stops, and not by its caller's leaving."""

    @property
    def elapsed_ms(self) -> float:
        """Time since the request came in."""
        return (time.perf_counter() - self.started_s) * 1000
