"""``aiproxyd check``: validate the configuration."""

from collections.abc import Sequence

from aiproxyd.config import load_settings


def run(arguments: Sequence[str]) -> int:
    """Report what the configuration says.

    Raises:
        ConfigError: it is not valid.
    """
    settings = load_settings(arguments)
    files = ", ".join(map(str, settings.files)) or "no file"
    print(f"ok: {files}; {len(settings.upstreams)} upstreams, {len(settings.models)} models, {len(settings.keys)} keys")
    return 0
