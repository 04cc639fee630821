"""Every command of targon in the documentation, and every variable of a flag, is one that the command line knows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from functools import cache
from io import StringIO
from pathlib import Path

import pytest

from targon.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SETTINGS = sorted(path for path in (ROOT / "deploy").rglob("*") if path.is_file())
NAMES = ("targon", ".venv/bin/targon")
TAKE_THOSE_OF = {
    ("log", "migrate"): ("verifier",),
    ("status",): ("verifier",),
    ("why",): ("verifier",),
    ("standing",): ("prover",),
}
"""Commands that take a role's flags, which their own help doesn't repeat."""


@cache
def help_of(*command: str) -> str:
    """What a command says to ``--help``."""
    said = StringIO()
    with redirect_stdout(said), suppress(SystemExit):
        main([*command, "--help"])
    return said.getvalue()


@cache
def commands_below(*command: str) -> frozenset[str]:
    """The commands that a command has."""
    listed = re.search(r"^subcommands:\n\s+\{([\w,]+)\}", help_of(*command), re.MULTILINE)
    return frozenset(listed[1].split(",")) if listed else frozenset()


@cache
def flags_of(*command: str) -> frozenset[str]:
    """The flags of a command, and those of the role whose options it takes, too."""
    listed = re.findall(r"^ +(-[^\s,]+(?:, -[^\s,]+)*)", help_of(*command), re.MULTILINE)
    own = frozenset(flag for line in listed for flag in line.split(", "))
    own |= {flag.partition(".")[0] for flag in own}  # a group can be given as a whole: --engine none
    role = {("config", "show"): command[2:3], ("doctor",): command[1:2], **TAKE_THOSE_OF}
    return own.union(
        *(flags_of(*whose) for begin, whose in role.items() if whose and command[: len(begin)] == begin)
    )


def unknown(words: Sequence[str]) -> list[str]:
    """Which of a command's words the command line doesn't know: flags, and a word where a command is expected."""
    command: list[str] = []
    rest = list(words)
    while rest and rest[0] in commands_below(*command):
        command.append(rest.pop(0))
    expects_command = bool(commands_below(*command))
    strangers = [word for word in rest[:1] if expects_command and not word.startswith("-")]
    if command == ["config", "show"] and rest[:1] in (["prover"], ["verifier"], ["gateway"], ["oracle"]):
        command.append(rest[0])
    flags = [word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
    return strangers + [flag for flag in flags if flag not in flags_of(*command)]


def lines(text: str) -> Iterator[str]:
    """The lines of the code blocks of a page, continued ones in one, and what stands as code within sentences."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    for block in [*blocks, *re.findall(r"(?m)^ {4}\S.*$", text)]:
        yield from (line.strip() for line in block.replace("\\\n", " ").splitlines())
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (code.strip() for code in re.findall(r"`([^`\n]+)`", prose))


def documented(text: str) -> Iterator[list[str]]:
    """The words after ``targon`` of each of its commands on a page, started in whichever way."""
    for line in lines(text):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a sentence's apostrophe, not a command
            continue
        if words[:1] and words[0] in NAMES and len(words) > 1:
            yield words[1:]
        elif words[:3] == ["pm2", "start", "app.py"]:
            yield [words[words.index("--name") + 1], *words[words.index("--") + 1 :]]
        elif words[:2] == ["docker", "run"] and any(word.startswith("targon-") for word in words):
            place = next(place for place, word in enumerate(words) if word.startswith("targon-"))
            after = words[place + 1 :]
            yield (
                [words[place].removeprefix("targon-"), *after] if not after or after[0][:1] == "-" else after
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_commands_of_a_page_are_known(page: Path) -> None:
    found = {" ".join(words): unknown(words) for words in documented(page.read_text("utf-8"))}
    assert {command: words for command, words in found.items() if words} == {}


@pytest.mark.parametrize("file", [*PAGES, *SETTINGS], ids=lambda path: path.name)
def test_the_variables_of_a_file_are_flags(file: Path) -> None:
    named = set(
        re.findall(
            r"\bTARGON_(PROVER|VERIFIER|GATEWAY|ORACLE)__((?:[A-Z]+_?)+(?:__(?:[A-Z]+_?)+)*)\b",
            file.read_text("utf-8"),
        )
    )
    wrong = []
    for role, name in named:
        # the containers' entrypoint takes NAME_FILE for a file that holds the secret NAME
        flags = [f"--{form.lower().replace('__', '.')}" for form in (name, name.removesuffix("_FILE"))]
        if all(unknown([role.lower(), flag]) for flag in flags):
            wrong.append(f"TARGON_{role}__{name}")
    assert sorted(wrong) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_dotted_flags_of_a_page_are_a_role_s(page: Path) -> None:
    named = set(re.findall(r"(?<![\w-])(--[a-z]+\.[a-z_]+)", page.read_text("utf-8")))
    roles = ("prover", "verifier", "gateway", "oracle")
    assert sorted(flag for flag in named if all(unknown([role, flag]) for role in roles)) == []


def test_commands_are_found_on_the_pages() -> None:
    text = {page.name: list(documented(page.read_text("utf-8"))) for page in PAGES}
    assert ["engine", "check", "http://127.0.0.1:8000"] in text["engines.md"]
    assert ["localnet"] in text["benchmarks.md"]
    assert {words[0] for words in text["pm2.md"]} == {"prover", "verifier", "oracle"}
    assert ["prover", "--help"] in text["docker.md"]
    assert sum(map(len, text.values())) > 40


def test_what_is_not_known_would_be_seen() -> None:
    assert unknown(["miner"]) == ["miner"]
    assert unknown(["prover", "--wallet.nam", "x", "--netuid=4"]) == ["--wallet.nam"]
    assert unknown(["chain", "create", "x", "--tempo", "5"]) == []
    assert unknown(["wallet", "destroy", "--force"]) == ["destroy", "--force"]
