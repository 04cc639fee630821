"""Blocks and intervals, and the prompts that are made in them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from targon.protocol import (
    BLOCK_SECONDS,
    DEMO,
    INTERVAL_BLOCKS,
    MAX_BLOCK_AGE,
    STANDARD,
    challenge_messages,
    first_block,
    interval_of,
    is_fresh,
    query_messages,
)
from targon.protocol.prompt import QUERY_EXAMPLES

BLOCKS = st.integers(0, 2**40)
LENGTHS = st.integers(1, 1000)


@given(BLOCKS, LENGTHS)
def test_every_block_lies_in_exactly_one_interval(block: int, length: int) -> None:
    interval = interval_of(block, length)
    assert first_block(interval, length) <= block < first_block(interval + 1, length)


@given(st.integers(0, 2**30), LENGTHS)
def test_an_interval_begins_with_its_first_block(interval: int, length: int) -> None:
    first = first_block(interval, length)
    assert interval_of(first, length) == interval
    assert first == 0 or interval_of(first - 1, length) == interval - 1


@given(BLOCKS, BLOCKS)
def test_a_block_is_fresh_from_the_moment_it_is_current_until_it_is_five_old(
    named: int, current: int
) -> None:
    assert is_fresh(named, current) == (0 <= current - named <= 5)


def test_a_block_is_fresh_at_both_ends_of_its_time() -> None:
    assert [is_fresh(100, current) for current in (99, 100, 105, 106)] == [False, True, True, False]


def test_the_network_counts_in_intervals_of_360_blocks_of_12_seconds() -> None:
    assert (INTERVAL_BLOCKS, BLOCK_SECONDS, MAX_BLOCK_AGE) == (360, 12.0, 5)
    assert STANDARD.interval_blocks == INTERVAL_BLOCKS
    assert DEMO.interval_blocks < INTERVAL_BLOCKS
    assert interval_of(719) == 1
    assert first_block(2) == 720


@given(st.text(max_size=50), st.text(max_size=50))
def test_a_challenge_shows_the_passage_and_then_asks(query: str, passage: str) -> None:
    system, message = challenge_messages(query, passage)
    assert system.role == "system"
    assert (message.role, message.content) == ("user", f"{passage}\n\n{query}")


@given(st.text(max_size=50), st.text(max_size=20))
def test_a_query_is_asked_for_after_examples_of_the_same_form(passage: str, topic: str) -> None:
    system, *shown, message = query_messages(passage, topic)
    assert system.role == "system"
    assert message.role == "user"
    asks = 'Text: {}\n\nAsk one short question about "{}" that this text answers.'
    assert message.content == asks.format(passage, topic)
    expected = [words for text, about, query in QUERY_EXAMPLES for words in (asks.format(text, about), query)]
    assert [one.content for one in shown] == expected
