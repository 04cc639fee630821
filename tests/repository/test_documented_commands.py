"""Every command of targon in the documentation, and every variable of a flag, is one that the command line knows."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import CliSettingsSource

from targon.cli.main import Targon

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SETTINGS = sorted(path for path in (ROOT / "deploy").rglob("*") if path.is_file())
NAMES = ("targon", ".venv/bin/targon")


@cache
def command_line() -> argparse.ArgumentParser:
    parser: object = CliSettingsSource[Any](Targon, cli_parse_args=False).root_parser
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


def commands_below(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands that a command has, by name."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(action.choices)
    return found


def unknown(words: list[str]) -> list[str]:
    """Which of a command's words the command line doesn't know: flags, and a first word that is no command."""
    parser = command_line()
    rest = list(words)
    while rest and (below := commands_below(parser).get(rest[0])):
        parser, rest = below, rest[1:]
    expects_command = bool(commands_below(parser))
    strangers = [word for word in rest[:1] if expects_command and not word.startswith("-")]
    flags = [word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
    return strangers + [flag for flag in flags if flag not in parser._option_string_actions]


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
            r"\bTARGON_(PROVER|VERIFIER)__((?:[A-Z]+_?)+(?:__(?:[A-Z]+_?)+)*)\b", file.read_text("utf-8")
        )
    )
    wrong = [
        f"TARGON_{role}__{name}"
        for role, name in named
        if unknown([role.lower(), f"--{name.removesuffix('_FILE').lower().replace('__', '.')}"])
    ]
    assert sorted(wrong) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_dotted_flags_of_a_page_are_a_role_s(page: Path) -> None:
    named = set(re.findall(r"(?<![\w-])(--[a-z]+\.[a-z_]+)", page.read_text("utf-8")))
    assert sorted(flag for flag in named if unknown(["prover", flag]) and unknown(["verifier", flag])) == []


def test_commands_are_found_on_the_pages() -> None:
    text = {page.name: list(documented(page.read_text("utf-8"))) for page in PAGES}
    assert ["engine", "check", "http://127.0.0.1:8000"] in text["engines.md"]
    assert ["localnet"] in text["benchmarks.md"]
    assert {words[0] for words in text["pm2.md"]} == {"prover", "verifier"}
    assert ["prover", "--help"] in text["docker.md"]
    assert sum(map(len, text.values())) > 40


def test_what_is_not_known_would_be_seen() -> None:
    assert unknown(["miner"]) == ["miner"]
    assert unknown(["prover", "--wallet.nam", "x", "--netuid=4"]) == ["--wallet.nam"]
    assert unknown(["chain", "create", "x", "--tempo", "5"]) == []
    assert unknown(["wallet", "destroy", "--force"]) == ["destroy", "--force"]
