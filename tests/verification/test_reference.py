"""What a reference engine says is believed only if it fits: one number is spoiled at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from targon.engines import Replayed, Scores
from targon.protocol.replay import MARGIN_CLIP, Replay
from targon.protocol.suspicions import NO_RIVALS
from targon.verification.reference import CLEAR_GAP, contradiction, doubt_replayed, doubt_scores

VOCAB = 50
CLAIMED = np.array([7, 8, 9])


def scores(**spoiled: Any) -> Scores:
    """Three positions, the five most likely tokens of each; 7 and 8 are among them, 9 is not."""
    ids = np.array([[7, 1, 2, 3, 4], [1, 8, 2, 3, 4], [1, 2, 3, 4, 5]], np.int32)
    top = np.log(np.array([[0.4, 0.2, 0.1, 0.1, 0.05]] * 3)).astype(np.float32)
    usual: dict[str, Any] = {
        "top_ids": ids,
        "top_logprobs": top,
        "claimed_logprobs": np.array([top[0, 0], top[1, 1], -6.0], np.float32),
        "claimed_ranks": np.array([0, 1, 11], np.int32),
        "prompt_tokens": 4,
    }
    return Scores(**(usual | spoiled))


def spoil(array: np.ndarray, place: Any, value: float) -> np.ndarray:
    changed = array.copy()
    changed[place] = value
    return changed


GOOD = scores()


def test_scores_that_fit_are_believed() -> None:
    assert doubt_scores([GOOD], CLAIMED, VOCAB) is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"claimed_logprobs": spoil(GOOD.claimed_logprobs, 2, np.nan)}, "log-probability nan"),
        ({"claimed_logprobs": spoil(GOOD.claimed_logprobs, 2, 0.5)}, "log-probability 0.5"),
        ({"claimed_ranks": spoil(GOOD.claimed_ranks, 2, VOCAB)}, "rank 50"),
        (
            {"top_logprobs": GOOD.top_logprobs + 1.0, "claimed_logprobs": np.full(3, -1.0, np.float32)},
            "sum to",
        ),
        ({"top_logprobs": spoil(GOOD.top_logprobs, (2, 4), -2.2)}, "a list out of order"),
        ({"top_ids": spoil(GOOD.top_ids, (2, 4), -1)}, "token"),
        ({"claimed_logprobs": spoil(GOOD.claimed_logprobs, 0, -4.0)}, "against the list's"),
        ({"claimed_ranks": spoil(GOOD.claimed_ranks, 1, 6)}, "rank, but the token is in the list, 6"),
        ({"prompt_tokens": 0}, "a prompt of 0 tokens"),
    ],
)
def test_scores_that_do_not_fit_are_doubted_by_name(fields: dict[str, Any], said: str) -> None:
    doubt = doubt_scores([scores(**fields)], CLAIMED, VOCAB)
    assert doubt is not None
    assert said in doubt


def replayed(**fields: Any) -> Replayed:
    """Three positions that agree clearly."""
    usual: dict[str, Any] = {
        "best_ids": CLAIMED.copy(),
        "gaps": np.full(3, 2.0),
        "margins": np.zeros(3),
        "among": np.ones(3, np.bool_),
        "unsure": np.zeros(3, np.bool_),
        "on_cut": np.zeros(3, np.bool_),
        "tail_mass": np.full(3, 0.2),
        "in_tail": np.zeros(3, np.bool_),
        "rivals": np.full(3, NO_RIVALS, np.uint32),
        "claimed_rivals": np.zeros(3, np.uint8),
    }
    return Replayed(Replay(**(usual | fields)), np.full(3, -1.0, np.float32), np.zeros(3, np.int32), 4)


def test_the_best_token_is_nobodys_rival() -> None:
    assert doubt_replayed([replayed()], CLAIMED, VOCAB) is None
    codes = spoil(np.full(3, NO_RIVALS, np.uint32), 1, NO_RIVALS ^ 15)
    claims = np.array([0, 1, 0], np.uint8)
    doubt = doubt_replayed([replayed(rivals=codes, claimed_rivals=claims)], CLAIMED, VOCAB)
    assert doubt is not None
    assert "claimed rivals, of the best token itself, 1 at position 1" in doubt
    other = {"best_ids": np.array([7, 20, 9]), "margins": np.array([0.0, MARGIN_CLIP, 0.0])}
    assert doubt_replayed([replayed(rivals=codes, claimed_rivals=claims, **other)], CLAIMED, VOCAB) is None


@pytest.mark.parametrize("name", ["unsure", "on_cut"])
def test_a_doubtful_position_contradicts_nothing(name: str) -> None:
    turned = {"best_ids": np.array([7, 20, 9]), "margins": np.array([0.0, 3.0, 0.0])}
    assert contradiction(replayed(), replayed(**turned), 1.0) == "token 8 at position 1, then 20"
    doubtful = np.array([False, True, False])
    for pair in (
        (replayed(**{name: doubtful}), replayed(**turned)),
        (replayed(), replayed(**turned, **{name: doubtful})),
    ):
        assert contradiction(*pair, 1.0) is None


def test_gaps_are_clear_in_logits_whatever_the_temperature() -> None:
    gaps = np.full(3, 1.5 * CLEAR_GAP)
    one, other = replayed(gaps=gaps), replayed(gaps=gaps, best_ids=np.array([7, 20, 9]))
    assert contradiction(one, other, 1.0) is not None
    assert contradiction(one, other, 0.5) is None


def test_log_probabilities_that_drift_contradict() -> None:
    one = replayed()
    assert contradiction(one, replace(one, claimed_logprobs=np.full(3, -3.5, np.float32)), 1.0) is not None
