"""The sampler replayed over claimed tokens: exact with the whole vocabulary, careful with less."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from targon.protocol import (
    MARGIN_CLIP,
    InvalidLogits,
    Replay,
    Sampling,
    UnsupportedSampling,
    candidates,
    choose,
    gumbel,
    replay_tokens,
)
from targon.protocol.cut_edge import CUT_SLACK
from targon.protocol.replay import unseen_weight
from targon.protocol.sampler import MAX_NOISE, scaled

VOCAB = 60
PARAMETERS = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7},
    {"temperature": 1.5, "choice": 2},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 1.4, "top_p": 0.7},
    {"temperature": 1.0, "top_p": 0.3},
    {"temperature": 0.8, "top_k": 5},
    {"temperature": 0.8, "top_k": 20, "top_p": 0.95},
]


def sampling(**fields: object) -> Sampling:
    return Sampling.from_json({"seed": "0" * 16, "max_tokens": 1} | fields)


def reference(seed: int, positions: int, spread: float = 2.0, vocab: int = VOCAB) -> np.ndarray:
    """Log-probabilities as a reference engine has them: ``(positions, vocab) float32``."""
    logits = np.random.default_rng(seed).normal(size=(positions, vocab)) * spread
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


def replayed(
    logprobs: np.ndarray,
    claimed: list[int] | np.ndarray,
    chosen: Sampling,
    run_key: int,
    seen: int | None = None,
    first_position: int = 0,
) -> Replay:
    """Replay with the ``seen`` most likely tokens of each position, or all of them."""
    vocab = logprobs.shape[1]
    ids = np.argsort(-logprobs, axis=1, kind="stable")[:, : seen or vocab]
    return replay_tokens(
        ids.astype(np.int32),
        np.take_along_axis(logprobs, ids, axis=1),
        np.asarray(claimed),
        np.take_along_axis(logprobs, np.asarray(claimed)[:, None], axis=1)[:, 0],
        vocab_size=vocab,
        sampling=chosen,
        run_key=run_key,
        first_position=first_position,
    )


def honest(logprobs: np.ndarray, chosen: Sampling, run_key: int, first_position: int = 0) -> list[int]:
    return [choose(row, chosen, run_key, first_position + place) for place, row in enumerate(logprobs)]


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("vocab", [3, VOCAB, 900])
def test_with_the_whole_vocabulary_gap_and_margin_are_those_of_all_values(
    parameters: dict[str, float], vocab: int
) -> None:
    chosen, logprobs = sampling(**parameters), reference(1, 20, vocab=vocab)
    claimed = np.random.default_rng(2).integers(0, vocab, size=20)
    result = replayed(logprobs, claimed, chosen, 99)
    assert result.best_ids.tolist() == honest(logprobs, chosen, 99)
    assert not result.unsure.any()
    for position, claim in enumerate(claimed):
        values = scaled(logprobs[position], chosen.temperature)
        if chosen.temperature > 0.0:
            outside = np.ones(vocab, dtype=bool)
            outside[candidates(values, chosen.top_k, chosen.top_p)] = False
            values = values + gumbel(99, position, chosen.choice, np.arange(vocab))
            values[outside] = -np.inf
        second, best = np.sort(values)[-2:]
        assert result.gaps[position] == pytest.approx(min(best - second, MARGIN_CLIP), abs=1e-12)
        assert result.margins[position] == pytest.approx(min(best - values[claim], MARGIN_CLIP), abs=1e-12)
        assert result.among[position] == np.isfinite(values[claim])


@settings(deadline=None)
@given(st.sampled_from(PARAMETERS), st.integers(0, 2**64 - 1), st.integers(1, VOCAB), st.integers(0, 1000))
def test_an_honest_claim_never_has_a_margin_however_little_of_the_vocabulary_was_seen(
    parameters: dict[str, float], run_key: int, seen: int, seed: int
) -> None:
    chosen, logprobs = sampling(**parameters), reference(seed, 4)
    result = replayed(logprobs, honest(logprobs, chosen, run_key), chosen, run_key, seen)
    assert result.margins.tolist() == [0.0] * 4
    assert result.among.all()
    assert result.agreement == 1.0


@settings(deadline=None)
@given(
    st.sampled_from(PARAMETERS),
    st.integers(0, 2**64 - 1),
    st.integers(1, VOCAB - 1),
    st.lists(st.integers(0, VOCAB - 1), min_size=4, max_size=4),
)
def test_where_the_list_suffices_it_says_what_the_whole_vocabulary_says_and_else_it_accuses_less(
    parameters: dict[str, float], run_key: int, seen: int, claimed: list[int]
) -> None:
    chosen, logprobs = sampling(**parameters), reference(run_key % 1000, 4)
    whole, part = (
        replayed(logprobs, claimed, chosen, run_key),
        replayed(logprobs, claimed, chosen, run_key, seen),
    )
    assert (part.margins <= whole.margins + 1e-12).all()
    sure = ~part.unsure
    assert part.best_ids[sure].tolist() == whole.best_ids[sure].tolist()
    assert part.margins[sure] == pytest.approx(whole.margins[sure])
    assert part.among[sure].tolist() == whole.among[sure].tolist()


def test_cuts_that_lie_within_the_list_leave_no_doubt() -> None:
    logprobs, claimed = reference(5, 30), [0] * 30
    assert not replayed(logprobs, claimed, sampling(temperature=0.8, top_k=10), 1, seen=10).unsure.any()
    assert not replayed(logprobs, claimed, sampling(temperature=0.0), 1, seen=1).unsure.any()
    assert not replayed(logprobs, claimed, sampling(temperature=1.0, top_p=0.05), 1, seen=20).unsure.any()
    assert replayed(logprobs, claimed, sampling(temperature=0.8), 1, seen=10).unsure.all()
    assert replayed(logprobs, claimed, sampling(temperature=1.0, top_p=0.999), 1, seen=10).unsure.all()
    assert replayed(
        logprobs, claimed, sampling(temperature=0.8, top_k=11, top_p=0.999), 1, seen=10
    ).unsure.all()


def test_a_best_token_beyond_the_reach_of_any_noise_is_sure() -> None:
    logprobs = np.full((1, 50), -40.0, dtype=np.float32)
    logprobs[0, 7] = 0.0
    result = replayed(logprobs, [7], sampling(temperature=1.0), 5, seen=2)
    assert (result.best_ids[0], bool(result.unsure[0])) == (7, False)


def test_the_position_of_the_first_row_can_be_any() -> None:
    chosen, logprobs = sampling(temperature=0.8), reference(6, 10)
    claimed = honest(logprobs, chosen, 3, first_position=100)
    assert replayed(logprobs, claimed, chosen, 3, first_position=100).agreement == 1.0
    assert replayed(logprobs, claimed, chosen, 3).agreement < 1.0


@pytest.mark.parametrize("seen", [None, 20])
def test_a_wrong_key_shows(seen: int | None) -> None:
    chosen, logprobs = sampling(temperature=1.0), reference(7, 200)
    result = replayed(logprobs, honest(logprobs, chosen, 1), chosen, 2, seen)
    assert result.agreement < 0.5
    assert float(result.margins.mean()) > 0.5


def test_a_claimed_token_outside_the_candidates_has_the_clip_for_margin_never_infinity() -> None:
    logprobs = reference(8, 1)
    last = int(logprobs[0].argmin())
    for seen in (None, 10):
        result = replayed(logprobs, [last], sampling(temperature=1.0, top_k=3), 1, seen)
        assert (result.margins[0], bool(result.among[0])) == (MARGIN_CLIP, False)


def test_a_lonely_candidate_has_the_clip_for_gap() -> None:
    logprobs = reference(9, 3)
    result = replayed(logprobs, [0, 1, 2], sampling(temperature=1.0, top_k=1), 1)
    assert result.gaps.tolist() == [MARGIN_CLIP] * 3


def test_a_token_of_probability_zero_is_no_candidate() -> None:
    logprobs = np.array([[-0.5, -1.0, -50.0, -np.inf]], dtype=np.float32)
    result = replayed(logprobs, [3], sampling(temperature=1.0), 1)
    assert (result.margins[0], bool(result.among[0])) == (MARGIN_CLIP, False)


def test_no_positions_agree_wholly() -> None:
    result = replayed(
        np.empty((0, VOCAB), dtype=np.float32), np.empty(0, dtype=int), sampling(temperature=1.0), 1
    )
    assert result.agreement == 1.0
    assert result.best_ids.shape == result.gaps.shape == result.margins.shape == (0,)


def test_bad_numbers_and_other_dialects_are_refused() -> None:
    logprobs, claimed = reference(10, 2), [0, 1]
    broken = logprobs.copy()
    broken[1, 4] = np.nan
    with pytest.raises(InvalidLogits):
        replayed(broken, claimed, sampling(temperature=1.0), 1)
    with pytest.raises(InvalidLogits, match="claimed_logprobs: got NaN"):
        replayed(broken, [0, 4], sampling(temperature=1.0), 1, seen=3)
    with pytest.raises(InvalidLogits, match="claimed_logprobs: got NaN or"):
        replay_tokens(
            np.zeros((1, 1), np.int64),
            np.zeros((1, 1), np.float32),
            np.array([4]),
            np.array([np.inf], np.float32),
            vocab_size=VOCAB,
            sampling=sampling(temperature=1.0),
            run_key=1,
        )
    with pytest.raises(UnsupportedSampling):
        replayed(logprobs, claimed, sampling(temperature=1.0, dialect="vllm"), 1)


@settings(deadline=None)
@given(
    st.integers(0, 10**6),
    st.floats(0.1, 5.0),
    st.integers(1, VOCAB - 1),
    st.sampled_from([0.05, 0.5, 1.0, 2.0, 10.0]),
)
def test_the_unseen_weight_lies_within_its_bounds(
    seed: int, spread: float, seen: int, temperature: float
) -> None:
    logprobs = np.sort(reference(seed, 1, spread)[0])[::-1]
    weights = np.exp((logprobs.astype(np.float64) - float(logprobs[0])) / temperature)
    unseen = float(weights[seen:].sum())
    assume(
        float(np.exp(logprobs[seen:].astype(np.float64)).sum()) > 1e-3
    )  # float32 holds the mass well enough
    low, high = unseen_weight(logprobs[:seen], VOCAB, temperature)
    assert low * 0.98 <= unseen <= high * 1.02


def test_with_no_mass_unseen_there_is_no_unseen_weight() -> None:
    assert unseen_weight(np.zeros(1, dtype=np.float32), 10, 0.7) == (0.0, 0.0)
    nothing = np.array([math.log(0.5), -math.inf], dtype=np.float32)
    assert unseen_weight(nothing, 10, 0.7) == (0.0, 0.0)


def of_three_seen(claimed: int, top_p: float) -> Replay:
    """Ten tokens, three of them seen, at T = 2: the others' weight is known to lie between 0.63 and 1.18."""
    probabilities = np.log(np.array([[0.5, 0.2, 0.1, 0.05, 0.05, 0.04, 0.03, 0.01, 0.01, 0.01]]))
    chosen = sampling(temperature=2.0, top_p=top_p)
    return replayed(probabilities.astype(np.float32), [claimed], chosen, 1, seen=3)


