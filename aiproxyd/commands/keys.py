"""``aiproxyd keys``: make a virtual key, list those that are configured."""

import argparse
import hashlib
import secrets
from collections.abc import Sequence

from aiproxyd.config import load_settings
from aiproxyd.errors import ConfigError

KEY_PREFIX = "sk-aiproxyd-"
"""Some clients want a key that begins with ``sk-``; the rest tells people, and leak scanners, whose it is."""


def run(arguments: Sequence[str]) -> int:
    """Carry out ``create NAME [--models LIST]`` or ``list [options of serve]``.

    Raises:
        ConfigError: for ``list``, the configuration is not valid.
    """
    parser = argparse.ArgumentParser(prog="aiproxyd keys", description="Make and list virtual keys.")
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="print a new key, and the section to add to the configuration")
    create.add_argument("name", metavar="NAME")
    create.add_argument("--models", default="", metavar="LIST", help="models that it may use, separated by commas")
    actions.add_parser("list", help="list the configured keys; takes the options of serve")
    options, rest = parser.parse_known_args(arguments)
    if options.action == "list":
        return _list(rest)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
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
    for key in load_settings(arguments, is_serving=False).keys:
        print(f"{key.name}: {', '.join(key.models) or 'all models'}")
    return 0
