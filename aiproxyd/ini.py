"""INI files with the place of every value, so that each problem can be shown as ``file:line``."""

import configparser
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from aiproxyd.errors import ConfigError

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECTION_LINE: Final = re.compile(r"\[(?P<title>[^]]+)\]")
_OPTION_LINE: Final = re.compile(r"(?P<key>[^\s=;#\[][^=]*?)\s*=")


class Value(NamedTuple):
    """One value and where it stands."""

    text: str
    place: str
    """``file:line``."""


class Section(NamedTuple):
    """One section: ``[KIND NAME]``, or ``[KIND]`` with an empty name."""

    kind: str
    name: str
    place: str
    values: dict[str, Value]

    @property
    def title(self) -> str:
        """What stands between the brackets."""
        return f"{self.kind} {self.name}" if self.name else self.kind

    def expand(self, environment: Mapping[str, str]) -> list[str]:
        """Replace ``${NAME}`` in the values by the environment's; return a problem for each name that is not set."""
        problems: list[str] = []
        for key, value in self.values.items():
            missing = [name for name in _VARIABLE.findall(value.text) if name not in environment]
            problems += (f"{value.place}: the environment variable {name} is not set" for name in missing)
            text = _VARIABLE.sub(lambda match: environment.get(match[1], ""), value.text)
            self.values[key] = value._replace(text=text)
        return problems


def read_ini(path: Path) -> list[Section]:
    """Read an INI file: ``name = value`` lines, comments behind ``;`` or ``#``, continuation lines indented.

    Raises:
        ConfigError: the file cannot be read or is no INI file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    ini = configparser.ConfigParser(
        interpolation=None, delimiters=("=",), inline_comment_prefixes=(";", "#"), default_section="\0"
    )
    try:
        ini.read_string(text, source=str(path))
    except configparser.Error as exc:
        raise ConfigError(_describe_syntax_error(path, exc)) from exc
    lines = _find_lines(text)
    sections: dict[str, Section] = {}
    for title in ini.sections():
        values = {key: Value(raw, f"{path}:{lines.get((title, key), 1)}") for key, raw in ini[title].items()}
        kind, _, name = title.strip().partition(" ")
        section = Section(kind, name.strip(), f"{path}:{lines.get((title, ''), 1)}", values)
        if section.title in sections:  # with other spaces in between, which configparser takes for another section
            raise ConfigError(f"{section.place}: [{section.title}] stands twice")
        sections[section.title] = section
    return list(sections.values())


def _find_lines(text: str) -> dict[tuple[str, str], int]:
    """Return the line number of each (section, key), and of each section as (section, "")."""
    lines: dict[tuple[str, str], int] = {}
    title = ""
    continues_beyond: float = math.inf
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if indent > continues_beyond:
            continue  # more of the value above, whatever it looks like
        if section := _SECTION_LINE.match(stripped):
            title = section["title"]
            lines[title, ""] = number
            continues_beyond = math.inf
        elif option := _OPTION_LINE.match(stripped):
            lines[title, option["key"].lower()] = number
            continues_beyond = indent
    return lines


def _describe_syntax_error(path: Path, exc: configparser.Error) -> str:
    match exc:
        case configparser.MissingSectionHeaderError(lineno=line):
            return f"{path}:{line}: a value before the first [section]"
        case configparser.ParsingError(errors=[(line, _), *_]):
            return f"{path}:{line}: not a [section] and not of the form name = value"
        case configparser.DuplicateSectionError(section=title, lineno=line):
            return f"{path}:{line}: [{title}] stands twice"
        case configparser.DuplicateOptionError(section=title, option=option, lineno=line):
            return f"{path}:{line}: {option} stands twice in [{title}]"
        case _:
            return f"{path}: {exc.message}"
