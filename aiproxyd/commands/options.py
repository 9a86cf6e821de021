"""The options that commands other than ``serve`` share: those of ``serve``, which they pass on to the settings."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from typing_extensions import override

import aiproxyd
from aiproxyd.config import OPTIONS, describe_option, describe_unknown
from aiproxyd.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, as the rest of the configuration does."""

    @override
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see `{self.prog} --help`")


class _PassOn(argparse.Action):
    """Keeps an option of ``serve`` as it was given, for ``load_settings`` to read."""

    @override
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        given = option_string if self.nargs == 0 else f"{option_string}={values}"
        namespace.serve_arguments = [*namespace.serve_arguments, given]


def make_parser(command: str, description: str, *, usage: str = "", takes_serve_options: bool = False) -> Parser:
    """Return a parser for *command*; *usage* is what stands behind its name."""
    parser = Parser(
        prog=f"aiproxyd {command}",
        usage=f"aiproxyd {command} {usage or '[options]'}",
        description=description,
        allow_abbrev=False,
    )
    if takes_serve_options:
        add_serve_options(parser)
    return parser


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Let *parser* take the options of ``serve``, and leave them in ``serve_arguments``."""
    parser.set_defaults(serve_arguments=[])
    parser.add_argument("--version", action="version", version=f"aiproxyd {aiproxyd.__version__}")
    group = parser.add_argument_group("options of serve", "The configuration that is read; each as serve has it.")
    group.add_argument(
        "--config", action=_PassOn, metavar="FILE", default=argparse.SUPPRESS, help="INI file [env: AIPROXYD_CONFIG]"
    )
    for option in OPTIONS:
        group.add_argument(
            *option.flags,
            action=_PassOn,
            nargs=None if option.metavar else 0,
            metavar=option.metavar or None,
            default=argparse.SUPPRESS,
            help=describe_option(option),
        )


def parse_arguments(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Return what *arguments* say.

    Raises:
        ConfigError: they are not what *parser* takes.
        SystemExit: ``--help`` or ``--version`` was asked for and has been printed.
    """
    options, rest = parser.parse_known_args(arguments)
    if rest:
        raise ConfigError(describe_unknown(rest))
    return options
