"""Settings from flags, environment and INI files: what wins, what is refused, and what is never shown."""

import hashlib
import socket
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from aiproxyd.config import (
    OPTIONS,
    KeySettings,
    ModelSettings,
    Option,
    Settings,
    Target,
    TimeLimits,
    UpstreamSettings,
    is_loopback,
    load_settings,
)
from aiproxyd.errors import ConfigError

OTHER = "[upstream other]\nprovider = openai\nbase-url = http://other.test/v1\n"
"""Enough to start with, and in no test's way."""
DIGEST = hashlib.sha256(b"sk-caller").hexdigest()


class Sample(NamedTuple):
    """Two good values of an option, what they become, and a bad one; None where all are good, or checked elsewhere."""

    first: str
    becomes: object
    second: str
    second_becomes: object
    default: object
    bad: str | None
    read: Callable[[Settings], object]
    environment: Mapping[str, str] = {}


def find_upstream(settings: Settings, name: str) -> UpstreamSettings | None:
    return next((upstream for upstream in settings.upstreams if upstream.name == name), None)


def read_key(name: str) -> Callable[[Settings], object]:
    def read(settings: Settings) -> object:
        upstream = find_upstream(settings, name)
        return upstream and tuple(key.reveal() for key in upstream.api_keys)

    return read


def read_base_url(name: str) -> Callable[[Settings], object]:
    def read(settings: Settings) -> object:
        upstream = find_upstream(settings, name)
        return upstream and str(upstream.base_url)

    return read


def read_limit(name: str) -> Callable[[Settings], object]:
    def read(settings: Settings) -> object:
        return getattr(settings.upstreams[0].limits, name)

    return read


SAMPLES = {
    "host": Sample("::1", "::1", "localhost", "localhost", "127.0.0.1", None, lambda s: s.host),
    "port": Sample("0", 0, "65535", 65535, 3000, "65536", lambda s: s.port),
    "unix-socket": Sample("/run/a", Path("/run/a"), "b", Path("b"), None, None, lambda s: s.unix_socket),
    "workers": Sample("2", 2, "1024", 1024, 1, "0", lambda s: s.workers),
    "demo": Sample("yes", True, "no", False, False, "maybe", lambda s: find_upstream(s, "demo") is not None),
    "openai-api-key": Sample("sk-1", ("sk-1",), "-2, sk-3", ("-2", "sk-3"), None, None, read_key("openai")),
    "openai-base-url": Sample(
        "http://a.test/v1",
        "http://a.test/v1",
        "https://b.test/v1/",
        "https://b.test/v1",
        "https://api.openai.com/v1",
        None,
        read_base_url("openai"),
        {"OPENAI_API_KEY": "sk-1"},
    ),
    "anthropic-api-key": Sample("sk-1", ("sk-1",), "sk-2", ("sk-2",), None, None, read_key("anthropic")),
    "anthropic-base-url": Sample(
        "http://a.test",
        "http://a.test",
        "https://b.test/",
        "https://b.test",
        "https://api.anthropic.com",
        None,
        read_base_url("anthropic"),
        {"ANTHROPIC_API_KEY": "sk-1"},
    ),
    "gemini-api-key": Sample("AI1", ("AI1",), "AI2", ("AI2",), None, None, read_key("gemini")),
    "gemini-base-url": Sample(
        "http://a.test/p",
        "http://a.test/p",
        "https://b.test",
        "https://b.test",
        "https://generativelanguage.googleapis.com",
        None,
        read_base_url("gemini"),
        {"GEMINI_API_KEY": "AI1"},
    ),
    "connect-timeout": Sample("0.5", 0.5, "7", 7.0, 10.0, "0", read_limit("connect_s")),
    "first-event-timeout": Sample("1e3", 1000.0, "7", 7.0, 600.0, "inf", read_limit("first_event_s")),
    "idle-timeout": Sample("2", 2.0, "7", 7.0, 300.0, "nan", read_limit("idle_s")),
    "request-timeout": Sample("3", 3.0, "7", 7.0, 3600.0, "-1", read_limit("request_s")),
    "retries": Sample("0", 0, "5", 5, 2, "-1", lambda s: s.retry.retries),
    "max-retry-wait": Sample("0", 0.0, "7.5", 7.5, 10.0, "inf", lambda s: s.retry.max_wait_s),
    "max-cooldown": Sample("0", 0.0, "60", 60.0, 900.0, "nan", lambda s: s.retry.max_cooldown_s),
    "affinity-ttl": Sample("0", 0.0, "60", 60.0, 300.0, "-1", lambda s: s.retry.affinity_ttl_s),
    "cache-ttl": Sample("0", 0.0, "60", 60.0, 0.0, "inf", lambda s: s.cache.ttl_s),
    "cache-max-bytes": Sample("1", 1, "5000", 5000, 67108864, "0", lambda s: s.cache.max_bytes),
    "redis-url": Sample(
        "redis://127.0.0.1:1/0",
        "redis://127.0.0.1:1/0",
        "unix:///run/redis.sock",
        "unix:///run/redis.sock",
        None,
        None,
        lambda s: s.cache.redis_url and s.cache.redis_url.reveal(),
    ),
    "shutdown-timeout": Sample("4", 4.0, "7", 7.0, 30.0, "soon", lambda s: s.shutdown_timeout_s),
    "max-body-bytes": Sample("1", 1, "5000", 5000, 33554432, "0", lambda s: s.max_body_bytes),
    "log-level": Sample("debug", "debug", "WARNING", "warning", "info", "loud", lambda s: s.log_level),
    "log-format": Sample("json", "json", "TEXT", "text", "text", "xml", lambda s: s.log_format),
    "cors-origins": Sample(
        "*", ("*",), "http://a, http://b", ("http://a", "http://b"), (), None, lambda s: s.cors_origins
    ),
    "allow-anonymous": Sample("on", True, "off", False, False, "2", lambda s: s.allow_anonymous),
    "metrics-access": Sample("open", "open", "KEY", "key", "key", "all", lambda s: s.metrics_access),
    "strict-conversion": Sample("on", True, "off", False, False, "2", lambda s: s.strict_conversion),
}
"""By the option's name; an option without a sample fails the tests."""


def name_of(value: Option | str) -> str:
    return value if isinstance(value, str) else value.name


each_option = pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
each_flag = pytest.mark.parametrize(
    ("option", "flag"), [(option, flag) for option in OPTIONS for flag in option.flags], ids=name_of
)
each_variable = pytest.mark.parametrize(
    ("option", "variable"), [(option, name) for option in OPTIONS for name in option.environment], ids=name_of
)


SWITCHES = ("demo", "allow-anonymous", "strict-conversion")


def as_flag(option: Option, text: str) -> list[str]:
    return [option.flags[0]] if option.name in SWITCHES else [f"{option.flags[0]}={text}"]


@pytest.fixture
def ini(tmp_path: Path) -> Callable[..., Path]:
    """Write an INI file: ``ini(text)`` or ``ini(text, name)``."""

    def write(text: str, name: str = "config.ini") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


WriteIni = Callable[..., Path]


