"""What counts as prose, and where it is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from targon.oracle.passage import MAX_CHARS, MIN_CHARS
from targon.oracle.sources.prose import passages

SENTENCE = "The quick brown fox jumps over the lazy dog while {} others look on from the old stone wall."


def texts(*documentation: str) -> list[str]:
    return [text for _, text in passages(enumerate(documentation, 1))]


def prose(start: int, count: int) -> str:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    return "\n".join(SENTENCE.format(words[index % 10]) for index in range(start, start + count))


def test_lines_become_one_line_of_whole_sentences() -> None:
    (text,) = texts(prose(0, 3))
    assert "\n" not in text
    assert text.startswith("The quick")
    assert text.endswith("wall.")


def test_a_run_goes_on_into_the_next_piece_and_names_where_it_began() -> None:
    found = list(passages([(7, prose(0, 1)), (90, prose(1, 3))]))
    assert found[0][0] == 7
    assert "two others" in found[0][1]


def test_text_shorter_than_a_passage_gives_none() -> None:
    assert texts(prose(0, 1)) == []


def test_no_sentence_is_in_two_passages() -> None:
    found = texts(prose(0, 10))
    sentences = [sentence for text in found for sentence in text.split(". ")]
    assert len(sentences) == len({sentence.rstrip(".") for sentence in sentences})


def test_code_tables_lists_and_fields_are_left_out() -> None:
    noise = (
        ">>> print(value)\nThe value is printed to the console in a friendly form.",
        ":param name: The name of the thing that the caller would like to be given.",
        "Name | The first column of a table that somebody drew\nOther | The second row of it.",
        "- The first item of a list of several\n- The second item of the very same list.",
        "The following arguments are understood by this function:",
        "Heading\n=======\nThe text that stands right below a heading without a gap.",
        "    indented = code(that, would, be, read, as, nothing)\n  Else it is.",
    )
    whole = "\n\n".join([*noise, prose(0, 3)])
    assert texts(whole) == texts(prose(0, 3))


def test_a_paragraph_that_is_one_item_counts_as_prose() -> None:
    item = "* " + prose(0, 3).replace("\n", "\n  ")
    assert texts(item) == texts(prose(0, 3))


def test_markup_is_taken_off() -> None:
    marked = prose(0, 3).replace("fox", ":class:`~animals.Fox`").replace("dog", "``dog``")
    (text,) = texts(marked.replace("lazy", "*lazy*"))
    assert "animals.Fox jumps over the lazy dog" in text
    assert "`" not in text


def test_an_abbreviation_ends_no_sentence() -> None:
    start = "Many animals are known to jump, e.g. Foxes and other quick ones of the same brown kind."
    (text,) = texts(f"{start} {prose(0, 2)}")
    assert text.startswith(start)


@given(st.lists(st.text(), max_size=8))
def test_whatever_it_is_given_a_passage_is_of_its_length_and_printable(documentation: list[str]) -> None:
    for text in texts(*documentation):
        assert MIN_CHARS <= len(text) <= MAX_CHARS
        assert text.isprintable()


@given(
    st.lists(
        st.lists(st.sampled_from(["Word", "word", "a", "thing", "(or two)", "e.g.", "x = 1", "``q``", "…"]))
        .map(" ".join)
        .map(lambda text: f"{text}."),
        max_size=60,
    )
)
def test_passages_stand_in_the_text_in_order(sentences: list[str]) -> None:
    whole = " ".join(sentences)
    plain = whole.replace("``q``", "q")
    place = 0
    for text in texts(whole):
        assert MIN_CHARS <= len(text) <= MAX_CHARS
        assert text.isascii()
        first = text.split(".")[0]
        place = plain.index(first, place)
