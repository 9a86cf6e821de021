"""Settings: read once at start from flags, environment and INI files; frozen; passed on from there.

The only module that reads the environment. Process options (OPTIONS) go through ConfigArgParse, the named sections
through configparser and msgspec. Every problem is found before the first is reported, each with ``file:line``.
"""

import argparse
import ipaddress
import os
import re
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Final, Literal, NamedTuple, NoReturn, TypeAlias, TypeVar, get_args, get_origin
from urllib.parse import parse_qsl, urlsplit

import configargparse
import msgspec
from msgspec import Struct
from typing_extensions import override
from yarl import URL

import aiproxyd
from aiproxyd.capabilities import EFFORTS, Capabilities
from aiproxyd.errors import ConfigError
from aiproxyd.ini import Section, read_ini

DEFAULT_BASE_URLS: Final = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
    "demo": "demo://",
}
"""The providers, and where each is found unless told otherwise."""

SYSTEM_FILE: Final = Path("/etc/aiproxyd/config.ini")
"""Read, below the user's own, where no other file is named."""

_DIGEST: Final = re.compile(r"sha256:([0-9a-fA-F]{64})")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+")
_DATABASE: Final = re.compile(r"/?|/\d+")
_UNREADABLE_URL: Final = "it cannot be read; are the special characters of its password quoted?"
_HEADER_VALUE: Final = re.compile(r"[!-~]+")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ANY_ADDRESS: Final = frozenset(("", "0.0.0.0", "::"))  # noqa: S104  # compared with, not bound to

T = TypeVar("T", bound=Struct)
N = TypeVar("N", bound=float | None)


class Secret:
    """A credential. Shows itself to ``reveal`` only, never in a repr, a log or an error."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the credential itself, for the header that carries it."""
        return self._text

    @override
    def __repr__(self) -> str:
        return "Secret(***)"


class TimeLimits(Struct, frozen=True, kw_only=True):
    """How long an upstream may take, in seconds."""

    connect_s: float
    first_event_s: float
    """From the request to the first byte of the answer's body; a whole answer is computed in this time."""
    idle_s: float
    """Longest silence between two pieces of an answer, not its length."""
    request_s: float
    """The whole call, all attempts together."""


class UpstreamSettings(Struct, frozen=True, kw_only=True):
    """One configured upstream."""

    name: str
    provider: str
    base_url: URL
    api_keys: tuple[Secret, ...] = ()
    models: tuple[str, ...] = ()
    """Patterns of the model names that belong here; empty: whatever the upstream lists."""
    stream_usage: bool = True
    """Whether chat streams are asked to report usage."""
    api: Literal["auto", "chat", "responses"] = "auto"
    """Which of OpenAI's two APIs an upstream of the provider ``openai`` is asked in."""
    flavour: Literal["auto", "first-party", "compatible"] = "auto"
    """Whether such an upstream is OpenAI itself, or a server that speaks like it; ``auto``: by the host's name."""
    max_concurrency: int | None = None
    """How many calls it gets at once; None: as many as there are."""
    max_queue: int = 100
    """How many calls may wait for it."""
    queue_timeout_s: float = 30.0
    """How long a call may wait for a slot there."""
    probe_interval_s: float | None = None
    """How often it is asked for its models while it is left in peace, to find out sooner that it is back."""
    limits: TimeLimits


Strategy: TypeAlias = Literal["ordered", "weighted", "least-latency"]
"""How one of several targets is chosen."""


CacheScope: TypeAlias = Literal["key", "shared"]
"""Who gets an answer that is in the cache: callers with the key that it was made for, or all who may use the model."""
CacheWhen: TypeAlias = Literal["always", "deterministic", "never"]
"""Whose answers are kept: all; those of requests that name the temperature 0; none."""
MIN_CACHE_BYTES: Final = 64 * 1024
"""A smaller cache would hold next to nothing, and look as if it were on."""


class Target(NamedTuple):
    """Where a model name leads: a model of one upstream."""

    upstream: str
    model: str
    """``*`` keeps the name that was asked for."""


class ModelSettings(Struct, frozen=True, kw_only=True):
    """One name, or pattern of names, that callers may use."""

    name: str
    targets: tuple[Target, ...]
    strategy: Strategy = "ordered"
    weights: tuple[float, ...] = ()
    """One for each target of the strategy ``weighted``; empty: all alike."""
    cache_scope: CacheScope = "key"
    cache_when: CacheWhen = "always"
    capabilities: dict[str, Any] = {}
    """Fields of `aiproxyd.capabilities.Capabilities` that are known better than our data has them, by name."""


class KeySettings(Struct, frozen=True, kw_only=True):
    """One virtual key; only its SHA-256 is known here."""

    name: str
    digest: bytes
    models: tuple[str, ...] = ()
    """Patterns of the names that the caller may use; empty: all."""


class RetrySettings(Struct, frozen=True, kw_only=True):
    """What is done when an attempt fails."""

    retries: int = 2
    """How many attempts there are beyond one at each target with each key."""
    max_wait_s: float = 10.0
    """Longest pause before one of them."""
    max_cooldown_s: float = 900.0
    """Longest time for which an upstream, key or model that fails is left in peace; 0: never."""
    affinity_ttl_s: float = 300.0
    """How long a conversation goes to where it was answered last; 0: not at all."""


