"""What a prover that samples otherwise than asked would draw: known before its token is looked at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.protocol import Replay, Sampling, candidates, choose, gumbel, replay_tokens
from targon.protocol.suspicions import (
    LEAD_EDGES,
    NO_RIVAL,
    NO_RIVALS,
    SUSPICIONS,
    TEMPERATURE_OFFSETS,
    lead_classes,
    suspected_temperatures,
)

VOCAB, RUN_KEY = 400, 11
ZERO = LEAD_EDGES.index(0.0) + 1
"""Classes below this are of rivals that a suspicion would draw."""
ASKED = [
    {"temperature": 1.0},
    {"temperature": 0.8, "top_p": 0.95},
    {"temperature": 1.0, "top_k": 40},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.9},
    {"temperature": 0.2},
]


def sampling(**fields: object) -> Sampling:
    return Sampling.from_json({"seed": "0" * 16, "max_tokens": 1} | fields)


def logits_of(seed: int, positions: int = 30, spread: float = 2.5) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(positions, VOCAB)) * spread).astype(np.float32)


def replayed(logits: np.ndarray, claimed: np.ndarray, chosen: Sampling, seen: int = VOCAB) -> Replay:
    logprobs = (logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))).astype(
        np.float32
    )
    ids = np.argsort(-logprobs, axis=1, kind="stable")[:, :seen]
    return replay_tokens(
        ids,
        np.take_along_axis(logprobs, ids, axis=1),
        claimed,
        np.take_along_axis(logprobs, claimed[:, None], axis=1)[:, 0],
        vocab_size=VOCAB,
        sampling=chosen,
        run_key=RUN_KEY,
    )


def codes(result: Replay) -> tuple[np.ndarray, np.ndarray]:
    """Per position and suspicion: the lead's class, and whether the claimed token is the rival."""
    claims = (result.claimed_rivals[:, None].astype(int) >> np.arange(len(SUSPICIONS))) & 1 > 0
    return lead_classes(result.rivals), claims


@pytest.mark.parametrize("asked", ASKED)
def test_each_rival_is_what_its_own_words_say(asked: dict[str, float]) -> None:
    logits, chosen = logits_of(1), sampling(**asked)
    drawn = np.array([choose(row, chosen, RUN_KEY, at) for at, row in enumerate(logits)])
    claimed = np.where(np.arange(len(logits)) % 2, drawn, np.arange(len(logits)))
    result = replayed(logits, claimed, chosen)
    classes, claims = codes(result)
    found = 0
    for at, row in enumerate(logits.astype(np.float64)):
        kept = candidates(row / chosen.temperature, chosen.top_k, chosen.top_p)
        noise = gumbel(RUN_KEY, at, 0, np.arange(VOCAB))
        whole = kept.size == VOCAB
        for place, (among, other) in enumerate(
            [
                *((kept, other) for other in suspected_temperatures(chosen.temperature)),
                (np.arange(VOCAB), 0.0 if whole else chosen.temperature),
            ]
        ):
            rivals = among[among != drawn[at]]
            if not other or not rivals.size:
                assert classes[at, place] == NO_RIVAL
                continue
            values = row + noise * other
            rival = rivals[np.argmax(values[rivals])]
            lead = values[drawn[at]] - values[rival]
            expected = int(np.searchsorted(LEAD_EDGES, lead, side="right"))
            assert classes[at, place] == (expected if lead < LEAD_EDGES[-1] else NO_RIVAL)
            assert claims[at, place] == (lead < LEAD_EDGES[-1] and rival == claimed[at])
            found += classes[at, place] != NO_RIVAL
    assert found > 20


@pytest.mark.parametrize("offset", TEMPERATURE_OFFSETS)
def test_a_prover_at_another_temperature_claims_the_rival_wherever_that_is_drawn(offset: float) -> None:
    logits, asked = logits_of(2, 200), sampling(temperature=1.0)
    used = sampling(temperature=1.0 + offset)
    claimed = np.array([choose(row, used, RUN_KEY, at) for at, row in enumerate(logits)])
    result = replayed(logits, claimed, asked)
    classes, claims = codes(result)
    mine = TEMPERATURE_OFFSETS.index(offset)
    behind = classes[:, mine] < ZERO
    assert claims[:, mine].tolist() == behind.tolist() == (result.margins > 0).tolist()
    assert behind.any()


def test_a_prover_that_ignores_the_cuts_claims_the_rival_wherever_that_is_drawn() -> None:
    logits, asked = logits_of(3, 200), sampling(temperature=1.0, top_p=0.9)
    claimed = np.array([choose(row, sampling(temperature=1.0), RUN_KEY, at) for at, row in enumerate(logits)])
    result = replayed(logits, claimed, asked)
    classes, claims = codes(result)
    assert (~result.among).any()
    assert claims[:, -1].tolist() == (~result.among).tolist() == (classes[:, -1] < ZERO).tolist()


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(ASKED), st.integers(0, 1000), st.integers(1, VOCAB), st.data())
def test_rivals_do_not_depend_on_the_claimed_token(
    asked: dict[str, float], seed: int, seen: int, data: st.DataObject
) -> None:
    logits, chosen = logits_of(seed, 3), sampling(**asked)
    one, other = (
        replayed(logits, np.array(data.draw(st.tuples(*[st.integers(0, VOCAB - 1)] * 3))), chosen, seen)
        for _ in range(2)
    )
    assert one.rivals.tolist() == other.rivals.tolist()
    classes, claims = codes(one)
    assert (classes[claims] != NO_RIVAL).all()


def test_there_is_no_rival_where_nothing_is_drawn_or_no_such_temperature_is_served() -> None:
    greedy = replayed(logits_of(4), np.zeros(30, np.int64), sampling(temperature=0.0))
    assert set(greedy.rivals.tolist()) == {NO_RIVALS}
    assert suspected_temperatures(0.0) == (0.0,) * 6
    assert suspected_temperatures(0.2) == pytest.approx((0.0, 0.1, 0.15, 0.25, 0.3, 0.4))
    assert suspected_temperatures(0.05)[:3] == (0.0, 0.0, 0.0)
