"""How often honest engines differ from the reference: the bounds under which the evidence bets.

A calibration is a file, named after its digest, for one model and one reference engine. It has a band for
each sampler and range of parameters that was measured. In a band stand, from honest runs alone:

1. per stratum of the replayed gap, a bound on the probability of a mismatch: ``TOLERANCE`` times the upper
   confidence limit of the worst honest configuration (one of which little was seen borrows from all others,
   unless its own counts contradict them);
2. the recurrence: how many times likelier a mismatch is after an earlier one of the same completion, as an
   upper confidence limit, and at least ``TOLERANCE``. Honest requests differ; this is what that costs;
3. per stratum of the tail mass, by which factor the frequency of unlikely tokens may exceed, or fall short
   of, what the reference says;
4. the margin: by how much a claimed token may miss the replayed choice and still agree with it.

All limits hold together with probability ``CONFIDENCE``. What no band covers has no evidence, with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from targon.protocol.errors import MalformedMessage
from targon.protocol.messages import Dialect, Message, Sampling
from targon.protocol.primitives import Digest, Hex32
from targon.verification.confidence import lower_limit, upper_limit
from targon.verification.observations import (
    GAP_STRATA,
    TAIL_STRATA,
    Floats,
    Ints,
    Observations,
    gap_stratum,
    tail_stratum,
)

CONFIDENCE: Final = 0.999
"""Probability with which all limits of a band hold together."""

TOLERANCE: Final = 1.5
"""How much worse than the worst that was seen an honest prover may be."""

TELLING_BOUND: Final = 0.1
"""A mismatch counts as a sign of a bad completion where its stratum's bound is at most this: near a coin
flip it is no sign of anything."""

RESPONSIVE_BOUND: Final = 0.25
"""Strata with at most this bound say how much likelier a mismatch is after a telling one: a higher rate hardly
has room to grow."""

GUARD_LEVELS: Final = 6
"""Earlier telling mismatches of a completion are counted up to five."""

UNKNOWN_RECURRENCE: Final = 20.0
"""Taken where the data can't say less: twice what a log-normal effect with σ = 1.5 can amount to."""

MARGIN_QUANTILE: Final = 0.999
"""One honest position in a thousand may miss by more than the margin, before the tolerance."""

BORROWING_SHARE: Final = 0.1
"""A configuration with less than this share of a stratum's positions borrows from all others."""

CONTRADICTION_RISK: Final = 0.05
"""A configuration contradicts all others together where its lower limit, at this risk, lies above their upper."""

_CLAIMS = GAP_STRATA * (GAP_STRATA + 1) // 2 + 1 + 2 * TAIL_STRATA
"""Limits per configuration that shall hold together."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]


class CalibrationError(Exception):
    """A calibration can't be made or used. The message says what was got, what was expected, what to do."""


class GapStratum(Message):
    """Positions whose replayed gap lies in one stratum."""

    positions: Count
    mismatches: Count
    bound: Share
    """An honest prover's mismatch probability, given the gap and all that came before, is at most this."""


class TailStratum(Message):
    """Positions whose tail mass lies in one stratum."""

    positions: Count
    hits: Count
    """How many tokens were drawn from the tail."""
    expected: Annotated[float, Field(ge=0.0)]
    """Sum of the tail masses."""
    least: Annotated[float, Field(ge=0.0, le=1.0)]
    most: Annotated[float, Field(ge=1.0)]
    """An honest prover draws from the tail with ``least`` to ``most`` times its mass in probability."""


class Configuration(Message):
    """One honest configuration that was measured: enough to see which of them set the bounds."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    completions: Count
    positions: Count
    mismatches: Annotated[tuple[Count, ...], Field(min_length=GAP_STRATA, max_length=GAP_STRATA)]
    """Per gap stratum."""


class Range(Message):
    """Inclusive."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"got {self.low} to {self.high}, expected low <= high")
        return self


