"""argv → command."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from aiproxyd.errors import ConfigError

COMMANDS: Final = ("serve", "check", "clients", "keys")
"""Each is the module of its name in ``commands``, imported when it is asked for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that *argv* names (``sys.argv`` where None), ``serve`` by default; return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "serve"
    if command not in COMMANDS:
        known = ", ".join(COMMANDS)
        sys.stderr.write(f"unknown command {command!r}; known are {known}; `aiproxyd --help` shows more\n")
        return 2
    try:
        status: int = import_module(f"aiproxyd.commands.{command}").run(arguments)
    except ConfigError as exc:
        for problem in exc.problems:
            sys.stderr.write(f"{problem}\n")
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
