"""What an oracle keeps on disk: torn ends are mended, anything else that is wrong is said."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bittensor.keyfiles import Keypair

from targon.oracle.book import CommitmentBook, last_seen
from targon.oracle.errors import Damaged, StoreUnavailable
from targon.oracle.passage import Passage
from targon.oracle.periods import PeriodFolder
from targon.oracle.planning import first_of, last_of, places_for
from targon.protocol.errors import PrivateInputMismatch
from targon.protocol.primitives import Block, Digest, Hotkey
from targon.protocol.private_inputs import Commitment, CommitmentBody, commit, secret_digest

SIGNER = Keypair.create_from_uri("//Oracle")
US = Hotkey(SIGNER.ss58_address)
VERIFIER = Hotkey(Keypair.create_from_uri("//Alice").ss58_address)
GENESIS = Digest("ab" * 32)
ROOT = Digest("01" * 32)
SECRET = bytes(range(32))


def a_book(path: Path, genesis: Digest = GENESIS) -> CommitmentBook:
    return CommitmentBook(path, genesis=genesis, netuid=4, oracle=US)


def the_next(book: CommitmentBook, root: Digest = ROOT, blocks: int = 2) -> Commitment:
    first = Block(100 if book.last is None else book.last.last + 1)
    return commit(
        CommitmentBody(
            genesis=GENESIS,
            netuid=4,
            oracle=US,
            number=len(book),
            first=first,
            last=Block(first + blocks - 1),
            verifiers=(VERIFIER,),
            places=2,
            root=root,
            secret=secret_digest(SECRET),
            source=Digest("cd" * 32),
            previous=book.previous,
        ),
        SIGNER,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "commitments.jsonl"


@pytest.fixture
def book(path: Path) -> Iterator[CommitmentBook]:
    with a_book(path) as book:
        for _ in range(12):
            book.append(the_next(book))
        yield book


def test_it_is_read_again_as_it_was_written(book: CommitmentBook, path: Path) -> None:
    with a_book(path) as again:
        assert len(again) == 12
        assert again.last == book.last
        assert [again.commitment(number).body.number for number in range(12)] == list(range(12))
        assert again.lines(0) == path.read_bytes().splitlines()
        assert again.recent_lines(0) is None
        assert again.recent_lines(9) == again.lines(9) == again.lines(0)[9:]
        assert again.recent_lines(12) == again.lines(12) == []


@pytest.mark.parametrize("cut", [1, 2, 100])
def test_a_line_that_was_not_finished_was_shown_to_nobody_and_goes(
    book: CommitmentBook, path: Path, cut: int
) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with a_book(path) as again:
        assert len(again) == 11
        again.append(the_next(again))
        assert len(path.read_bytes().splitlines()) == 12
    path.write_bytes(whole + b"\0" * 512)
    with a_book(path) as again:
        assert len(again) == 12
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("old", "new"), [(b'"places":2', b'"places":3'), (b'"number":11', b'"number":10'), (b"{", b"[")]
)
def test_a_whole_line_that_was_changed_is_not_mended(
    book: CommitmentBook, path: Path, old: bytes, new: bytes
) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[-1] = lines[-1].replace(old, new)
    path.write_bytes(b"".join(lines))
    with pytest.raises(Damaged, match="line 12"):
        a_book(path)
    assert path.read_bytes() == b"".join(lines)


def test_another_network_s_is_refused(book: CommitmentBook, path: Path) -> None:
    with pytest.raises(Damaged, match="has a folder of its own"):
        a_book(path, Digest("ef" * 32))


def test_nothing_that_does_not_follow_is_appended(book: CommitmentBook, path: Path) -> None:
    before = path.read_bytes()
    last = book.commitment(11)
    with pytest.raises(PrivateInputMismatch, match="number"):
        book.append(last)
    assert path.read_bytes() == before


def test_where_it_cannot_be_written_it_is_not_in_the_book(
    book: CommitmentBook, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, made = path.read_bytes(), the_next(book)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreUnavailable, match="No space left"):
            book.append(made)
    assert (len(book), path.read_bytes()) == (12, before)
    book.append(made)
    assert len(book) == 13


def broken(*_: object) -> bytes:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_what_can_not_be_read_or_made_is_said(
    book: CommitmentBook, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreUnavailable, match="Is a directory"):
        a_book(tmp_path)
    for number in (-1, 12):
        with pytest.raises(IndexError):
            book.commitment(number)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", broken)
        for read in (lambda: a_book(path), lambda: book.lines(0)):
            with pytest.raises(StoreUnavailable, match="Input/output error"):
                read()
    os.truncate(path, 40)
    with pytest.raises(Damaged, match="line 1 ends early"):
        book.lines(0)
    path.write_bytes(b"{}" + bytes(10_000))
    with pytest.raises(Damaged, match="line 1"):
        book.commitment(0)


def test_a_book_that_is_refused_is_let_go(
    book: CommitmentBook, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lowest() -> int:
        """The lowest descriptor that nobody has."""
        os.close(found := os.open(path, os.O_RDONLY))
        return found

    before = lowest()
    with pytest.raises(Damaged):
        a_book(path, Digest("ef" * 32))
    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(StoreUnavailable):
        a_book(path)
    assert lowest() == before


def test_commitments_that_are_large_are_told_few_at_a_time(
    book: CommitmentBook, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = len(book.lines(11)[0])
    monkeypatch.setattr("targon.oracle.book.MOST_BYTES", 2 * each + 20)
    with a_book(path) as again:
        assert [len(again.lines(start)) for start in (0, 10, 11)] == [2, 2, 1]
        assert [len(again.recent_lines(start) or ()) for start in (4, 11)] == [3, 1]
    monkeypatch.setattr("targon.oracle.book.MOST_BYTES", 1)
    with a_book(path) as again:
        assert len(again.lines(0)) == len(again.recent_lines(4) or ()) == 1


def test_what_could_not_be_taken_back_is_not_left_behind_the_next(
    book: CommitmentBook, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = the_next(book, Digest("ee" * 32), blocks=1_000_000), the_next(book)

    def broken(*_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", broken)
        truncate = os.ftruncate
        calls: list[int] = []

        def once(descriptor: int, size: int) -> None:
            calls.append(size)
            if len(calls) > 1:
                broken()
            truncate(descriptor, size)

        patched.setattr(os, "ftruncate", once)
        with pytest.raises(StoreUnavailable, match="Input/output"):
            book.append(large)
    book.append(small)
    with a_book(path) as again:
        assert again.last == small.body


def test_what_is_written_too_late_is_taken_back(book: CommitmentBook, path: Path) -> None:
    before, made = path.read_bytes(), the_next(book)
    assert not book.append(made, in_time=lambda: False)
    assert (len(book), path.read_bytes()) == (12, before)
    assert book.append(made)


def test_lines_that_anybody_may_ask_for_are_made_once(book: CommitmentBook) -> None:
    lines, again = book.recent_lines(9), book.recent_lines(9)
    assert lines
    assert again
    assert all(one is other for one, other in zip(lines, again, strict=True))


def test_commitments_are_told_in_pieces(path: Path) -> None:
    with a_book(path) as book:
        for _ in range(70):
            book.append(the_next(book))
        assert [len(book.lines(start)) for start in (0, 10, 64, 70)] == [64, 60, 6, 0]


# -- the texts -----------------------------------------------------------------------------------------


def passages(count: int) -> list[Passage]:
    return [
        Passage(f'Passage {number}: ü, "quoted".', f"book at {number}", number) for number in range(count)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> PeriodFolder:
    return PeriodFolder(tmp_path / "periods")


@pytest.fixture
def body(folder: PeriodFolder, path: Path) -> CommitmentBody:
    with a_book(path) as book:
        return the_next(book, folder.write(0, SECRET, passages(4))).body


def test_a_period_is_read_again_as_it_was_written(
    folder: PeriodFolder, body: CommitmentBody, tmp_path: Path
) -> None:
    with folder.open(body) as texts:
        assert texts.tree().root == body.root
        assert texts.line(2) == '{"source":"book at 2","text":"Passage 2: ü, \\"quoted\\"."}'.encode()
        assert b"".join(texts.revealed()) == (tmp_path / "periods" / "0.jsonl").read_bytes()
    assert {each.stat().st_mode & 0o077 for each in (tmp_path / "periods").iterdir()} == {0}


def test_a_period_is_on_disk_before_it_can_be_committed_to(
    folder: PeriodFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[int, int] = {}
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        about = os.fstat(descriptor)
        synced[about.st_ino] = about.st_size

    monkeypatch.setattr(os, "fsync", noted)
    folder.write(0, SECRET, passages(4))
    files = [*(tmp_path / "periods").iterdir()]
    assert len(files) == 4
    for file in files:
        assert synced[file.stat().st_ino] == file.stat().st_size
    assert (tmp_path / "periods").stat().st_ino in synced


def test_a_period_that_can_not_be_written_or_read_is_said(
    folder: PeriodFolder, body: CommitmentBody, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="Not a directory"):
        PeriodFolder(tmp_path / "file" / "periods")
    with folder.open(body) as texts:
        texts.tree()
        os.truncate(tmp_path / "periods" / "0.jsonl", 10)
        with pytest.raises(Damaged, match="leaf 2 ends early"):
            texts.line(2)
        texts.close()
        with pytest.raises(Damaged, match="Bad file descriptor"):
            texts.line(2)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreUnavailable, match="No space left"):
            folder.write(1, SECRET, passages(4))
    (tmp_path / "periods" / "0.secret").unlink()
    (tmp_path / "periods" / "0.secret").mkdir()
    with pytest.raises(StoreUnavailable, match="Is a directory"):
        folder.open(body)


def test_a_large_period_is_revealed_in_whole_lines(folder: PeriodFolder, path: Path) -> None:
    with a_book(path) as book:
        body = the_next(book, folder.write(0, SECRET, passages(20_000)), blocks=10_000).body
    with folder.open(body) as texts:
        pieces = list(texts.revealed())
    assert len(pieces) > 3
    assert all(piece.endswith(b"}\n") and piece.startswith(b"{") for piece in pieces)
    assert sum(piece.count(b"\n") for piece in pieces) == 20_000


@pytest.mark.parametrize(
    ("ending", "how"),
    [
        *((ending, how) for ending in ("jsonl", "leaves", "places", "secret") for how in ("gone", "shorter")),
        *((ending, "changed") for ending in ("leaves", "places", "secret")),
    ],
)
def test_files_that_are_not_what_was_committed_to_are_not_served(
    folder: PeriodFolder, body: CommitmentBody, tmp_path: Path, ending: str, how: str
) -> None:
    file = tmp_path / "periods" / f"0.{ending}"
    data = file.read_bytes()
    if how == "gone":
        file.unlink()
    elif how == "shorter":
        file.write_bytes(data[:-9])
    else:
        file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(Damaged), folder.open(body) as texts:
        texts.tree()


def test_a_period_is_forgotten_whole(folder: PeriodFolder, body: CommitmentBody, tmp_path: Path) -> None:
    assert folder.numbers() == {0}
    folder.remove(0)
    assert folder.numbers() == set()
    assert list((tmp_path / "periods").iterdir()) == []


# -- the plan ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "follows", "last"),
    [
        (102, False, 107),
        (106, False, 107),
        (108, True, 143),
        (130, True, 143),
        (355, True, 359),
        (360, True, 395),
    ],
)
def test_a_period_ends_where_a_multiple_of_its_length_or_an_interval_ends(
    first: int, follows: bool, last: int
) -> None:
    assert last_of(Block(first), period_blocks=36, interval_blocks=360, follows=follows) == last


def test_a_period_lies_within_an_interval() -> None:
    for first in range(500):
        last = last_of(Block(first), period_blocks=7, interval_blocks=30, follows=True)
        assert first <= last
        assert first // 30 == last // 30


def test_a_period_begins_after_the_last_one_and_two_blocks_ahead() -> None:
    assert first_of(Block(100), None) == 102
    assert first_of(Block(100), Block(107)) == 108
    assert first_of(Block(120), Block(107), slack=1) == 123


def test_a_block_s_inputs_are_as_many_as_memory_holds() -> None:
    assert places_for(64, 16) == 16
    assert places_for(64, 256) == 256
    assert places_for(4_096, 16) == 4
    assert places_for(4_096, 1) == 1


def test_a_book_tells_what_was_seen_of_the_chain_and_when(path: Path) -> None:
    assert last_seen(path, 1_000.0) is None
    with a_book(path) as book:
        assert last_seen(path, 1_000.0) is None
        book.append(the_next(book))
        book.append(the_next(book))
    os.utime(path, (900.0, 900.0))
    assert last_seen(path, 1_000.0) == (102, 100.0)
    assert last_seen(path, 800.0) == (102, 0.0), "a clock that was set back"


def test_where_a_book_cannot_be_looked_at_it_is_said_why(
    book: CommitmentBook, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreUnavailable, match="Is a directory"):
        last_seen(tmp_path, 1_000.0)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", broken)
        with pytest.raises(StoreUnavailable, match="Input/output error"):
            last_seen(path, 1_000.0)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[1:]))
    with pytest.raises(Damaged, match="line 11: commitment 11, expected 10"):
        last_seen(path, 1_000.0)
    path.write_bytes(b"".join(lines).replace(b'"places":2', b'"places":3'))
    with pytest.raises(Damaged, match="line 12: "):
        last_seen(path, 1_000.0)