class Scope(Message):
    """What was measured: where a band's bounds may be used, and nowhere else."""

    dialects: Annotated[tuple[Dialect, ...], Field(min_length=1)]
    temperature: Range
    top_p: Range = Range(low=1.0, high=1.0)
    top_k: tuple[Count, ...] = (0,)
    """0: off. Each value was measured."""
    max_prompt_tokens: Annotated[int, Field(ge=1)]
    max_tokens: Annotated[int, Field(ge=1)]
    replay: Literal["whole", "list"] = "whole"
    """Whether the reference reports the whole vocabulary, or its most likely tokens."""

    def refusal(self, sampling: Sampling, prompt_tokens: int, replay: str) -> str | None:
        """Why it doesn't cover a request; None if it does."""
        if sampling.dialect not in self.dialects:
            return f"dialect {sampling.dialect} (calibrated: {', '.join(self.dialects)})"
        for name, value, span in (
            ("temperature", sampling.temperature, self.temperature),
            ("top_p", sampling.top_p, self.top_p),
        ):
            if not span.low <= value <= span.high:
                return f"{name} {value:g} (calibrated: {span.low:g} to {span.high:g})"
        if sampling.top_k not in self.top_k:
            return f"top_k {sampling.top_k} (calibrated: {', '.join(map(str, self.top_k))})"
        if prompt_tokens > self.max_prompt_tokens:
            return f"a prompt of {prompt_tokens} tokens (calibrated: up to {self.max_prompt_tokens})"
        if sampling.max_tokens > self.max_tokens:
            return f"max_tokens {sampling.max_tokens} (calibrated: up to {self.max_tokens})"
        if replay != self.replay:
            return f"a replay from the {replay} (calibrated: {self.replay})"
        return None


class Band(Message):
    """The bounds for one scope."""

    scope: Scope
    gaps: Annotated[tuple[GapStratum, ...], Field(min_length=GAP_STRATA, max_length=GAP_STRATA)]
    recurrence: Annotated[float, Field(ge=TOLERANCE)]
    """After one telling mismatch of a completion, a bound is this many times itself for the rest of it."""
    margin: Annotated[float, Field(ge=0.0)] = 0.0
    """In logits: a claimed token that misses the replayed choice by no more agrees with it."""
    tails: Annotated[tuple[TailStratum, ...], Field(min_length=TAIL_STRATA, max_length=TAIL_STRATA)]
    configurations: Annotated[tuple[Configuration, ...], Field(min_length=1)]


class Calibration(Message):
    """Everything that was measured of one model with one reference engine."""

    version: Literal[1] = 1
    model_digest: Hex32
    engine: Annotated[str, Field(min_length=1, max_length=64)]
    """The reference engine's name."""
    dtype: Annotated[str, Field(min_length=1, max_length=32)]
    """The number format that the reference computes in."""
    bands: Annotated[tuple[Band, ...], Field(min_length=1)]

    def band_for(self, sampling: Sampling, *, prompt_tokens: int, replay: str = "whole") -> Band | NoBand:
        """The first band that covers a request, or why none does."""
        refusals: list[str] = []
        for band in self.bands:
            refusal = band.scope.refusal(sampling, prompt_tokens, replay)
            if refusal is None:
                return band
            refusals.append(refusal)
        return NoBand("outside of what was calibrated: " + "; ".join(dict.fromkeys(refusals)))

    def check_reference(self, model_digest: str, engine: str, dtype: str) -> None:
        """Make sure that it was made for this model and this reference engine.

        Raises:
            CalibrationError: naming what differs.
        """
        for name, got, expected in (
            ("model digest", self.model_digest, model_digest),
            ("engine", self.engine, engine),
            ("dtype", self.dtype, dtype),
        ):
            if got != expected:
                raise CalibrationError(
                    f"the calibration is for another reference: got {name} {got}, expected {expected}; "
                    "calibrate this one (targon calibrate)"
                )


class NoBand(NamedTuple):
    """No evidence can be had, and why."""

    reason: str


def save_calibration(calibration: Calibration, folder: Path) -> Path:
    """Write ``DIGEST.json`` into a folder; returns its path."""
    path = folder / f"{calibration.digest()}.json"
    path.write_bytes(calibration.to_bytes())
    return path


def load_calibration(path: Path, expected: Digest | None = None) -> Calibration:
    """Read a calibration, and make sure that it is the one that its name, or the caller, says.

    Raises:
        CalibrationError: if it can't be read, isn't a calibration, or has another digest.
    """
    try:
        calibration = Calibration.from_bytes(path.read_bytes())
    except OSError as error:
        raise CalibrationError(f"{path}: could not be read: {error.strerror}") from error
    except MalformedMessage as error:
        raise CalibrationError(f"{path}: not a calibration: {error}") from error
    wanted = path.stem if expected is None else expected
    if calibration.digest() != wanted:
        raise CalibrationError(
            f"{path}: got digest {calibration.digest()}, expected {wanted}: the file was changed or renamed; "
            "take a fresh copy or calibrate again"
        )
    return calibration