class CacheSettings(Struct, frozen=True, kw_only=True):
    """The response cache."""

    ttl_s: float = 0.0
    """How long an answer is kept; 0: none is."""
    max_bytes: int = 64 * 1024 * 1024
    """How much memory the answers take."""
    redis_url: Secret | None = None
    """Where they are kept instead; it may hold a password."""


class Settings(Struct, frozen=True, kw_only=True):
    """Everything the daemon is told."""

    host: str
    port: int
    unix_socket: Path | None
    workers: int = 1
    """How many processes serve; with more than one, another one watches over them."""
    shutdown_timeout_s: float
    max_body_bytes: int
    log_level: str
    log_format: Literal["text", "json"]
    cors_origins: tuple[str, ...]
    allow_anonymous: bool
    metrics_access: Literal["key", "open"] = "key"
    """Who may read the metrics: whoever may call, or anyone."""
    strict_conversion: bool
    """Refuse what a conversion would otherwise drop."""
    retry: RetrySettings = RetrySettings()
    cache: CacheSettings = CacheSettings()
    upstreams: tuple[UpstreamSettings, ...]
    models: tuple[ModelSettings, ...]
    keys: tuple[KeySettings, ...]
    files: tuple[Path, ...] = ()
    """The INI files that were read."""
    notify_socket: str | None = None
    """Where systemd waits to be told that the daemon is ready."""
    warnings: tuple[str, ...] = ()
    """What is valid and yet will not work, with ``file:line`` where it stands in a file."""


class Option(NamedTuple):
    """One process option: a flag, environment variables (the first that is set counts) and a line in ``[aiproxyd]``."""

    flags: tuple[str, ...]
    environment: tuple[str, ...]
    type: Callable[[str], Any]
    default: Any
    help: str
    metavar: str = ""

    @property
    def name(self) -> str:
        """The option's name in the INI file."""
        return self.flags[0].removeprefix("--")


def _to_seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError(text)
    return seconds


