"""Passages from the documentation of Python's standard library."""

from __future__ import annotations

import ast
import sysconfig
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.oracle import NoText, Passage, PassagesExhausted, StandardLibraryText
from targon.oracle.sources import standard_library
from targon.protocol.primitives import Block

DRAWS = st.integers(min_value=0, max_value=(1 << 64) - 1)


@pytest.fixture(scope="module")
def library() -> StandardLibraryText:
    return StandardLibraryText()


def library_of(folder: Path, count: int) -> Path:
    """A library of one module that documents `count` functions, a passage each."""
    folder.mkdir()
    functions = [
        f'def function_{index}():\n    """{_words(index)}"""\n' for index in range(count)
    ]  # each docstring is one sentence of 120 characters or more
    (folder / "module.py").write_text("\n".join(functions), "utf-8")
    return folder


def _words(index: int) -> str:
    number = "".join(chr(ord("a") + int(digit)) for digit in str(index))
    return f"This is the function called {number} and " + "it does what it says and " * 5 + "then it ends."


def test_there_are_thousands_of_passages(library: StandardLibraryText) -> None:
    assert len(library) >= 2_000


def test_every_passage_is_different(library: StandardLibraryText) -> None:
    every = every_passage(library)
    assert len({passage.text for passage in every}) == len(every)
    assert [passage.index for passage in every] == list(range(len(library)))


def test_every_passage_is_a_line_of_120_to_240_plain_characters(library: StandardLibraryText) -> None:
    for passage in every_passage(library):
        assert 120 <= len(passage.text) <= 240
        assert passage.text.isascii()
        assert passage.text.isprintable()
        assert "  " not in passage.text
        assert ">>>" not in passage.text


def test_a_passage_names_the_module_and_line_where_its_text_begins(library: StandardLibraryText) -> None:
    for passage in every_passage(library)[:: len(library) // 50]:
        module, line = passage.source.split(":")
        path = Path(sysconfig.get_path("stdlib"), *module.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        strings = [
            node.value
            for node in ast.walk(ast.parse(file.read_bytes()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.lineno == int(line)
        ]
        first_words = passage.text.split()[0]
        assert any(first_words in text for text in strings)


def test_no_module_of_the_library_is_imported(tmp_path: Path) -> None:
    folder = library_of(tmp_path / "lib", 120)
    (folder / "explosive.py").write_text('"""Don\'t import."""\nraise SystemExit("imported")\n', "utf-8")
    assert len(StandardLibraryText(folder)) == 120


def test_a_file_that_is_not_python_is_passed_over(tmp_path: Path) -> None:
    folder = library_of(tmp_path / "lib", 120)
    (folder / "broken.py").write_text("def (:\n", "utf-8")
    assert len(StandardLibraryText(folder)) == 120


def test_a_python_without_its_library_s_files_is_refused_by_name(tmp_path: Path) -> None:
    folder = library_of(tmp_path / "lib", 3)
    with pytest.raises(NoText, match=r"got 3 passages of prose, expected at least 100") as error:
        StandardLibraryText(folder)
    assert str(folder) in str(error.value)


def test_the_digest_names_the_list(tmp_path: Path, library: StandardLibraryText) -> None:
    assert library.digest() == StandardLibraryText().digest()
    one = StandardLibraryText(library_of(tmp_path / "one", 120)).digest()
    other = StandardLibraryText(library_of(tmp_path / "other", 121)).digest()
    assert len({library.digest(), one, other}) == 3


@given(draw=DRAWS)
def test_equal_draws_pick_equal_passages(library: StandardLibraryText, draw: int) -> None:
    assert library.passage(draw) == StandardLibraryText().passage(draw)


def test_draws_spread_evenly_over_the_passages(library: StandardLibraryText) -> None:
    each = 16
    count = len(library) * each
    drawn = Counter(library.passage((index << 64) // count).index for index in range(count))
    assert set(drawn) == set(range(len(library)))
    assert set(drawn.values()) <= {each - 1, each, each + 1}


@given(draw=DRAWS, used=st.sets(st.integers(min_value=0, max_value=2_000)))
def test_a_used_passage_is_not_drawn(library: StandardLibraryText, draw: int, used: set[int]) -> None:
    assert library.passage(draw, used).index not in used


def test_draws_spread_evenly_over_what_is_left(library: StandardLibraryText) -> None:
    used = set(range(5, len(library)))
    draws = [-(-(index << 64) // 50) for index in range(50)]
    drawn = Counter(library.passage(draw, used).index for draw in draws)
    assert drawn == dict.fromkeys(range(5), 10)


def test_when_all_were_used_the_error_says_what_to_do(library: StandardLibraryText) -> None:
    with pytest.raises(PassagesExhausted, match="forget them to begin a new round"):
        library.passage(0, range(len(library)))


@pytest.mark.parametrize("draw", [-1, 1 << 64])
def test_a_draw_that_is_no_64_bit_number_is_refused(library: StandardLibraryText, draw: int) -> None:
    with pytest.raises(ValueError, match="expected an integer in"):
        library.passage(draw)


@pytest.mark.anyio
async def test_as_a_source_of_private_inputs_it_gives_none_twice_in_a_round(tmp_path: Path) -> None:
    source = StandardLibraryText(library_of(tmp_path / "lib", 120))
    given = [(await source.private_input(Block(9), 0)).index for _ in range(120)]
    assert sorted(given) == list(range(120))
    assert (await source.private_input(Block(10), 0)).index == given[0]


@pytest.mark.anyio
async def test_equal_sequences_of_draws_give_equal_private_inputs() -> None:
    draws = [pow(3, index, 1 << 64) for index in range(200)]
    first, second = StandardLibraryText(), StandardLibraryText()
    for draw in draws:
        assert await first.private_input(Block(1), draw) == await second.private_input(Block(1), draw)


def test_the_reading_is_done_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    StandardLibraryText()
    monkeypatch.setattr(standard_library, "_documentation", None)
    StandardLibraryText()


def every_passage(library: StandardLibraryText) -> list[Passage]:
    """Every passage, drawn one after the other from the front."""
    count = len(library)
    return [library.passage(-(-(index << 64) // count)) for index in range(count)]