def test_where_the_cut_is_in_doubt_the_claimed_token_is_a_candidate_and_no_other() -> None:
    claimed_in_doubt, claimed_for_certain = of_three_seen(2, top_p=0.5), of_three_seen(0, top_p=0.5)
    assert claimed_in_doubt.unsure.all()
    assert claimed_in_doubt.among.all()
    assert claimed_in_doubt.margins[0] < MARGIN_CLIP
    assert claimed_for_certain.unsure.all()
    assert claimed_for_certain.best_ids[0] in (0, 1)


def test_a_token_that_no_cut_could_keep_is_no_candidate() -> None:
    result = of_three_seen(2, top_p=0.3)
    assert (result.margins[0], bool(result.among[0]), bool(result.unsure[0])) == (MARGIN_CLIP, False, True)
    unseen = of_three_seen(9, top_p=0.3)
    assert (unseen.margins[0], bool(unseen.among[0])) == (MARGIN_CLIP, False)


def test_top_k_beyond_the_list_may_drop_any_part_of_what_was_not_seen() -> None:
    probabilities = np.array([0.3, 0.2, 0.1] + [0.4 / 997] * 997)
    logprobs = np.log(np.tile(probabilities, (60, 1))).astype(np.float32)
    chosen = sampling(temperature=1.0, top_k=4, top_p=0.8)  # keeps two: the unseen 0.4 is not in the running
    claimed = honest(logprobs, chosen, 4)
    assert set(claimed) == {0, 1}
    assert replayed(logprobs, claimed, chosen, 4, seen=3).agreement == 1.0


