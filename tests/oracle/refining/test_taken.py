"""What was taken is never taken again: the same, and what is nearly the same."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.oracle.errors import StoreUnavailable
from targon.oracle.refining import Likeness, Reason, Taken, likeness
from tests.oracle.refining.texts import DECLARATION, ENGLISH, PROSE


def take(taken: Taken, *texts: str) -> list[int | Reason]:
    with taken.batch():
        return [taken.take(likeness(text)) for text in texts]


def distinct(count: int) -> list[str]:
    """Passages without a word in common."""
    return [" ".join(f"w{number}x{place}" for place in range(20)) for number in range(count)]


def test_passages_are_numbered_and_none_is_taken_twice(tmp_path: Path) -> None:
    with Taken(tmp_path / "taken.sqlite") as taken:
        assert take(taken, *distinct(5)) == [0, 1, 2, 3, 4]
        assert take(taken, *distinct(6)) == [Reason.DUPLICATE] * 5 + [5]
        assert len(taken) == 6


def test_that_holds_over_restarts(tmp_path: Path) -> None:
    for expected in ([0, 1], [Reason.DUPLICATE, Reason.DUPLICATE]):
        with Taken(tmp_path / "taken.sqlite") as taken:
            assert take(taken, *distinct(2)) == expected
    with Taken(tmp_path / "taken.sqlite") as taken:
        assert len(taken) == 2


@settings(deadline=None)  # a deadline judges the machine
@given(st.sampled_from(ENGLISH), st.integers(0, 1 << 32).map(Random))
def test_case_punctuation_and_white_space_make_no_other_passage(text: str, random: Random) -> None:
    other = "".join(random.choice([character.upper(), character.lower()]) for character in text)
    other = other.replace(" ", random.choice([" ", "  ", "\u00a0", " - "])).replace(
        ",", random.choice(["", ";"])
    )
    assert likeness(other).digest == likeness(text).digest


def test_wide_letters_and_ligatures_make_no_other_passage() -> None:
    text = "The first office of the ferry"
    wide = text.translate({point: point + 0xFEE0 for point in range(0x21, 0x7F)})
    assert likeness(wide) == likeness(text.replace("fi", "\ufb01")) == likeness(text)


def test_another_word_or_two_make_it_near(tmp_path: Path) -> None:
    """Of passages with one word changed, at most one in twenty is taken for new."""
    random = Random(1)
    texts = sorted(set(ENGLISH))[:400]
    changed = []
    for text in texts:
        words = text.split()
        words[random.randrange(len(words))] = "otherwise"
        changed.append(" ".join(words))
    with Taken(tmp_path / "taken.sqlite") as taken:
        first = take(taken, *texts)
        again = take(taken, *changed)
    assert sum(isinstance(one, int) for one in first) > 0.95 * len(texts)
    assert sum(isinstance(one, int) for one in again) < 0.05 * len(texts)


def test_passages_that_only_speak_of_the_same_are_not_near(tmp_path: Path) -> None:
    """Of the library's passages, which repeat one another's phrases more than prose does, one in twenty is refused."""
    with Taken(tmp_path / "taken.sqlite") as taken:
        found = take(taken, *sorted(set(ENGLISH)))
        assert sum(one is Reason.NEAR_DUPLICATE for one in found) < 0.05 * len(found)
        assert all(isinstance(one, int) for one in take(taken, PROSE, *DECLARATION.values()))


def test_near_ones_are_looked_for_among_the_newest_alone_and_the_same_among_all(tmp_path: Path) -> None:
    texts = distinct(60)
    near = [text.rsplit(" ", 1)[0] + " end" for text in texts]
    with Taken(tmp_path / "taken.sqlite", near_kept=10) as taken:
        take(taken, *texts)
        assert take(taken, near[55], near[3]) == [Reason.NEAR_DUPLICATE, 60]
        assert take(taken, *texts) == [Reason.DUPLICATE] * 60
    rows = sqlite3.connect(tmp_path / "taken.sqlite")
    assert rows.execute("SELECT count(*) FROM sketches").fetchone() == (10,)
    assert rows.execute("SELECT count(*) FROM runs").fetchone()[0] <= 100
    rows.close()


def test_what_is_forgotten_of_an_old_passage_is_not_what_a_newer_one_has_in_common_with_it(
    tmp_path: Path,
) -> None:
    with Taken(tmp_path / "taken.sqlite", near_kept=2) as taken, taken.batch():
        assert taken.take(Likeness(100, (1, 2, 3, 4))) == 0
        assert taken.take(Likeness(101, (1, 11, 12, 13))) == 1
        assert taken.take(Likeness(102, (21, 22, 23, 24))) == 2  # in the place of the first
        assert taken.take(Likeness(103, (1, 11, 12, 13))) is Reason.NEAR_DUPLICATE
        assert taken.take(Likeness(104, (1, 2, 3, 4))) == 3


def test_of_a_batch_that_fails_nothing_is_taken(tmp_path: Path) -> None:
    with Taken(tmp_path / "taken.sqlite") as taken:
        with pytest.raises(TypeError):
            take(taken, PROSE, None)  # what fails is the second
        assert len(taken) == 0
        assert take(taken, PROSE) == [0]


TAKE_AND_DIE = """
import os, sys
from pathlib import Path
from targon.oracle.refining import Taken, likeness
taken = Taken(Path(sys.argv[1]))
with taken.batch():
    for text in sys.argv[2:]:
        taken.take(likeness(text))
os._exit(9)  # as if killed: nothing is closed
"""


def test_what_was_taken_outlives_a_process_that_dies_at_once_and_so_does_not_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "taken.sqlite"
    process = subprocess.run(
        [sys.executable, "-c", TAKE_AND_DIE, str(path), *distinct(3)], check=False, timeout=60
    )
    assert process.returncode == 9
    with Taken(path) as taken:
        assert take(taken, *distinct(4)) == [Reason.DUPLICATE] * 3 + [3]


def test_a_second_owner_is_told_who_the_first_is(tmp_path: Path) -> None:
    with (
        Taken(tmp_path / "taken.sqlite"),
        pytest.raises(StoreUnavailable, match=f"process {os.getpid()} takes passages"),
    ):
        Taken(tmp_path / "taken.sqlite")
    Taken(tmp_path / "taken.sqlite").close()


def test_its_owner_alone_may_read_it(tmp_path: Path) -> None:
    with Taken(tmp_path / "oracle" / "taken.sqlite") as taken:
        take(taken, PROSE)
        for file in (tmp_path / "oracle").iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_another_s_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="application id"):
        Taken(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", [b"no database at all", b"SQLite format 3\0" + bytes(4000)])
def test_a_damaged_file_is_said_to_be_one_and_its_lock_is_let_go(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "taken.sqlite"
    path.write_bytes(damage)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="restore a backup"):
            Taken(path)


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="can't be opened"):
        Taken(tmp_path / "file" / "taken.sqlite")
