"""From honest answers to a calibration: which band gets which, and how it is tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from targon.engines import Replayed
from targon.protocol.messages import ChatMessage, Sampling
from targon.protocol.primitives import TokenId
from targon.verification import (
    Band,
    Calibration,
    CalibrationError,
    EvidenceState,
    NoBand,
    advance,
    bets_of,
)
from targon.verification.calibrating import (
    CALIBRATED,
    EVALUATED,
    Measured,
    calibrate,
    describe,
    try_out,
)
from targon.verification.calibration import TOLERANCE
from targon.verification.transcripts import Transcript
from tests.tiny_engine import TinyEngine
from tests.verification.completions import HONEST, INT4, drawn
from tests.verification.test_observations import replay

IDENTITY = replace(TinyEngine().identity, engine="tiny 1.2.3")
USUAL, CUT, GREEDY = {"top_p": 0.95}, {"top_p": 0.8, "top_k": 40}, {"temperature": 0.0}
UNCOVERED = {"temperature": 0.1}


def sampling(**changes: object) -> Sampling:
    return Sampling.from_json({"seed": "00" * 8, "temperature": 0.8, "max_tokens": 64} | changes)


def honest(
    count: int,
    rates: np.ndarray = HONEST,
    *,
    seed: int = 1,
    prompt_tokens: int = 20,
    margin: float = 0.0,
    whole: str = "whole",
    **asked: object,
) -> list[Measured]:
    """Answers with these mismatch rates; whatever they were asked with."""
    rng = np.random.default_rng(seed)
    return [
        Measured(sampling(**asked), prompt_tokens, whole, drawn(rng, rates), np.full(64, margin))
        for _ in range(count)
    ]


def band_of(calibration: Calibration, **asked: object) -> Band | NoBand:
    return calibration.band_for(sampling(**asked), prompt_tokens=20)


# which answers


def test_each_band_is_made_of_the_answers_that_it_covers_first() -> None:
    answers = [*honest(3, **USUAL), *honest(2, **CUT), *honest(4, **GREEDY), *honest(5, **UNCOVERED)]
    calibration = calibrate(IDENTITY, {"bf16": answers})
    found = {
        name: band_of(calibration, **asked)
        for name, asked in (("usual", USUAL), ("cut", CUT), ("greedy", GREEDY))
    }
    counted = {
        name: band.configurations[0].completions for name, band in found.items() if isinstance(band, Band)
    }
    assert counted == {"usual": 3, "cut": 2, "greedy": 4}


def test_a_band_names_the_configurations_that_answered_in_it() -> None:
    calibration = calibrate(
        IDENTITY, {"bf16": honest(3, **USUAL), "fp32": [*honest(2, **USUAL), *honest(2, **GREEDY)]}
    )
    usual, greedy = calibration.bands
    assert [one.name for one in usual.configurations] == ["bf16", "fp32"]
    assert [one.name for one in greedy.configurations] == ["fp32"]


def test_a_band_of_which_nothing_was_measured_is_left_out() -> None:
    calibration = calibrate(IDENTITY, {"bf16": honest(3, **USUAL)})
    assert len(calibration.bands) == 1
    assert isinstance(band_of(calibration, **GREEDY), NoBand)


def test_the_bounds_of_a_band_are_those_of_its_own_answers_where_these_contradict_the_others() -> None:
    calibration = calibrate(
        IDENTITY, {"bf16": [*honest(60, HONEST, **USUAL), *honest(60, INT4, seed=2, **GREEDY)]}
    )
    usual, greedy = band_of(calibration, **USUAL), band_of(calibration, **GREEDY)
    assert isinstance(usual, Band)
    assert isinstance(greedy, Band)
    assert greedy.gaps[4].bound > 0.7
    assert greedy.gaps[4].mismatches > usual.gaps[4].mismatches


def test_a_band_of_which_little_was_seen_borrows_from_the_others() -> None:
    little = {"bf16": honest(5, **GREEDY)}
    much = {"bf16": [*honest(5, **GREEDY), *honest(400, seed=2, **USUAL)]}
    alone, with_others = [band_of(calibrate(IDENTITY, one), **GREEDY) for one in (little, much)]
    assert isinstance(alone, Band)
    assert isinstance(with_others, Band)
    assert with_others.gaps[4].bound < 0.2 * alone.gaps[4].bound
    assert with_others.gaps[4].positions == alone.gaps[4].positions  # counted are its own


def test_answers_replayed_from_a_list_make_bounds_of_their_own() -> None:
    answers = [*honest(3, **USUAL), *honest(4, whole="list", **USUAL)]
    whole, listed = calibrate(IDENTITY, {"bf16": answers}).bands
    assert (whole.scope.replay, whole.configurations[0].completions) == ("whole", 3)
    assert (listed.scope.replay, listed.configurations[0].completions) == ("list", 4)


def test_answers_replayed_from_a_list_lend_nothing_to_whole_replays() -> None:
    little, lists = honest(5, **GREEDY), honest(400, seed=2, whole="list", **USUAL)
    (alone,) = calibrate(IDENTITY, {"bf16": little}).bands
    whole, _ = calibrate(IDENTITY, {"bf16": [*little, *lists]}).bands
    assert whole.gaps == alone.gaps


# within which scope


def test_lengths_are_those_that_were_measured() -> None:
    answers = [*honest(2, prompt_tokens=30, max_tokens=100), *honest(2, prompt_tokens=77, max_tokens=64)]
    calibration = calibrate(IDENTITY, {"bf16": answers})
    (band,) = calibration.bands
    assert (band.scope.max_prompt_tokens, band.scope.max_tokens) == (77, 100)
    assert isinstance(calibration.band_for(sampling(max_tokens=100), prompt_tokens=77), Band)
    assert isinstance(calibration.band_for(sampling(max_tokens=100), prompt_tokens=78), NoBand)
    assert isinstance(calibration.band_for(sampling(max_tokens=101), prompt_tokens=77), NoBand)


@pytest.mark.parametrize(
    "asked",
    [
        {"temperature": 0.29},
        {"temperature": 1.21},
        {"top_p": 0.79},
        {"top_k": 7},
        {"temperature": 0.05},
        {"dialect": "native"},
    ],
)
def test_what_was_not_measured_has_no_band(asked: dict[str, object]) -> None:
    answers = [*honest(2, **USUAL), *honest(2, **CUT), *honest(2, **GREEDY)]
    assert isinstance(band_of(calibrate(IDENTITY, {"bf16": answers}), **asked), NoBand)


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ({"temperature": 0.3, "top_p": 0.9}, 0),
        ({"temperature": 1.2, "top_p": 1.0}, 0),
        ({"top_p": 0.8, "top_k": 50}, 1),
        ({"temperature": 0.0, "top_p": 0.8}, 2),
        ({"temperature": 0.0, "dialect": "greedy"}, 2),
    ],
)
def test_what_was_measured_has_its_band(asked: dict[str, object], place: int) -> None:
    answers = [*honest(2, **USUAL), *honest(2, **CUT), *honest(2, **GREEDY)]
    calibration = calibrate(IDENTITY, {"bf16": answers})
    assert band_of(calibration, **asked) == calibration.bands[place]


def test_it_is_for_the_reference_that_replayed_whatever_its_version() -> None:
    made = calibrate(IDENTITY, {"bf16": honest(2)})
    assert (made.model_digest, made.engine, made.dtype) == ("d" * 64, "tiny", "float32")


def test_the_margin_is_that_of_the_worst_configuration_within_the_band() -> None:
    groups = {
        "fp32": honest(3, margin=0.1),
        "bf16": [*honest(3, margin=0.2), *honest(3, margin=9.0, **GREEDY)],
    }
    band = band_of(calibrate(IDENTITY, groups))
    assert isinstance(band, Band)
    assert band.margin == pytest.approx(TOLERANCE * 0.2)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({}, "got no honest answers"),
        ({"bf16": []}, "got no honest answers"),
        ({"bf16": None}, "within any of"),
    ],
)
def test_no_honest_answers_make_no_calibration(groups: dict[str, list[Measured] | None], said: str) -> None:
    given = {name: honest(3, **UNCOVERED) if group is None else group for name, group in groups.items()}
    with pytest.raises(CalibrationError, match=said):
        calibrate(IDENTITY, given)


# an answer, measured


def test_an_answer_is_measured_in_logits_at_its_sure_positions() -> None:
    transcript = Transcript(
        number=0,
        messages=(ChatMessage(role="user", content="Say it."),),
        sampling=sampling(temperature=0.5),
        run_key="00" * 8,
        token_ids=(TokenId(1), TokenId(2), TokenId(3)),
        finish_reason="length",
    )
    found = replay(3, margins=[0.0, 0.4, 0.6], gaps=[1.0, 2.0, 3.0], on_cut=[False, False, True])
    ones = np.zeros(3, np.float32)
    measured = Measured.of(transcript, Replayed(found, ones, np.zeros(3, np.int32), prompt_tokens=17))
    assert measured.margins.tolist() == [0.0, 0.2]
    assert measured.observations.gaps.tolist() == [0.5, 1.0, 1.5]
    assert (measured.prompt_tokens, measured.replay) == (17, "whole")
    listed = Measured.of(transcript, Replayed(found, ones, np.zeros(3, np.int32), 17, top_k=20))
    assert listed.replay == "list"


# tried


def whole_evidence(calibration: Calibration, answers: Sequence[Measured]) -> EvidenceState:
    state = EvidenceState()
    for one in answers:
        band = calibration.band_for(one.sampling, prompt_tokens=one.prompt_tokens)
        assert isinstance(band, Band)
        state = advance(state, one.observations, bets_of(band))
    return state


def test_trying_takes_in_all_answers_in_a_row_and_says_which_had_no_evidence() -> None:
    calibration = calibrate(IDENTITY, {"bf16": [*honest(60, **USUAL), *honest(60, seed=2, **GREEDY)]})
    covered = [*honest(10, seed=3, **USUAL), *honest(5, seed=4, **GREEDY)]
    tried = try_out(calibration, [*covered, *honest(7, **UNCOVERED), *honest(2, whole="list")])
    state = whole_evidence(calibration, covered)
    assert (tried.completions, tried.tokens, tried.without_evidence) == (15, 15 * 64, 9)
    assert (tried.largest_log_e, tried.convicted_at) == (state.log_peak, None)
    sure = [one.observations.mismatched & ~one.observations.unsure for one in covered]
    assert tried.mismatches == sum(int(one.sum()) for one in sure)


def test_trying_says_when_it_would_have_convicted() -> None:
    calibration = calibrate(IDENTITY, {"bf16": honest(200, **USUAL)})
    answers = honest(20, INT4, seed=3, **USUAL)
    tried = try_out(calibration, answers)
    assert tried.convicted_at == whole_evidence(calibration, answers).convicted_at
    assert tried.convicted_at is not None
    assert tried.largest_log_e > np.log(10_000)


def test_a_band_is_described_in_one_line() -> None:
    (band,) = calibrate(IDENTITY, {"bf16": honest(3)}).bands
    text = describe(band)
    assert "\n" not in text
    assert text.startswith("T 0.3 to 1.2, top-p 0.9 to 1, top-k 0: ")
    assert f"{sum(stratum.positions for stratum in band.gaps):,} positions" in text


def test_what_is_measured_adds_up_and_no_two_have_one_name() -> None:
    for runs in (CALIBRATED, EVALUATED):
        assert sum(run.share for run in runs) == pytest.approx(1.0)
        assert len({run.name for run in runs}) == len(runs)
