"""``aiproxyd check``: validate the configuration."""

import sys
from collections.abc import Sequence

from aiproxyd.commands.options import make_parser, parse_arguments
from aiproxyd.config import load_settings

_DESCRIPTION = (
    "Validate the configuration that serve would run with, without running it. Prints one line for each problem, with "
    "file:line where it stands in a file, and warns of upstreams that lack a key. Exit status: 0 where it is valid, 2 "
    "where it is not."
)


def run(arguments: Sequence[str]) -> int:
    """Report what the configuration says.

    Raises:
        ConfigError: it is not valid.
    """
    parser = make_parser("check", _DESCRIPTION, takes_serve_options=True)
    settings = load_settings(parse_arguments(parser, arguments).serve_arguments)
    for warning in settings.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    files = ", ".join(map(str, settings.files)) or "no file"
    upstreams = _count("upstream", [upstream.name for upstream in settings.upstreams])
    models = _count("model", [model.name for model in settings.models])
    print(f"ok: {files}; {upstreams}, {models}, {_count('key', [key.name for key in settings.keys])}")
    return 0


def _count(kind: str, names: Sequence[str]) -> str:
    if not names:
        return f"no {kind}"
    return f"{len(names)} {kind}{'s' if len(names) > 1 else ''} ({', '.join(names)})"