def _to_seconds_or_zero(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError(text)
    return seconds


def _to_count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise ValueError(text)
    return count


def _to_port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError(text)
    return port


def _to_workers(text: str) -> int:
    count = int(text)
    if not 1 <= count <= 1024:
        raise ValueError(text)
    return count


def _to_bytes(text: str) -> int:
    size = int(text)
    if size < 1:
        raise ValueError(text)
    return size


def _to_flag(text: str) -> bool:
    words = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
    try:
        return words[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def _one_of(*words: str) -> Callable[[str], str]:
    def choose(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(text)
        return text.lower()

    return choose


_EXPECTED: Final[dict[Callable[[str], Any], str]] = {
    _to_seconds: "seconds, more than 0",
    _to_seconds_or_zero: "seconds, 0 or more",
    _to_count: "a number, 0 or more",
    _to_port: "a port number, 0 to 65535",
    _to_workers: "a number of processes, 1 to 1024",
    _to_bytes: "a number of bytes, at least 1",
    _to_flag: "yes or no",
}

_to_log_level: Final = _one_of("debug", "info", "warning", "error")
_to_log_format: Final = _one_of("text", "json")
_to_metrics_access: Final = _one_of("key", "open")
_EXPECTED[_to_metrics_access] = "key or open"
_EXPECTED[_to_log_level] = "debug, info, warning or error"
_EXPECTED[_to_log_format] = "text or json"


def _own(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (f"--{name}",), ("AIPROXYD_" + name.upper().replace("-", "_"),)


OPTIONS: Final = (
    Option(*_own("host"), str, "127.0.0.1", "address to listen on", "ADDRESS"),
    Option(*_own("port"), _to_port, 3000, "port to listen on; 0 takes a free one", "PORT"),
    Option(*_own("unix-socket"), str, None, "listen on this Unix socket instead of host and port", "PATH"),
    Option(
        *_own("workers"),
        _to_workers,
        1,
        "processes that serve, at most one for each CPU core; each counts max-concurrency for itself, and has a cache "
        "and a memory of what fails of its own",
        "N",
    ),
    Option(*_own("demo"), _to_flag, False, "add a built-in upstream that needs no key and no network"),
    Option(("--openai-api-key",), ("OPENAI_API_KEY",), str, None, "make the upstream `openai`", "KEY"),
    Option(("--openai-base-url",), ("OPENAI_BASE_URL",), str, None, f"default {DEFAULT_BASE_URLS['openai']}", "URL"),
    Option(
        ("--anthropic-api-key", "--claude-api-key"),
        ("ANTHROPIC_API_KEY", "CLAUDE_API_KEY"),
        str,
        None,
        "make the upstream `anthropic`",
        "KEY",
    ),
    Option(
        ("--anthropic-base-url",),
        ("ANTHROPIC_BASE_URL",),
        str,
        None,
        f"default {DEFAULT_BASE_URLS['anthropic']}",
        "URL",
    ),
    Option(("--gemini-api-key",), ("GEMINI_API_KEY", "GOOGLE_API_KEY"), str, None, "make the upstream `gemini`", "KEY"),
    Option(
        ("--gemini-base-url",),
        ("GOOGLE_GEMINI_BASE_URL",),
        str,
        None,
        f"default {DEFAULT_BASE_URLS['gemini']}",
        "URL",
    ),
    Option(*_own("connect-timeout"), _to_seconds, 10, "seconds to connect to an upstream", "S"),
    Option(*_own("first-event-timeout"), _to_seconds, 600, "seconds until an upstream's answer begins", "S"),
    Option(*_own("idle-timeout"), _to_seconds, 300, "longest silence within an answer, in seconds", "S"),
    Option(*_own("request-timeout"), _to_seconds, 3600, "seconds for a whole call", "S"),
    Option(*_own("retries"), _to_count, 2, "attempts beyond one at each target with each key", "N"),
    Option(*_own("max-retry-wait"), _to_seconds_or_zero, 10, "longest pause before one of them, in seconds", "S"),
    Option(
        *_own("max-cooldown"),
        _to_seconds_or_zero,
        900,
        "longest time for which an upstream, key or model that fails is left in peace, in seconds; 0 is never",
        "S",
    ),
    Option(
        *_own("affinity-ttl"),
        _to_seconds_or_zero,
        300,
        "seconds for which a conversation stays with the target and key that answered it; 0 is off",
        "S",
    ),
    Option(*_own("cache-ttl"), _to_seconds_or_zero, 0, "seconds for which an answer is kept; 0 is off", "S"),
    Option(
        *_own("cache-max-bytes"),
        _to_bytes,
        64 * 1024 * 1024,
        "how much memory kept answers take, 65536 at least",
        "BYTES",
    ),
    Option(
        *_own("redis-url"), str, None, "keep answers there instead, for all instances: redis://HOST:PORT/NUMBER", "URL"
    ),
    Option(*_own("shutdown-timeout"), _to_seconds, 30, "seconds that running answers get at SIGTERM", "S"),
    Option(*_own("max-body-bytes"), _to_bytes, 32 * 1024 * 1024, "longest request body", "BYTES"),
    Option(*_own("log-level"), _to_log_level, "info", "debug, info, warning or error", "LEVEL"),
    Option(*_own("log-format"), _to_log_format, "text", "text or json", "FORMAT"),
    Option(*_own("cors-origins"), str, "", "origins whose web pages may call, separated by commas; * is any", "LIST"),
    Option(*_own("allow-anonymous"), _to_flag, False, "serve callers without a key, even beyond loopback"),
    Option(
        *_own("metrics-access"),
        _to_metrics_access,
        "key",
        "who may read /metrics: key, as for calls, or open",
        "ACCESS",
    ),
    Option(*_own("strict-conversion"), _to_flag, False, "refuse a request of which the upstream's API cannot say all"),
)


class _UpstreamSection(Struct, rename="kebab"):
    """The lines of ``[upstream NAME]``."""

    provider: str
    base_url: str | None = None
    api_key: str | None = None
    api_key_file: str | None = None
    models: str = ""
    stream_usage: bool = True
    api: Literal["auto", "chat", "responses"] = "auto"
    flavour: Literal["auto", "first-party", "compatible"] = "auto"
    connect_timeout: float | None = None
    first_event_timeout: float | None = None
    idle_timeout: float | None = None
    request_timeout: float | None = None
    max_concurrency: int | None = None
    max_queue: int = 100
    queue_timeout: float = 30.0
    probe_interval: float | None = None


class _ModelSection(Struct, rename="kebab"):
    """The lines of ``[model NAME]``."""

    targets: str
    strategy: Strategy = "ordered"
    weights: str = ""
    cache_scope: CacheScope = "key"
    cache_when: CacheWhen = "always"


class _KeySection(Struct, rename="kebab"):
    """The lines of ``[key NAME]``."""

    secret: str
    models: str = ""


CAPABILITIES: Final[dict[str, Any]] = {
    field.name.replace("_", "-"): field.type for field in msgspec.structs.fields(Capabilities)
}
"""The further lines of ``[model NAME]``, and their types."""

SECTIONS: Final[dict[str, type[Struct]]] = {"upstream": _UpstreamSection, "model": _ModelSection, "key": _KeySection}
"""The kinds of named sections."""


def load_settings(
    argv: Sequence[str],
    environment: Mapping[str, str] | None = None,
    system_file: Path = SYSTEM_FILE,
    *,
    is_serving: bool = True,
) -> Settings:
    """Read flags (*argv*, without the program's name), environment (the process's own where None) and INI files.

    Where *is_serving* is False, it is enough that all is well-formed: there may be no upstream, for example.

    Raises:
        ConfigError: with every problem that was found.
        SystemExit: ``--help`` was asked for and has been printed.
    """
    return _Loader(argv, os.environ if environment is None else environment, system_file).load(is_serving=is_serving)


def make_parser(
    section: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    problems: list[str] | None = None,
) -> "_Parser":
    """Return the command line parser; *section* holds the values of ``[aiproxyd]``, bad values go to *problems*."""
    parser = _Parser(
        prog="aiproxyd",
        usage="aiproxyd [serve|check|clients|keys] [options]",
        description="LLM gateway daemon: callers of any LLM API, answered by any upstream.",
        epilog="Commands: serve (the default) runs the daemon, check validates the configuration, clients prints "
        "settings to paste into clients, keys makes and lists virtual keys; each takes --help. Every option is also a "
        "line in the [aiproxyd] section of the INI file; flags win over the environment, the environment wins over the "
        "file. Exit status: 0 after SIGTERM or SIGINT, 1 where the address cannot be had, 2 where the configuration "
        "is not valid.",
        allow_abbrev=False,
        config_file_parser_class=_MergedSection(section or {}),
        add_config_file_help=False,
        add_env_var_help=False,
    )
    parser.add_argument("--version", action="version", version=f"aiproxyd {aiproxyd.__version__}")
    parser.add_argument("--config", metavar="FILE", help="INI file to read [env: AIPROXYD_CONFIG]")
    for option in OPTIONS:
        _add_option(parser, option, environment or {}, problems if problems is not None else [])
    return parser


class _MergedSection(configargparse.ConfigFileParser):  # type: ignore[misc]  # the library is untyped
    """Hands ConfigArgParse the ``[aiproxyd]`` section that was read, and checked, before."""

    def __init__(self, section: Mapping[str, str]) -> None:
        super().__init__()
        self._section = section

    @override
    def parse(self, stream: IO[str]) -> "OrderedDict[str, str]":
        return OrderedDict(self._section)


class _Parser(configargparse.ArgumentParser):  # type: ignore[misc]  # the library is untyped
    @override
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def _add_option(parser: _Parser, option: Option, environment: Mapping[str, str], problems: list[str]) -> None:
    variable = next((name for name in option.environment if environment.get(name)), option.environment[0])
    described = describe_option(option)
    if option.type is _to_flag:
        parser.add_argument(*option.flags, action="store_true", env_var=variable, help=described)
        return
    parser.add_argument(
        *option.flags,
        type=_argument_type(option, problems),
        metavar=option.metavar,
        default=option.default,
        env_var=variable,
        help=described,
    )


def describe_option(option: Option) -> str:
    """Return what ``--help`` says about *option*."""
    default = f" (default {option.default})" if option.default else ""
    return f"{option.help}{default} [env: {', '.join(option.environment)}]"


def describe_unknown(rest: Sequence[str]) -> str:
    """Return what is wrong with a command line of which *rest*, not empty, is left over."""
    # What stands behind an unknown flag is not shown: it may be a key.
    unknown = [text.partition("=")[0] for text in rest if text.startswith("-")]
    if unknown:
        return f"unrecognized arguments: {' '.join(unknown)}"
    return f"unrecognized arguments: {rest[0]}; the command comes first, then its options"


def _argument_type(option: Option, problems: list[str]) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return option.type(text)
        except ValueError:
            # Raising would hide the problems that are still to be found.
            problems.append(f"argument {option.flags[0]}: {_describe_bad_value(option, text)}")
            return option.default

    return convert


def _describe_bad_value(option: Option, text: str) -> str:
    return f"{text!r} is not {_EXPECTED.get(option.type, 'valid')}"


class _Loader:
    """Reads settings once and collects the problems on the way."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], system_file: Path) -> None:
        self._argv = argv
        self._system_file = system_file
        self._environment = {name: value for name, value in environment.items() if value}
        self._problems: list[str] = []
        self._warnings: list[str] = []
        self._set_by_environment: set[str] = set()

    def load(self, *, is_serving: bool) -> Settings:
        files = self._find_files()
        sections = self._read_sections(files)
        options = self._parse_options(sections)
        limits = TimeLimits(
            connect_s=options.connect_timeout,
            first_event_s=options.first_event_timeout,
            idle_s=options.idle_timeout,
            request_s=options.request_timeout,
        )
        upstreams = self._load_upstreams(sections, options, limits)
        settings = Settings(
            host=options.host,
            port=options.port,
            unix_socket=Path(options.unix_socket) if options.unix_socket else None,
            workers=self._read_workers(options.workers),
            shutdown_timeout_s=options.shutdown_timeout,
            max_body_bytes=options.max_body_bytes,
            log_level=options.log_level,
            log_format=options.log_format,
            cors_origins=_split(options.cors_origins),
            allow_anonymous=options.allow_anonymous,
            metrics_access=options.metrics_access,
            strict_conversion=options.strict_conversion,
            retry=RetrySettings(
                retries=options.retries,
                max_wait_s=options.max_retry_wait,
                max_cooldown_s=options.max_cooldown,
                affinity_ttl_s=options.affinity_ttl,
            ),
            cache=self._read_cache(options, sections),
            upstreams=upstreams,
            models=self._load_models(sections, {upstream.name for upstream in upstreams}, options),
            keys=self._load_keys(sections),
            files=tuple(files),
            notify_socket=self._environment.get("NOTIFY_SOCKET"),
            warnings=tuple(self._warnings),
        )
        self._problems += _find_useless(settings)
        problems = self._problems or (_find_unsafe(settings) if is_serving else [])
        if problems:
            raise ConfigError(*sorted(problems, key=_to_place))
        return settings

    def _find_files(self) -> list[Path]:
        """Return the INI files to read, the later ones winning."""
        finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        finder.add_argument("--config")
        try:
            named = finder.parse_known_args(self._argv)[0].config or self._environment.get("AIPROXYD_CONFIG")
        except argparse.ArgumentError as exc:
            raise ConfigError(str(exc)) from exc
        if named:
            return [Path(named)]
        candidates = [self._system_file]
        if "XDG_CONFIG_HOME" in self._environment:
            candidates.append(Path(self._environment["XDG_CONFIG_HOME"]) / "aiproxyd" / "config.ini")
        elif "HOME" in self._environment:
            candidates.append(Path(self._environment["HOME"]) / ".config" / "aiproxyd" / "config.ini")
        # Unlike Path.exists, takes a directory that may not be entered, such as /home under systemd, for an empty one.
        return [path for path in candidates if os.path.exists(path)]

    def _read_sections(self, files: Iterable[Path]) -> dict[str, Section]:
        """Return the sections of all files by their title; a later file's values replace an earlier one's."""
        sections: dict[str, Section] = {}
        for path in files:
            for section in read_ini(path):
                if section.kind not in ("aiproxyd", *SECTIONS) or (section.kind == "aiproxyd") == bool(section.name):
                    known = ", ".join(f"[{word} NAME]" for word in SECTIONS)
                    title = f"[{section.title}]"
                    self._problems.append(f"{section.place}: unknown section {title}; known are [aiproxyd], {known}")
                    continue
                self._problems += section.expand(self._environment)
                if section.title in sections:
                    sections[section.title].values.update(section.values)
                else:
                    sections[section.title] = section
        return sections

    def _parse_options(self, sections: Mapping[str, Section]) -> argparse.Namespace:
        known = {flag.removeprefix("--"): option for option in OPTIONS for flag in option.flags}
        section = sections["aiproxyd"].values if "aiproxyd" in sections else {}
        valid: dict[str, str] = {}
        for key, value in section.items():
            if key not in known:
                self._problems.append(f"{value.place}: unknown option {key}; known are {', '.join(sorted(known))}")
                continue
            try:
                known[key].type(value.text)
            except ValueError:
                self._problems.append(f"{value.place}: {key}: {_describe_bad_value(known[key], value.text)}")
                continue
            valid[key] = value.text
        environment = self._check_environment()
        parser = make_parser(valid, environment, self._problems)
        sources = {"env_vars": environment, "config_file_contents": "[aiproxyd]"}
        options: argparse.Namespace
        try:
            options, rest = parser.parse_known_args(args=list(self._argv), **sources)
        except ConfigError as exc:
            self._problems += exc.problems
            options, rest = parser.parse_known_args(args=[], **sources)
        if rest:
            self._problems.append(describe_unknown(rest))
        found = parser.get_source_to_settings_dict().get("environment_variables", {})
        self._set_by_environment = {action.dest for action, _ in found.values()}
        return options

    def _check_environment(self) -> dict[str, str]:
        """Return the environment without the variables that have bad values and are not overruled by a flag."""
        environment = dict(self._environment)
        given = {text.partition("=")[0] for text in self._argv}
        for option in OPTIONS:
            variable = next((name for name in option.environment if name in environment), None)
            if variable is None or not given.isdisjoint(option.flags):
                continue
            try:
                option.type(environment[variable])
            except ValueError:
                self._problems.append(f"{variable}: {_describe_bad_value(option, environment.pop(variable))}")
        return environment

    def _convert(self, section: Section, kind: type[T]) -> T | None:
        """Convert the values of a named section to *kind*, a Struct; None where there were problems."""
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        count = len(self._problems)
        converted: dict[str, Any] = {}
        for key, value in section.values.items():
            if key not in fields and kind is _ModelSection and key in CAPABILITIES:
                continue
            if key not in fields:
                more = ", and what is known of a model, such as max-output-tokens" if kind is _ModelSection else ""
                self._problems.append(f"{value.place}: unknown option {key}; known are {', '.join(fields)}{more}")
                continue
            try:
                text: object = _to_flag(value.text) if fields[key].type is bool else value.text
                converted[fields[key].name] = msgspec.convert(text, fields[key].type, strict=False)
            except (ValueError, msgspec.ValidationError):
                self._problems.append(f"{value.place}: {key}: {value.text!r} is not {_describe_type(fields[key].type)}")
        for name, field in fields.items():
            if field.required and field.name not in converted and name not in section.values:
                self._problems.append(f"{section.place}: [{section.kind} {section.name}] needs a line `{name} = ...`")
        return None if len(self._problems) > count else kind(**converted)

    def _load_upstreams(
        self, sections: Mapping[str, Section], options: argparse.Namespace, limits: TimeLimits
    ) -> tuple[UpstreamSettings, ...]:
        upstreams: dict[str, UpstreamSettings] = {}
        for section in sections.values():
            if section.kind == "upstream":
                upstream = self._load_upstream(section, options, limits)
                if upstream:
                    upstreams[upstream.name] = upstream
                    self._require_key(upstream, f"{section.place}: [upstream {upstream.name}]")
        named = {section.name for section in sections.values() if section.kind == "upstream"}
        for provider in ("openai", "anthropic", "gemini"):
            key, base_url = _provider_options(options, provider)
            # A base URL from the environment alone makes no upstream: it is often there for clients, and points at us.
            is_told = base_url is not None and f"{provider}_base_url" not in self._set_by_environment
            if provider not in named and (key or is_told):
                upstreams[provider] = UpstreamSettings(
                    name=provider,
                    provider=provider,
                    base_url=self._to_base_url(
                        base_url or DEFAULT_BASE_URLS[provider], provider, f"--{provider}-base-url"
                    ),
                    api_keys=_to_keys(key or ""),
                    limits=limits,
                )
                self._require_key(upstreams[provider], f"--{provider}-base-url:")
        if options.demo and "demo" not in named:
            upstreams["demo"] = UpstreamSettings(
                name="demo", provider="demo", base_url=URL(DEFAULT_BASE_URLS["demo"]), limits=limits
            )
        return tuple(upstreams.values())

    def _load_upstream(
        self, section: Section, options: argparse.Namespace, limits: TimeLimits
    ) -> UpstreamSettings | None:
        if not _NAME.fullmatch(section.name):
            self._problems.append(
                f"{section.place}: {section.name!r} is no name for an upstream: letters, digits, . _ -"
            )
        lines = self._convert(section, _UpstreamSection)
        if lines is None:
            return None
        if lines.provider not in DEFAULT_BASE_URLS:
            known = ", ".join(DEFAULT_BASE_URLS)
            place = section.values["provider"].place
            self._problems.append(f"{place}: unknown provider {lines.provider!r}; known are {known}")
            return None
        place = section.values["base-url"].place if lines.base_url else section.place
        # For the section of the provider's own name, flags win; the environment fills in what it leaves out: that is
        # often meant for clients, and must not overrule a file that is particular.
        is_namesake = section.name == lines.provider != "demo"
        key, base_url = _provider_options(options, lines.provider) if is_namesake else (None, None)
        told_key = key if f"{lines.provider}_api_key" not in self._set_by_environment else None
        told_url = base_url if f"{lines.provider}_base_url" not in self._set_by_environment else None
        read_keys = self._read_api_keys(section, lines)
        self._check_queue(section, lines)
        return UpstreamSettings(
            name=section.name,
            provider=lines.provider,
            base_url=self._to_base_url(
                told_url or lines.base_url or base_url or DEFAULT_BASE_URLS[lines.provider], lines.provider, place
            ),
            api_keys=(() if told_key else read_keys) or _to_keys(key or ""),
            models=_split(lines.models),
            stream_usage=lines.stream_usage,
            api=lines.api,
            flavour=lines.flavour,
            max_concurrency=self._check_least(section, "max-concurrency", lines.max_concurrency, 1),
            max_queue=self._check_least(section, "max-queue", lines.max_queue, 0),
            queue_timeout_s=self._check_least(section, "queue-timeout", lines.queue_timeout, 0.001),
            probe_interval_s=self._check_least(section, "probe-interval", lines.probe_interval, 1),
            limits=self._load_limits(section, lines, limits),
        )

    def _load_limits(self, section: Section, lines: _UpstreamSection, defaults: TimeLimits) -> TimeLimits:
        own = {
            "connect_s": lines.connect_timeout,
            "first_event_s": lines.first_event_timeout,
            "idle_s": lines.idle_timeout,
            "request_s": lines.request_timeout,
        }
        for name, seconds in own.items():
            if seconds is not None and not 0 < seconds < float("inf"):
                option = name.removesuffix("_s").replace("_", "-") + "-timeout"
                self._problems.append(
                    f"{section.values[option].place}: {option}: {seconds:g} is not more than 0 seconds"
                )
        return msgspec.structs.replace(
            defaults, **{name: seconds for name, seconds in own.items() if seconds is not None}
        )

    def _check_least(self, section: Section, option: str, number: N, least: float) -> N:
        """Return *number*, the value of *option*, which must not be less than *least*."""
        if number is not None and not least <= number < float("inf"):
            place = section.values[option].place
            self._problems.append(f"{place}: {option}: write a number, {least:g} or more, and not {number:g}")
        return number

    def _read_weights(self, section: Section, lines: _ModelSection, count: int) -> tuple[float, ...]:
        """Return the weights of *count* targets."""
        if not lines.weights:
            return ()
        place = section.values["weights"].place
        try:
            weights = tuple(map(float, _split(lines.weights)))
        except ValueError:
            weights = ()
        if len(weights) != count or not all(0 < weight < float("inf") for weight in weights):
            self._problems.append(f"{place}: weights: write a number above 0 for each of the {count} targets")
        if lines.strategy != "weighted":
            self._problems.append(f"{place}: weights only count with `strategy = weighted`")
        return weights

    def _read_workers(self, count: int) -> int:
        cores = os.cpu_count() or 1
        if count > max(cores, 1):
            self._warnings.append(f"workers: {count} processes gain nothing over one for each CPU core ({cores})")
        return count

    def _read_cache(self, options: argparse.Namespace, sections: Mapping[str, Section]) -> CacheSettings:
        url: str | None = options.redis_url
        if options.cache_ttl and not url and options.cache_max_bytes < MIN_CACHE_BYTES:
            place = self._find_place("cache-max-bytes", sections)
            self._problems.append(f"{place}: {options.cache_max_bytes} bytes hold nothing; {MIN_CACHE_BYTES} at least")
        if url:
            place = self._find_place("redis-url", sections)
            fault = _find_url_fault(url)
            if fault:
                self._problems.append(f"{place}: {fault}")
            elif not options.cache_ttl:
                self._warnings.append(f"{place} does nothing as long as cache-ttl is 0")
        return CacheSettings(
            ttl_s=options.cache_ttl, max_bytes=options.cache_max_bytes, redis_url=Secret(url) if url else None
        )

    def _find_place(self, name: str, sections: Mapping[str, Section]) -> str:
        """Return where the value of a process option comes from: its line in a file, where that counts."""
        line = sections["aiproxyd"].values.get(name) if "aiproxyd" in sections else None
        is_flag = any(text.partition("=")[0] == f"--{name}" for text in self._argv)
        if line is None or is_flag or name.replace("-", "_") in self._set_by_environment:
            return name
        return f"{line.place}: {name}"

    def _check_queue(self, section: Section, lines: _UpstreamSection) -> None:
        for option in ("max-queue", "queue-timeout"):
            if lines.max_concurrency is None and option in section.values:
                place = section.values[option].place
                self._problems.append(f"{place}: {option} only counts with max-concurrency")

    def _read_api_keys(self, section: Section, lines: _UpstreamSection) -> tuple[Secret, ...]:
        """Return the keys from the section, the file it names, or the systemd credential ``NAME-api-key``."""
        if lines.api_key and lines.api_key_file:
            place = section.values["api-key-file"].place
            self._problems.append(f"{place}: api-key and api-key-file exclude each other")
        if lines.api_key:
            return _to_keys(lines.api_key)
        path = Path(lines.api_key_file) if lines.api_key_file else None
        directory = self._environment.get("CREDENTIALS_DIRECTORY")
        if path is None and directory and os.path.exists(f"{directory}/{section.name}-api-key"):
            path = Path(directory) / f"{section.name}-api-key"
        if path is None:
            return ()
        try:
            return _to_keys(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:  # ValueError: not UTF-8, or a null byte in the path
            place = section.values["api-key-file"].place if lines.api_key_file else section.place
            self._problems.append(f"{place}: {path} cannot be read: {getattr(exc, 'strerror', None) or exc}")
            return ()

    def _require_key(self, upstream: UpstreamSettings, place: str) -> None:
        """Note it where *upstream* is the vendor itself, whom nobody can call without a key."""
        host = URL(DEFAULT_BASE_URLS[upstream.provider]).host
        if upstream.api_keys or not host or upstream.base_url.host != host:
            return
        lines = f"a line `api-key = ...` or `api-key-file = ...`, or the systemd credential {upstream.name}-api-key"
        if upstream.name == upstream.provider:
            option = next(option for option in OPTIONS if option.name == f"{upstream.provider}-api-key")
            ways = f"set {option.environment[0]}, or give {option.flags[0]}, {lines}"
        else:
            ways = f"give {lines}"
        self._warnings.append(f"{place} {host} wants an API key: {ways}")

    def _to_base_url(self, text: str, provider: str, place: str) -> URL:
        try:
            url = URL(text)
        except ValueError:
            url = URL()
        if provider == "demo":
            is_usable = url == URL(DEFAULT_BASE_URLS["demo"])
        else:
            is_usable = url.scheme in ("http", "https") and bool(url.host)
        if url.user or url.password or ("@" in text and not is_usable):
            self._problems.append(f"{place}: a base URL must not hold credentials; use api-key")
        elif not is_usable:
            self._problems.append(f"{place}: {text!r} is no base URL like {DEFAULT_BASE_URLS[provider]}")
        elif url.query_string or url.fragment:
            self._problems.append(f"{place}: a base URL has no query and no fragment")
        return url.with_path(url.path.rstrip("/")) if is_usable and url.path.endswith("/") else url

    def _load_models(
        self, sections: Mapping[str, Section], upstreams: set[str], options: argparse.Namespace
    ) -> tuple[ModelSettings, ...]:
        models: list[ModelSettings] = []
        # An upstream that has problems of its own is not unknown.
        known = upstreams | {section.name for section in sections.values() if section.kind == "upstream"}
        for section in sections.values():
            if section.kind != "model":
                continue
            capabilities = self._read_capabilities(section)
            lines = self._convert(section, _ModelSection)
            if lines is None:
                continue
            place = section.values["targets"].place
            targets = tuple(Target(*text.partition("/")[::2]) for text in _split(lines.targets))
            if not targets:
                self._problems.append(f"{place}: targets is empty")
            for target in targets:
                if target.upstream not in known:
                    known_names = ", ".join(sorted(known)) or "none"
                    self._problems.append(f"{place}: unknown upstream {target.upstream!r}; configured: {known_names}")
                elif not target.model:
                    self._problems.append(f"{place}: {target.upstream!r} is no target; write UPSTREAM/MODEL")
            models.append(
                ModelSettings(
                    name=section.name,
                    targets=targets,
                    strategy=lines.strategy,
                    weights=self._read_weights(section, lines, len(targets)),
                    cache_scope=lines.cache_scope,
                    cache_when=lines.cache_when,
                    capabilities=capabilities,
                )
            )
            self._check_cache(section, options)
        return tuple(models)

    def _check_cache(self, section: Section, options: argparse.Namespace) -> None:
        """Warn of what a ``[model]`` section says of the cache where that is off."""
        for key, usual in (("cache-scope", "key"), ("cache-when", "always")):
            value = section.values.get(key)
            if value is not None and value.text != usual and not options.cache_ttl:
                self._warnings.append(f"{value.place}: {key} does nothing as long as cache-ttl is 0")

    def _read_capabilities(self, section: Section) -> dict[str, Any]:
        """Return what a ``[model]`` section says about the model itself."""
        told: dict[str, Any] = {}
        for key, value in section.values.items():
            kind = CAPABILITIES.get(key)
            if kind is None:
                continue
            try:
                text: object = _split(value.text) if get_origin(kind) is tuple else value.text
                text = _to_flag(value.text) if kind is bool else text
                told[key.replace("-", "_")] = known = msgspec.convert(text, kind, strict=False)
            except (ValueError, msgspec.ValidationError):
                self._problems.append(f"{value.place}: {key}: {value.text!r} is not {_describe_type(kind)}")
                continue
            if isinstance(known, tuple) and list(known) != [effort for effort in EFFORTS if effort in known]:
                self._problems.append(f"{value.place}: {key}: write the efforts in ascending order, each once")
            elif known == () or (not isinstance(known, bool | str | tuple) and known is not None and known <= 0):
                self._problems.append(f"{value.place}: {key}: {value.text!r} leaves nothing")
        return told

    def _load_keys(self, sections: Mapping[str, Section]) -> tuple[KeySettings, ...]:
        keys: dict[bytes, KeySettings] = {}
        for section in sections.values():
            lines = self._convert(section, _KeySection) if section.kind == "key" else None
            if lines is None:
                continue
            place = section.values["secret"].place
            match = _DIGEST.fullmatch(lines.secret)
            if not match:
                # The line may hold the key itself by mistake, so it is not quoted.
                hint = "`aiproxyd keys create` makes one"
                self._problems.append(f"{place}: secret is not of the form sha256:HEX (64 hex digits); {hint}")
                continue
            digest = bytes.fromhex(match[1])
            if digest in keys:
                self._problems.append(f"{place}: [key {section.name}] has the secret of [key {keys[digest].name}]")
            keys[digest] = KeySettings(name=section.name, digest=digest, models=_split(lines.models))
        return tuple(keys.values())


def is_address(host: str) -> bool:
    """Tell whether *host* is an IP address, in brackets or not."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach *host*; names other than localhost are not looked up."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _find_useless(settings: Settings) -> list[str]:
    """Return what could never work."""
    problems = [
        f"cors-origins: {origin!r} is no origin; write it like https://chat.example.org"
        for origin in settings.cors_origins
        if origin != "*" and not _ORIGIN.fullmatch(origin)
    ]
    problems += (
        f"[upstream {upstream.name}] an API key has characters that no HTTP header can carry"
        for upstream in settings.upstreams
        if not all(_HEADER_VALUE.fullmatch(key.reveal()) for key in upstream.api_keys)
    )
    if not settings.host:
        problems.append("host is empty; 0.0.0.0 stands for every address")
    return problems


def _to_place(problem: str) -> tuple[str, int]:
    match = re.match(r"(?P<file>.+?):(?P<line>\d+): ", problem)
    return (match["file"], int(match["line"])) if match else ("", 0)


def _find_unsafe(settings: Settings) -> list[str]:
    """Return what is well-formed but must not run."""
    problems: list[str] = []
    if not settings.upstreams:
        problems.append(
            "no upstream is configured: give an API key (OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY), "
            "an [upstream NAME] section, or --demo"
        )
    if not (settings.unix_socket or settings.keys or settings.allow_anonymous or is_loopback(settings.host)):
        problems.append(
            f"refusing to listen on {settings.host} without a key: anyone who reaches it could spend your money; "
            "add a [key NAME] section, or --allow-anonymous if that is what you want"
        )
    problems += (
        f"[upstream {upstream.name}] {upstream.base_url} is aiproxyd itself: calls would go in circles"
        for upstream in settings.upstreams
        if settings.unix_socket is None and _is_own_address(upstream.base_url, settings)
    )
    return problems


def _is_own_address(url: URL, settings: Settings) -> bool:
    host = url.host or ""
    if url.port != settings.port or settings.port == 0:
        return False
    if is_loopback(host) or host in _ANY_ADDRESS:
        return settings.host in _ANY_ADDRESS or is_loopback(settings.host)
    return host in {settings.host, socket.gethostname()}


def _provider_options(options: argparse.Namespace, provider: str) -> tuple[str | None, str | None]:
    return getattr(options, f"{provider}_api_key"), getattr(options, f"{provider}_base_url")


def _find_url_fault(url: str) -> str:
    """Return what is wrong with the URL of a Redis, without showing it, for it may hold a password; empty: nothing."""
    try:
        parts = urlsplit(url)
        has_place = bool(parts.path.strip("/") if parts.scheme == "unix" else parts.hostname and parts.port != 0)
    except ValueError:
        return _UNREADABLE_URL
    if not url.startswith(("redis://", "rediss://", "unix://")):
        return "write redis://HOST:PORT, rediss://HOST:PORT or unix:///PATH"
    if parts.fragment or not has_place:
        return _UNREADABLE_URL
    if parts.scheme != "unix" and not _DATABASE.fullmatch(parts.path):
        return "behind the port stands the number of a database: redis://HOST:PORT/NUMBER"
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    if not all(name in ("db", "protocol") or name.startswith("ssl_") for name in names):
        return "behind its question mark only db, protocol and what begins with ssl_ is known"
    if find_spec("redis") is None:
        return "needs the package redis: `pip install redis`, or the extra `redis`"
    return "" if _is_redis_url(url) else _UNREADABLE_URL


def _is_redis_url(url: str) -> bool:
    from redis.asyncio import ConnectionPool  # slow, and seldom needed
    from redis.exceptions import RedisError

    try:
        pool: Any = ConnectionPool.from_url(url)
        pool.make_connection()  # does not connect
    except (ValueError, TypeError, RedisError):
        return False
    return True


def _to_keys(text: str) -> tuple[Secret, ...]:
    """Return the keys that *text* lists, each once: it would only be refused twice."""
    return tuple(map(Secret, dict.fromkeys(_split(text))))


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.replace("\n", ",").split(",") if part.strip())


def _describe_type(kind: object) -> str:
    if kind is bool:
        return "yes or no"
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    if get_origin(kind) is tuple:
        return f"a list of {' or '.join(get_args(get_args(kind)[0]))}"
    return "a number" if "float" in str(kind) or "int" in str(kind) else str(kind).removeprefix("typing.")
