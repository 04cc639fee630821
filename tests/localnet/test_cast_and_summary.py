"""Who plays, and how the end of a local network is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from targon.localnet import CHEATS, FolderInUse
from targon.localnet.cast import CHEAT_WORDS, ENGINE_OF, cast
from targon.localnet.network import MARKER, clear
from targon.localnet.summary import Line, conviction_faults, ranking_faults, summary
from targon.protocol.primitives import Uid


def test_every_cheat_has_words_and_a_place_to_run():
    assert set(CHEAT_WORDS) == set(ENGINE_OF) == set(CHEATS)


def test_players_have_names_of_their_own():
    names = [player.name for player in cast(3, 2, ("int4", "int4", "offline"))]
    assert names == [
        "honest-1",
        "honest-2",
        "honest-3",
        "honest-bf16-1",
        "honest-bf16-2",
        "int4",
        "int4-2",
        "offline",
    ]


@pytest.fixture
def lines() -> list[Line]:
    honest, bf16, cheat = cast(1, 1, ("canned",))
    return [
        Line(Uid(1), honest, "Silver", 5, 0.2, 65535, 0.9),
        Line(Uid(2), bf16, "Bronze", 2, 0.01, 3277, 0.1),
        Line(Uid(3), cheat, "Bronze", 0, 0.0, 0, 0.0, 2, 17, 1),
    ]


def _told(lines: list[Line]) -> str:
    return "\n".join(
        summary(lines, path=Path("net"), log=Path("net/log"), profile="demo", promotions=1, facts=["A fact."])
    )


def test_a_network_in_order_says_so_and_names_three_commands(lines):
    told = _told(lines)
    assert "Every cheat that answers was convicted, no honest prover was" in told
    assert "after 17 tokens, in answer 1" in told
    assert "Profile 'demo'" in told
    assert [line.split()[1] for line in told.splitlines() if line.startswith("  targon ")] == [
        "status",
        "why",
        "localnet",
    ]


def test_what_is_wrong_beside_provers_is_told(lines):
    told = summary(
        lines,
        path=Path("net"),
        log=Path("log"),
        profile="demo",
        promotions=0,
        facts=[],
        others=["No oracle."],
    )
    assert "  No oracle." in told
    assert not any("Every cheat" in line for line in told)


def test_an_honest_prover_that_was_convicted_is_a_fault(lines):
    lines[1] = replace(lines[1], convictions=1, tokens_to_conviction=900)
    (fault,) = conviction_faults(lines)
    assert fault.startswith("honest-bf16-1 is honest and was convicted after 900 tokens")
    assert "Not as it should be" in _told(lines)


def test_a_cheat_that_answers_and_was_not_convicted_is_a_fault(lines):
    lines[2] = replace(lines[2], convictions=0, log_e=3.2)
    (fault,) = conviction_faults(lines)
    assert fault.startswith("canned was not convicted (ln e = 3.2)")


def test_silence_convicts_nobody(lines):
    (offline,) = cast(0, 0, ("offline",))
    assert not conviction_faults([Line(Uid(3), offline, "Bronze", 0, 0.0, 0, 0.0)])


@pytest.mark.parametrize("player", [0, 1])
@pytest.mark.parametrize("what", ["score", "weight", "incentive"])
def test_a_cheat_level_with_an_honest_prover_is_a_fault(lines, what, player):
    level = lines[player]
    lines[2] = replace(lines[2], **{what: getattr(level, what)})
    assert any(fault.startswith(f"{what} of {level.player.name} is") for fault in ranking_faults(lines))
    assert "Not as it should be" in _told(lines)


def test_only_a_local_networks_folder_is_cleared(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FolderInUse, match="give an empty folder"):
        clear(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_a_local_networks_folder_is_made_and_cleared(tmp_path):
    folder = tmp_path / "net"
    clear(folder)
    (folder / "old.log").write_text("old")
    clear(folder)
    assert [path.name for path in folder.iterdir()] == [MARKER]