def test_a_cut_in_doubt_is_unsure_even_where_the_best_token_is_beyond_reach() -> None:
    position = 30_820  # where token 0 has a noise over 10
    result = replay_tokens(
        np.array([[0, 1]]),
        np.log(np.array([[0.9998, 1e-12]])).astype(np.float32),
        np.array([1]),
        np.log(np.array([1e-12])).astype(np.float32),
        vocab_size=10**9,
        sampling=sampling(temperature=2.0, top_p=0.004),
        run_key=1,
        first_position=position,
    )
    assert (result.best_ids[0], bool(result.unsure[0])) == (0, True)


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": 0.8, "top_p": 0.9},
        {"temperature": 1.2, "top_k": 7},
        {"temperature": 0.5, "top_p": 0.6, "top_k": 12},
    ],
)
@given(st.integers(0, 2**32), st.integers(0, 2**32), st.floats(0.0, 0.9))
@settings(max_examples=60, deadline=None)
def test_where_a_draw_does_not_hang_on_the_cut_small_differences_of_logits_turn_it_only_by_its_gap(
    parameters: dict[str, float], seed: int, noise_seed: int, share: float
) -> None:
    """Differences up to half the slack, either way, move two tokens against each other by the slack at most."""
    chosen = sampling(**parameters)
    logprobs = reference(seed, 8)
    noise = np.random.default_rng(noise_seed).uniform(-1.0, 1.0, size=logprobs.shape)
    other = (logprobs + share * CUT_SLACK / 2.0 * noise).astype(np.float32)
    drawn = honest(other, chosen, 5)
    result = replayed(logprobs, drawn, chosen, 5)
    sure = ~result.on_cut & (result.gaps * parameters["temperature"] > CUT_SLACK)
    assert (result.margins[sure] == 0.0).all()


