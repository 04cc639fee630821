"""Bets on rivals in a small world: logits, honest engines whose logits are off by a little, and one that is too hot."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from targon.engines.compiled_replay import replay_logits
from targon.engines.compiled_sampler import choose_fast
from targon.protocol import Sampling
from targon.protocol.suspicions import SUSPICIONS, lead_classes
from targon.verification.bets import bets_of
from targon.verification.calibration import Band
from targon.verification.evidence import EvidenceState, advance
from targon.verification.measuring import HonestRun, measure
from targon.verification.observations import Observations, gap_stratum
from tests.verification.completions import SCOPE

VOCAB, LENGTH, ROUNDING = 300, 100, 0.05
ASKED = Sampling.from_json({"seed": "0" * 16, "temperature": 0.8, "top_p": 0.95, "max_tokens": LENGTH})


def answer(number: int, **used: float) -> Observations:
    """One answer of an engine that rounds, asked for T = 0.8 and top-p 0.95, and what the reference says of it."""
    rng = np.random.default_rng(number)
    logits = (rng.normal(size=(LENGTH, VOCAB)) * rng.uniform(1.0, 4.0, size=(LENGTH, 1))).astype(np.float32)
    own = (logits + rng.normal(size=logits.shape) * ROUNDING).astype(np.float32)
    sampling = ASKED.model_copy(update=used)
    claimed = np.array([choose_fast(row, sampling, number, at) for at, row in enumerate(own)], np.int64)
    return Observations.of(replay_logits(logits, claimed, ASKED, number).replay, ASKED.temperature)


@cache
def honest() -> list[Observations]:
    return [answer(number) for number in range(600)]


@cache
def calibrated() -> Band:
    return measure(SCOPE, [HonestRun("rounds", honest()[:400])])


def test_honest_rounding_never_gains_on_rivals() -> None:
    """On answers that the bounds weren't made from, no suspicion's bets are worth more than they cost."""
    bets, worths = bets_of(calibrated()), []
    for one in honest()[400:]:
        sure = ~one.unsure
        claimed = (one.claimed_rivals[sure, None] >> np.arange(len(SUSPICIONS))) & 1
        places = gap_stratum(one.gaps[sure])[:, None], np.arange(len(SUSPICIONS))
        worths.append(np.exp(bets.rivals[(*places, lead_classes(one.rivals[sure]), claimed)]))
    assert (np.concatenate(worths).mean(axis=0) < 1.0).all()


def test_honest_rounding_is_not_convicted() -> None:
    state = EvidenceState()
    for one in honest()[400:]:
        state = advance(state, one, bets_of(calibrated()))
    assert state.log_peak < 2.0


@pytest.mark.parametrize(
    ("used", "word"),
    [
        ({"temperature": 0.9}, "a temperature 0.1 higher"),
        ({"temperature": 0.7}, "a temperature 0.1 lower"),
        ({"top_p": 1.0}, "top-p and top-k ignored"),
    ],
)
def test_what_samples_otherwise_is_convicted_soon_and_called_by_its_name(
    used: dict[str, float], word: str
) -> None:
    state, number = EvidenceState(), 10_000
    while not state.convicted and state.tokens < 2_000:
        state = advance(state, answer(number, **used), bets_of(calibrated()))
        number += 1
    assert state.convicted
    assert word in state.looks_like
