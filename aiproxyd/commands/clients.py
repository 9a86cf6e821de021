"""``aiproxyd clients``: settings to paste into programs that are to use the gateway."""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from aiproxyd.commands.serve import describe_address
from aiproxyd.config import load_settings
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
curl {url}/v1/chat/completions -H 'Authorization: Bearer {key}' \\
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
""",
}


def run(arguments: Sequence[str]) -> int:
    """Print the settings of one client, or of all.

    Raises:
        ConfigError: there is no such client, or the configuration is not valid.
    """
    parser = argparse.ArgumentParser(
        prog="aiproxyd clients", description="Print settings to paste into clients; takes the options of serve too."
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"one of {', '.join(_SETTINGS)}; all where left out")
    parser.add_argument("--url", help="where the gateway is reached; by default where the configuration says")
    parser.add_argument("--key", default="YOUR-KEY", help="the key to present (%(default)s)")
    parser.add_argument("--model", default="YOUR-MODEL", help="the model to use (%(default)s)")
    options, rest = parser.parse_known_args(arguments)
    if options.name is not None and options.name not in _SETTINGS:
        raise ConfigError(f"unknown client {options.name!r}; known are {', '.join(_SETTINGS)}")
    url = options.url or describe_address(load_settings(rest, is_serving=False))
    url = url.rstrip("/").removesuffix("/v1")
    for name in [options.name] if options.name else _SETTINGS:
        text = _SETTINGS[name].format(url=url, key=options.key, model=options.model)
        sys.stdout.write(text if options.name else f"# {name}\n{text}\n")
    return 0
