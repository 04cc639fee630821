"""Which block numbers are believed: what the clock allows, and what has kept step with it."""

from __future__ import annotations

from targon.chain.pace import FASTER, SLACK_BLOCKS, STEADY_BLOCKS, STEP_BLOCKS, Pace
from targon.protocol.primitives import Block

BLOCK_S = 12.0
FAR = 1_000_000_000


class Node:
    """Somebody who tells blocks, and a clock that goes in blocks."""

    def __init__(self, *, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self.now = 0.0

    def tells(self, block: int, *, after: float = 0.0) -> bool:
        self.now += after
        return self.pace.believes(Block(block), self.now * BLOCK_S, BLOCK_S)


def test_the_first_block_is_believed_and_a_far_one_after_it_is_not() -> None:
    node = Node()
    assert node.pace.highest(0.0, BLOCK_S) is None
    assert node.tells(1_000)
    assert node.tells(1_001, after=1)
    assert not node.tells(FAR, after=1)
    assert node.pace.doubts
    assert node.tells(1_003, after=1), "it has come to its senses"
    assert not node.pace.doubts


def test_who_was_not_looking_for_long_is_no_worse_off() -> None:
    node = Node()
    node.tells(1_000)
    assert node.tells(51_000, after=50_000)


def test_many_small_steps_lead_no_further_than_one_large_one() -> None:
    node = Node()
    node.tells(1_000)
    reached = 1_000
    while reached < 9_000 and node.tells(reached + 1):
        reached += 1
    assert reached == 1_000 + SLACK_BLOCKS
    for _ in range(400):
        node.now += 1
        while reached < 9_000 and node.tells(reached + 1):
            reached += 1
    assert reached == 1_000 + SLACK_BLOCKS + 400 * FASTER


def test_a_node_that_stands_still_far_ahead_is_never_believed() -> None:
    node = Node()
    node.tells(1_000)
    assert not any(node.tells(FAR, after=1) for _ in range(10 * STEADY_BLOCKS))


def test_a_node_that_runs_away_is_never_believed() -> None:
    node = Node()
    node.tells(1_000)
    assert not any(node.tells(FAR + 100 * step, after=1) for step in range(10 * STEADY_BLOCKS))


def test_what_has_kept_step_for_long_enough_is_believed_after_all() -> None:
    node = Node()
    node.tells(1_000)
    told = [node.tells(90_000 + step, after=1) for step in range(STEADY_BLOCKS + 1)]
    assert told == [False] * STEADY_BLOCKS + [True]
    assert node.tells(90_000 + STEADY_BLOCKS + 1, after=1)
    assert not node.tells(FAR, after=1)


def test_a_node_that_catches_up_is_believed_once_it_has() -> None:
    node = Node()
    node.tells(1_000)
    block = 1_000
    while block < 20_000:
        block += 500
        assert not node.tells(block, after=1)
    told = [node.tells(block + step, after=1) for step in range(1, STEADY_BLOCKS + 1)]
    assert told == [False] * (STEADY_BLOCKS - 1) + [True]


def test_nodes_that_differ_by_a_few_blocks_keep_step_together() -> None:
    node = Node()
    node.tells(1_000)
    told = [
        node.tells(90_000 + step - (STEP_BLOCKS if step % 2 else 0), after=1)
        for step in range(STEADY_BLOCKS + 1)
    ]
    assert told == [False] * STEADY_BLOCKS + [True]


def test_a_node_that_lags_lowers_nothing() -> None:
    node = Node()
    node.tells(1_000)
    assert node.tells(400, after=1)
    assert node.tells(1_002, after=1)


def test_a_block_that_was_seen_before_counts_with_its_age() -> None:
    node = Node(pace=Pace(Block(1_000), -100 * BLOCK_S))
    assert not node.tells(FAR)
    assert node.tells(1_100)
