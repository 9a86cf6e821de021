"""Everything that can go wrong while a call is served, as one tree. A leaf: imports nothing of ours, does no I/O.

    ProxyError
    ├── CallerError                 the caller can mend it
    │   ├── InvalidRequest          400
    │   ├── KeyRequired             401  no key, or not one of ours
    │   ├── PermissionDenied        403
    │   ├── UnknownModel            404
    │   ├── UnknownPath             404
    │   ├── MethodNotAllowed        405
    │   ├── BodyTimeout             408
    │   ├── BodyTooLarge            413
    │   ├── UpgradeRequired         426
    │   ├── NotCached               504  the cache has no answer, and no upstream was to be asked
    │   └── LoopDetected            508  a request of our own came back to us
    ├── UpstreamError               an upstream did not do its part
    │   ├── UpstreamUnavailable     502  refused, unreachable, TLS failed
    │   ├── UpstreamTimeout         504  silent for too long
    │   ├── UpstreamCut             502  ended in the middle of its answer
    │   ├── UpstreamGarbage         502  answered what its API does not allow
    │   ├── UpstreamKeyRefused      502  our credential was refused: never the caller's 401
    │   ├── UpstreamBusy            503  as many calls as we allow ourselves are there already
    │   └── UpstreamRefusal              an error answer; status and text are the upstream's
    ├── NotReady                    503  no upstream is usable
    ├── ShuttingDown                503  the daemon stops, and this call took longer than it could wait
    └── InternalError               500  a bug of ours

Status and kind belong to the class; only UpstreamRefusal takes them from what the upstream said.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal, Self

Kind = Literal[
    "invalid_request",
    "authentication",
    "billing",
    "permission",
    "not_found",
    "conflict",
    "too_large",
    "rate_limit",
    "internal",
    "unimplemented",
    "timeout",
    "overloaded",
]
"""What an error means, in no format's words; each format renders it in its own."""

KIND_BY_STATUS: Final[dict[int, Kind]] = {
    400: "invalid_request",
    401: "authentication",
    402: "billing",
    403: "permission",
    404: "not_found",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    422: "invalid_request",
    429: "rate_limit",
    500: "internal",
    501: "unimplemented",
    502: "internal",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}


CONTEXT_LENGTH_EXCEEDED: Final = "context_length_exceeded"
"""Agents look for this code, or for the words in `_CONTEXT_FULL`, and shorten the conversation."""

_CONTEXT_FULL: Final = re.compile(
    r"prompt is too long|context[ _](?:length|window|limit)|maximum number of tokens", re.IGNORECASE
)
"""How Anthropic, OpenAI and its imitations, and Gemini put it."""

_COMMON_STATUSES: Final = {408: 504, 422: 400, 529: 503}
"""What stands for a status that not every format's clients know."""


def kind_of_status(status: int) -> Kind:
    """Return the kind that an HTTP error status stands for; unknown ones go by their class."""
    return KIND_BY_STATUS.get(status) or ("invalid_request" if status < 500 else "internal")


class ProxyError(Exception):
    """A failure that is answered to the caller, in the caller's format."""

    status: int = 500
    kind: Kind = "internal"
    code: str | None = None
    """Machine-readable word of the OpenAI formats (``error.code``)."""
    is_lasting: bool = False
    """The same call will hardly fare better soon: clients that ask are told not to try again by themselves."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        """JSON path of the offending field, such as ``$.model``."""
        self.retry_after_s = retry_after_s
        self.details = details
        """What programs read where the format has a place for it, in the words of the caller's format."""

    def copy(self) -> Self:
        """Return another one that says the same, for another caller.

        To raise one and the same for each would add to its traceback every time.
        """
        copied = type(self).__new__(type(self))
        copied.args = self.args
        copied.__dict__.update(self.__dict__)
        return copied


class CallerError(ProxyError):
    """The caller sent what cannot be served."""

    is_lasting = True  # Claude Code, for one, would try a wrong key ten times
    status = 400
    kind: Kind = "invalid_request"


class InvalidRequest(CallerError):
    """A body, path or header that the format does not allow."""


class KeyRequired(CallerError):
    """No key was presented, or none that we know."""

    status = 401
    kind: Kind = "authentication"
    code = "invalid_api_key"


class PermissionDenied(CallerError):
    """The caller is known but may not do this."""

    status = 403
    kind: Kind = "permission"
    code = "permission_denied"


