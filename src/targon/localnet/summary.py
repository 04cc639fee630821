"""How a local network ended: who stands where, whether that is as it should be, and where to look next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from targon.localnet.cast import Player
from targon.protocol.primitives import Uid


@dataclass(frozen=True, slots=True)
class Line:
    """One prover at the end."""

    uid: Uid
    player: Player
    tier: str
    successes: int
    """Total successes."""
    score: float
    weight: int
    """On chain, u16."""
    incentive: float


def ranking_faults(lines: Sequence[Line]) -> list[str]:
    """Where a cheat stands level with an honest prover of the reference's own number format, or above it.

    Scores, the chain's weights and the chain's incentives must each say the same.
    """
    honest = [line for line in lines if line.player.exact]
    cheats = [line for line in lines if line.player.cheat is not None]
    faults = []
    for good in honest:
        for bad in cheats:
            for what, mine, theirs in (
                ("score", good.score, bad.score),
                ("weight", good.weight, bad.weight),
                ("incentive", good.incentive, bad.incentive),
            ):
                if not mine > theirs:
                    faults.append(
                        f"{what} of {good.player.name} is {mine:g}, of {bad.player.name} {theirs:g}: "
                        "expected the honest prover above the cheat"
                    )
    return faults


def summary(
    lines: Sequence[Line], *, path: Path, log: Path, profile: str, promotions: int, facts: Sequence[str]
) -> list[str]:
    """The plain text that is printed at the end, a line each.

    Args:
        path: the network's folder.
        log: the first verifier's log.
        facts: what was counted, in words.
    """
    ordered = sorted(lines, key=lambda line: (-line.score, line.uid))
    width = max((len(line.player.name) for line in lines), default=6)
    text = ["", *facts, f"Tiers moved up {promotions} times.", ""]
    text.append(
        f"{'UID':>3}  {'prover':<{width}}  {'tier':<11}  {'passed':>6}  {'score':>6}  {'weight':>6}  incentive"
    )
    text += [
        f"{line.uid:>3}  {line.player.name:<{width}}  {line.tier:<11}  {line.successes:>6}  "
        f"{line.score:>6.3f}  {line.weight:>6}  {line.incentive:>9.1%}"
        for line in ordered
    ]
    text.append("")
    faults = ranking_faults(lines)
    if faults:
        text += ["Not as it should be:", *(f"  {fault}" for fault in faults)]
    elif any(line.player.exact for line in lines) and any(line.player.cheat for line in lines):
        text.append(
            "Every honest fp32 prover stands above every cheat: by score, by weight and by incentive."
        )
    if any(line.player.engine == "bf16" and line.player.cheat is None for line in lines):
        text.append(
            "The honest bf16 prover fails where rounding makes its tokens differ from the fp32 reference's: equality"
        )
        text.append(
            "can't tell that from cheating, and convicts nobody. The margins in 'targon why' show what it is."
        )
    loser = ordered[-1].uid if ordered else 0
    text += [
        f"Profile {profile!r}: intervals, minima and probation are shortened, so that this takes a minute.",
        "",
        f"The log: {log}",
        "Three commands to try next:",
        f"  targon status --path {path}",
        f"  targon why {loser} --path {path}",
        "  targon localnet --cheats int4 --honest 5 --intervals 6",
    ]
    return text
