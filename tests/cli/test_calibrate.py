"""``targon calibrate``: what it asks, writes and says, with an engine that needs no model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from targon.cli import main
from targon.cli.commands.calibrate import CalibrateCommand
from targon.verification import find_calibration
from targon.verification.calibrating import EVALUATED
from targon.verification.transcripts import read_transcripts
from tests.tiny_engine import VOCABULARY, TinyEngine

Run = Callable[..., int]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> TinyEngine:
    """The engine that the command starts, whatever the number format."""
    tiny = TinyEngine()

    async def started(*_: object) -> TinyEngine:
        return tiny

    monkeypatch.setattr(CalibrateCommand, "_engine", started)
    return tiny


@pytest.fixture
def run(tmp_path: Path, engine: TinyEngine) -> Run:
    def calibrate(*more: str) -> int:
        return main(
            [
                *("calibrate", "--positions", "1000", "--evaluate", "500"),
                *("--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), *more),
            ]
        )

    return calibrate


def written(folder: Path) -> Path:
    """The one calibration of a folder."""
    (path,) = (folder / "out").glob("*.json")
    return path


def test_honest_answers_become_a_calibration_that_is_tried_and_can_be_used(
    run: Run, engine: TinyEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    path = written(tmp_path)
    made = find_calibration(engine.identity, [path])
    assert made.digest() == path.stem
    names = {one.name for band in made.bands for one in band.configurations}
    assert names == {"bf16, 32 together", "fp32, 16 together", "bf16, alone"}
    report = json.loads((tmp_path / "out" / "evaluation" / path.name).read_text())
    assert report.keys() == {run.name for run in EVALUATED}
    assert all(one["answers"] + one["without_evidence"] >= 2 for one in report.values())
    assert sum(one["tokens"] for one in report.values()) >= 500
    assert not any(one["convicted"] for one in report.values())
    said = capsys.readouterr().out
    assert path.name in said.replace("\n", "")
    assert "Honest answers that it was not made from" in said


def test_what_was_answered_is_not_asked_again(run: Run, engine: TinyEngine, tmp_path: Path) -> None:
    assert run() == 0
    asked, first = len(engine.asked), written(tmp_path)
    (tmp_path / "cache" / "default" / "calibration" / "bf16-alone.jsonl").unlink()
    assert run() == 0
    assert 0 < len(engine.asked) - asked < asked / 4
    assert written(tmp_path) == first


def test_calibrating_and_evaluating_share_no_request(run: Run, tmp_path: Path) -> None:
    assert run() == 0
    asked: dict[str, set[str]] = {}
    for purpose in ("calibration", "evaluation"):
        files = (tmp_path / "cache" / "default" / purpose).glob("*.jsonl")
        asked[purpose] = {one.run_key for path in files for one in read_transcripts(path)}
        assert asked[purpose]
    assert not asked["calibration"] & asked["evaluation"]


def test_a_calibration_that_convicts_the_honest_is_said_to_be_useless(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    folder = tmp_path / "cache" / "default" / "evaluation"
    for path in folder.glob("*.npz"):
        path.unlink()
    path = folder / "bf16-8-together.jsonl"
    others = [
        one.model_copy(update={"token_ids": tuple((token + 1) % VOCABULARY for token in one.token_ids)})
        for one in read_transcripts(path)
    ]
    path.write_bytes(b"".join(one.to_bytes() + b"\n" for one in others))
    assert run() == 1
    assert "Honest engines were convicted: bf16, 8 together." in capsys.readouterr().out


def test_answers_of_other_machines_are_a_configuration_of_their_own(run: Run, tmp_path: Path) -> None:
    assert run() == 0
    given = tmp_path / "elsewhere.jsonl"
    shutil.copy(tmp_path / "cache" / "default" / "calibration" / "fp32-16-together.jsonl", given)
    written(tmp_path).unlink()
    assert run("--transcripts", f"a GPU={given}") == 0
    names = {
        line["name"]
        for band in json.loads(written(tmp_path).read_text())["bands"]
        for line in band["configurations"]
    }
    assert "a GPU" in names


@pytest.mark.parametrize("given", ["no-equals-sign", "name=missing.jsonl", "=missing.jsonl"])
def test_transcripts_that_are_none_are_refused(
    run: Run, engine: TinyEngine, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--transcripts", given) != 0
    assert f"got '{given}', expected NAME=FILE" in capsys.readouterr().err
    assert not engine.asked