def load(path: Path, *flags: str, environment: Mapping[str, str] | None = None) -> Settings:
    return load_settings(["--config", str(path), *flags], environment or {})


def problems_of(path: Path, *flags: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the problems, without the directory of the file."""
    with pytest.raises(ConfigError) as caught:
        load(path, *flags, environment=environment)
    return [problem.replace(f"{path.parent}/", "") for problem in caught.value.problems]


# Sources and their order.


@each_option
def test_an_option_has_its_default(option: Option, ini: WriteIni) -> None:
    sample = SAMPLES[option.name]

    settings = load(ini(OTHER), environment=sample.environment)

    assert sample.read(settings) == sample.default


@each_flag
def test_an_option_can_be_given_by_each_of_its_flags(option: Option, flag: str, ini: WriteIni) -> None:
    sample = SAMPLES[option.name]
    arguments = [flag] if sample.becomes is True else [flag, sample.first]

    settings = load(ini(OTHER), *arguments, environment=sample.environment)

    assert sample.read(settings) == sample.becomes


@each_variable
def test_an_option_can_be_given_by_each_of_its_environment_variables(
    option: Option, variable: str, ini: WriteIni
) -> None:
    sample = SAMPLES[option.name]

    first = load(ini(OTHER), environment={**sample.environment, variable: sample.first})
    second = load(ini(OTHER), environment={**sample.environment, variable: sample.second})

    assert sample.read(first) == sample.becomes
    assert sample.read(second) == sample.second_becomes


@each_flag
def test_an_option_can_be_given_by_a_line_of_the_file(option: Option, flag: str, ini: WriteIni) -> None:
    sample = SAMPLES[option.name]
    name = flag.removeprefix("--")

    first = load(ini(f"{OTHER}[aiproxyd]\n{name} = {sample.first}\n"), environment=sample.environment)
    second = load(ini(f"{OTHER}[aiproxyd]\n{name.upper()}={sample.second}\n"), environment=sample.environment)

    assert sample.read(first) == sample.becomes
    assert sample.read(second) == sample.second_becomes


@each_option
def test_the_environment_wins_over_the_file(option: Option, ini: WriteIni) -> None:
    sample = SAMPLES[option.name]
    on, off = sample.first, sample.second

    first = load(
        ini(f"{OTHER}[aiproxyd]\n{option.name} = {off}\n"),
        environment={**sample.environment, option.environment[0]: on},
    )
    second = load(
        ini(f"{OTHER}[aiproxyd]\n{option.name} = {on}\n"),
        environment={**sample.environment, option.environment[0]: off},
    )

    assert sample.read(first) == sample.becomes
    assert sample.read(second) == sample.second_becomes


@each_option
def test_a_flag_wins_over_environment_and_file(option: Option, ini: WriteIni) -> None:
    sample = SAMPLES[option.name]
    path = ini(f"{OTHER}[aiproxyd]\n{option.name} = {sample.second}\n")
    environment = {**sample.environment, option.environment[0]: sample.second}

    settings = load(path, *as_flag(option, sample.first), environment=environment)

    assert sample.read(settings) == sample.becomes


@each_option
def test_an_empty_environment_variable_counts_as_unset(option: Option, ini: WriteIni) -> None:
    sample = SAMPLES[option.name]
    path = ini(f"{OTHER}[aiproxyd]\n{option.name} = {sample.first}\n")

    settings = load(path, environment={**sample.environment, **dict.fromkeys(option.environment, "")})

    assert sample.read(settings) == (() if option.name in sample.environment else sample.becomes)


@pytest.mark.parametrize(
    ("upstream", "first", "second"),
    [("anthropic", "ANTHROPIC_API_KEY", "CLAUDE_API_KEY"), ("gemini", "GEMINI_API_KEY", "GOOGLE_API_KEY")],
)
def test_the_first_of_several_environment_variables_that_is_set_counts(
    upstream: str, first: str, second: str, ini: WriteIni
) -> None:
    both = load(ini(""), environment={second: "of-second", first: "of-first"})
    one = load(ini(""), environment={second: "of-second", first: ""})

    assert read_key(upstream)(both) == ("of-first",)
    assert read_key(upstream)(one) == ("of-second",)


@pytest.mark.parametrize("word", ["yes", "TRUE", "On", "1"])
def test_yes_has_four_spellings_in_each_source(word: str, ini: WriteIni) -> None:
    by_line = load(ini(f"[aiproxyd]\ndemo = {word}\n"))
    by_variable = load(ini(""), environment={"AIPROXYD_DEMO": word})

    assert [upstream.name for upstream in by_line.upstreams] == ["demo"]
    assert [upstream.name for upstream in by_variable.upstreams] == ["demo"]


def test_a_model_section_says_what_is_known_better(tmp_path: Path) -> None:
    path = tmp_path / "a.ini"
    path.write_text(
        "[upstream a]\nprovider = openai\n[model m]\ntargets = a/x\n"
        "max-output-tokens = 12\nefforts = low, max\nhas-stop = no\nreasoning = effort\n"
    )

    settings = load(path)

    assert settings.models[0].capabilities == {
        "max_output_tokens": 12,
        "efforts": ("low", "max"),
        "has_stop": False,
        "reasoning": "effort",
    }


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("efforts =", "a.ini:5: efforts: '' leaves nothing"),
        ("efforts = high, low", "a.ini:5: efforts: write the efforts in ascending order, each once"),
        ("max-output-tokens = -5", "a.ini:5: max-output-tokens: '-5' leaves nothing"),
        ("max-temperature = 0", "a.ini:5: max-temperature: '0' leaves nothing"),
    ],
)
def test_what_would_leave_a_model_nothing_is_no_capability(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "a.ini"
    path.write_text(f"[upstream a]\nprovider = openai\n[model m]\ntargets = a/x\n{line}\n")

    assert problems_of(path) == [problem]


def test_bad_values_of_what_is_known_better_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.ini"
    path.write_text(
        "[upstream a]\nprovider = openai\n[model m]\ntargets = a/x\n"
        "max-output-tokens = many\nefforts = low, huge\nhas-stop = perhaps\nreasoning = hard\n"
    )

    problems = problems_of(path)

    assert problems == [
        "a.ini:5: max-output-tokens: 'many' is not a number",
        "a.ini:6: efforts: 'low, huge' is not a list of minimal or low or medium or high or xhigh or max",
        "a.ini:7: has-stop: 'perhaps' is not yes or no",
        "a.ini:8: reasoning: 'hard' is not none or effort or adaptive or budget or level",
    ]


def test_without_a_file_everything_has_its_default() -> None:
    settings = load_settings(["--demo"], {"XDG_CONFIG_HOME": "/nonexistent"})

    assert settings == Settings(
        host="127.0.0.1",
        port=3000,
        unix_socket=None,
        shutdown_timeout_s=30.0,
        max_body_bytes=33554432,
        log_level="info",
        log_format="text",
        cors_origins=(),
        allow_anonymous=False,
        strict_conversion=False,
        upstreams=(
            UpstreamSettings(
                name="demo",
                provider="demo",
                base_url=URL("demo://"),
                limits=TimeLimits(connect_s=10.0, first_event_s=600.0, idle_s=300.0, request_s=3600.0),
            ),
        ),
        models=(),
        keys=(),
    )


def test_the_environment_of_the_process_is_read_where_none_is_given(
    monkeypatch: pytest.MonkeyPatch, ini: WriteIni
) -> None:
    monkeypatch.setenv("AIPROXYD_PORT", "3999")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")

    settings = load_settings(["--config", str(ini(OTHER))])

    assert settings.port == 3999
    assert settings.notify_socket == "/run/systemd/notify"


# Which files.


def test_the_file_named_by_the_flag_is_the_only_one_that_is_read(ini: WriteIni) -> None:
    named = ini(f"{OTHER}[aiproxyd]\nport = 1\n", "named.ini")
    of_environment = ini("[aiproxyd]\nport = 2\nhost = ::1\n", "environment.ini")
    ini("[aiproxyd]\nport = 3\nhost = ::1\n", "home/aiproxyd/config.ini")
    environment = {"AIPROXYD_CONFIG": str(of_environment), "XDG_CONFIG_HOME": str(named.parent / "home")}

    settings = load_settings([f"--config={named}"], environment)

    assert (settings.port, settings.host, settings.files) == (1, "127.0.0.1", (named,))


def test_the_file_named_by_the_environment_is_the_only_one_that_is_read(ini: WriteIni) -> None:
    of_environment = ini(f"{OTHER}[aiproxyd]\nport = 2\n", "environment.ini")
    ini("[aiproxyd]\nport = 3\nhost = ::1\n", "home/aiproxyd/config.ini")
    home = str(of_environment.parent / "home")

    settings = load_settings([], {"AIPROXYD_CONFIG": str(of_environment), "XDG_CONFIG_HOME": home})

    assert (settings.port, settings.host, settings.files) == (2, "127.0.0.1", (of_environment,))


@pytest.mark.parametrize(("variable", "folder"), [("XDG_CONFIG_HOME", ""), ("HOME", ".config")])
def test_the_users_own_file_is_read_where_none_is_named(variable: str, folder: str, ini: WriteIni) -> None:
    path = ini(f"{OTHER}[aiproxyd]\nport = 4\n", f"home/{folder}/aiproxyd/config.ini")

    settings = load_settings([], {variable: str(path.parents[2] if folder else path.parents[1])})

    assert settings.port == 4
    assert path in settings.files


def test_the_users_own_file_replaces_single_values_of_the_systems(ini: WriteIni) -> None:
    system = ini(f"{OTHER}models = a, b\n[aiproxyd]\nport = 5\nlog-level = error\n", "etc.ini")
    own = ini("[aiproxyd]\nport = 6\n[upstream  other]\nbase-url = http://own.test\n", "home/aiproxyd/config.ini")

    settings = load_settings([], {"XDG_CONFIG_HOME": str(own.parents[1])}, system)

    (other,) = settings.upstreams
    assert (settings.port, settings.log_level) == (6, "error")
    assert (str(other.base_url), other.models) == ("http://own.test", ("a", "b"))
    assert settings.files == (system, own)


def test_problems_of_merged_sections_have_the_places_of_both_files(ini: WriteIni) -> None:
    system = ini("[upstream u]\nprovider = nope\n", "etc.ini")
    own = ini("[upstream u]\nsurprise = 1\n[aiproxyd]\nport = x\n", "home/aiproxyd/config.ini")

    with pytest.raises(ConfigError) as caught:
        load_settings([], {"XDG_CONFIG_HOME": str(own.parents[1])}, system)

    starts = [problem.partition("; known")[0] for problem in caught.value.problems]
    assert starts == [f"{own}:2: unknown option surprise", f"{own}:4: port: 'x' is not a port number, 0 to 65535"]


@pytest.mark.parametrize("home", ["/nonexistent", "x" * 5000, "a\0b"])
def test_a_home_that_cannot_be_entered_is_as_one_without_a_file(home: str) -> None:
    settings = load_settings(["--demo"], {"XDG_CONFIG_HOME": home})

    assert settings.upstreams[0].name == "demo"


@pytest.mark.parametrize("arguments", [[], ["--config"], ["--config", "missing.ini"], ["--config", "/"]])
def test_a_named_file_that_cannot_be_read_is_a_problem(arguments: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings([*arguments], {"AIPROXYD_CONFIG": "/missing.ini", "OPENAI_API_KEY": "sk-1"})

    expected = {
        0: "/missing.ini: cannot be read: No such file or directory",
        1: "argument --config: expected one argument",
        2: f"{arguments[-1:][0] if arguments else ''}: cannot be read: "
        + ("Is a directory" if arguments[-1:] == ["/"] else "No such file or directory"),
    }[len(arguments)]
    assert caught.value.problems == (expected,)


# Upstreams.


def test_an_upstream_section_says_everything_about_an_upstream(ini: WriteIni) -> None:
    text = (
        "[aiproxyd]\nconnect-timeout = 9\n[upstream local]\nprovider = openai\nbase-url = http://127.0.0.1:11434/v1/\n"
        "api-key = sk-a, sk-b\nmodels = llama*,\n  qwen*\nstream-usage = no\nconnect-timeout = 1\n"
        "first-event-timeout = 2.5\nidle-timeout = 3\nrequest-timeout = 4\n[upstream plain.2_b-C]\nprovider = gemini\n"
    )

    local, plain = load(ini(text)).upstreams

    assert local.name == "local"
    assert local.provider == "openai"
    assert local.base_url == URL("http://127.0.0.1:11434/v1")
    assert [key.reveal() for key in local.api_keys] == ["sk-a", "sk-b"]
    assert local.models == ("llama*", "qwen*")
    assert local.stream_usage is False
    assert local.limits == TimeLimits(connect_s=1.0, first_event_s=2.5, idle_s=3.0, request_s=4.0)
    assert plain == UpstreamSettings(
        name="plain.2_b-C",
        provider="gemini",
        base_url=URL("https://generativelanguage.googleapis.com"),
        limits=TimeLimits(connect_s=9.0, first_event_s=600.0, idle_s=300.0, request_s=3600.0),
    )


def test_the_section_of_a_providers_own_name_takes_what_it_leaves_out_from_the_environment(ini: WriteIni) -> None:
    environment = {"OPENAI_API_KEY": "sk-env", "OPENAI_BASE_URL": "http://env.test/v1"}

    bare = load(ini("[upstream openai]\nprovider = openai\n"), environment=environment)
    full = load(
        ini("[upstream openai]\nprovider = openai\napi-key = sk-own\nbase-url = http://own.test/v1\n"),
        environment=environment,
    )
    other = load(ini("[upstream openai]\nprovider = anthropic\n"), environment=environment)

    assert (read_key("openai")(bare), read_base_url("openai")(bare)) == (("sk-env",), "http://env.test/v1")
    assert (read_key("openai")(full), read_base_url("openai")(full)) == (("sk-own",), "http://own.test/v1")
    assert (read_key("openai")(other), read_base_url("openai")(other)) == ((), "https://api.anthropic.com")


def test_a_flag_wins_over_the_section_of_the_providers_own_name(ini: WriteIni) -> None:
    # It used to fill gaps only, as the environment does, so that the flag said nothing.
    path = ini("[upstream openai]\nprovider = openai\napi-key = sk-own\nbase-url = http://own.test/v1\n")
    environment = {"OPENAI_API_KEY": "sk-env", "OPENAI_BASE_URL": "http://env.test/v1"}

    key = load(path, "--openai-api-key", "sk-flag, sk-2", environment=environment)
    url = load(path, "--openai-base-url", "http://flag.test/v1", environment=environment)
    other = load(path, "--anthropic-api-key", "sk-flag")

    assert (read_key("openai")(key), read_base_url("openai")(key)) == (("sk-flag", "sk-2"), "http://own.test/v1")
    assert (read_key("openai")(url), read_base_url("openai")(url)) == (("sk-own",), "http://flag.test/v1")
    assert (read_key("openai")(other), read_base_url("openai")(other)) == (("sk-own",), "http://own.test/v1")


def test_a_base_url_from_the_environment_alone_makes_no_upstream(ini: WriteIni) -> None:
    settings = load(ini(OTHER), environment={"OPENAI_BASE_URL": "http://127.0.0.1:3000/v1"})

    assert [upstream.name for upstream in settings.upstreams] == ["other"]


def test_a_base_url_from_a_flag_makes_an_upstream_without_a_key(ini: WriteIni) -> None:
    url = "http://llama.test/v1"

    settings = load(ini(""), "--openai-base-url", url, environment={"OPENAI_BASE_URL": url})

    assert (read_key("openai")(settings), read_base_url("openai")(settings)) == ((), url)


# A look at the values of the environment took a line like this for one from the environment.
def test_a_base_url_from_the_file_makes_an_upstream_also_where_it_quotes_the_environment(ini: WriteIni) -> None:
    path = ini("[aiproxyd]\nopenai-base-url = ${LLAMA}\n")

    settings = load(path, environment={"LLAMA": "http://llama.test/v1"})

    assert read_base_url("openai")(settings) == "http://llama.test/v1"


def test_the_demo_can_be_configured_as_a_section(ini: WriteIni) -> None:
    settings = load(ini("[upstream demo]\nprovider = demo\nmodels = demo\n"), "--demo")

    assert [(upstream.name, upstream.models) for upstream in settings.upstreams] == [("demo", ("demo",))]


def test_keys_can_stand_in_a_file_one_a_line(ini: WriteIni) -> None:
    key_file = ini("sk-a\r\n\nsk-b, sk-c\n", "key")

    settings = load(ini(f"[upstream u]\nprovider = openai\napi-key-file = {key_file}\n"))

    assert [key.reveal() for key in settings.upstreams[0].api_keys] == ["sk-a", "sk-b", "sk-c"]


def test_keys_can_be_systemd_credentials(ini: WriteIni) -> None:
    credential = ini("sk-credential\n", "credentials/u-api-key")
    text = "[upstream u]\nprovider = openai\n[upstream v]\nprovider = openai\n"

    u, v = load(ini(text), environment={"CREDENTIALS_DIRECTORY": str(credential.parent)}).upstreams

    assert [key.reveal() for key in u.api_keys] == ["sk-credential"]
    assert v.api_keys == ()


def test_a_credential_that_cannot_be_read_is_a_problem_of_its_section(ini: WriteIni, tmp_path: Path) -> None:
    (tmp_path / "credentials" / "u-api-key").mkdir(parents=True)
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}

    problems = problems_of(ini("\n[upstream u]\nprovider = openai\n"), environment=environment)

    assert problems == ["config.ini:2: credentials/u-api-key cannot be read: Is a directory"]


def test_an_upstream_name_too_long_for_a_file_has_no_credential(ini: WriteIni, tmp_path: Path) -> None:
    text = f"[upstream {'u' * 300}]\nprovider = openai\n"

    settings = load(ini(text), environment={"CREDENTIALS_DIRECTORY": str(tmp_path)})

    assert settings.upstreams[0].api_keys == ()


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("provider = nope", "2: unknown provider 'nope'; known are openai, anthropic, gemini, demo"),
        ("base-url = http://a/v1", "1: [upstream u] needs a line `provider = ...`"),
        ("provider = openai\nstream-usage = perhaps", "3: stream-usage: 'perhaps' is not yes or no"),
        ("provider = openai\nidle-timeout = long", "3: idle-timeout: 'long' is not a number"),
        ("provider = openai\nidle-timeout = nan", "3: idle-timeout: nan is not more than 0 seconds"),
        ("provider = openai\nfirst-event-timeout = -2", "3: first-event-timeout: -2 is not more than 0 seconds"),
        ("provider = openai\nmax-concurrency = 0", "3: max-concurrency: write a number, 1 or more, and not 0"),
        ("provider = openai\nmax-concurrency = some", "3: max-concurrency: 'some' is not a number"),
        (
            "provider = openai\nmax-concurrency = 1\nmax-queue = -1",
            "4: max-queue: write a number, 0 or more, and not -1",
        ),
        (
            "provider = openai\nmax-concurrency = 1\nqueue-timeout = 0",
            "4: queue-timeout: write a number, 0.001 or more, and not 0",
        ),
        (
            "provider = openai\nmax-concurrency = 1\nqueue-timeout = inf",
            "4: queue-timeout: write a number, 0.001 or more, and not inf",
        ),
        ("provider = openai\nmax-queue = 5", "3: max-queue only counts with max-concurrency"),
        ("provider = openai\nqueue-timeout = 5", "3: queue-timeout only counts with max-concurrency"),
        ("provider = openai\nprobe-interval = 0.5", "3: probe-interval: write a number, 1 or more, and not 0.5"),
        ("provider = openai\nprobe-interval = nan", "3: probe-interval: write a number, 1 or more, and not nan"),
        ("provider = openai\nbase-url = //x", "3: '//x' is no base URL like https://api.openai.com/v1"),
        ("provider = openai\nbase-url = demo://", "3: 'demo://' is no base URL like https://api.openai.com/v1"),
        ("provider = demo\nbase-url = http://a", "3: 'http://a' is no base URL like demo://"),
        (
            "provider = openai\nbase-url = http://a:70000",
            "3: 'http://a:70000' is no base URL like https://api.openai.com/v1",
        ),
        ("provider = openai\nbase-url = http://a/v1?k=v", "3: a base URL has no query and no fragment"),
        ("provider = openai\nbase-url = http://a/v1#f", "3: a base URL has no query and no fragment"),
        ("provider = openai\napi-key-file = /missing", "3: /missing cannot be read: No such file or directory"),
        ("provider = openai\napi-key-file = a\0b", "3: a\0b cannot be read: embedded null byte"),
        ("provider = openai\napi-key = k\napi-key-file = /x", "4: api-key and api-key-file exclude each other"),
    ],
)
def test_a_bad_line_of_an_upstream_is_shown_with_its_place(lines: str, problem: str, ini: WriteIni) -> None:
    problems = problems_of(ini(f"[upstream u]\n{lines}\n"))

    assert problems == [f"config.ini:{problem}"]


@pytest.mark.parametrize("name", ["a/b", "-a", "ä", "a b", "*"])
def test_an_upstream_has_a_plain_name(name: str, ini: WriteIni) -> None:
    problems = problems_of(ini(f"[upstream {name}]\nprovider = openai\n"))

    assert problems == [f"config.ini:1: {name!r} is no name for an upstream: letters, digits, . _ -"]


@pytest.mark.parametrize("origin", ["page.test", "http://page.test/", "http://", "null", "**"])
def test_an_origin_is_written_as_a_browser_sends_it(origin: str, ini: WriteIni) -> None:
    problems = problems_of(ini(OTHER), "--cors-origins", f"http://a.test,{origin}")

    assert problems == [f"cors-origins: {origin!r} is no origin; write it like https://chat.example.org"]


@pytest.mark.parametrize("key", ["sk hidden", "sk-hidden\x01", "sk-hiddén"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str, ini: WriteIni) -> None:
    problems = problems_of(ini("[upstream u]\nprovider = openai\napi-key = ${K}\n"), environment={"K": key})

    assert problems == ["[upstream u] an API key has characters that no HTTP header can carry"]


def test_an_empty_host_is_refused(ini: WriteIni) -> None:
    problems = problems_of(ini(OTHER), "--host=", "--allow-anonymous")

    assert problems == ["host is empty; 0.0.0.0 stands for every address"]


def test_what_is_not_served_need_not_be_fit_to_run(ini: WriteIni) -> None:
    settings = load_settings(["--host=0.0.0.0"], {"XDG_CONFIG_HOME": "/nonexistent"}, is_serving=False)

    assert (settings.host, settings.upstreams) == ("0.0.0.0", ())
    with pytest.raises(ConfigError):
        load_settings(["--port=x"], {"XDG_CONFIG_HOME": "/nonexistent"}, is_serving=False)


def test_without_an_upstream_nothing_starts() -> None:
    with pytest.raises(ConfigError, match=r"no upstream is configured: .*--demo"):
        load_settings([], {"XDG_CONFIG_HOME": "/nonexistent"})


# Models and keys.


def test_a_model_section_names_targets_in_their_order(ini: WriteIni) -> None:
    text = (
        f"{OTHER}[model fast]\ntargets = other/vendor/m:8b, other/*\nstrategy = ordered\n"
        "[model claude-*]\ntargets=other/q\n"
    )

    settings = load(ini(text))

    assert settings.models == (
        ModelSettings(name="fast", targets=(Target("other", "vendor/m:8b"), Target("other", "*"))),
        ModelSettings(name="claude-*", targets=(Target("other", "q"),)),
    )


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("targets =", "5: targets is empty"),
        ("targets = ,", "5: targets is empty"),
        ("targets = nope/m", "5: unknown upstream 'nope'; configured: other"),
        ("targets = other", "5: 'other' is no target; write UPSTREAM/MODEL"),
        ("targets = other/", "5: 'other' is no target; write UPSTREAM/MODEL"),
        ("strategy = ordered", "4: [model m] needs a line `targets = ...`"),
        (
            "target = other/m\ntargets = other/m",
            "5: unknown option target; known are targets, strategy, weights, cache-scope, cache-when, and what is "
            "known of a model, such as max-output-tokens",
        ),
    ],
)
def test_a_bad_line_of_a_model_is_shown_with_its_place(lines: str, problem: str, ini: WriteIni) -> None:
    problems = problems_of(ini(f"{OTHER}[model m]\n{lines}\n"))

    assert problems == [f"config.ini:{problem}"]


def test_an_unknown_strategy_is_refused(ini: WriteIni) -> None:
    problems = problems_of(ini(f"{OTHER}[model m]\ntargets = other/m\nstrategy = best\n"))

    assert problems == ["config.ini:6: strategy: 'best' is not ordered or weighted or least-latency"]


def test_an_upstream_says_how_much_it_takes(ini: WriteIni) -> None:
    lines = "max-concurrency = 4\nmax-queue = 0\nqueue-timeout = 2.5\nprobe-interval = 15\n"

    plain, limited = load(ini(f"{OTHER}[upstream u]\nprovider = openai\n{lines}")).upstreams

    assert (plain.max_concurrency, plain.max_queue, plain.queue_timeout_s, plain.probe_interval_s) == (
        None,
        100,
        30.0,
        None,
    )
    assert (limited.max_concurrency, limited.max_queue, limited.queue_timeout_s, limited.probe_interval_s) == (
        4,
        0,
        2.5,
        15.0,
    )


def test_a_model_section_says_how_to_choose(ini: WriteIni) -> None:
    lines = "targets = other/a, other/b\nstrategy = weighted\nweights = 3, 0.5\n"
    fast = "targets = other/a, other/b\nstrategy = least-latency\n"

    weighted, fastest = load(ini(f"{OTHER}[model m]\n{lines}[model n]\n{fast}")).models

    assert (weighted.strategy, weighted.weights) == ("weighted", (3.0, 0.5))
    assert (fastest.strategy, fastest.weights) == ("least-latency", ())


@pytest.mark.parametrize("weights", ["1", "1, 2, 3", "1, 0", "1, -2", "1, inf", "1, nan", "1, much", ","])
def test_a_weight_is_written_for_each_target(weights: str, ini: WriteIni) -> None:
    lines = f"targets = other/a, other/b\nstrategy = weighted\nweights = {weights}\n"

    problems = problems_of(ini(f"{OTHER}[model m]\n{lines}"))

    assert problems == ["config.ini:7: weights: write a number above 0 for each of the 2 targets"]


def test_weights_without_their_strategy_are_refused(ini: WriteIni) -> None:
    problems = problems_of(ini(f"{OTHER}[model m]\ntargets = other/a, other/b\nweights = 1, 2\n"))

    assert problems == ["config.ini:6: weights only count with `strategy = weighted`"]


def test_a_target_whose_upstream_has_problems_of_its_own_is_no_problem(ini: WriteIni) -> None:
    problems = problems_of(ini("[upstream u]\nprovider = nope\n[model m]\ntargets = u/x\n"))

    assert problems == ["config.ini:2: unknown provider 'nope'; known are openai, anthropic, gemini, demo"]


def test_the_upstreams_of_flags_can_be_targets(ini: WriteIni) -> None:
    settings = load(ini("[model m]\ntargets = demo/demo\n"), "--demo")

    assert settings.models[0].targets == (Target("demo", "demo"),)


def test_a_key_section_knows_the_digest_only(ini: WriteIni) -> None:
    text = f"{OTHER}[key kitchen tablet]\nsecret = sha256:{DIGEST.upper()}\nmodels = fast, gpt-5*\n"

    settings = load(ini(text))

    assert settings.keys == (
        KeySettings(name="kitchen tablet", digest=bytes.fromhex(DIGEST), models=("fast", "gpt-5*")),
    )


def test_two_keys_with_one_secret_are_refused(ini: WriteIni) -> None:
    problems = problems_of(ini(f"{OTHER}[key a]\nsecret = sha256:{DIGEST}\n[key b]\nsecret = sha256:{DIGEST}\n"))

    assert problems == ["config.ini:7: [key b] has the secret of [key a]"]


# Problems.


@pytest.mark.parametrize(
    "option",
    [option for option in OPTIONS if SAMPLES[option.name].bad is not None],
    ids=lambda option: option.name,
)
def test_a_bad_value_is_shown_with_its_source(option: Option, ini: WriteIni) -> None:
    sample = SAMPLES[option.name]
    if option.name not in SWITCHES:
        of_flag = problems_of(ini(OTHER), f"{option.flags[0]}={sample.bad}")
        assert len(of_flag) == 1
        assert of_flag[0].startswith(f"argument {option.flags[0]}: {sample.bad!r} is not ")

    of_variable = problems_of(ini(OTHER), environment={option.environment[0]: str(sample.bad)})
    of_line = problems_of(ini(f"{OTHER}[aiproxyd]\n{option.name} = {sample.bad}\n"))

    assert len(of_variable) == 1
    assert of_variable[0].startswith(f"{option.environment[0]}: {sample.bad!r} is not ")
    assert len(of_line) == 1
    assert of_line[0].startswith(f"config.ini:5: {option.name}: {sample.bad!r} is not ")


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini"])
def test_a_bad_base_url_is_shown_with_its_option(provider: str, ini: WriteIni) -> None:
    problems = problems_of(ini(OTHER), f"--{provider}-base-url=nowhere")

    assert len(problems) == 1
    assert problems[0].startswith(f"--{provider}-base-url: 'nowhere' is no base URL like https://")


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("--prot=1", "unrecognized arguments: --prot"),
        ("--por=1", "unrecognized arguments: --por"),
        ("srve", "unrecognized arguments: srve; the command comes first, then its options"),
        ("--port", "argument --port: expected one argument"),
        ("--demo=yes", "argument --demo: ignored explicit argument 'yes'"),
    ],
)
def test_a_bad_flag_is_a_problem(argument: str, problem: str, ini: WriteIni) -> None:
    assert problems_of(ini(OTHER), argument) == [problem]


def test_a_variable_that_a_flag_overrules_is_not_looked_at(ini: WriteIni) -> None:
    # Kubernetes sets this one for a service named aiproxyd.
    environment = {"AIPROXYD_PORT": "tcp://10.0.0.1:3000", "AIPROXYD_DEMO": "maybe"}

    settings = load(ini(OTHER), "--port", "3001", "--demo", environment=environment)

    assert settings.port == 3001
    assert [upstream.name for upstream in settings.upstreams] == ["other", "demo"]


def test_all_problems_are_shown_together(ini: WriteIni) -> None:
    text = (
        "[aiproxyd]\nhots = x\nport = high\n[surprise]\na = 1\n[upstream]\na = 1\n[aiproxyd x]\nport = 1\n"
        "[upstream u]\nprovider = openai\napi-key = ${NOT_SET}${NOR_THIS}\nbase-url = nowhere\n"
        "[model m]\ntargets = v/x\n[key k]\nsecret = sk-raw\n"
    )
    environment = {"AIPROXYD_LOG_LEVEL": "loud", "AIPROXYD_DEMO": "maybe"}

    problems = problems_of(
        ini(text), "--idle-timeout=0", "--connect-timeout=x", "--what=1", "--log-format", environment=environment
    )

    known = "known are [aiproxyd], [upstream NAME], [model NAME], [key NAME]"
    assert [problem.partition("; known are affinity-ttl")[0] for problem in problems] == [
        "AIPROXYD_DEMO: 'maybe' is not yes or no",
        "AIPROXYD_LOG_LEVEL: 'loud' is not debug, info, warning or error",
        "argument --idle-timeout: '0' is not seconds, more than 0",
        "argument --connect-timeout: 'x' is not seconds, more than 0",
        "argument --log-format: expected one argument",
        "config.ini:2: unknown option hots",
        "config.ini:3: port: 'high' is not a port number, 0 to 65535",
        f"config.ini:4: unknown section [surprise]; {known}",
        f"config.ini:6: unknown section [upstream]; {known}",
        f"config.ini:8: unknown section [aiproxyd x]; {known}",
        "config.ini:12: the environment variable NOT_SET is not set",
        "config.ini:12: the environment variable NOR_THIS is not set",
        "config.ini:13: 'nowhere' is no base URL like https://api.openai.com/v1",
        "config.ini:15: unknown upstream 'v'; configured: u",
        "config.ini:17: secret is not of the form sha256:HEX (64 hex digits); `aiproxyd keys create` makes one",
    ]


@pytest.mark.parametrize("flag", ["--help", "-h", "--version"])
def test_help_and_version_are_printed(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load_settings([flag], {})

    printed = capsys.readouterr().out
    assert caught.value.code == 0
    assert "aiproxyd" in printed


def test_help_names_every_flag_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load_settings(["--help"], {"OPENAI_API_KEY": "sk-shell"})

    printed = capsys.readouterr().out
    missing = [name for option in OPTIONS for name in (*option.flags, *option.environment) if name not in printed]
    assert missing == []
    assert "sk-shell" not in printed


# Secrets.


def test_no_secret_is_in_the_repr_of_the_settings(ini: WriteIni) -> None:
    text = f"[upstream u]\nprovider = openai\napi-key = sk-file\n[key k]\nsecret = sha256:{DIGEST}\n"

    settings = load(ini(text), "--gemini-api-key", "sk-flag", environment={"OPENAI_API_KEY": "sk-env"})

    shown = f"{settings!r} {settings} {settings.upstreams[0].api_keys[0]}"
    assert [secret for secret in ("sk-file", "sk-flag", "sk-env") if secret in shown] == []
    assert "Secret(***)" in shown


@pytest.mark.parametrize(
    "text",
    [
        "[key k]\nsecret = sk-hidden\n",
        "[key k]\nsecret = sha256:sk-hidden\n",
        "[key k]\nsecrets = sk-hidden\n",
        "[key k]\nsk-hidden\n",
        "sk-hidden\n",
        "[upstream u]\nprovider = openai\napi_key = sk-hidden\n",
        "[upstream u]\nprovider = nope\napi-key = sk-hidden\n",
        "[upstream u]\nprovider = openai\napi-key = sk-hidden\napi-key = sk-hidden\n",
        "[upstream u]\nprovider = openai\nbase-url = https://me:sk-hidden@host/v1\n",
        "[upstream u]\nprovider = openai\nbase-url = https://sk-hidden@host/v1\n",
        "[upstream u]\nprovider = openai\nbase-url = https://me:sk-hidden@host:99999/v1\n",
        "[upstream u]\nprovider = openai\nbase-url = https://me:sk-hidden@host/v1?x=1\n",
        "[upstream u]\nprovider = openai\nbase-url = https://host/v1?key=sk-hidden\n",
        "[aiproxyd]\nopenai-key = sk-hidden\n",
        "[aiproxyd]\nport = x\nopenai-api-key = sk-hidden\n",
    ],
)
def test_no_secret_is_in_a_problem(text: str, ini: WriteIni) -> None:
    problems = problems_of(ini(text))

    assert "sk-hidden" not in "\n".join(problems)
    assert problems[0].startswith("config.ini:")


@pytest.mark.parametrize(
    "arguments",
    [["--openai-key", "sk-hidden"], ["--openai-key=sk-hidden"], ["--openai-api-key", "sk-hidden", "--port=x"]],
)
def test_no_secret_of_a_flag_is_in_a_problem(arguments: list[str], ini: WriteIni) -> None:
    problems = problems_of(ini(OTHER), *arguments, environment={"ANTHROPIC_API_KEY": "sk-hidden"})

    assert "sk-hidden" not in "\n".join(problems)


# What is well-formed but must not run.


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "fd00::1", "gateway.lan", "127.1.evil", "0"])
def test_listening_beyond_loopback_without_a_key_is_refused(host: str, ini: WriteIni) -> None:
    problems = problems_of(ini(OTHER), f"--host={host}")

    assert len(problems) == 1
    assert problems[0].startswith(f"refusing to listen on {host} without a key: ")
    assert "--allow-anonymous" in problems[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_listening_on_loopback_needs_no_key(host: str, ini: WriteIni) -> None:
    assert is_loopback(host)
    assert load(ini(OTHER), "--host", host).host == host


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (f"[key k]\nsecret = sha256:{DIGEST}\n", []),
        ("", ["--allow-anonymous"]),
        ("", ["--unix-socket", "/run/a.sock"]),
        ("[aiproxyd]\nallow-anonymous = yes\n", []),
    ],
)
def test_a_key_or_a_word_or_a_unix_socket_allow_any_address(text: str, flags: list[str], ini: WriteIni) -> None:
    settings = load(ini(OTHER + text), "--host", "0.0.0.0", *flags)

    assert settings.host == "0.0.0.0"


def test_a_key_with_a_problem_does_not_open_the_door(ini: WriteIni) -> None:
    problems = problems_of(ini(f"{OTHER}[key k]\nsecret = sha256:abc\n"), "--host", "0.0.0.0")

    assert problems[0].startswith("config.ini:5: secret is not of the form")


@pytest.mark.parametrize(
    ("listen", "base_url"),
    [
        ("127.0.0.1", "http://localhost:3000/v1"),
        ("127.0.0.1", "http://LOCALHOST:3000/v1"),
        ("127.0.0.1", "http://127.0.0.1:3000/v1"),
        ("127.0.0.1", "http://0.0.0.0:3000/v1"),
        ("127.0.0.1", f"http://{socket.gethostname()}:3000/v1"),
        ("::1", "http://[::1]:3000/v1"),
        ("localhost", "http://127.0.0.1:3000/v1"),
        ("0.0.0.0", "http://localhost:3000/v1"),
        ("0.0.0.0", f"http://{socket.gethostname()}:3000/v1"),
        ("::", "http://[::1]:3000"),
        ("::", "http://[::]:3000"),
        ("10.1.2.3", "http://10.1.2.3:3000/v1"),
        ("10.1.2.3", f"http://{socket.gethostname()}:3000/v1"),
    ],
)
def test_an_upstream_at_our_own_address_is_refused(listen: str, base_url: str, ini: WriteIni) -> None:
    path = ini(f"[upstream u]\nprovider = openai\nbase-url = {base_url}\n")

    problems = problems_of(path, "--host", listen, "--allow-anonymous")

    assert problems == [f"[upstream u] {base_url.lower()} is aiproxyd itself: calls would go in circles"]


@pytest.mark.parametrize(
    ("flags", "base_url"),
    [
        ([], "http://localhost:3001/v1"),
        ([], "http://localhost/v1"),
        (["--port=80"], "https://localhost/v1"),
        ([], "http://other.test:3000/v1"),
        (["--port=0"], "http://localhost:3000/v1"),
        (["--host=10.1.2.3"], "http://localhost:3000/v1"),
        (["--host=10.1.2.3"], "http://10.1.2.4:3000/v1"),
        (["--unix-socket=/run/a.sock"], "http://localhost:3000/v1"),
    ],
)
def test_an_upstream_at_another_address_is_welcome(flags: list[str], base_url: str, ini: WriteIni) -> None:
    path = ini(f"[upstream u]\nprovider = openai\nbase-url = {base_url}\n")

    settings = load(path, "--allow-anonymous", *flags)

    assert str(settings.upstreams[0].base_url) == base_url


def test_a_shell_that_points_its_clients_at_us_is_found_out_only_with_a_key(ini: WriteIni) -> None:
    environment = {"OPENAI_BASE_URL": "http://localhost:3000/v1"}

    assert read_base_url("openai")(load(ini(OTHER), environment=environment)) is None
    assert problems_of(ini(OTHER), environment={**environment, "OPENAI_API_KEY": "sk-1"}) == [
        "[upstream openai] http://localhost:3000/v1 is aiproxyd itself: calls would go in circles"
    ]


# Anything.

LINES = st.sampled_from(
    (
        "[aiproxyd]",
        "[upstream u]",
        "[upstream  u]",
        "[model m*]",
        "[key k]",
        "[key]",
        "[DEFAULT]",
        "[\0]",
        "provider = openai",
        "base-url = http://x",
        "api-key = ${A}, b",
        "api-key-file = \0",
        "targets = u/*, v",
        f"secret = sha256:{DIGEST}",
        "port = 9",
        "demo = on",
        "  indented = yes",
        "; comment",
        "",
        "unix-socket = \0",
        "host = [::1]",
        "x",
        "= y",
        "idle-timeout = 1e999",
    )
)


def outcome_of(arguments: list[str], environment: Mapping[str, str]) -> Settings | tuple[str, ...]:
    """Return what comes of it: settings or problems."""
    try:
        return load_settings(arguments, environment, Path("/nonexistent"))
    except ConfigError as exc:
        return exc.problems


def outcome_of_file(content: bytes) -> Settings | tuple[str, ...]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "config.ini")
        path.write_bytes(content)
        return outcome_of(["--config", str(path)], {"CREDENTIALS_DIRECTORY": directory})


@given(st.lists(LINES, max_size=8).map("\n".join) | st.text())
@example("[aiproxyd]\nport = " + "9" * 5000)
@example("[aiproxyd]\r\ndemo = yes\r\n")
@example("\ufeff[aiproxyd]\ndemo = yes\n")
def test_any_text_as_a_file_gives_settings_or_problems(text: str) -> None:
    outcome = outcome_of_file(text.encode())

    assert outcome.upstreams if isinstance(outcome, Settings) else all(outcome)


@given(st.binary())
def test_any_bytes_as_a_file_give_settings_or_problems(content: bytes) -> None:
    outcome = outcome_of_file(content)

    assert outcome.upstreams if isinstance(outcome, Settings) else all(outcome)


WORDS = (
    st.sampled_from(
        [
            *(word for option in OPTIONS for flag in option.flags for word in (flag, f"{flag}=", f"{flag}=1")),
            *("--config", "--", "-", "yes", ""),
        ]
    )
    | st.text(max_size=8)
).filter(lambda word: not word.startswith(("-h", "--help", "--version")))


@given(
    st.lists(WORDS, max_size=5),
    st.dictionaries(st.sampled_from([option.environment[0] for option in OPTIONS]), st.text(max_size=6)),
)
def test_any_arguments_and_environment_give_settings_or_problems(words: list[str], environment: dict[str, str]) -> None:
    outcome = outcome_of(words, environment)

    assert outcome.upstreams if isinstance(outcome, Settings) else all(outcome)


def test_a_key_that_is_listed_twice_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "config.ini"
    path.write_text("[upstream u]\nprovider = openai\napi-key = a, b,, a\n")

    (upstream,) = load_settings(["--config", str(path)], {}).upstreams

    assert [key.reveal() for key in upstream.api_keys] == ["a", "b"]


@pytest.mark.parametrize("url", ["http://user:secret@host", "127.0.0.1:6379", "redis:secret"])
def test_a_wrong_url_of_redis_is_a_problem_that_does_not_show_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(["--demo", "--redis-url", url], {})

    assert caught.value.problems == ("redis-url: write redis://HOST:PORT, rediss://HOST:PORT or unix:///PATH",)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://host/abc", "behind the port stands the number of a database: redis://HOST:PORT/NUMBER"),
        ("redis://host:1/0/1", "behind the port stands the number of a database: redis://HOST:PORT/NUMBER"),
        (
            "redis://host:1/0?decode_responses=yes",
            "behind its question mark only db, protocol and what begins with ssl_ is known",
        ),
        ("redis://host:1/0?secret", "behind its question mark only db, protocol and what begins with ssl_ is known"),
        ("rediss://host:1?ssl_secret=1", "it cannot be read; are the special characters of its password quoted?"),
        ("redis://host:1?ssl_ca_certs=/ca", "it cannot be read; are the special characters of its password quoted?"),
        ("redis://:secret/x@host:1", "it cannot be read; are the special characters of its password quoted?"),
        ("redis://:secret#x@host:1", "it cannot be read; are the special characters of its password quoted?"),
        ("redis://", "it cannot be read; are the special characters of its password quoted?"),
        ("unix://", "it cannot be read; are the special characters of its password quoted?"),
    ],
)
@pytest.mark.parametrize("source", ["flag", "environment", "file"])
def test_a_url_of_redis_that_leads_nowhere_is_a_problem(url: str, problem: str, source: str, tmp_path: Path) -> None:
    path = tmp_path / "config.ini"
    path.write_text("[aiproxyd]\ndemo = yes\n" + (f"redis-url = {url}\n" if source == "file" else ""))
    flags = ["--redis-url", url] if source == "flag" else []
    environment = {"AIPROXYD_REDIS_URL": url} if source == "environment" else {}

    with pytest.raises(ConfigError) as caught:
        load_settings(["--config", str(path), *flags], environment)

    place = f"{path}:3: redis-url" if source == "file" else "redis-url"
    assert caught.value.problems == (f"{place}: {problem}",)


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "redis://host:1/",
        "redis://user:p%40ss@host:1/3",
        "rediss://host:1/0?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=no",
        "unix:///run/redis.sock?db=2&protocol=2",
    ],
)
def test_a_url_of_redis_that_can_be_used_is_none(url: str) -> None:
    settings = load_settings(["--demo", "--cache-ttl", "1", "--redis-url", url], {})

    assert settings.cache.redis_url is not None
    assert settings.cache.redis_url.reveal() == url
    assert settings.warnings == ()


@pytest.mark.parametrize("url", ["redis://host:1/0", "redis://host/abc"])
def test_what_redis_needs_is_named_once_its_url_is_right(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiproxyd.config.find_spec", lambda _: None)
    with pytest.raises(ConfigError) as caught:
        load_settings(["--demo", "--redis-url", url], {})

    needs = "needs the package redis: `pip install redis`, or the extra `redis`"
    wrong = "behind the port stands the number of a database: redis://HOST:PORT/NUMBER"
    assert caught.value.problems == (f"redis-url: {wrong if 'abc' in url else needs}",)


def test_what_does_nothing_while_the_cache_is_off_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "config.ini"
    path.write_text(
        "[aiproxyd]\nredis-url = redis://host\n[upstream u]\nprovider = demo\n"
        "[model m]\ntargets = u/m\ncache-scope = shared\ncache-when = never\n"
        "[model n]\ntargets = u/n\ncache-scope = key\ncache-when = always\n"
    )

    off = load_settings(["--config", str(path)], {})
    on = load_settings(["--config", str(path), "--cache-ttl", "1"], {})
    flagged = load_settings(["--demo", "--redis-url", "redis://host"], {})

    assert off.warnings == (
        f"{path}:2: redis-url does nothing as long as cache-ttl is 0",
        f"{path}:7: cache-scope does nothing as long as cache-ttl is 0",
        f"{path}:8: cache-when does nothing as long as cache-ttl is 0",
    )
    assert on.warnings == ()
    assert flagged.warnings == ("redis-url does nothing as long as cache-ttl is 0",)


def test_a_cache_that_would_hold_next_to_nothing_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "config.ini"
    path.write_text("[aiproxyd]\ndemo = yes\ncache-ttl = 1\ncache-max-bytes = 64\n")

    with pytest.raises(ConfigError) as caught:
        load_settings(["--config", str(path)], {})
    least = load_settings(["--config", str(path), "--cache-max-bytes", "65536"], {})
    off = load_settings(["--config", str(path), "--cache-ttl", "0"], {})
    elsewhere = load_settings(["--config", str(path), "--redis-url", "redis://host"], {})

    assert caught.value.problems == (f"{path}:4: cache-max-bytes: 64 bytes hold nothing; 65536 at least",)
    assert least.cache.max_bytes == 65536
    assert off.cache.max_bytes == elsewhere.cache.max_bytes == 64


def test_a_url_of_redis_with_a_password_is_not_shown() -> None:
    settings = load_settings(["--demo", "--redis-url", "redis://:secret@127.0.0.1:1"], {})

    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", ("key", "always")),
        ("cache-scope = shared\ncache-when = deterministic", ("shared", "deterministic")),
        ("cache-when = never", ("key", "never")),
    ],
)
def test_a_model_says_what_becomes_of_its_answers(lines: str, expected: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "config.ini"
    path.write_text(f"[upstream u]\nprovider = demo\n[model m]\ntargets = u/m\n{lines}\n")

    (model,) = load_settings(["--config", str(path)], {}).models

    assert (model.cache_scope, model.cache_when) == expected


def test_a_wrong_word_about_the_cache_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "config.ini"
    path.write_text("[upstream u]\nprovider = demo\n[model m]\ntargets = u/m\ncache-scope = all\n")

    with pytest.raises(ConfigError, match=r"config.ini:5: cache-scope: 'all' is not key or shared"):
        load_settings(["--config", str(path)], {})


def test_more_processes_than_cores_are_told_of() -> None:
    assert load_settings(["--demo", "--workers", "1"], {}).warnings == ()
    (warning,) = load_settings(["--demo", "--workers", "1024"], {}).warnings
    assert warning.startswith("workers: 1024 processes gain nothing over one for each CPU core (")
