"""How often honest engines differ from the reference: the bounds under which the evidence bets.

A calibration is a file, named after its digest, for one model and one reference engine. It has a band for
each sampler and range of parameters that was measured. In a band stand, from honest runs alone:

1. per stratum of the replayed gap, a bound on the probability of a mismatch: ``TOLERANCE`` times the upper
   confidence limit of the worst honest configuration;
2. per suspicion, stratum and side of its rival, a bound on the probability that the rival is claimed, made in
   the same way: a rival's lead tells where in its stratum the gap lies, so mismatches in general don't bound it;
3. the recurrence: how many times likelier a mismatch is after an earlier one of the same completion, as an
   upper confidence limit, and at least ``TOLERANCE``. Honest requests differ; this is what that costs;
4. per stratum of the tail mass, by which factor the frequency of unlikely tokens may exceed, or fall short
   of, what the reference says;
5. the margin: by how much a claimed token may miss the replayed choice and still agree with it.

:mod:`targon.verification.measuring` makes them. What no band covers has no evidence, with a reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from targon.protocol.errors import MalformedMessage
from targon.protocol.messages import Dialect, Message, Sampling
from targon.protocol.primitives import Digest, Hex32
from targon.protocol.suspicions import SUSPICIONS
from targon.verification.observations import GAP_STRATA, TAIL_STRATA

TOLERANCE: Final = 1.5
"""How much worse than the worst that was seen an honest prover may be."""

TELLING_BOUND: Final = 0.1
"""A mismatch counts as a sign of a bad completion where its stratum's bound is at most this: near a coin
flip it is no sign of anything."""

GUARD_LEVELS: Final = 6
"""Earlier telling mismatches of a completion are counted up to five."""

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


Bounds = Annotated[tuple[Share, ...], Field(min_length=GAP_STRATA, max_length=GAP_STRATA)]


class RivalBounds(Message):
    """Of one suspicion, per stratum of the gap: an honest prover's probability to claim the rival, given the
    stratum, the side on which the rival stands and all that came before, is at most this."""

    behind: Bounds
    """Where the suspicion would draw the rival: its lead is negative."""
    close: Bounds
    """Where it would not, though nearly."""


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
    rivals: Annotated[tuple[RivalBounds, ...], Field(min_length=len(SUSPICIONS), max_length=len(SUSPICIONS))]
    """In the order of ``SUSPICIONS``."""
    recurrence: Annotated[float, Field(ge=TOLERANCE)]
    """After one telling mismatch of a completion, a bound is this many times itself for the rest of it."""
    margin: Annotated[float, Field(ge=0.0)] = 0.0
    """In logits: a claimed token that misses the replayed choice by no more agrees with it."""
    tails: Annotated[tuple[TailStratum, ...], Field(min_length=TAIL_STRATA, max_length=TAIL_STRATA)]
    configurations: Annotated[tuple[Configuration, ...], Field(min_length=1)]


class Calibration(Message):
    """Everything that was measured of one model with one reference engine."""

    version: Literal[2] = 2
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
