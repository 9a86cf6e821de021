"""What OpenAI refuses in both of its formats: models, sampling, reasoning, names, schemas. No I/O."""

import re
from typing import Any, Final, NamedTuple

from tests.vendors.seals import decode_base64
from tests.vendors.vendor import Refused

IMAGES: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")
LATER_EFFORTS: Final = ("none", "low", "medium", "high")
MAX_METADATA: Final = 16


class Model(NamedTuple):
    """What a model's name says about it."""

    name: str
    generation: tuple[int, int]
    """(5, 4) of gpt-5.4; (0, n) of the o-series; (4, n) of all that do not reason."""

    @property
    def reasons(self) -> bool:
        return self.generation[0] != 4 and "-chat" not in self.name

    @property
    def is_gpt_5(self) -> bool:
        return self.generation >= (5, 0)

    @property
    def efforts(self) -> tuple[str, ...]:
        if not self.reasons:
            return ()
        if not self.is_gpt_5:
            return ("low", "medium", "high")
        if self.generation < (5, 1):
            return ("minimal", "low", "medium", "high")
        if self.generation < (5, 4):
            return ("none", "low", "medium", "high") if self.generation < (5, 2) else (*LATER_EFFORTS, "xhigh")
        return (*LATER_EFFORTS, "xhigh", "max")

    @property
    def default_effort(self) -> str:
        return "none" if (5, 1) <= self.generation < (5, 4) else "medium"

    def reasons_at(self, effort: str | None) -> bool:
        return self.reasons and (effort or self.default_effort) != "none"

    @property
    def max_output_tokens(self) -> int:
        if not self.reasons:
            return 32_768 if self.generation == (4, 1) else 16_384
        return 128_000 if self.is_gpt_5 else 100_000


def find_model(name: str) -> Model:
    if match := re.match(r"gpt-(\d)(?:\.(\d+))?(?=$|-|o)", name):
        return Model(name, (int(match[1]), int(match[2] or 0)))
    if match := re.match(r"o(\d)(?=$|-)", name):
        return Model(name, (0, int(match[1])))
    raise Refused(
        f"The model `{name}` does not exist or you do not have access to it.", status=404, code="model_not_found"
    )


class Sampling(NamedTuple):
    """The knobs that models which reason refuse."""

    temperature: float | None
    top_p: float | None
    effort: str | None
    has_logprobs: bool = False
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    has_logit_bias: bool = False
    has_stop: bool = False


def check_sampling(model: Model, given: Sampling) -> None:
    for name, value, limit in (("temperature", given.temperature, 2), ("top_p", given.top_p, 1)):
        if value is None:
            continue
        if not 0 <= value <= limit:
            raise Refused(f"Invalid '{name}': expected a number between 0 and {limit}.", f"$.{name}")
        if model.reasons_at(given.effort) and value != 1:
            raise unsupported(name, model, "unless reasoning is off; only the default (1) is")
    _check_extras(model, given)


def _check_extras(model: Model, given: Sampling) -> None:
    if model.reasons_at(given.effort) and given.has_logprobs:
        raise unsupported("logprobs", model, "unless reasoning is off")
    if model.reasons and (given.presence_penalty or given.frequency_penalty):
        raise unsupported("presence_penalty" if given.presence_penalty else "frequency_penalty", model)
    if model.is_gpt_5 and given.has_logit_bias:
        raise unsupported("logit_bias", model)
    if given.has_stop and (model.is_gpt_5 or model.name.startswith(("o3", "o4-mini"))):
        raise unsupported("stop", model)


def unsupported(name: str, model: Model, why: str = "") -> Refused:
    text = f"Unsupported parameter: '{name}' is not supported with this model ({model.name})"
    return Refused(f"{text} {why}".rstrip() + ".", f"$.{name}", code="unsupported_parameter")


def check_effort(model: Model, effort: str | None, path: str) -> None:
    if effort is None:
        return
    if not model.reasons:
        raise unsupported(path.removeprefix("$."), model)
    if effort not in model.efforts:
        text = f"Unsupported value: '{effort}' is not supported with the '{model.name}' model. Supported are: "
        raise Refused(text + ", ".join(model.efforts), path, code="unsupported_value")


