"""A verifier's folder is backed up while a process writes to it, as the page on backup says."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from scripts import backup
from targon.gateway.keys import KeyFile, digest_of
from targon.ledger import SqliteLog, Standings, replay
from tests.ledger.worlds import SqliteWorld
from tests.ledger.writer_process import lines, writer

ROOT = Path(__file__).resolve().parents[2]
SECRET = bytes(range(32))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A verifier's folder with a secret, and no log yet."""
    folder = tmp_path / "verifier"
    folder.mkdir()
    (folder / backup.SECRET).write_bytes(SECRET)
    return folder


def run(*arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "backup.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def restored(folder: Path) -> Standings:
    """The standings, folded from a log that is opened as a verifier does: for writing."""
    log = await SqliteLog.open(folder / backup.LOG)
    try:
        return await replay(log)
    finally:
        await log.aclose()


def test_a_log_is_copied_whole_while_it_is_written(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    with writer(SqliteWorld(data / backup.LOG)) as process:
        before = lines(process, 20)[-1]
        for _ in range(3):  # the later ones replace what is there
            result = run(data, target)
            assert result.returncode == 0, result.stderr
    standings = anyio.run(restored, target)
    assert standings.head.seq >= before.seq
    assert f"{standings.head.seq + 1} records" in result.stdout
    assert (target / backup.SECRET).read_bytes() == SECRET
    modes = {
        stat.S_IMODE(path.stat().st_mode)
        for path in target.iterdir()
        if path.name in (backup.LOG, backup.SECRET)
    }
    assert modes == {0o600}
    assert stat.S_IMODE(target.stat().st_mode) == 0o700


def test_a_folder_without_a_log_is_named(data: Path, tmp_path: Path) -> None:
    result = run(data, tmp_path / "copy")
    assert result.returncode == 1
    assert f"{data / backup.LOG}: got no file, expected a verifier's log.sqlite" in result.stderr
    assert not (tmp_path / "copy").exists()


def test_a_log_that_is_none_leaves_the_older_copy(data: Path, tmp_path: Path) -> None:
    (data / backup.LOG).write_bytes(b"no database" * 100)
    target = tmp_path / "copy"
    target.mkdir()
    (target / backup.LOG).write_bytes(b"an older copy")
    result = run(data, target)
    assert result.returncode == 1
    assert "an older copy stays as it was" in result.stderr
    assert [path.name for path in target.iterdir()] == [backup.LOG]
    assert (target / backup.LOG).read_bytes() == b"an older copy"


def test_the_folder_itself_is_no_place_for_its_copy(data: Path) -> None:
    (data / backup.LOG).touch()
    with pytest.raises(backup.BackupError, match="got the verifier's own folder"):
        backup.back_up(data, data)


def test_the_keys_of_users_are_copied_too_if_there_are_any(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    keys = KeyFile(data / backup.KEYS)
    _, secret = keys.create("joe", now=1)
    with writer(SqliteWorld(data / backup.LOG)) as process:
        lines(process, 3)
        assert run(data, target).returncode == 0
    keys.close()
    copy = KeyFile(target / backup.KEYS)
    assert list(copy.keys()) == [digest_of(secret)]
    copy.close()
    assert stat.S_IMODE((target / backup.KEYS).stat().st_mode) == 0o600