@dataclass(frozen=True, slots=True)
class HonestRun:
    """Completions of one honest configuration: one dtype, engine, way of batching, range of lengths."""

    name: str
    completions: Sequence[Observations]
    margins: Floats = field(default_factory=lambda: np.zeros(1))
    """``(any,)``: by how much the claimed token missed the replayed choice, in logits, at the sure positions."""


def measure(scope: Scope, runs: Sequence[HonestRun], others: Sequence[HonestRun] = ()) -> Band:
    """The bounds that honest runs support, for the scope in which they were made.

    Args:
        runs: made within the scope. Those that behave alike belong together as one.
        others: made outside of it, from which it may borrow: gaps are in logits, and mean the same at every
            temperature. Where its own counts contradict theirs, its own are taken.

    Raises:
        CalibrationError: if there is nothing to measure.
    """
    if not runs or any(not sum(c.positions for c in run.completions) for run in runs):
        raise CalibrationError("got a configuration without positions, expected some honest ones for each")
    risk = (1.0 - CONFIDENCE) / ((len(runs) + 2) * _CLAIMS)
    tallies = [_Tally.of(run) for run in runs]
    together = _Tally.sum(tallies)
    everything = _Tally.sum([together, *map(_Tally.of, others)])
    gaps = tuple(_gap_stratum(tallies, together, everything, stratum, risk) for stratum in range(GAP_STRATA))
    bounds = np.array([stratum.bound for stratum in gaps])
    return Band(
        scope=scope,
        gaps=gaps,
        recurrence=_recurrence(runs, others, bounds, risk),
        margin=TOLERANCE * max(float(np.quantile(run.margins, MARGIN_QUANTILE)) for run in runs),
        tails=tuple(_tail_stratum(tallies, together, stratum, risk) for stratum in range(TAIL_STRATA)),
        configurations=tuple(
            Configuration(
                name=run.name,
                completions=len(run.completions),
                positions=int(tally.positions.sum()),
                mismatches=tuple(tally.mismatches.tolist()),
            )
            for run, tally in zip(runs, tallies, strict=True)
        ),
    )


@dataclass(frozen=True, slots=True)
class _Tally:
    """One configuration's counts per stratum."""

    positions: Ints
    mismatches: Ints
    tails: Ints
    hits: Ints
    expected: Floats

    @classmethod
    def of(cls, run: HonestRun) -> _Tally:
        sure = [~one.unsure for one in run.completions]
        pick = list(zip(run.completions, sure, strict=True))
        strata = gap_stratum(np.concatenate([one.gaps[keep] for one, keep in pick]))
        mismatched = np.concatenate([one.mismatched[keep] for one, keep in pick])
        masses = np.concatenate([one.tail_mass[keep] for one, keep in pick])
        hits = np.concatenate([one.in_tail[keep] for one, keep in pick])
        known = ~np.isnan(masses)
        tails = tail_stratum(masses[known])
        return cls(
            positions=np.bincount(strata, minlength=GAP_STRATA),
            mismatches=np.bincount(strata[mismatched], minlength=GAP_STRATA),
            tails=np.bincount(tails, minlength=TAIL_STRATA),
            hits=np.bincount(tails[hits[known]], minlength=TAIL_STRATA),
            expected=np.bincount(tails, weights=masses[known], minlength=TAIL_STRATA).astype(np.float64),
        )

    @classmethod
    def sum(cls, tallies: Sequence[_Tally]) -> _Tally:
        """All configurations as one."""
        return cls(*(np.sum([getattr(tally, name) for tally in tallies], axis=0) for name in cls.__slots__))


def _gap_stratum(
    tallies: Sequence[_Tally], together: _Tally, everything: _Tally, stratum: int, risk: float
) -> GapStratum:
    own = slice(stratum, stratum + 1)
    everybody = _worst_rate(everything, stratum, risk)
    if _limit(lower_limit, together, own, CONTRADICTION_RISK) > everybody:
        everybody = _worst_rate(together, stratum, risk)
    worst = everybody
    for tally in tallies:
        much = tally.positions[stratum] >= BORROWING_SHARE * everything.positions[stratum]
        if much or _limit(lower_limit, tally, own, CONTRADICTION_RISK) > everybody:
            worst = max(worst, _worst_rate(tally, stratum, risk))
    return GapStratum(
        positions=int(together.positions[stratum]),
        mismatches=int(together.mismatches[stratum]),
        bound=min(1.0, TOLERANCE * worst),
    )