def check_custom(model: Model, path: str) -> None:
    if not model.is_gpt_5:
        raise Refused(f"Custom tools are not supported with the '{model.name}' model.", path)


def check_output_limit(model: Model, limit: int | None, path: str, least: int = 1) -> None:
    if limit is None:
        return
    if limit < least:
        raise Refused(
            f"Invalid value: expected at least {least}, but got {limit}.", path, code="integer_below_min_value"
        )
    if limit > model.max_output_tokens:
        text = f"max_tokens is too large: {limit}. This model supports at most {model.max_output_tokens}"
        raise Refused(f"{text} completion tokens.", path, code="invalid_value")


def check_name(name: str, path: str) -> None:
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name):
        raise Refused("Expected a string that matches the pattern '^[a-zA-Z0-9_-]{1,64}$'.", path, code="invalid_value")


def check_length(text: str | None, most: int, path: str) -> None:
    if text is not None and len(text) > most:
        raise Refused(f"Expected a string with maximum length {most}.", path, code="string_above_max_length")


def check_metadata(metadata: dict[str, str] | None) -> None:
    for key, value in (metadata or {}).items():
        check_length(key, 64, "$.metadata")
        check_length(value, 512, f"$.metadata.{key}")
    if metadata and len(metadata) > MAX_METADATA:
        raise Refused(f"Too many properties in 'metadata': at most {MAX_METADATA}.", "$.metadata")


def check_output_schema(schema: Any, path: str) -> None:
    """Refuse what describes no object."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind != "object":
        raise Refused(f"Invalid schema for response_format: schema must be of 'type: \"object\"', got '{kind}'.", path)


def check_function_schema(schema: Any, path: str, *, is_strict: bool) -> None:
    """Refuse parameters that are not those of an object; where *is_strict*, those that are not closed."""
    if schema is None and not is_strict:
        return
    if not isinstance(schema, dict) or schema.get("type") != "object":
        kind = schema.get("type") if isinstance(schema, dict) else None
        raise Refused(f"Invalid schema for function: schema must be of 'type: \"object\"', got '{kind}'.", path)
    if is_strict:
        check_strict_schema(schema, path)


def check_strict_schema(schema: Any, path: str) -> None:
    """Refuse an object that leaves out a property or lets others in, at any depth."""
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" or "properties" in schema:
        if schema.get("additionalProperties") is not False:
            raise _not_strict("'additionalProperties' is required to be supplied and to be false", path)
        if missing := schema.get("properties", {}).keys() - set(schema.get("required", [])):
            raise _not_strict(f"'required' has to include every key in properties. Missing {sorted(missing)}", path)
    for key in ("properties", "$defs", "definitions"):
        for name, each in schema.get(key, {}).items():
            check_strict_schema(each, f"{path}.{key}.{name}")
    check_strict_schema(schema.get("items"), f"{path}.items")
    for index, each in enumerate(schema.get("anyOf", [])):
        check_strict_schema(each, f"{path}.anyOf[{index}]")


def _not_strict(text: str, path: str) -> Refused:
    return Refused(f"Invalid strict schema: {text}.", path, code="invalid_function_parameters")


def check_image(url: str, path: str) -> None:
    """Refuse what is neither an address nor an image in base64."""
    if url.startswith(("http://", "https://")):
        return
    media_type, data = split_data_url(url, path)
    if media_type not in IMAGES:
        raise Refused(
            f"Invalid image: unsupported type {media_type}. Supported are {IMAGES}.", path, code="invalid_image_format"
        )
    if not decode_base64(data):
        raise Refused("Invalid base64 image_url.", path, code="invalid_base64")


def check_file(data: str, path: str) -> None:
    _, data = split_data_url(data, path)
    if not decode_base64(data):
        raise Refused("Invalid file data: not valid base64.", path, code="invalid_base64")


def split_data_url(url: str, path: str) -> tuple[str, str]:
    match = re.match(r"data:([\w.+-]+/[\w.+-]+);base64,", url)
    if match is None:
        raise Refused(
            "Expected a base64-encoded data URL (e.g. 'data:image/png;base64,...').", path, code="invalid_value"
        )
    return match[1], url[match.end() :]
