"""The sampler targon/1: against a second implementation in plain Python, and its laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from targon.protocol import (
    InvalidLogits,
    Sampling,
    UnsupportedSampling,
    candidates,
    check_sampling,
    choose,
    gumbel,
)
from targon.protocol.philox import philox4x32
from targon.protocol.sampler import MAX_NOISE, MIN_NOISE, check_replayable, gumbel_of, scaled

KEYS = st.integers(0, 2**64 - 1)
POSITIONS = st.integers(0, 2**32 - 1)
CHOICES = st.integers(0, 127)
TEMPERATURES = st.sampled_from([0.05, 0.1, 0.5, 0.7, 0.8, 1.0, 1.3, 2.0, 10.0])
TIES = st.integers(-3, 3).map(float)
"""Few different values, so that ties are the rule."""
FINITE = st.floats(-50, 50, width=32)
LOGITS = st.one_of(st.lists(TIES, min_size=1, max_size=40), st.lists(FINITE, min_size=1, max_size=40))


def sampling(temperature: float = 0.8, top_p: float = 1.0, top_k: int = 0, **fields: object) -> Sampling:
    named = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    return Sampling.from_json({"seed": "0" * 16, "max_tokens": 1} | named | fields)


def plain_noise(run_key: int, position: int, choice: int, token: int) -> float:
    """Rule 4, one token at a time."""
    counter = tuple(np.array(word, dtype=np.uint64) for word in (token // 4, position, choice, 0))
    words = philox4x32(counter, (run_key % 2**32, run_key // 2**32))
    return -math.log(-math.log((int(words[token % 4]) + 0.5) / 2**32))


def plain_candidates(scores: list[float], top_k: int, top_p: float) -> list[int]:
    """Rules 2 and 3 by sorting everything."""
    order = sorted(range(len(scores)), key=lambda token: (-scores[token], token))
    if top_k:
        order = order[:top_k]
    if top_p < 1.0:
        weights = {token: math.exp(scores[token] - scores[order[0]]) for token in order}
        total = 0.0
        for token in sorted(order):
            total += weights[token]
        running, kept = 0.0, []
        for token in order:
            running += weights[token]
            kept.append(token)
            if running >= top_p * total:
                break
        order = kept
    return sorted(order)


def plain_choice(logits: list[float], chosen: Sampling, run_key: int, position: int) -> int:
    """All six rules, one after another."""
    if chosen.temperature == 0.0:
        return max(range(len(logits)), key=lambda token: (logits[token], -token))
    scores = [logit / chosen.temperature for logit in logits]
    kept = plain_candidates(scores, chosen.top_k, chosen.top_p)
    value = {token: scores[token] + plain_noise(run_key, position, chosen.choice, token) for token in kept}
    return max(kept, key=lambda token: (value[token], -token))


@given(LOGITS, TEMPERATURES, st.integers(0, 45), st.floats(0.001, 1.0), KEYS, POSITIONS, CHOICES)
def test_the_choice_is_that_of_the_rules_taken_one_by_one(
    logits: list[float], temperature: float, top_k: int, top_p: float, key: int, position: int, choice: int
) -> None:
    chosen = sampling(temperature, top_p, top_k, choice=choice)
    assert choose(logits, chosen, key, position) == plain_choice(logits, chosen, key, position)


@pytest.mark.parametrize("vocab", [1, 2, 3, 4, 5, 1023, 5000])
@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0, 40.0])
def test_a_large_vocabulary_gives_the_best_of_all_values(vocab: int, spread: float) -> None:
    random = np.random.default_rng(vocab)
    for position in range(20):
        logits = (random.normal(size=vocab) * spread).astype(np.float32)
        values = scaled(logits, 0.7) + gumbel(position * 977, position, 1, np.arange(vocab))
        assert choose(logits, sampling(0.7, choice=1), position * 977, position) == int(np.argmax(values))


@pytest.mark.parametrize(
    ("top_k", "top_p"), [(0, 0.3), (0, 0.95), (0, 0.9999), (7, 1.0), (1000, 0.5), (2000, 1.0)]
)
@pytest.mark.parametrize("distinct", [1, 3, 10**6])
def test_cuts_of_a_large_vocabulary_are_those_of_a_full_sort(top_k: int, top_p: float, distinct: int) -> None:
    random = np.random.default_rng(top_k + distinct)
    scores = random.integers(0, distinct, size=3000) / distinct * 6
    assert candidates(scores, top_k, top_p).tolist() == plain_candidates(scores.tolist(), top_k, top_p)


@given(KEYS, POSITIONS, CHOICES, st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20))
def test_noise_does_not_depend_on_which_other_tokens_are_asked_for(
    key: int, position: int, choice: int, tokens: list[int]
) -> None:
    alone = [plain_noise(key, position, choice, token) for token in tokens]
    together = gumbel(key, position, choice, tokens)
    assert together == pytest.approx(alone, rel=1e-14, abs=1e-14)
    assert gumbel(key, position, choice, tokens[::-1])[::-1].tolist() == together.tolist()


def test_noise_keeps_the_shape_of_the_token_ids() -> None:
    assert gumbel(1, 2, 3, np.arange(12).reshape(3, 4)).shape == (3, 4)
    assert gumbel(1, 2, 3, 5).shape == ()


def test_every_part_of_the_counter_and_the_key_changes_the_noise() -> None:
    draws = [
        (1, 2, 3, 5),
        (2, 2, 3, 5),
        (1 + 2**32, 2, 3, 5),
        (1, 3, 3, 5),
        (1, 2, 4, 5),
        (1, 2, 3, 6),
        (1, 2, 3, 9),
    ]
    assert len({float(gumbel(*draw)) for draw in draws}) == len(draws)


def test_the_extreme_words_give_finite_noise() -> None:
    extremes = gumbel_of(np.array([0, 2**32 - 1], dtype=np.uint64))
    assert extremes.tolist() == pytest.approx([MIN_NOISE, MAX_NOISE], rel=1e-14)
    assert extremes.tolist() == pytest.approx([-3.1299946408848, 22.8738569584200], rel=1e-12)


def test_noise_has_the_moments_of_the_standard_gumbel_distribution() -> None:
    noise = gumbel(7, 0, 0, np.arange(400_000))
    assert float(noise.mean()) == pytest.approx(0.5772156649, abs=0.01)
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, abs=0.02)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_softmax_says(temperature: float) -> None:
    logits = np.array([1.0, 0.0, -1.0, 2.0, 0.5], dtype=np.float32)
    draws = 8_000
    tokens = [choose(logits, sampling(temperature), 0xC0FFEE, position) for position in range(draws)]
    weights = np.exp(logits.astype(np.float64) / temperature)
    expected = draws * weights / weights.sum()
    chi_square = float((((np.bincount(tokens, minlength=5) - expected) ** 2) / expected).sum())
    assert chi_square < 18.47  # 4 degrees of freedom, 1 in 1000; the keys are fixed


@given(st.lists(st.integers(-400, 400), min_size=1, max_size=40), st.integers(-64, 64), KEYS, POSITIONS)
def test_a_shift_of_all_logits_changes_nothing(steps: list[int], shift: int, key: int, position: int) -> None:
    logits = np.array(steps, dtype=np.float32) / 16  # sixteenths: float32 holds the shifted ones exactly
    for chosen in (sampling(0.8), sampling(0.0), sampling(1.0, top_k=5), sampling(0.5, top_p=0.7)):
        assert choose(logits + np.float32(shift), chosen, key, position) == choose(
            logits, chosen, key, position
        )


@given(LOGITS, KEYS, POSITIONS, TEMPERATURES)
def test_at_top_k_1_the_highest_logit_is_drawn_whatever_the_noise(
    logits: list[float], key: int, position: int, temperature: float
) -> None:
    highest = choose(logits, sampling(0.0), 0, 0)
    assert choose(logits, sampling(temperature, top_k=1), key, position) == highest
    assert choose(logits, sampling(temperature, top_p=1e-9), key, position) == highest
    assert choose(logits, sampling(0.0, top_p=0.1, top_k=3, dialect="greedy"), key, position) == highest
    assert highest == logits.index(max(logits))


@given(LOGITS, st.integers(1, 45), st.floats(0.001, 0.999))
def test_candidates_are_a_prefix_of_the_order_by_score_and_id(
    logits: list[float], top_k: int, top_p: float
) -> None:
    scores = np.array(logits, dtype=np.float64)
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    for kept in (
        candidates(scores, top_k, 1.0),
        candidates(scores, 0, top_p),
        candidates(scores, top_k, top_p),
    ):
        assert kept.size >= 1
        assert kept.tolist() == sorted(order[: kept.size])
    assert candidates(scores, top_k, 1.0).size == min(top_k, len(logits))
    assert candidates(scores, 0, 1.0).tolist() == list(range(len(logits)))


@given(LOGITS, st.floats(0.001, 0.999))
def test_top_p_keeps_the_shortest_prefix_that_reaches_its_share(logits: list[float], top_p: float) -> None:
    scores = np.array(logits, dtype=np.float64)
    weights = np.exp(scores - scores.max())
    share = np.sort(weights)[::-1].cumsum() / weights.sum()
    kept = candidates(scores, 0, top_p).size
    assume(np.abs(share - top_p).min() > 1e-9)
    assert share[kept - 1] > top_p
    assert kept == 1 or share[kept - 2] < top_p


def test_top_p_stops_exactly_where_its_share_is_reached() -> None:
    equals = np.zeros(8)
    assert candidates(equals, 0, 0.5).tolist() == [0, 1, 2, 3]
    assert candidates(equals, 0, math.nextafter(0.5, 1.0)).tolist() == [0, 1, 2, 3, 4]
    assert candidates(equals, 4, 0.5).tolist() == [0, 1]  # of what top-k left


def test_tokens_of_probability_zero_are_never_drawn() -> None:
    logits = np.full(64, -np.inf, dtype=np.float32)
    logits[[9, 40]] = 0.0
    for chosen in (sampling(1.0), sampling(1.0, top_k=50), sampling(1.0, top_p=0.99), sampling(0.0)):
        assert {choose(logits, chosen, 5, position) for position in range(50)} <= {9, 40}


def test_another_choice_of_one_prompt_is_another_answer() -> None:
    logits = np.zeros(1000, dtype=np.float32)
    answers = {
        tuple(choose(logits, sampling(choice=n), 3, position) for position in range(3)) for n in range(20)
    }
    assert len(answers) == 20


@settings(max_examples=30)
@given(st.sampled_from([math.nan, math.inf]), st.integers(0, 19), TEMPERATURES, st.integers(0, 3))
def test_logits_that_are_no_numbers_are_refused(
    bad: float, place: int, temperature: float, top_k: int
) -> None:
    logits = np.zeros(20, dtype=np.float32)
    logits[place] = bad
    with pytest.raises(InvalidLogits, match=f"got {bad} for token {place}, expected finite"):
        choose(logits, sampling(temperature, top_k=top_k), 1, 0)
    with pytest.raises(InvalidLogits):
        choose(logits, sampling(0.0), 1, 0)


def test_logits_that_leave_nothing_to_draw_are_refused() -> None:
    with pytest.raises(InvalidLogits, match="got all −∞"):
        choose(np.full(4, -np.inf), sampling(), 1, 0)
    with pytest.raises(InvalidLogits, match=r"got an array of shape \(0,\)"):
        choose([], sampling(), 1, 0)
    with pytest.raises(InvalidLogits, match=r"got an array of shape \(2, 3\)"):
        choose(np.zeros((2, 3)), sampling(), 1, 0)


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("run_key", (2**64, 0, 0)),
        ("run_key", (-1, 0, 0)),
        ("position", (0, 2**32, 0)),
        ("position", (0, -1, 0)),
        ("choice", (0, 0, 2**32)),
    ],
)
def test_numbers_that_do_not_fit_their_words_are_refused(name: str, draw: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=f"{name}: got .*, expected an integer in"):
        gumbel(*draw, [0])


@given(st.floats(0.0, 0.05, exclude_min=True, exclude_max=True))
@example(math.nextafter(0.05, 0.0))
def test_a_temperature_between_0_and_0_05_is_refused_by_name(temperature: float) -> None:
    with pytest.raises(
        UnsupportedSampling, match=r"'temperature': got .*, expected 0.0 or at least 0.05"
    ) as caught:
        check_sampling(sampling(temperature))
    assert (caught.value.parameter, caught.value.got) == ("temperature", temperature)
    with pytest.raises(UnsupportedSampling):
        choose([0.0], sampling(temperature), 0, 0)


@given(st.floats(0.05, 10.0), st.floats(0.0, 1.0, exclude_min=True), st.integers(0, 2**31 - 1))
def test_everything_that_the_rules_cover_is_served(temperature: float, top_p: float, top_k: int) -> None:
    check_replayable(sampling(temperature, top_p, top_k))
    check_replayable(sampling(0.0, top_p, top_k))
    check_replayable(sampling(0.0, top_p, top_k, dialect="greedy"))


def test_greedy_goes_with_temperature_0_alone() -> None:
    with pytest.raises(
        UnsupportedSampling, match=r"'temperature': got 0.8, expected 0.0 with dialect 'greedy'"
    ):
        check_sampling(sampling(0.8, dialect="greedy"))


@pytest.mark.parametrize("dialect", ["vllm", "native"])
def test_dialects_of_other_engines_are_served_but_not_replayed(dialect: str) -> None:
    check_sampling(sampling(0.8, dialect=dialect))
    with pytest.raises(
        UnsupportedSampling, match=f"'dialect': got '{dialect}', expected 'targon/1' or 'greedy'"
    ):
        choose([0.0], sampling(0.8, dialect=dialect), 0, 0)


def test_logits_are_rounded_to_float32_before_anything_else() -> None:
    assert choose([1.0, 1.0 + 1e-12], sampling(0.0), 0, 0) == 0


def test_the_greatest_noise_there_is_can_win() -> None:
    key, position, token = 0x0123456789ABCDEF, 35_746, 16_196  # its word is 2**32 - 1
    assert gumbel(key, position, 0, token) == pytest.approx(MAX_NOISE)
    logits = np.full(16_200, -np.inf, dtype=np.float32)
    logits[9] = 5.0
    rival = 5.0 + float(gumbel(key, position, 0, 9))
    for lead, winner in ((0.01, token), (-0.01, 9)):
        logits[token] = rival - MAX_NOISE + lead
        assert choose(logits, sampling(1.0), key, position) == winner
