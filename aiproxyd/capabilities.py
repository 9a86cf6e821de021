"""What each family of models accepts, as data: capabilities.json beside this file, one entry a family, with its source.

Encoders ask here, never for a model's name. A ``[model]`` section may overrule single values.
"""

from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from aiproxyd.globs import compile_globs, specificity

Effort = Literal["minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: Final[tuple[Effort, ...]] = ("minimal", "low", "medium", "high", "xhigh", "max")


class Capabilities(Struct, frozen=True, kw_only=True):
    """What one model accepts, and what it is not to be sent. The defaults are those of an unknown model."""

    context_tokens: int | None = None
    """How long a conversation may be, the answer included; None: not known."""
    max_output_tokens: int | None = None
    """The most it writes in one answer; None: not known."""
    default_output_tokens: int = 8192
    """Asked for where the caller does not say and the format wants a number."""
    reasoning: Literal["none", "effort", "adaptive", "budget", "level"] = "none"
    """How it is told how much to think. ``none``: nothing is sent, whether it thinks or not."""
    efforts: tuple[Effort, ...] = ("low", "medium", "high")
    """The efforts, or levels, that it knows, ascending."""
    min_budget_tokens: int = 0
    max_budget_tokens: int | None = None
    reasons_by_default: bool = False
    """Whether it thinks where nothing is said."""
    can_stop_reasoning: bool = True
    """Whether thinking can be switched off."""
    sampling: Literal["any", "one", "without-reasoning", "none"] = "any"
    """Whether temperature, top_p and top_k are accepted; ``one``: not temperature and top_p together."""
    has_sampling_reasoning: bool = True
    """The same while it is told to think."""
    max_temperature: float = 2.0
    has_penalties: bool = True
    has_stop: bool = True
    """Whether stop sequences are accepted."""
    has_logprobs: bool = True
    can_force_tools: bool = True
    """Whether a tool can be demanded."""
    can_force_tools_reasoning: bool = True
    """The same while it thinks."""
    has_prefill: bool = True
    """Whether a conversation may end with the assistant's words."""
    has_late_system: bool = True
    """Whether system turns may stand in the middle of a conversation."""
    has_developer_role: bool = False
    has_max_completion_tokens: bool = False
    """Whether the limit is to be called so, and not max_tokens."""
    has_call_ids: bool = True
    """Whether function calls carry ids."""
    needs_signed_calls: bool = False
    """Whether the first call of a step has to bring its signature back."""
    needs_signed_turns: bool = False
    """Whether, while it thinks, the last turn with tool calls has to begin with its signed thought."""
    refuses_thoughts_when_off: bool = False
    """Whether, while it does not think, its earlier thoughts must be left out."""
    wants_thoughts_back: bool = False
    """Whether it wants the text of its thoughts back in turns that call tools."""
    has_custom_tools: bool = False
    """Whether tools may take free text."""
    has_result_media: bool = True
    """Whether tool results may hold images and documents."""
    fetches_urls: bool = False
    """Whether it fetches images from any URL itself."""
    needs_object_output: bool = False
    """Whether the shape of an answer can only be that of an object."""
    has_metadata: bool = True
    """Whether labels for the caller's own use are accepted although the answer is not stored."""
    needs_responses_for_tools: bool = False
    """Whether chat/completions refuses function tools while it thinks, so that /responses has to be used."""


class _Entry(Struct, frozen=True):
    models: tuple[str, ...]
    """Patterns of names."""
    format: tuple[str, ...]
    """The formats in which this holds."""
    source: str
    values: dict[str, msgspec.Raw]


MAX_REMEMBERED: Final = 1024
"""Models whose capabilities are remembered; callers choose names freely."""
MAX_NAME_CHARS: Final = 256
"""What of a name is looked at, and remembered."""

_FIELDS: Final = {field.name: field for field in msgspec.structs.fields(Capabilities)}


_ENTRIES: Final = msgspec.json.decode(
    Path(__file__).with_name("capabilities.json").read_bytes(), type=tuple[_Entry, ...]
)


def find_capabilities(model: str, fmt: str) -> Capabilities:
    """Return what *model* accepts where it is spoken to in *fmt*, the name of a format.

    All entries that fit count, the more specific pattern before the less specific one.
    """
    return _find_capabilities(model.rpartition("/")[2][:MAX_NAME_CHARS].lower(), fmt)


@lru_cache(maxsize=MAX_REMEMBERED)
def _find_capabilities(name: str, fmt: str) -> Capabilities:
    fitting = [
        (max(specificity(pattern) for pattern in entry.models if compile_globs([pattern]).match(name)), entry)
        for entry in _ENTRIES
        if fmt in entry.format and compile_globs(entry.models).match(name)
    ]
    values: dict[str, object] = {}
    for _, entry in sorted(fitting, key=lambda pair: pair[0]):
        values |= {key: msgspec.json.decode(raw, type=_FIELDS[key].type) for key, raw in entry.values.items()}
    return replace(Capabilities(), **values)
