"""INI files: the values, and the line that each of them stands on."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.errors import ConfigError
from aiproxyd.ini import Section, Value, read_ini


def write(directory: Path, text: str) -> Path:
    path = directory / "a.ini"
    path.write_bytes(text.encode())
    return path


def read(directory: Path, text: str) -> list[Section]:
    """Read *text* as a file; the places are without the directory."""
    return [
        section._replace(
            place=section.place.removeprefix(f"{directory}/"),
            values={
                key: value._replace(place=value.place.removeprefix(f"{directory}/"))
                for key, value in section.values.items()
            },
        )
        for section in read_ini(write(directory, text))
    ]


def test_sections_have_kind_name_and_values_with_their_places(tmp_path: Path) -> None:
    sections = read(tmp_path, "[aiproxyd]\nport = 1\n\n[upstream  my local ]\n\nbase-url=http://a\nPROVIDER = openai\n")

    assert sections == [
        Section("aiproxyd", "", "a.ini:1", {"port": Value("1", "a.ini:2")}),
        Section(
            "upstream",
            "my local",
            "a.ini:4",
            {"base-url": Value("http://a", "a.ini:6"), "provider": Value("openai", "a.ini:7")},
        ),
    ]
    assert [section.title for section in sections] == ["aiproxyd", "upstream my local"]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("a = 1 ; why", "1"),
        ("a = 1 # why", "1"),
        ("a = 1;2#3", "1;2#3"),
        ("a = b = c", "b = c"),
        ("a =", ""),
        ("a = ; nothing", ""),
        ("a = 50%", "50%"),
        ("a = %(b)s", "%(b)s"),
        ("a=x: y", "x: y"),
        ("a = é", "é"),
    ],
)
def test_a_value_is_what_stands_between_the_sign_and_a_comment(line: str, text: str, tmp_path: Path) -> None:
    (section,) = read(tmp_path, f"[s]\n{line}\n")

    assert section.values == {"a": Value(text, "a.ini:2")}


def test_indented_lines_continue_a_value(tmp_path: Path) -> None:
    (section,) = read(tmp_path, "[s]\na = 1,\n  b = 2,\n  [x]\nc = 3\n")

    assert section.values == {"a": Value("1,\nb = 2,\n[x]", "a.ini:2"), "c": Value("3", "a.ini:5")}


# The places of indented lines were those of the first line.
def test_a_section_may_be_indented_as_a_whole(tmp_path: Path) -> None:
    sections = read(tmp_path, "  [s]\n\n  a = 1\n  b = 2\n    3\n[t]\n a = 4\n")

    assert sections == [
        Section("s", "", "a.ini:1", {"a": Value("1", "a.ini:3"), "b": Value("2\n3", "a.ini:4")}),
        Section("t", "", "a.ini:6", {"a": Value("4", "a.ini:7")}),
    ]


# A page break counted as a line.
def test_only_line_ends_count_as_line_ends(tmp_path: Path) -> None:
    (section,) = read(tmp_path, "[s] ; \x0c \x85 \u2028\r\na = 1\r\n; b = 2\r\nb = 3\r\n")

    assert section.values == {"a": Value("1", "a.ini:2"), "b": Value("3", "a.ini:4")}


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (section,) = read(tmp_path, "\ufeff[s]\na = 1\n")

    assert section == Section("s", "", "a.ini:1", {"a": Value("1", "a.ini:2")})


def test_default_is_a_section_like_others(tmp_path: Path) -> None:
    default, other = read(tmp_path, "[DEFAULT]\na = 1\n[s]\nb = 2\n")

    assert default == Section("DEFAULT", "", "a.ini:1", {"a": Value("1", "a.ini:2")})
    assert other == Section("s", "", "a.ini:3", {"b": Value("2", "a.ini:4")})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = 1\n[s]\n", "a.ini:1: a value before the first [section]"),
        ("\n[s]\na = 1\nsurprise\nworse\n", "a.ini:4: not a [section] and not of the form name = value"),
        ("[s]\n= 1\n", "a.ini:2: not a [section] and not of the form name = value"),
        ("[s\n", "a.ini:1: a value before the first [section]"),
        ("[s]\na = 1\n[t]\n[s]\n", "a.ini:4: [s] stands twice"),
        ("[k a]\n[k  a]\n", "a.ini:2: [k a] stands twice"),
        ("[s]\na = 1\nA = 2\n", "a.ini:3: a stands twice in [s]"),
    ],
)
def test_what_is_no_ini_file_is_refused_with_its_line(text: str, problem: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)

    with pytest.raises(ConfigError) as caught:
        read_ini(path)

    assert caught.value.problems == (f"{tmp_path}/{problem}",)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ini"
    path.write_bytes(b"[s]\na = \xff\n")

    with pytest.raises(ConfigError, match=r"a\.ini: cannot be read: .*utf-8"):
        read_ini(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_ini(tmp_path / "b.ini")

    assert caught.value.problems == (f"{tmp_path}/b.ini: cannot be read: No such file or directory",)


def test_variables_are_replaced_by_the_environment(tmp_path: Path) -> None:
    (section,) = read(tmp_path, "[s]\na = ${A}-${B_2}, ${A}\nb = $A $$ ${} ${1} {A}\nc = 1\n")

    problems = section.expand({"A": "${B_2}", "B_2": ""})

    assert problems == []
    assert section.values == {
        "a": Value("${B_2}-, ${B_2}", "a.ini:2"),
        "b": Value("$A $$ ${} ${1} {A}", "a.ini:3"),
        "c": Value("1", "a.ini:4"),
    }


def test_each_variable_that_is_not_set_is_a_problem(tmp_path: Path) -> None:
    (section,) = read(tmp_path, "[s]\na = ${A}\nb = ${B} ${C}\n")

    problems = section.expand({"A": "x"})

    assert problems == [
        "a.ini:3: the environment variable B is not set",
        "a.ini:3: the environment variable C is not set",
    ]


NAMES = st.from_regex(r"[a-z][a-z-]{0,5}", fullmatch=True)
INDENTS = st.sampled_from(("", " ", "\t"))


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, INDENTS, max_size=3), max_size=3), INDENTS, st.data())
def test_every_value_is_found_on_its_line(
    tmp_path_factory: pytest.TempPathFactory, titles: dict[str, dict[str, str]], indent: str, data: st.DataObject
) -> None:
    lines: list[str] = []
    places: dict[tuple[str, str], int] = {}
    for title, values in titles.items():
        lines += data.draw(st.lists(st.sampled_from(("", "; a = 1", "# [s]")), max_size=2))
        lines.append(f"[{title}]")
        places[title, ""] = len(lines)
        for key, space in values.items():
            lines.append(f"{indent}{key}{space}= 1")
            places[title, key] = len(lines)

    sections = read_ini(write(tmp_path_factory.getbasetemp(), "\n".join(lines)))

    found = {
        (section.kind, key): int(place.rpartition(":")[2])
        for section in sections
        for key, place in [("", section.place), *((key, value.place) for key, value in section.values.items())]
    }
    assert found == places
