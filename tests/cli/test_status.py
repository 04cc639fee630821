"""What ``targon status`` shows of a log."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from targon.cli import main
from targon.ledger import SqliteLog
from targon.ledger.port import EMPTY
from tests.ledger.history import (
    ALICE,
    BOB,
    History,
    answered,
    attempt,
    inference,
    passes,
    routes_set,
    step_closed,
    verdict,
)


async def _write(path: Path, history: History) -> None:
    async with aclosing(await SqliteLog.open(path)) as log:
        await log.append(history.events, expected=EMPTY)


def _shown(path: Path, history: History, capsys: pytest.CaptureFixture[str]) -> str:
    anyio.run(_write, path, history)
    assert main(("status", "--path", str(path))) == 0
    return capsys.readouterr().out


def test_native_work_is_shown_beside_what_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    history = History.begun(ALICE, BOB).step(1, *passes(ALICE, 3))
    first = history.next
    history.add(attempt(BOB, 2, dialect="native"), attempt(BOB, 2, dialect="native"))
    history.add(verdict(first), verdict(first + 1, "fail", replied=False), step_closed(2))
    header, alice, bob = [
        line.split() for line in _shown(tmp_path / "log.sqlite", history, capsys).splitlines()[1:4]
    ]
    assert header[8] == "native"
    assert (alice[2], "1/2" in alice) == ("3/3", False)
    assert (bob[2], "1/2" in bob) == ("0/0", True)


def test_where_there_was_no_native_work_nothing_is_said_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    history = History.begun(ALICE).step(1, *passes(ALICE, 3))
    header = _shown(tmp_path / "log.sqlite", history, capsys).splitlines()[1]
    assert header.split()[-3:] == ["weight", "last", "verdict"]


def test_answers_that_await_their_audit_are_counted_with_the_age_of_the_oldest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    history = History.begun(ALICE).add(routes_set((0, 1)))
    for block in (1, 3):
        number = history.next
        history.add(inference(ALICE, block), answered(number, ALICE, block=block, audited=True))
    history.step(9, *passes(ALICE, 1))
    shown = _shown(tmp_path / "log.sqlite", history, capsys)
    assert "2 answers await their audit, the oldest for 8 blocks." in shown.splitlines()


def test_where_no_audit_waits_nothing_is_said_of_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "await" not in _shown(
        tmp_path / "log.sqlite", History.begun(ALICE).step(1, *passes(ALICE, 3)), capsys
    )