def test_a_draw_hangs_on_the_cut_if_the_token_just_outside_would_win() -> None:
    probabilities = np.array([[0.5, 0.3, 0.1, 0.06, 0.04]], dtype=np.float32)
    logprobs = np.log(probabilities)
    inside, outside = (sampling(temperature=1.0, top_p=p) for p in (0.89, 0.91))
    keys = range(400)
    differ = [k for k in keys if honest(logprobs, inside, k) != honest(logprobs, outside, k)]
    assert differ
    for key in keys:
        result = replayed(logprobs, [0], inside, key)
        assert result.on_cut[0] or key not in differ
    uncut = replayed(logprobs, [0], sampling(temperature=1.0), 1)
    assert not uncut.on_cut[0]


def test_most_draws_do_not_hang_on_a_cut_and_none_hangs_on_one_that_there_is_not() -> None:
    logprobs = np.log(np.array([[0.5, 0.3, 0.1, 0.06, 0.04]], dtype=np.float32))
    cut, whole = sampling(temperature=1.0, top_p=0.7), sampling(temperature=1.0)
    keys = range(200)
    assert sum(bool(replayed(logprobs, [0], cut, key).on_cut[0]) for key in keys) < 100
    assert not any(replayed(logprobs, [0], whole, key).on_cut[0] for key in keys)


@pytest.mark.parametrize("top_p", [0.89, 0.95])
def test_a_list_tells_as_well_that_a_draw_hangs_on_the_cut(top_p: float) -> None:
    """With 0.95 the cut may fall among what was not seen: then every draw hangs on it."""
    logprobs = np.log(np.array([[0.5, 0.3, 0.1, 0.06, 0.04]], dtype=np.float32))
    chosen = sampling(temperature=1.0, top_p=top_p)
    for key in range(200):
        listed = replayed(logprobs, [0], chosen, key, seen=4)
        whole = replayed(logprobs, [0], chosen, key)
        assert listed.on_cut[0] >= whole.on_cut[0]
        assert listed.on_cut[0] or top_p < 0.95


def test_a_token_that_was_not_seen_may_be_second_best() -> None:
    logprobs = np.array([[0.0, -26.0, -26.0]], dtype=np.float32)
    chosen = sampling(temperature=1.0)
    key = next(key for key in range(100) if 0.0 < float(gumbel(key, 0, 0, [0])[0]) < 5.0)
    result = replayed(logprobs, [0], chosen, key, seen=2)
    assert not result.unsure[0]
    assert result.gaps[0] == pytest.approx(float(gumbel(key, 0, 0, [0])[0]) + 26.0 - MAX_NOISE)
