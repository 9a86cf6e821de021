"""What an upstream's failure is bound to, and so who may be asked next and who is left in peace. Sans-I/O."""

import re
from enum import Enum, auto
from typing import Final

from aiproxyd.errors import (
    ProxyError,
    UpstreamBusy,
    UpstreamGarbage,
    UpstreamKeyRefused,
    UpstreamRefusal,
    UpstreamTimeout,
    UpstreamUnavailable,
)


class Fault(Enum):
    """What one failed attempt says about where it was made."""

    REQUEST = auto()
    """It is about the request: every upstream would say the same."""
    WINDOW = auto()
    """The conversation is too long for this model; one with a larger window may take it."""
    TARGET = auto()
    """This target cannot serve it, now or later; another may."""
    KEY = auto()
    """The upstream's key is refused, or its account is empty: for all models."""
    ACCESS = auto()
    """The key may not use this model."""
    LIMIT = auto()
    """The key has used up what it may ask of this model for the moment."""
    BUSY = auto()
    """We ourselves have as many calls at this upstream as are allowed."""
    UNREACHABLE = auto()
    """There is no connection to the upstream."""
    SILENT = auto()
    """It took too long, or answered what cannot be read; asking again would most likely do the same."""
    TIME = auto()
    """The time for the whole call was over; the upstream may well have been at work."""
    FAILING = auto()
    """It failed in a way that may be over in a moment."""


REPEATABLE: Final = frozenset((Fault.LIMIT, Fault.UNREACHABLE, Fault.FAILING))
"""What a second attempt at the same place may mend."""
FINAL: Final = frozenset((Fault.REQUEST,))
"""What no other attempt can mend."""

_MODERATED: Final = re.compile(r"moderat|flagged|content.?(policy|filter)|safety", re.IGNORECASE)
"""What gateways in front of others say of prompts that they will not pass on."""

_BY_STATUS: Final = {
    401: Fault.KEY,
    402: Fault.KEY,
    403: Fault.ACCESS,
    404: Fault.TARGET,
    405: Fault.TARGET,
    408: Fault.FAILING,
    409: Fault.FAILING,
    429: Fault.LIMIT,
    501: Fault.TARGET,
    529: Fault.FAILING,
}


def judge(error: ProxyError) -> Fault:
    """Return what *error*, raised by an attempt, is bound to."""
    match error:
        case UpstreamKeyRefused():
            return Fault.KEY
        case UpstreamRefusal():
            return _judge_refusal(error)
        case UpstreamBusy():
            return Fault.BUSY
        case UpstreamUnavailable():
            return Fault.UNREACHABLE
        case UpstreamTimeout(is_call_over=True):
            return Fault.TIME
        case UpstreamTimeout() | UpstreamGarbage():
            return Fault.SILENT
        case _:
            return Fault.FAILING


def _judge_refusal(error: UpstreamRefusal) -> Fault:
    if error.kind == "billing":
        return Fault.KEY  # whatever its status: no waiting mends an empty account
    if error.is_context_full:
        return Fault.WINDOW
    if error.status == 403 and _MODERATED.search(error.message):
        return Fault.REQUEST  # https://openrouter.ai/docs/api-reference/errors
    return _BY_STATUS.get(error.status) or (Fault.FAILING if error.status >= 500 else Fault.REQUEST)
