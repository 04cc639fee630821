"""The text of an answer, from its token ids."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from targon.protocol import answer_text, stop_position

EOS = 256
"""The toy tokenizer: token ids 0 to 255 are bytes, 256 ends the sequence and decodes to nothing."""

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=30)
STOPS = st.lists(st.text(alphabet="ab", min_size=1, max_size=3), max_size=3)


def decode(token_ids: Sequence[int]) -> str:
    return bytes(token for token in token_ids if token != EOS).decode("utf-8", errors="replace")


def text_of(token_ids: Sequence[int], stop: Sequence[str] = ()) -> str:
    return answer_text(token_ids, decode, eos_ids=(EOS,), stop=stop)


@given(TEXTS)
def test_text_comes_back_from_its_tokens_with_or_without_the_end(text: str) -> None:
    tokens = list(text.encode())
    assert text_of(tokens) == text
    assert text_of([*tokens, EOS]) == text


@given(TEXTS)
def test_half_a_character_at_the_end_is_left_out(text: str) -> None:
    encoded = (text + "👋").encode()
    for cut in (1, 2, 3):
        assert text_of(list(encoded[:-cut])) == text


@given(st.text(alphabet="abc", max_size=30), STOPS)
def test_the_text_ends_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    result = text_of(list(text.encode()), stop)
    assert text.startswith(result)
    assert not any(string in result for string in stop)
    if result != text:
        assert any(text.startswith(string, len(result)) for string in stop)
    place = stop_position(text, stop)
    assert result == (text if place is None else text[:place])


def test_the_end_of_sequence_is_taken_off_once_and_only_from_the_end() -> None:
    seen: list[list[int]] = []

    def watched(token_ids: Sequence[int]) -> str:
        seen.append(list(token_ids))
        return ""

    answer_text([EOS, 5, EOS, EOS], watched, eos_ids=(EOS,), stop=())
    assert seen == [[EOS, 5, EOS]]


def test_an_empty_answer_has_no_text() -> None:
    assert text_of([]) == ""
    assert text_of([EOS]) == ""


def test_of_several_stop_strings_the_one_that_comes_first_counts() -> None:
    assert stop_position("hello world", ["world", "lo", "moon"]) == 3
    assert stop_position("hello world", ["moon"]) is None
