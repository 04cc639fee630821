"""The matrix: attack by method, with the tokens to conviction. Pure arithmetic on what was judged."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field

from targon.protocol.messages import Message
from targon.redteam.attacks import Attack
from targon.redteam.generating import Repairs
from targon.redteam.judging import EVIDENCE, METHODS, SURPRISAL, Judged
from targon.redteam.streams import Growth, Pool, Spread, growth, run_through, tokens_to_conviction

STREAMS: Final = 300

USUAL_SURPRISAL: Final = 0.01
"""Surprisal alone takes an answer for a cheat's that is further out than all but this share of honest ones."""

LEAST_HONEST: Final = 30
"""With fewer honest answers at a temperature there is no saying how far out theirs lie."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Row(Message):
    """One attack, or one way of being honest."""

    name: str
    kind: str
    words: str
    workload: str
    goal: int | None
    """Tokens within which half of such provers should be convicted; None: none was set."""
    completions: int
    tokens: int
    outside: int
    """Answers that no calibration covers, or whose form is wrong: they leave no evidence."""
    agreement: Share
    """Mean share of tokens that are the replayed sampler's choice."""
    margin: float
    detection: dict[str, Share | None]
    """By method, the share of answers that fail when looked at alone; None: not known."""
    conviction: Spread | None
    """Of streams of the answers; true ones are taken once each, in random order. None: there is no evidence to go
    by."""
    peak: float
    """The highest ln e at the end of an answer, all answers taken once, in order."""
    convicted_at: int | None
    """The token at which they convict; None: they don't."""
    growth: Growth | None
    repairs: Repairs | None = None


class Matrix(Message):
    """A whole run."""

    version: Literal[1] = 1
    model: str
    model_digest: str
    reference: str
    """Engine and number format of the reference."""
    calibration: str
    """Digest of the calibration."""
    streams: int
    most_tokens: int
    """Where a stream ends that leads to no conviction."""
    conviction: float
    """ln e at which a prover is convicted."""
    methods: tuple[str, ...] = METHODS
    costs: dict[str, float]
    """By method, its time against generating the same tokens on the same engine, one answer at a time."""
    rows: tuple[Row, ...]

    @property
    def false_convictions(self) -> tuple[str, ...]:
        """Honest rows that were convicted, in order or in any stream."""
        return tuple(
            row.name
            for row in self.rows
            if row.kind == "honest"
            and (
                row.convicted_at is not None or (row.conviction is not None and row.conviction.convicted > 0)
            )
        )


def make_row(
    attack: Attack,
    judged: Sequence[Judged],
    *,
    beside: Sequence[Judged] = (),
    share: float = 1.0,
    usual: Mapping[float, tuple[float, float]],
    streams: int = STREAMS,
    most: int,
    repairs: Repairs | None = None,
) -> Row:
    """The row of an attack.

    Args:
        judged: the attack's answers; of a mixture the cheating ones.
        beside: of a mixture the honest ones.
        share: of cheating requests.
        usual: by temperature, between which surprisals honest answers lie; empty: not known.
        most: where a stream ends that leads to no conviction.
    """
    if share == 1.0:
        beside = ()
    everything = [*judged, *beside]
    answers = [one.evidence for one in judged if one.evidence is not None]
    honest = [one.evidence for one in beside if one.evidence is not None]
    pool = Pool(answers, honest, share, once=attack.true)
    seed = zlib.crc32(attack.name.encode())
    known = bool(answers) and (share == 1.0 or bool(honest))
    detection = {
        method: share * _rate(method, judged, usual) + (1.0 - share) * _rate(method, beside, usual)
        for method in METHODS
    }
    state = run_through(answers)
    return Row(
        name=attack.name,
        kind=attack.kind,
        words=attack.words,
        workload=attack.workload,
        goal=attack.goal,
        completions=len(everything),
        tokens=sum(one.tokens for one in everything),
        outside=sum(one.evidence is None for one in everything),
        agreement=min(1.0, _mean("agreement", judged, beside, share)),
        margin=_mean("margin", judged, beside, share),
        detection={method: None if np.isnan(rate) else min(1.0, rate) for method, rate in detection.items()},
        conviction=tokens_to_conviction(pool, np.random.default_rng(seed), streams, most) if known else None,
        peak=state.log_peak,
        convicted_at=state.convicted_at if share == 1.0 else None,
        growth=growth(pool, np.random.default_rng(seed + 1), most=most) if known else None,
        repairs=repairs,
    )


def usual_surprisals(honest: Sequence[Judged]) -> dict[float, tuple[float, float]]:
    """By temperature, between which surprisals all but ``USUAL_SURPRISAL`` of honest answers lie; nothing for those
    with fewer than ``LEAST_HONEST`` answers."""
    outside = (USUAL_SURPRISAL / 2, 1 - USUAL_SURPRISAL / 2)
    found: dict[float, tuple[float, float]] = {}
    for temperature in {one.temperature for one in honest}:
        values = [one.surprisal for one in honest if one.temperature == temperature]
        if len(values) >= LEAST_HONEST:
            low, high = np.quantile(values, outside)
            found[temperature] = (float(low), float(high))
    return found


def _rate(method: str, judged: Sequence[Judged], usual: Mapping[float, tuple[float, float]]) -> float:
    """The share of answers that a method fails; 0 of none; NaN where it isn't known."""
    if not judged:
        return 0.0
    if method == EVIDENCE:
        alone = [one.evidence is not None and run_through([one.evidence]).convicted for one in judged]
        return float(np.mean(alone))
    if method == SURPRISAL:
        if any(one.temperature not in usual for one in judged):
            return float("nan")
        return float(
            np.mean(
                [
                    not usual[one.temperature][0] <= one.surprisal <= usual[one.temperature][1]
                    for one in judged
                ]
            )
        )
    return float(np.mean([one.failed[method] for one in judged]))


def _mean(name: str, judged: Sequence[Judged], beside: Sequence[Judged], share: float) -> float:
    """The mean over tokens."""

    def of(group: Sequence[Judged]) -> float:
        tokens = [one.tokens for one in group]
        return float(np.average([getattr(one, name) for one in group], weights=tokens)) if group else 0.0

    return share * of(judged) + (1.0 - share) * of(beside)
