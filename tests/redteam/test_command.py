"""``targon redteam`` at the keyboard, and the page that tells of it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from targon.cli import main
from targon.redteam import ATTACKS, with_needs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "redteam.md"


def commands() -> list[list[str]]:
    """The words of each command in the page, after ``targon``."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True)[1:] for block in blocks for line in block.splitlines()]


def test_an_attack_that_does_not_exist_is_refused_in_a_sentence(capsys):
    assert main(["redteam", "--attacks", "int4,int5"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("targon: attack: got 'int5', expected one of honest-bf16")


def test_a_file_of_honest_answers_that_is_not_there_is_named(capsys, tmp_path):
    assert main(["redteam", "--quick", "--honest", str(tmp_path / "none.jsonl")]) == 1
    assert "none.jsonl, which is no file; expected a file of transcripts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--organic"], "got --organic and --front_running, expected one of them at a time"),
        (
            ["--attacks", "T+0.2"],
            "--attacks: got T+0.2; with --front_running expected cheaper weights, such as int4",
        ),
        (["--honest", __file__], "--honest: got files; --front_running takes none"),
    ],
)
def test_what_running_ahead_has_no_use_for_is_refused(words, told, capsys):
    assert main(["redteam", "--front_running", *words]) == 1
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_commands_of_the_page_are_understood(words, capsys, monkeypatch):
    """They are run up to the point where engines would start."""
    from targon.cli.commands import redteam

    asked = []

    async def run(_, bench, attacks):
        asked.append((bench, attacks))
        return 0

    ways = {"--organic": "_run_organic", "--front_running": "_run_front_running"}
    way = next((ways[word] for word in words if word in ways), "_run")
    monkeypatch.setattr(redteam.RedteamCommand, way, run)
    assert main(words) == 0, capsys.readouterr().err
    ((bench, attacks),) = asked
    assert bench.completions == (redteam.QUICK_COMPLETIONS if "--quick" in words else redteam.COMPLETIONS)
    named = words[words.index("--attacks") + 1].split(",") if "--attacks" in words else []
    assert {attack.name for attack in attacks} >= set(named)
    assert attacks == with_needs(tuple(attack.name for attack in attacks))


def test_the_page_names_every_cheat():
    text = PAGE.read_text("utf-8")
    span = {"T-0.05", "T+0.1", "T-0.1", "T+0.2"}  # the page has the first and the last
    missing = [attack.name for attack in ATTACKS if not attack.honest and f"`{attack.name}`" not in text]
    assert set(missing) <= span
