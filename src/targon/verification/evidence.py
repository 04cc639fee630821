"""Evidence about one prover over time: a betting e-process that convicts at e ≥ 1/α, whenever that is.

Hypothesis: the prover is honest. For every verified completion in turn, and every position of it whose
replay is sure: given everything before it and the replayed gap, the claimed token differs from the replayed
sampler's choice with at most the calibrated probability; given everything before it, it lies in the tail of
the reference's distribution with about the tail's probability. What the calibration asserts, and what it
can't cover, stands in ``docs/evidence.md``.

Capital 1 is staked on a mixture of bets (:mod:`targon.verification.bets`), none of which gains under the
hypothesis. So e, what it has become, has expectation at most 1 at every moment, and Ville's inequality says
that it ever reaches 1/α with probability at most α.

A bet's stake isn't put down at once. Part of it is kept for a prover that turns dishonest later: otherwise
a year of honest work would lose so much that nothing could convict. The share still in hand after n
completions is ``reserve(n)``.

Completions are taken in the order of the log: another order ends in another value.
"""

from __future__ import annotations

import math
from typing import Annotated, Final, Self

import numpy as np
from pydantic import Field, model_validator

from targon.protocol.conviction import LOG_CONVICTION
from targon.protocol.messages import Message
from targon.protocol.suspicions import claimed_rivals_of, lead_classes
from targon.verification.bets import (
    BAD_COMPLETIONS,
    BET_WORDS,
    BETS,
    CELLS,
    GAP_BETS,
    RIVAL_BETS,
    STAKES,
    TAIL_BETS,
    Bets,
    tail_payoffs,
)
from targon.verification.calibration import GUARD_LEVELS
from targon.verification.observations import GAP_STRATA, Floats, Ints, Observations, gap_stratum, tail_stratum

_NOTHING: Final = -1e300
"""Natural log of a stake that wasn't put down; finite, so that it can stand in JSON."""

_ON_MISMATCHES: Final = GAP_BETS + RIVAL_BETS
_PLACES = np.arange(RIVAL_BETS)
_LOG_STAKES = np.log(np.array(STAKES))
_LOG_BAD = np.log(np.array(BAD_COMPLETIONS))
_LOG_GOOD = np.log1p(-np.array(BAD_COMPLETIONS))


class EvidenceState(Message):
    """All that must be kept of a prover's evidence. It is small, and its JSON restores it exactly."""

    completions: Annotated[int, Field(ge=0)] = 0
    tokens: Annotated[int, Field(ge=0)] = 0
    """Verified tokens: positions seen, unsure ones included."""
    log_wealth: Annotated[tuple[float, ...], Field(min_length=BETS, max_length=BETS)] = (_NOTHING,) * BETS
    """Natural log of what each bet's stakes have become, by now."""
    log_peak: float = 0.0
    """The highest natural log of e at the end of a completion."""
    convicted_at: int | None = None
    """The token at which e first reached 1/α; None: it never did."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.convicted_at is not None and not 0 < self.convicted_at <= self.tokens:
            raise ValueError(f"convicted_at: got {self.convicted_at} of {self.tokens} tokens")
        return self

    @property
    def log_e(self) -> float:
        """Natural log of e, now."""
        return log_e_of(np.array(self.log_wealth), reserve(self.completions))

    @property
    def looks_like(self) -> str:
        """What the bet that gained most is against, in words: a hint at what is wrong, and no more."""
        gains = np.array(self.log_wealth) - _LOG_STAKES
        return BET_WORDS[int(np.argmax(gains))]

    @property
    def convicted(self) -> bool:
        """Whether e ever reached 1/α."""
        return self.convicted_at is not None


def reserve(completions: int) -> float:
    """The share of all stakes that is still in hand after so many completions: 1, 0.30, 0.24, …

    It falls so slowly that a prover who turns dishonest at completion n costs about ln n + 2 ln ln n more to
    convict, not all that was lost on its honest years.
    """
    return 1.0 if completions == 0 else 0.5 / (1.0 + math.log1p(completions))


def advance(state: EvidenceState, observations: Observations, bets: Bets) -> EvidenceState:
    """Take in one verified completion, a perfect one too.

    Args:
        observations: of the completion; positions that are unsure are skipped.
        bets: those of the band for the completion's model, reference and sampling.
    """
    before = put_down(state)
    cells, pays = _payoffs(observations, bets)
    counts = np.bincount(cells, minlength=CELLS)
    gains = np.concatenate([counts @ bets.mismatch, pays.sum(axis=0)])
    wealth = before + with_bad_completions(gains)
    in_hand = reserve(state.completions + 1)
    log_e = log_e_of(wealth, in_hand)
    convicted_at = state.convicted_at
    if convicted_at is None:
        # no bet can have stood higher within the completion than with its gains alone
        gains = np.concatenate([counts @ bets.mismatch_gains, np.maximum(pays, 0.0).sum(axis=0)])
        if log_e_of(before + with_bad_completions(gains), in_hand) >= LOG_CONVICTION:
            crossed = np.flatnonzero(_path(before, cells, pays, bets, in_hand) >= LOG_CONVICTION)
            if crossed.size:
                convicted_at = state.tokens + int(np.flatnonzero(~observations.unsure)[crossed[0]]) + 1
    return EvidenceState.model_construct(  # every value was made just here
        completions=state.completions + 1,
        tokens=state.tokens + observations.positions,
        log_wealth=tuple(wealth.tolist()),
        log_peak=max(state.log_peak, log_e),
        convicted_at=convicted_at,
    )


def trace(state: EvidenceState, observations: Observations, bets: Bets) -> Floats:
    """``(sure positions,)``: natural log of e after each position of the next completion."""
    cells, pays = _payoffs(observations, bets)
    return _path(put_down(state), cells, pays, bets, reserve(state.completions + 1))


def put_down(state: EvidenceState) -> Floats:
    """``(BETS,)``: natural log of each bet's capital, with what is put down on it before this completion."""
    fresh = reserve(state.completions) - reserve(state.completions + 1)
    before: Floats = np.logaddexp(np.array(state.log_wealth), _LOG_STAKES + math.log(fresh))
    return before


