"""The compiled sampler chooses exactly what the plain one chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from targon.engines import compiled_sampler
from targon.engines.compiled_sampler import choose_batch, choose_fast
from targon.protocol import InvalidLogits, Sampling, UnsupportedSampling, choose, gumbel
from targon.protocol.sampler import MAX_NOISE

KEYS = st.integers(0, 2**64 - 1)
POSITIONS = st.integers(0, 2**32 - 1)
SIZES = st.one_of(st.integers(1, 30), st.sampled_from([255, 256, 257, 511, 1000]))


def sampling(temperature: float = 0.8, **fields: object) -> Sampling:
    return Sampling.from_json({"seed": "0" * 16, "max_tokens": 1, "temperature": temperature} | fields)


def test_numba_is_there_to_be_tested() -> None:
    assert compiled_sampler.COMPILED


@settings(deadline=None)
@given(
    arrays(
        np.float32,
        SIZES,
        elements=st.one_of(st.integers(-2, 2).map(float), st.floats(-(2.0**100), 2.0**100, width=32)),
    ),
    st.sampled_from([0.05, 0.3, 0.8, 1.0, 10.0]),
    KEYS,
    POSITIONS,
    st.integers(0, 127),
)
def test_both_forms_choose_the_same_token(
    logits: np.ndarray, temperature: float, key: int, position: int, choice: int
) -> None:
    chosen = sampling(temperature, choice=choice)
    assert choose_fast(logits, chosen, key, position) == choose(logits, chosen, key, position)


@pytest.mark.parametrize("spread", [0.0, 1e-7, 0.5, 4.0, 1e6, 1e30])
def test_thousands_of_random_draws_agree(spread: float) -> None:
    random = np.random.default_rng(int(min(spread, 1e9)) + 1)
    for number in range(600):
        vocab = int(random.integers(1, 3000))
        logits = (random.normal(size=vocab) * spread).astype(np.float32)
        if number % 3 == 0:
            logits = np.round(logits)
        key = int(random.integers(0, 2**64, dtype=np.uint64))
        assert choose_fast(logits, sampling(), key, number) == choose(logits, sampling(), key, number)


def test_values_too_close_for_two_logarithms_to_agree_on_are_left_to_the_plain_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []

    def watched(*draw: Any) -> int:
        asked.append(draw)
        return choose(*draw)

    monkeypatch.setattr(compiled_sampler, "choose", watched)
    logits = np.full(500, 1e30, dtype=np.float32)  # the noise vanishes beside them: all tie
    assert choose_fast(logits, sampling(), 9, 9) == 0
    assert len(asked) == 1
    logits = np.arange(500, dtype=np.float32)
    logits[77] = 600.0
    assert choose_fast(logits, sampling(), 9, 9) == 77
    logits[77] = 0.0
    assert choose_fast(logits, sampling(), 9, 9) == choose(logits, sampling(), 9, 9)
    assert len(asked) == 1


def test_a_batch_gives_each_row_its_own_draw() -> None:
    logits = np.random.default_rng(3).normal(size=(6, 700)).astype(np.float32)
    parameters = [
        sampling(0.8),
        sampling(0.0),
        sampling(1.0, top_p=0.9),
        sampling(1.0, top_k=5),
        sampling(0.7, choice=3),
        sampling(0.0, dialect="greedy"),
    ]
    draws = [(chosen, 1000 + row, 7 * row) for row, chosen in enumerate(parameters)]
    tokens = choose_batch(logits, draws)
    assert tokens.dtype == np.int64
    assert tokens.tolist() == [choose(row, *draw) for row, draw in zip(logits, draws, strict=True)]


def test_an_empty_batch_chooses_nothing() -> None:
    assert choose_batch(np.empty((0, 10), dtype=np.float32), []).tolist() == []


def test_a_batch_with_fewer_draws_than_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        choose_batch(np.zeros((2, 10), dtype=np.float32), [(sampling(), 1, 0)])


def test_rows_that_do_not_lie_together_in_memory_are_read_rightly() -> None:
    logits = np.random.default_rng(4).normal(size=(300, 3)).astype(np.float32)
    assert choose_batch(logits.T, [(sampling(), 5, 5)] * 3).tolist() == [
        choose(column, sampling(), 5, 5) for column in logits.T
    ]


def test_bad_input_is_refused_as_the_plain_form_refuses_it() -> None:
    good = np.zeros(10, dtype=np.float32)
    with pytest.raises(InvalidLogits):
        choose_fast(np.full(10, np.nan, dtype=np.float32), sampling(), 1, 0)
    with pytest.raises(InvalidLogits):
        choose_fast(np.full(10, -np.inf, dtype=np.float32), sampling(), 1, 0)
    with pytest.raises(UnsupportedSampling):
        choose_fast(good, sampling(0.01), 1, 0)
    with pytest.raises(UnsupportedSampling):
        choose_fast(good, sampling(0.8, dialect="native"), 1, 0)
    with pytest.raises(ValueError, match="position"):
        choose_fast(good, sampling(), 1, 2**32)


def test_without_numba_the_plain_form_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_sampler, "COMPILED", False)
    logits = np.random.default_rng(5).normal(size=100).astype(np.float32)
    assert choose_fast(logits, sampling(), 8, 8) == choose(logits, sampling(), 8, 8)


def test_the_greatest_noise_there_is_can_win() -> None:
    key, position, token = 0x0123456789ABCDEF, 35_746, 16_196  # its word is 2**32 - 1
    logits = np.full(16_200, -np.inf, dtype=np.float32)
    logits[9] = 5.0
    rival = 5.0 + float(gumbel(key, position, 0, 9))
    for lead, winner in ((0.01, token), (-0.01, 9)):
        logits[token] = rival - MAX_NOISE + lead
        assert choose_fast(logits, sampling(1.0), key, position) == winner
