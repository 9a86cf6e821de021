"""``aiproxyd clients``: settings to paste into programs that are to use the gateway."""

import shlex
import socket
import sys
from collections.abc import Sequence
from typing import Final

from aiproxyd.commands.options import make_parser, parse_arguments
from aiproxyd.commands.serve import describe_address
from aiproxyd.config import Settings, load_settings
from aiproxyd.errors import ConfigError

_SETTINGS: Final = {
    "claude-code": """\
export ANTHROPIC_BASE_URL={url}
export ANTHROPIC_AUTH_TOKEN={key}
claude --model {model}
""",
    "codex": """\
# ~/.codex/config.toml
model = "{model}"
model_provider = "aiproxyd"

[model_providers.aiproxyd]
name = "aiproxyd"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "AIPROXYD_KEY"        # export AIPROXYD_KEY={key}
""",
    "gemini-cli": """\
# ~/.gemini/settings.json: without this line the base URL selects a way to log in that it then refuses
{{"security": {{"auth": {{"selectedType": "gemini-api-key"}}}}}}

export GOOGLE_GEMINI_BASE_URL={url}
export GEMINI_API_KEY={key}
gemini -m {model}
""",
    "openai-python": """\
export OPENAI_BASE_URL={url}/v1
export OPENAI_API_KEY={key}
""",
    "anthropic-python": """\
export ANTHROPIC_BASE_URL={url}
export ANTHROPIC_API_KEY={key}
""",
    "google-genai": """\
export GOOGLE_GEMINI_BASE_URL={url}
export GEMINI_API_KEY={key}
""",
    "open-webui": """\
export OPENAI_API_BASE_URL={url}/v1
export OPENAI_API_KEY={key}
""",
    "aider": """\
export OPENAI_API_BASE={url}/v1
export OPENAI_API_KEY={key}
aider --model openai/{model}
""",
    "curl": """\
curl {socket}{url}/v1/chat/completions -H 'Authorization: Bearer {key}' \\
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
""",
}

_EVERY_ADDRESS: Final = ("0.0.0.0", "::")  # noqa: S104  # compared with, not bound to
_REACHES_SOCKETS: Final = ("curl",)
"""The clients that can be told to use a Unix socket."""


def run(arguments: Sequence[str]) -> int:
    """Print the settings of one client, or of all.

    Raises:
        ConfigError: there is no such client, it cannot reach the gateway, or the configuration is not valid.
    """
    parser = make_parser(
        "clients",
        "Print settings to paste into clients. Where the gateway is reached is read from its configuration, unless "
        "--url says it.",
        usage="[NAME] [options]",
        takes_serve_options=True,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"one of {', '.join(_SETTINGS)}; all where left out")
    parser.add_argument("--url", help="where the gateway is reached; by default where the configuration says")
    parser.add_argument("--key", default="YOUR-KEY", help="the key to present (%(default)s)")
    parser.add_argument("--model", default="YOUR-MODEL", help="the model to use (%(default)s)")
    options = parse_arguments(parser, arguments)
    if options.name is not None and options.name not in _SETTINGS:
        raise ConfigError(f"unknown client {options.name!r}; known are {', '.join(_SETTINGS)}")
    names = [options.name] if options.name else list(_SETTINGS)
    through = ""
    if options.url:
        url = options.url.rstrip("/").removesuffix("/v1")
    else:
        settings = load_settings(options.serve_arguments, is_serving=False)
        url = _find_url(settings)
        if settings.unix_socket is not None:
            through = f"--unix-socket {shlex.quote(str(settings.unix_socket))} "
            names = _leave_reaching_sockets(names)
    for name in names:
        text = _SETTINGS[name].format(url=url, socket=through, key=options.key, model=options.model)
        sys.stdout.write(text if options.name else f"# {name}\n{text}\n")
    return 0


def _find_url(settings: Settings) -> str:
    """Return the URL that other programs use, unlike the address that we listen on.

    Raises:
        ConfigError: it is not known before the start.
    """
    if settings.unix_socket is not None:
        return "http://localhost"
    if settings.port == 0:
        raise ConfigError("port 0 stands for one that is chosen at the start: give the gateway's URL with --url")
    if settings.host in _EVERY_ADDRESS:
        return f"http://{socket.gethostname()}:{settings.port}"
    return describe_address(settings)


def _leave_reaching_sockets(names: Sequence[str]) -> list[str]:
    """Return those of *names* that reach a Unix socket, and say which do not.

    Raises:
        ConfigError: none does.
    """
    left = [name for name in names if name in _REACHES_SOCKETS]
    others = ", ".join(name for name in names if name not in _REACHES_SOCKETS)
    problem = f"{others} cannot reach a Unix socket: give the URL of a server in front of it with --url"
    if not left:
        raise ConfigError(problem)
    if others:
        sys.stderr.write(f"{problem}\n")
    return left
