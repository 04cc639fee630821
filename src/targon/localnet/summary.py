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
    convictions: int = 0
    tokens_to_conviction: int | None = None
    """Verified tokens until its first conviction."""
    answers_to_conviction: int | None = None
    log_e: float = 0.0
    """Natural logarithm of the evidence about it, now; 0 before any."""


def ranking_faults(lines: Sequence[Line]) -> list[str]:
    """Where a cheat stands level with an honest prover, or above it.

    Scores, the chain's weights and the chain's incentives must each say the same.
    """
    faults = []
    for good in (line for line in lines if line.player.honest):
        for bad in (line for line in lines if not line.player.honest):
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


def conviction_faults(lines: Sequence[Line]) -> list[str]:
    """Where an honest prover was convicted, or a cheat that answers was not."""
    faults = []
    for line in lines:
        if line.player.honest and line.convictions:
            faults.append(
                f"{line.player.name} is honest and was convicted after {line.tokens_to_conviction} tokens: expected "
                "no conviction"
            )
        if line.player.convictable and not line.convictions:
            faults.append(
                f"{line.player.name} was not convicted (ln e = {line.log_e:.1f}): expected a conviction; more "
                "--intervals give it more work to be convicted by"
            )
    return faults


def summary(
    lines: Sequence[Line],
    *,
    path: Path,
    log: Path,
    profile: str,
    promotions: int,
    facts: Sequence[str],
    others: Sequence[str] = (),
) -> list[str]:
    """The plain text that is printed at the end, a line each.

    Args:
        path: the network's folder.
        log: the first verifier's log.
        facts: what was counted, in words.
        others: faults that aren't about provers, in words.
    """
    ordered = sorted(lines, key=lambda line: (-line.score, line.uid))
    width = max((len(line.player.name) for line in lines), default=6)
    text = ["", *facts, f"Tiers moved up {promotions} times.", ""]
    text.append(
        f"{'UID':>3}  {'prover':<{width}}  {'tier':<11}  {'passed':>6}  {'score':>6}  {'weight':>6}  "
        "incentive  convicted"
    )
    text += [
        f"{line.uid:>3}  {line.player.name:<{width}}  {line.tier:<11}  {line.successes:>6}  "
        f"{line.score:>6.3f}  {line.weight:>6}  {line.incentive:>9.1%}  {_conviction(line)}"
        for line in ordered
    ]
    text.append("")
    faults = [*conviction_faults(lines), *ranking_faults(lines), *others]
    if faults:
        text += ["Not as it should be:", *(f"  {fault}" for fault in faults)]
    elif any(line.player.honest for line in lines) and any(not line.player.honest for line in lines):
        text.append(
            "Every cheat that answers was convicted, no honest prover was, and every honest prover stands above every "
            "cheat: by score, by weight and by incentive."
        )
    if any(line.player.engine == "bf16" and line.player.honest for line in lines):
        text.append(
            "The honest bf16 prover's tokens differ from the fp32 reference's now and then, always by a hair: the "
            "calibration knows how far honest engines differ."
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


def _conviction(line: Line) -> str:
    if not line.convictions:
        return "-"
    tokens, answers = line.tokens_to_conviction, line.answers_to_conviction
    return f"after {tokens} tokens, in answer {answers}"