class UnknownModel(CallerError):
    """No upstream serves a model of this name."""

    status = 404
    kind: Kind = "not_found"
    code = "model_not_found"


class UnknownPath(CallerError):
    """Nothing is served here."""

    status = 404
    kind: Kind = "not_found"
    code = "unknown_url"


class MethodNotAllowed(CallerError):
    """The path exists, but not for this HTTP method."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, method: str, allowed: Iterable[str]) -> None:
        self.allowed = sorted(allowed)
        super().__init__(f"{method} is not allowed here; allowed: {', '.join(self.allowed)}")


class BodyTimeout(CallerError):
    """The body did not come in time."""

    status = 408
    kind: Kind = "timeout"
    code = "request_timeout"


class BodyTooLarge(CallerError):
    """The body is longer than ``--max-body-bytes``."""

    status = 413
    kind: Kind = "too_large"
    code = "request_too_large"


class UpgradeRequired(CallerError):
    """WebSocket is not served here; Codex falls back to HTTP on exactly this status."""

    status = 426
    code = "upgrade_required"


class NotCached(CallerError):
    """The caller wanted an answer from the cache or none: https://www.rfc-editor.org/rfc/rfc9111.html#section-5.2.1.7."""

    status = 504
    kind: Kind = "timeout"
    code = "not_cached"


class LoopDetected(CallerError):
    """Our own mark stands in the request's ``via``: an upstream leads back to us."""

    status = 508
    kind: Kind = "internal"
    code = "loop_detected"


class UpstreamError(ProxyError):
    """An upstream did not answer as it should; nothing of its answer has reached the caller yet."""

    status = 502
    kind: Kind = "internal"
    code = "upstream_error"


class UpstreamUnavailable(UpstreamError):
    """No connection: refused, unreachable, name unknown, TLS failed."""

    code = "upstream_unavailable"


class UpstreamTimeout(UpstreamError):
    """Silent for longer than one of the time limits."""

    is_call_over: bool = False
    """Whether it was not silent at all, but the time for the whole call was over."""
    status = 504
    kind: Kind = "timeout"
    code = "upstream_timeout"


class UpstreamCut(UpstreamError):
    """The connection or the stream ended before the answer did."""

    code = "upstream_cut"


class UpstreamGarbage(UpstreamError):
    """The answer is not what the upstream's API allows."""

    code = "upstream_garbage"


class UpstreamKeyRefused(UpstreamError):
    """The upstream refused our credential. The text is neutral: it must not show a part of a key."""

    is_lasting = True
    code = "upstream_key_refused"


class UpstreamBusy(UpstreamError):
    """The upstream has as many calls of ours as its ``max-concurrency`` allows, and the queue is full or slow."""

    status = 503
    kind: Kind = "overloaded"
    code = "upstream_busy"


class UpstreamRefusal(UpstreamError):
    """An error that the upstream answered and that concerns the caller.

    *body* is the upstream's own JSON in its own format, or None where it sent none; same-format callers get it as is.
    """

    def __init__(
        self, message: str, *, status: int, body: bytes | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.status = status
        self.kind = kind_of_status(status)
        self.body = body
        self.headers: Mapping[str, str] = {}
        """What of the upstream's headers the caller gets to see: rate limits, and whether to try again."""

    @property
    def is_context_full(self) -> bool:
        """Whether the conversation is longer than the model's window."""
        return self.code == CONTEXT_LENGTH_EXCEEDED or (
            self.status in (400, 413) and _CONTEXT_FULL.search(self.message) is not None
        )

    def forget_format(self) -> None:
        """Leave out what only callers of the upstream's own format understand, and name what all of them look for."""
        self.body = None
        self.headers = {}
        self.status = _COMMON_STATUSES.get(self.status, self.status)
        if self.status == 400 and self.is_context_full:
            self.code = CONTEXT_LENGTH_EXCEEDED


class NotReady(ProxyError):
    """No upstream is usable at the moment."""

    status = 503
    kind: Kind = "overloaded"
    code = "not_ready"


class ShuttingDown(ProxyError):
    """The daemon is being stopped, and the call did not end in the time that it could wait."""

    status = 503
    kind: Kind = "overloaded"
    code = "shutting_down"


class InternalError(ProxyError):
    """A bug of ours; the log has the traceback, the caller gets a neutral text."""

    code = "internal_error"


class ConfigError(Exception):
    """What is wrong with the configuration; one line per problem, ``file:line: what`` where it stands in a file."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
