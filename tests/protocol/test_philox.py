"""Philox4x32-10 against the known answers of its authors, and against plain integer arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.protocol.philox import philox4x32

WORD = st.integers(0, 2**32 - 1)
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)

KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (PI, (0xA4093822, 0x299F31D0), "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(*values: object) -> tuple[np.ndarray, ...]:
    return tuple(np.array(value, dtype=np.uint64) for value in values)


def by_integers(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    """The definition in the paper, without arrays."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        left, right = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (right >> 32) ^ c1 ^ k0, right % 2**32, (left >> 32) ^ c3 ^ k1, left % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_the_known_answers_of_random123_come_out(counter, key, answer) -> None:
    result = philox4x32(words(*counter), key)
    assert " ".join(f"{int(word):08x}" for word in result) == answer


@given(st.tuples(WORD, WORD, WORD, WORD), st.tuples(WORD, WORD))
def test_arrays_give_what_integers_give(counter: tuple[int, ...], key: tuple[int, int]) -> None:
    assert [int(word) for word in philox4x32(words(*counter), key)] == by_integers(counter, key)


def test_counters_broadcast_together_and_each_is_its_own() -> None:
    result = philox4x32(words(np.arange(5), np.arange(3)[:, None], 7, 0), (1, 2))
    assert {word.shape for word in result} == {(3, 5)}
    assert [int(word[2, 4]) for word in result] == by_integers((4, 2, 7, 0), (1, 2))
