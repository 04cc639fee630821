"""A log in a file: its folder, the secret beside it, and who writes it."""

from __future__ import annotations

import os
import tempfile
from contextlib import aclosing
from pathlib import Path

import pytest

from targon.doctor import examine
from targon.doctor.sqlite import check_folder, check_secret, check_writer
from targon.ledger import SqliteLog
from tests.doctor.looks import only, unprivileged
from tests.doctor.test_log import a_log, ours

pytestmark = pytest.mark.anyio


def test_a_folder_that_can_be_written_or_made_is_good(tmp_path: Path) -> None:
    assert only(check_folder(tmp_path)).outcome == "good"
    assert only(check_folder(tmp_path / "a" / "b")).outcome == "good"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_bad() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o555)
        with unprivileged():
            finding = only(check_folder(Path(name) / "verifier"))
    assert (finding.outcome, f"{name} can't be written" in finding.found) == ("bad", True)


def test_a_file_in_the_folder_s_place_is_bad(tmp_path: Path) -> None:
    (tmp_path / "verifier").touch()
    assert only(check_folder(tmp_path / "verifier")).outcome == "bad"


@pytest.mark.parametrize(
    ("content", "mode", "begun", "outcome"),
    [
        (None, 0, False, "good"),
        (None, 0, True, "bad"),
        (b"s" * 32, 0o600, True, "good"),
        (b"s" * 31, 0o600, True, "bad"),
        (b"s" * 32, 0o640, True, "bad"),
    ],
)
def test_the_secret_is_there_whole_and_its_owner_s_alone(
    tmp_path: Path, content: bytes | None, mode: int, begun: bool, outcome: str
) -> None:
    if content is not None:
        (tmp_path / "draws.secret").write_bytes(content)
        (tmp_path / "draws.secret").chmod(mode)
    assert only(check_secret(tmp_path, begun=begun)).outcome == outcome


async def test_who_writes_a_log_is_named_and_not_disturbed(tmp_path: Path) -> None:
    file, proc = tmp_path / "log.sqlite", Path("/proc")
    before = only(check_writer(file, proc))
    async with aclosing(await SqliteLog.open(file)) as log:
        meanwhile = only(check_writer(file, proc))
        await log.append(ours(), expected=await log.head())
    after = only(check_writer(file, proc))
    assert [one.outcome for one in (before, meanwhile, after)] == ["good", "note", "good"]
    assert f"process {os.getpid()} (" in meanwhile.found
    assert "pytest" in meanwhile.found


def test_a_system_that_lists_no_locks_leaves_the_writer_unchecked(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite.writer").write_text("1\n")
    finding = only(check_writer(tmp_path / "log.sqlite", tmp_path))
    assert (finding.outcome, "can't be read" in finding.found) == ("note", True)


async def test_a_folder_s_checks_come_with_it(tmp_path: Path) -> None:
    rows = await examine((await a_log(tmp_path)).checks)
    assert [(row.check, row.outcome) for row in rows] == [
        ("data folder", "good"),
        ("secret", "bad"),
        ("writer", "good"),
    ]
