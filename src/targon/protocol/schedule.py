"""Blocks and intervals: all periodic work is counted in blocks, never in seconds."""

from __future__ import annotations

from targon.protocol.primitives import Block, Interval

BLOCK_SECONDS = 12.0
INTERVAL_BLOCKS = 360
MAX_BLOCK_AGE = 5
"""A prover refuses a request that names a block older than this many blocks."""


def interval_of(block: Block, interval_blocks: int = INTERVAL_BLOCKS) -> Interval:
    """The interval that a block lies in."""
    return Interval(block // interval_blocks)


def first_block(interval: Interval, interval_blocks: int = INTERVAL_BLOCKS) -> Block:
    """The first block of an interval."""
    return Block(interval * interval_blocks)


def is_fresh(named: Block, current: Block) -> bool:
    """Whether a request that names a block may still be served at the current one."""
    return current - MAX_BLOCK_AGE <= named <= current
