"""The compiled replay says exactly what the plain one says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from targon.engines import compiled_replay
from targon.engines.compiled_replay import ReplayedLogits, replay_logits
from targon.protocol import MARGIN_CLIP, Sampling, UnsupportedSampling, choose, replay_tokens
from targon.protocol.replay import Replay

CUTS = [
    {"temperature": 0.0},
    {"temperature": 0.05},
    {"temperature": 0.8},
    {"temperature": 1.0},
    {"temperature": 2.5, "choice": 3},
    {"temperature": 0.8, "top_p": 0.95},
    {"temperature": 1.0, "top_p": 0.3},
    {"temperature": 1.3, "top_p": 0.999},
    {"temperature": 1.0, "top_p": 1.0 - 2.0**-50},
    {"temperature": 0.8, "top_k": 1},
    {"temperature": 1.0, "top_k": 20},
    {"temperature": 1.2, "top_k": 2_500},
    {"temperature": 1.0, "top_k": 40, "top_p": 0.9},
    {"temperature": 1.0, "top_k": 10_000_000, "top_p": 0.9},
]


def sampling(**fields: object) -> Sampling:
    return Sampling.from_json({"seed": "0" * 16, "max_tokens": 1} | fields)


def plainly(logits: np.ndarray, claimed: np.ndarray, chosen: Sampling, run_key: int, first: int) -> Replay:
    return replay_tokens(
        np.broadcast_to(np.arange(logits.shape[1]), logits.shape),
        logits,
        claimed,
        np.zeros(len(claimed), np.float32),
        vocab_size=logits.shape[1],
        sampling=chosen,
        run_key=run_key,
        first_position=first,
    )


def assert_same(got: Replay, expected: Replay) -> None:
    for name in (
        "best_ids",
        "gaps",
        "margins",
        "among",
        "unsure",
        "on_cut",
        "in_tail",
        "rivals",
        "claimed_rivals",
    ):
        assert getattr(got, name).tolist() == getattr(expected, name).tolist(), name
        assert getattr(got, name).dtype == getattr(expected, name).dtype
    assert np.allclose(got.tail_mass, expected.tail_mass, rtol=0.0, atol=1e-9, equal_nan=True)


def check(
    logits: np.ndarray, claimed: np.ndarray, chosen: Sampling, run_key: int = 9, first: int = 0
) -> ReplayedLogits:
    result = replay_logits(logits, claimed, chosen, run_key, first, threads=2)
    assert_same(result.replay, plainly(logits, claimed, chosen, run_key, first))
    return result


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("spread", [0.0, 1e-7, 0.5, 3.0, 40.0, 1e6, 1e30])
def test_it_says_what_the_plain_form_says_whatever_is_cut(cut: dict[str, float], spread: float) -> None:
    random = np.random.default_rng(int(min(spread * 10, 1e9)))
    for vocab in (1, 2, 7, 255, 256, 257, 3_000):
        logits = (random.normal(size=(12, vocab)) * spread).astype(np.float32)
        logits[::3] = np.round(logits[::3])  # ties
        claimed = random.integers(0, vocab, size=12)
        claimed[::2] = [choose(row, sampling(**cut), 9, 5 + 2 * at) for at, row in enumerate(logits[::2])]
        result = check(logits, claimed, sampling(**cut), first=5)
        assert (result.replay.margins[::2] == 0.0).all()


@pytest.mark.parametrize("cut", CUTS)
def test_it_does_so_over_a_vocabulary_shaped_as_in_real_models(cut: dict[str, float]) -> None:
    random = np.random.default_rng(3)
    logits = (random.normal(size=(24, 20_000)) * random.uniform(1, 4, size=(24, 1))).astype(np.float32)
    logits[:, 77] += 12
    check(logits, logits.argsort(axis=1)[np.arange(24), -1 - np.arange(24)], sampling(**cut), 2**64 - 1)


@settings(deadline=None, max_examples=200)
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 30)),
        elements=st.one_of(
            st.integers(-2, 2).map(float), st.floats(-(2.0**100), 2.0**100, width=32), st.just(-np.inf)
        ),
    ),
    st.sampled_from(CUTS),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**31),
    st.integers(0, 29),
)
def test_it_does_so_for_any_finite_logits(
    logits: np.ndarray, cut: dict[str, float], run_key: int, first: int, claim: int
) -> None:
    logits[:, 0] = np.where(np.isfinite(logits).any(axis=1), logits[:, 0], 1.0)
    claimed = np.full(len(logits), claim % logits.shape[1])
    check(logits, claimed, sampling(**cut), run_key, first)


def test_log_probabilities_and_ranks_are_those_of_the_raw_distribution() -> None:
    logits = (np.random.default_rng(4).normal(size=(9, 5_000)) * 3).astype(np.float32)
    claimed = np.arange(9)
    result = check(logits, claimed, sampling(temperature=0.3, top_p=0.5))
    own = logits[np.arange(9), claimed]
    expected = own - np.log(np.exp(logits.astype(np.float64)).sum(axis=1))
    assert np.allclose(result.claimed_logprobs, expected, rtol=0.0, atol=1e-5)
    assert result.claimed_ranks.tolist() == (logits > own[:, None]).sum(axis=1).tolist()
    assert result.claimed_logprobs.dtype.name == "float32"
    assert result.claimed_ranks.dtype.name == "int32"


def test_a_gap_beyond_the_clip_is_the_clip() -> None:
    logits = np.zeros((8, 600), np.float32)
    logits[:, 300] = 60.0
    result = check(logits, np.arange(8), sampling(temperature=1.0))
    assert result.replay.gaps.tolist() == result.replay.margins.tolist() == [MARGIN_CLIP] * 8


@pytest.mark.parametrize("cut", CUTS[:6])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_position_without_numbers_is_marked_and_leaves_the_others_alone(
    cut: dict[str, float], bad: float
) -> None:
    logits = np.random.default_rng(5).normal(size=(6, 700)).astype(np.float32)
    whole = replay_logits(logits, np.zeros(6, np.int64), sampling(**cut), 9)
    broken = logits.copy()
    broken[2, 5] = bad
    broken[4] = -np.inf
    result = replay_logits(broken, np.zeros(6, np.int64), sampling(**cut), 9)
    for values in (result.replay.gaps, result.replay.margins, result.claimed_logprobs):
        assert np.isnan(values).tolist() == [False, False, True, False, True, False]
    assert result.replay.best_ids[[2, 4]].tolist() == [-1, -1]
    assert not result.replay.among[[2, 4]].any()
    others = [0, 1, 3, 5]
    assert result.replay.gaps[others].tolist() == whole.replay.gaps[others].tolist()
    assert result.claimed_logprobs[others].tolist() == whole.claimed_logprobs[others].tolist()


def test_what_rounding_could_turn_is_left_to_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def watched(*arguments, **more):
        asked.append(arguments)
        return replay_tokens(*arguments, **more)

    monkeypatch.setattr(compiled_replay, "replay_tokens", watched)
    ties = np.full((1, 500), 1e30, dtype=np.float32)  # the noise vanishes beside them
    result = replay_logits(ties, np.array([4]), sampling(temperature=1.0), 9)
    assert (result.replay.best_ids[0], result.replay.gaps[0], result.replay.margins[0]) == (0, 0.0, 0.0)
    assert len(asked) == 1
    even = np.zeros(
        (1, 20), dtype=np.float32
    )  # each weighs exactly a twentieth, and ten reach the goal exactly
    replay_logits(even, np.array([4]), sampling(temperature=1.0), 9)
    replay_logits(even, np.array([4]), sampling(temperature=1.0, top_p=0.5), 9)
    assert len(asked) == 3
    replay_logits(np.arange(500, dtype=np.float32)[None] / 9, np.array([4]), sampling(temperature=1.0), 9)
    assert len(asked) == 3


def test_other_samplers_and_keys_that_do_not_fit_are_refused() -> None:
    logits, claimed = np.zeros((1, 5), np.float32), np.zeros(1, np.int64)
    with pytest.raises(UnsupportedSampling):
        replay_logits(logits, claimed, sampling(temperature=1.0, dialect="vllm"), 1)
    with pytest.raises(ValueError, match="run_key"):
        replay_logits(logits, claimed, sampling(temperature=1.0), 2**64)
