"""``aiproxyd keys``: make a virtual key, list those that are configured."""

import hashlib
import secrets
import sys
from collections.abc import Sequence

from aiproxyd.commands.options import add_serve_options, make_parser, parse_arguments
from aiproxyd.config import load_settings
from aiproxyd.errors import ConfigError

KEY_PREFIX = "sk-aiproxyd-"
"""Some clients want a key that begins with ``sk-``; the rest tells people, and leak scanners, whose it is."""


def run(arguments: Sequence[str]) -> int:
    """Carry out ``create NAME [--models LIST]`` or ``list [options of serve]``.

    Raises:
        ConfigError: these are no such arguments; for ``list``, the configuration is not valid.
    """
    parser = make_parser("keys", "Make and list virtual keys.", usage="create|list [options]")
    actions = parser.add_subparsers(dest="action", metavar="create|list", prog="aiproxyd keys", required=True)
    create = actions.add_parser(
        "create",
        usage="aiproxyd keys create NAME [--models LIST]",
        help="print a new key, and the section to add to the configuration",
        description="Print a new key, and the section to add to the configuration. Only its SHA-256 goes into the "
        "file: the key itself is shown now, and never again.",
        allow_abbrev=False,
    )
    create.add_argument("name", metavar="NAME")
    create.add_argument(
        "--models", default="", metavar="LIST", help="models that it may use, or patterns of them, separated by commas"
    )
    lister = actions.add_parser(
        "list",
        usage="aiproxyd keys list [options]",
        help="list the configured keys",
        description="List the keys that are configured, and the models that each may use.",
        allow_abbrev=False,
    )
    add_serve_options(lister)
    options = parse_arguments(parser, arguments)
    if options.action == "list":
        return _list(options.serve_arguments)
    return _create(options.name, options.models)


def _create(name: str, models: str) -> int:
    if not name or not name.isprintable() or "]" in name or name != name.strip():
        raise ConfigError(f"{name!r} is no name for a key")
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    print(f"The key, shown only now: {key}\n\nAdd to the configuration, and restart:\n")
    print(f"[key {name}]\nsecret = sha256:{hashlib.sha256(key.encode()).hexdigest()}")
    if models:
        print(f"models = {models}")
    return 0


def _list(arguments: Sequence[str]) -> int:
    settings = load_settings(arguments, is_serving=False)
    if not settings.keys:
        files = ", ".join(map(str, settings.files)) or "no file"
        sys.stderr.write(f"no key is configured ({files}); `aiproxyd keys create NAME` makes one\n")
    for key in settings.keys:
        print(f"{key.name}: {', '.join(key.models) or 'all models'}")
    return 0