def _payoffs(observations: Observations, bets: Bets) -> tuple[Ints, Floats]:
    """Of the sure positions: each one's cell of the bets on mismatches, and what those on rivals and on the
    tail pay (nothing, where there is no tail)."""
    sure = ~observations.unsure
    places = gap_stratum(observations.gaps[sure])
    mismatched = observations.mismatched[sure]
    if mismatched.any():
        telling = mismatched & bets.telling[places]
        places += np.minimum(np.cumsum(telling) - telling, GUARD_LEVELS - 1) * GAP_STRATA
    cells = places * 2 + mismatched
    masses = observations.tail_mass[sure]
    known = ~np.isnan(masses)
    pays = np.zeros((masses.size, RIVAL_BETS + TAIL_BETS))
    claimed = claimed_rivals_of(observations.claimed_rivals[sure]).astype(np.int64)
    pays[:, :RIVAL_BETS] = bets.rivals[
        places[:, None], _PLACES, lead_classes(observations.rivals[sure]), claimed
    ]
    if known.any():
        places = tail_stratum(masses[known])
        pays[known, RIVAL_BETS:] = tail_payoffs(
            masses[known], observations.in_tail[sure][known], bets.least[places], bets.most[places]
        )
    return cells, pays


def with_bad_completions(gains: Floats) -> Floats:
    """``(…, BETS)`` from ``(…, GAP_BETS + RIVAL_BETS + TAIL_BETS)``: beside each bet's gain within this
    completion, those of the bets that only some completions are bad."""
    mean = np.logaddexp.reduce(gains[..., :_ON_MISMATCHES], axis=-1, keepdims=True) - math.log(_ON_MISMATCHES)
    return np.concatenate([gains, np.logaddexp(_LOG_GOOD, _LOG_BAD + mean)], axis=-1)


def _path(before: Floats, cells: Ints, pays: Floats, bets: Bets, in_hand: float) -> Floats:
    gains = np.cumsum(np.concatenate([bets.mismatch[cells], pays], axis=1), axis=0)
    wealth = before + with_bad_completions(gains)
    path: Floats = np.logaddexp(np.logaddexp.reduce(wealth, axis=1), math.log(in_hand))
    return path


def log_e_of(wealth: Floats, in_hand: float) -> float:
    """Natural log of e.

    Args:
        wealth: ``(BETS,)``, natural log of each bet's capital.
        in_hand: the share of all stakes that was not put down yet.
    """
    return float(np.logaddexp(np.logaddexp.reduce(wealth), math.log(in_hand)))
