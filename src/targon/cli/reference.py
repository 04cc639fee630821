"""The tables of docs/configuration.md, made from the options that there are.

python -m targon.cli.reference --write docs/configuration.md
python -m targon.cli.reference --check docs/configuration.md
"""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from targon.cli.catalog import ROLES, Option, RoleName, options_of, plain

_TABLE = re.compile(r"(<!-- options of targon (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(page: str) -> str:
    """A page with the table of a role between each pair of its marks."""
    return _TABLE.sub(lambda marks: f"{marks[1]}{table(marks[2])}{marks[3]}", page)  # type: ignore[arg-type]


def table(role: RoleName) -> str:
    """A role's options: name, default, variable, meaning."""
    model = ROLES[role]
    aliases = {name: alias for alias, name in model.ALIASES.items()}
    lines = ["| option | default | environment | meaning |", "|---|---|---|---|"]
    for option in options_of(model).values():
        names = f"`{option.flag}`"
        if option.name in aliases:
            names += f", `--{aliases[option.name]}`"
        variable = option.environment_name(role)
        lines.append(f"| {names} | {_default(option)} | `{variable}` | {_meaning(option)} |")
    return "\n".join(lines) + "\n"


def _default(option: Option) -> str:
    value = plain(option.default)
    if value is None or value == "":
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(option: Option) -> str:
    words = " ".join(f"`{word}`" for word in option.choices if word)
    return f"{option.meaning} One of {words}." if words else option.meaning


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables again, or check that they are what they should be."""
    parser = ArgumentParser(prog="python -m targon.cli.reference", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", type=Path, metavar="PAGE", help="write the tables of this page again")
    what.add_argument("--check", type=Path, metavar="PAGE", help="end with 1 if the page's tables are old")
    flags = parser.parse_args(arguments)
    page: Path = flags.write or flags.check
    text = page.read_text("utf-8")
    made = with_tables(text)
    if flags.write:
        page.write_text(made, "utf-8")
    elif made != text:
        sys.stderr.write(f"{page} is not what the options are; write it again with --write\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
