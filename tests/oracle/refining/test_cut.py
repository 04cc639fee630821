"""Which passage a place in a text gives, and that passages are drawn evenly."""

from __future__ import annotations

import time
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.oracle.passage import MAX_CHARS, MIN_CHARS
from targon.oracle.refining import Cut, Reason, cut
from targon.oracle.refining.cut import STRETCH, runs, sentences
from tests.oracle.refining.texts import book

BOOK = book(80)

FRAGMENTS = st.sampled_from(
    ["The fox.", "A much longer one, which goes on for a while", ". ", "! ", "\n", "\n\n", " ", "Mr. ", "“Oh”", "é",
     "etc. ", "\u200b", "x" * 60, "And so it went on until the end of the day came at last, and all were glad of it. "]
)  # fmt: skip


def place(text: str, position: int) -> float:
    return (position + 0.5) / len(text)


def all_given(text: str) -> Counter[Cut]:
    """What every position of a text gives."""
    found = (cut(text, place(text, position)) for position in range(len(text)))
    return Counter(one for one in found if isinstance(one, Cut))


def test_each_passage_is_given_by_exactly_as_many_positions_as_each_other() -> None:
    counted = all_given(BOOK)
    assert len(counted) >= 40
    assert set(counted.values()) == {MIN_CHARS}


@settings(deadline=None)  # a deadline judges the machine
@given(st.lists(FRAGMENTS, max_size=80).map("".join))
def test_that_holds_for_any_text(text: str) -> None:
    counted = all_given(text)
    assert set(counted.values()) <= {MIN_CHARS}
    reach = 0
    for one in sorted(counted, key=lambda one: one.start):
        assert one.start >= reach, "no two overlap"
        assert text[one.start : one.start + len(one.text)] == one.text
        assert MIN_CHARS <= len(one.text) <= MAX_CHARS
        reach = one.start + len(one.text)


def test_passages_of_texts_of_all_sizes_are_drawn_evenly() -> None:
    """Pearson's chi-squared over passages; the sources' law is that texts are drawn by their length."""
    texts = [book(4), book(9, 20), book(40, 50)]
    random = Random(4)
    every = {(number, one) for number, text in enumerate(texts) for one in all_given(text)}
    drawn: Counter[tuple[int, Cut]] = Counter()
    while drawn.total() < 60 * len(every):
        (number,) = random.choices(range(3), [len(text) for text in texts])
        found = cut(texts[number], random.random())
        if isinstance(found, Cut):
            drawn[number, found] += 1
    expected = drawn.total() / len(every)
    statistic = sum((drawn[one] - expected) ** 2 / expected for one in every)
    free = len(every) - 1
    assert set(drawn) == every
    assert abs(statistic - free) < 4 * (2 * free) ** 0.5


def test_a_long_passage_is_passed_over_where_it_would_be_drawn_too_often() -> None:
    sentence = "It is one of those sentences that go on and on, as if there were no end to the things that one can say"
    text = f"{sentence}, {sentence.lower()}."
    assert len(text) > MIN_CHARS
    assert isinstance(cut(text, place(text, MIN_CHARS - 1)), Cut)
    assert cut(text, place(text, MIN_CHARS)) is Reason.EVENNESS


class Watched(str):
    """A text that notes how much of it was looked at; whatever isn't a slice would look at all."""

    __slots__ = ("seen",)

    def __getitem__(self, key: Any) -> str:
        self.seen = len(range(*key.indices(len(self))))
        return super().__getitem__(key)


@pytest.mark.parametrize("at", [0.0, 0.37, 0.999_999])
def test_of_a_large_text_only_a_stretch_is_looked_at(at: float) -> None:
    text = Watched(BOOK * 2_000)
    found = cut(text, at)
    assert len(text) > 10_000_000
    assert text.seen <= STRETCH
    assert isinstance(found, (Cut, Reason))


@pytest.mark.parametrize(
    "unit",
    [
        ".",
        ". ",
        "A. ",
        "“",
        "(((((A",
        ".\n",
        "a ",
        "A",
        "\u200b",
        "...! ",
        "Mr. ",
        " ",
        "\n",
        "e.g.",
        ".”",
        "x\ny\n",
        "\0",
    ],
)
def test_no_text_makes_a_cut_slow(unit: str) -> None:
    text = unit * (STRETCH // len(unit))
    began = time.process_time()
    for position in range(0, len(text), len(text) // 10):
        cut(text, place(text, position))
    assert (time.process_time() - began) / 10 < 0.02


def test_lines_of_a_paragraph_belong_together_and_headings_and_menus_to_nothing() -> None:
    wrapped = (
        "CHAPTER THE FIRST\n\nThe river bends twice before it reaches the old mill, and in\n"
        "the autumn the whole valley fills with a white mist that stays for long\n(nobody minds it)."
        "\n\nHome\nAbout\nContact\n"
    )
    ((start, end),) = runs(wrapped)
    assert wrapped[start:end].startswith("The river")
    assert wrapped[start:end].endswith("minds it).")


def test_where_lines_are_paragraphs_a_heading_stays_out() -> None:
    page = (
        "How we built the new bridge over the river in a year\n"
        "The river bends twice before it reaches the mill, and in the autumn the whole valley fills with a white mist, "
        "which is why nobody had tried.\nRelated stories from all over the country\n"
    )
    ((start, end),) = runs(page)
    assert page[start:end].startswith("The river")
    assert page[start:end].endswith("had tried.")


def test_no_passage_goes_on_over_what_is_no_sentence() -> None:
    half = "The river bends twice before it reaches the mill, and then it is gone."
    assert list(runs(f"{half}\n\nRead on\n\n{half}")) == []
    assert len(list(runs(f"{half}\n\n{half}"))) == 1


def test_titles_initials_and_abbreviations_end_no_sentence() -> None:
    text = (
        "On Monday Mr. Brown and Dr. J. R. Smith of Acme Inc. Limited went to St. Ives, e.g. By boat, and came "
        "back by train the day after."
    )
    assert [text[start:end] for start, end in _sentences_of(text)] == [text]


def _sentences_of(text: str) -> list[tuple[int, int]]:
    return [found for found in sentences(text, first=True, last=True) if found]


def test_half_sentences_at_a_stretch_s_ends_are_left_out() -> None:
    text = "Word after word and nothing that would end it. " * 300
    for one in all_given(text[: 2 * STRETCH + 99]):
        assert one.text.startswith("Word")
        assert one.text.endswith("it.")


def test_what_reads_like_a_sentence_at_a_stretch_s_end_may_be_half_of_one() -> None:
    text = (
        "The river bends twice before it reaches the mill, and in the autumn the whole valley fills with a white mist, "
        "of which the depth is 3."
    )
    assert list(runs(text)) == [(0, len(text))]
    assert list(runs(text, last=False)) == []
    assert list(runs(text, first=False)) == []


@pytest.mark.parametrize("at", [-0.1, 1.0, float("nan")])
def test_a_place_outside_the_text_is_refused(at: float) -> None:
    with pytest.raises(ValueError, match=r"expected one in \[0, 1\)"):
        cut(BOOK, at)


def test_an_empty_text_gives_nothing() -> None:
    assert cut("", 0.5) is Reason.NO_SENTENCES
