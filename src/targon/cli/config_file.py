"""Files of options: TOML, with tables named as the flags are.

A file speaks of one role, or of several in the tables ``[prover]``, ``[verifier]`` and ``[gateway]``. Where there is
neither of the first two, ``[gateway]`` is a table of options, as others are::

    [wallet]                 [verifier.wallet]
    name = "mine"            name = "mine"
"""

from __future__ import annotations

import re
import stat
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from targon.cli.catalog import ROLES, RoleName, nearest
from targon.cli.errors import WrongOptions

_NEURONS = frozenset({"prover", "verifier"})
"""A table of either name makes a file one of several roles."""

_TABLE = re.compile(r"\s*\[\[?([^\]]+)\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*([\w.\-"']+(?:\s*\.\s*[\w\-"']+)*)\s*=""")


@dataclass(frozen=True, slots=True)
class Entry:
    """A value in a file."""

    value: object
    line: int | None
    """Where it stands; None where that cannot be told."""


def read_options(path: Path, role: RoleName, known: Collection[str]) -> dict[str, Entry]:
    """What a file says of a role's options, by dotted name.

    Args:
        known: the names that there are.

    Raises:
        WrongOptions: if there is no such file, if it is no TOML, or if it names what there is not.
    """
    text = _text(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WrongOptions([f"{path}: expected TOML: {error}"]) from error
    lines = _lines(text)
    table, prefix = _table_of(document, role, path, lines)
    entries: dict[str, Entry] = {}
    wrong: list[str] = []
    for name, value in _leaves(table, known):
        line = _line_of(prefix + name, lines)
        if name in known:
            entries[name] = Entry(value, line)
        elif any(one.startswith(f"{name}.") for one in known):
            if value != {}:
                wrong.append(f"{place(path, line, name)}: got a value, expected a table, [{prefix}{name}]")
        else:
            wrong.append(f"{place(path, line, name)}: there is no such option{nearest(name, known)}")
    if wrong:
        raise WrongOptions(wrong)
    return entries


def place(path: Path, line: int | None, name: str) -> str:
    """Where an option stands, as a complaint about it begins."""
    return f"{path}: {name}" if line is None else f"{path}, line {line}: {name}"


def others_can_read(path: Path) -> bool:
    """Whether anybody but its owner may read a file."""
    return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise WrongOptions(
            [
                f"--config: the file {path} cannot be read ({error.strerror}); expected a file of options in TOML"
            ]
        ) from error
    except UnicodeDecodeError as error:
        raise WrongOptions(
            [f"{path}: got bytes that are no UTF-8 at offset {error.start}, expected TOML"]
        ) from error


def _table_of(
    document: Mapping[str, Any], role: RoleName, path: Path, lines: Mapping[str, int]
) -> tuple[Mapping[str, Any], str]:
    """The part of a file that speaks of a role, and what its names begin with."""
    if not _NEURONS & document.keys():
        return document, ""
    for name in document:
        if name not in ROLES:
            raise WrongOptions(
                [
                    f"{place(path, _line_of(name, lines), name)}: got it beside a role's table, "
                    f"expected it in one: {role}.{name}"
                ]
            )
    if role not in document:
        others = " and the ".join(document)
        raise WrongOptions([f"{path}: got options of the {others} only, expected a table [{role}]"])
    table = document[role]
    if not isinstance(table, dict):
        raise WrongOptions([f"{place(path, _line_of(role, lines), role)}: got a value, expected a table"])
    return table, f"{role}."


def _leaves(
    table: Mapping[str, Any], known: Collection[str], prefix: str = ""
) -> Iterator[tuple[str, object]]:
    """Everything in a table, by dotted name; a table is entered if it can hold an option."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        group = any(one.startswith(f"{name}.") for one in known)
        if isinstance(value, dict) and value and (group or name not in known):
            yield from _leaves(value, known, f"{name}.")
        else:
            yield name, value


def _lines(text: str) -> dict[str, int]:
    """The line of each table and each key that stands at the start of one."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TABLE.match(line):
            table = _bare(header[1]) + "."
            found.setdefault(_bare(header[1]), number)
        elif key := _KEY.match(line):
            found.setdefault(table + _bare(key[1]), number)
    return found


def _bare(name: str) -> str:
    return re.sub(r"""[\s"']""", "", name)


def _line_of(name: str, lines: Mapping[str, int]) -> int | None:
    """Its own line, or that of the table that holds it."""
    while name:
        if name in lines:
            return lines[name]
        name = name.rpartition(".")[0]
    return None