def _worst_rate(tally: _Tally, stratum: int, risk: float) -> float:
    """The upper limit of a configuration's mismatch rate in a stratum.

    Noise that flips a gap flips a smaller one at least as often: so a stratum's rate is at most the mean rate of
    any run of strata that ends with it, and may borrow their positions, unless the counts contradict that.
    """
    alone = _limit(upper_limit, tally, slice(stratum, stratum + 1), risk)
    least = _limit(lower_limit, tally, slice(stratum, stratum + 1), risk)
    pooled = [_limit(upper_limit, tally, slice(first, stratum + 1), risk) for first in range(stratum)]
    return min([alone, *(limit for limit in pooled if limit >= least)])


def _limit(limit: Callable[[int, int, float], float], tally: _Tally, strata: slice, risk: float) -> float:
    return limit(int(tally.mismatches[strata].sum()), int(tally.positions[strata].sum()), risk)


def _recurrence(runs: Sequence[HonestRun], others: Sequence[HonestRun], bounds: Floats, risk: float) -> float:
    """Mismatches after a telling one of the same completion, against how many there would be if they had
    nothing to do with it.

    All runs together, each against its own rates: one that is worse throughout shows no recurrence by that.
    Those outside the scope count, too, unless the scope's own contradict them.
    """
    own = np.sum([_repeats(run, bounds) for run in runs], axis=0)
    everything = np.sum([own, *(_repeats(run, bounds) for run in others)], axis=0)
    worst = _recurrence_limit(upper_limit, everything, risk)
    if _recurrence_limit(lower_limit, own, CONTRADICTION_RISK) > worst:
        worst = _recurrence_limit(upper_limit, own, risk)
    return min(max(TOLERANCE, worst), UNKNOWN_RECURRENCE)


def _repeats(run: HonestRun, bounds: Floats) -> Floats:
    """``(3,)``: mismatches after a telling one, positions after one, and how many mismatches those would have
    if they had nothing to do with it."""
    telling, responsive = bounds <= TELLING_BOUND, bounds <= RESPONSIVE_BOUND
    tally = _Tally.of(run)
    after = np.zeros(GAP_STRATA)
    again = 0
    for one in run.completions:
        strata, mismatched = gap_stratum(one.gaps[~one.unsure]), one.mismatched[~one.unsure]
        told = mismatched & telling[strata]
        later = (np.cumsum(told) - told > 0) & responsive[strata]
        after += np.bincount(strata[later], minlength=GAP_STRATA)
        again += int((mismatched & later).sum())
    rates = tally.mismatches / np.maximum(tally.positions, 1)
    return np.array([again, after.sum(), after @ rates])


def _recurrence_limit(limit: Callable[[int, int, float], float], repeats: Floats, risk: float) -> float:
    again, exposed, unrelated = repeats.tolist()
    if unrelated == 0.0:
        return UNKNOWN_RECURRENCE if limit is upper_limit else 0.0
    return float(limit(int(again), int(exposed), risk) * exposed / unrelated)


def _tail_stratum(tallies: Sequence[_Tally], together: _Tally, stratum: int, risk: float) -> TailStratum:
    least, most = _tail_factors(together, stratum, risk)
    for tally in tallies:
        low, high = _tail_factors(tally, stratum, risk)
        if high < least or low > most:  # its own counts contradict the others'
            least, most = min(least, low), max(most, high)
    return TailStratum(
        positions=int(together.tails[stratum]),
        hits=int(together.hits[stratum]),
        expected=float(together.expected[stratum]),
        least=max(0.0, 1.0 - TOLERANCE * max(0.0, 1.0 - least)),
        most=min(1.0 + TOLERANCE * max(0.0, most - 1.0), 1.0 / _EDGE_OF_NOTHING),
    )


def _tail_factors(tally: _Tally, stratum: int, risk: float) -> tuple[float, float]:
    """Confidence limits of how often the tail is hit, against what its mass says."""
    count, mass, hits = int(tally.tails[stratum]), float(tally.expected[stratum]), int(tally.hits[stratum])
    if mass == 0.0:
        return 0.0, 1.0 / _EDGE_OF_NOTHING
    return lower_limit(hits, count, risk) * count / mass, upper_limit(hits, count, risk) * count / mass


_EDGE_OF_NOTHING: Final = 1e-9
"""A factor of 1 / this leaves nothing to bet on."""
