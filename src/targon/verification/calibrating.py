"""From honest engines' answers, replayed on a reference, to a calibration, and to the proof that it holds.

Answers are measured in configurations: a number format, and how many are decoded together. Those for
calibrating and those for evaluating have no passage and no seed in common: what a calibration says of the
answers that it was made from proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from targon.engines import ModelIdentity, Replayed
from targon.protocol.messages import Sampling
from targon.verification.bets import bets_of
from targon.verification.calibration import (
    Band,
    Calibration,
    CalibrationError,
    NoBand,
    Range,
    Scope,
)
from targon.verification.evidence import EvidenceState, advance
from targon.verification.measuring import HonestRun, measure
from targon.verification.observations import Floats, Observations
from targon.verification.shipped import engine_name
from targon.verification.transcripts import Transcript
from targon.verification.workload import BROAD, USUAL, Mix

_TEMPERATURE = Range(low=0.3, high=1.2)
_TOP_KS: Final = tuple(sorted(set(BROAD.top_ks)))

SCOPES: Final = {
    "usual": Scope(
        dialects=("targon/1",),
        temperature=_TEMPERATURE,
        top_p=Range(low=0.9, high=1.0),
        max_prompt_tokens=1,
        max_tokens=1,
    ),
    "cut short": Scope(
        dialects=("targon/1",),
        temperature=_TEMPERATURE,
        top_p=Range(low=0.8, high=1.0),
        top_k=_TOP_KS,
        max_prompt_tokens=1,
        max_tokens=1,
    ),
    "greedy": Scope(
        dialects=("targon/1", "greedy"),
        temperature=Range(low=0.0, high=0.0),
        top_p=Range(low=0.8, high=1.0),
        top_k=_TOP_KS,
        max_prompt_tokens=1,
        max_tokens=1,
    ),
}
"""The bands, in the order in which they are looked at; lengths are those that were measured. Between T = 0 and
0.3 there is none: differences of a hair, divided by so little, are gaps."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """One way in which honest engines run."""

    name: str
    dtype: str
    together: int
    """Answers that are decoded at once."""
    mix: Mix
    share: float
    """Of all positions."""


CALIBRATED: Final = (
    Configuration("bf16, 32 together", "bfloat16", 32, BROAD, 0.48),
    Configuration("bf16, 32 together, usual requests", "bfloat16", 32, USUAL, 0.46),
    Configuration("fp32, 16 together", "float32", 16, BROAD, 0.04),
    Configuration("bf16, alone", "bfloat16", 1, BROAD, 0.02),
)
"""What a calibration is made from. Batches make most of it: they are what engines in service run, and quick."""

EVALUATED: Final = (
    Configuration("bf16, 32 together", "bfloat16", 32, BROAD, 0.5),
    Configuration("bf16, 8 together", "bfloat16", 8, BROAD, 0.2),
    Configuration("fp32, 16 together", "float32", 16, BROAD, 0.2),
    Configuration("bf16, alone", "bfloat16", 1, BROAD, 0.05),
    Configuration("fp32, alone", "float32", 1, BROAD, 0.05),
)
"""What it is tried on."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One honest answer, replayed."""

    sampling: Sampling
    prompt_tokens: int
    replay: str
    """``whole``, or ``list``, as of :class:`targon.verification.calibration.Scope`."""
    observations: Observations
    margins: Floats
    """In logits, at the sure positions."""

    @classmethod
    def of(cls, transcript: Transcript, replayed: Replayed) -> Measured:
        """What a transcript and its replay say."""
        temperature = transcript.sampling.temperature
        observations = Observations.of(replayed.replay, temperature)
        margins = replayed.replay.margins[~observations.unsure] * (temperature or 1.0)
        replay = "list" if replayed.top_k else "whole"
        return cls(transcript.sampling, replayed.prompt_tokens, replay, observations, margins)


def calibrate(identity: ModelIdentity, measured: Mapping[str, Sequence[Measured]]) -> Calibration:
    """The calibration that honest answers support.

    Args:
        identity: of the reference that replayed them.
        measured: the answers of each configuration; configurations that behave alike belong together.

    Raises:
        CalibrationError: if there are none in any band.
    """
    answers = [one for group in measured.values() for one in group]
    bounded = {
        (name, replay): scope.model_copy(
            update={
                "replay": replay,
                "max_prompt_tokens": max(one.prompt_tokens for one in answers),
                "max_tokens": max(one.sampling.max_tokens for one in answers),
            }
        )
        for replay in sorted({one.replay for one in answers}, reverse=True)
        for name, scope in SCOPES.items()
    }
    runs = {
        band: [
            run for name, group in measured.items() if (run := _run(name, group, band, bounded)) is not None
        ]
        for band in bounded
    }
    bands = [
        # what a list shows of a gap is less than what the whole vocabulary shows: neither lends to the other
        measure(
            scope,
            runs[band],
            [run for other in bounded if other != band and other[1] == band[1] for run in runs[other]],
        )
        for band, scope in bounded.items()
        if runs[band]
    ]
    if not bands:
        raise CalibrationError(
            f"got no honest answers within any of the bands, expected some: {', '.join(SCOPES)}"
        )
    return Calibration(
        model_digest=identity.model_digest,
        engine=engine_name(identity),
        dtype=identity.dtype,
        bands=tuple(bands),
    )


_BandName = tuple[str, str]
"""Of the scope, and of the replay."""


def _run(
    name: str, group: Sequence[Measured], band: _BandName, scopes: Mapping[_BandName, Scope]
) -> HonestRun | None:
    """What a configuration answered within a band; None if nothing."""
    own = [one for one in group if _band_name(scopes, one) == band]
    if not own:
        return None
    return HonestRun(name, [one.observations for one in own], np.concatenate([one.margins for one in own]))


def _band_name(scopes: Mapping[_BandName, Scope], one: Measured) -> _BandName | None:
    """The first band that covers an answer."""
    for name, scope in scopes.items():
        if scope.refusal(one.sampling, one.prompt_tokens, one.replay) is None:
            return name
    return None


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of the evidence about an honest configuration, all of its answers in a row."""

    completions: int
    tokens: int
    without_evidence: int
    """Answers that no band covers."""
    mismatches: int
    largest_log_e: float
    convicted_at: int | None


def try_out(calibration: Calibration, answers: Sequence[Measured]) -> Tried:
    """Take in one configuration's honest answers, as if they were one prover's."""
    state, uncovered, mismatches = EvidenceState(), 0, 0
    for one in answers:
        band = calibration.band_for(one.sampling, prompt_tokens=one.prompt_tokens, replay=one.replay)
        if isinstance(band, NoBand):
            uncovered += 1
            continue
        state = advance(state, one.observations, bets_of(band))
        mismatches += int((one.observations.mismatched & ~one.observations.unsure).sum())
    return Tried(state.completions, state.tokens, uncovered, mismatches, state.log_peak, state.convicted_at)


def describe(band: Band) -> str:
    """A band in one line."""
    scope = band.scope
    total = sum(stratum.positions for stratum in band.gaps)
    cuts = f"top-p {scope.top_p.low:g} to {scope.top_p.high:g}, top-k {', '.join(map(str, scope.top_k))}"
    return (
        f"T {scope.temperature.low:g} to {scope.temperature.high:g}, {cuts}: {total:,} positions, "
        f"margin {band.margin:.3f}, recurrence {band.recurrence:.2f}, "
        f"bounds {' '.join(f'{stratum.bound:.2g}' for stratum in band.gaps)}"
    )
