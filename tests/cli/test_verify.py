"""``targon verify``: the exit codes and the report, and the page that describes them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from bittensor.keyfiles import Keypair

from targon.cli import main
from targon.cli.commands import verify
from targon.engines import EngineUnavailable
from targon.verification import (
    Calibration,
    SignedAnswer,
    check_answer,
    load_calibration,
    save_answer,
    save_calibration,
)
from targon.verification.verdict import failed
from tests.tiny_engine import TinyEngine
from tests.verification.answers import PROVER, honestly, signed, tiny_request, whole_answer
from tests.verification.completions import band_with

LENIENT = {"similarity_threshold": 0.0}

PAGE = Path(__file__).resolve().parents[2] / "docs" / "verify.md"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> TinyEngine:
    """The engine that the command opens."""
    tiny = TinyEngine()

    @asynccontextmanager
    async def opened(_: object) -> AsyncGenerator[TinyEngine, None]:
        if tiny.down:
            raise EngineUnavailable("it does not start")
        yield tiny

    monkeypatch.setattr(verify, "opened_engine", opened)
    return tiny


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    """A file of honest answers, and wrong ones after them."""

    def make(honest: int = 1, wrong: int = 0) -> str:
        path = tmp_path / "answers.jsonl"
        for number in range(honest):
            request = tiny_request(number)
            save_answer(path, request, anyio.run(honestly, request))
        for number in range(honest, honest + wrong):
            request = tiny_request(number, max_tokens=40)
            save_answer(path, request, anyio.run(lambda asked=request: honestly(asked, wrong=True)))
        return str(path)

    return make


@pytest.fixture
def calibration(tmp_path: Path) -> str:
    made = Calibration(model_digest="d" * 64, engine="tiny", dtype="float32", bands=(band_with(),))
    return str(save_calibration(made, tmp_path))


def test_the_command_has_help(capsys) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["verify", "--help"])
    assert leave.value.code == 0
    assert "'--engine none' checks signature, digests and form only" in capsys.readouterr().out


def test_honest_answers_end_with_0_and_the_report_says_what_was_asked(capsys, engine, file) -> None:
    assert main(["verify", file(honest=2)]) == 0
    out = capsys.readouterr().out
    assert "Answer 2 of 2" in out
    assert "sampler targon/1, T = 0.8, top-p 1, top-k off, seed 0000000000000001, at most 12 tokens" in out
    assert f"{PROVER.ss58_address}, at 2027-01-15T08:00:00+00:00 by its clock" in out
    assert "agreement  100.00% of tokens" in out
    assert out.count("pass ") == 2


def test_a_wrong_answer_ends_with_1_and_its_tokens_are_named(capsys, engine, file, calibration) -> None:
    assert main(["verify", file(honest=0, wrong=1), "--calibration", calibration]) == 1
    out = capsys.readouterr().out
    assert re.search(r"at position \d+ it says '[a-z]' \(token \d+\), the sampler draws", out)
    assert "ln e = " in out


def test_without_a_calibration_a_wrong_answer_is_not_decided(capsys, engine, file) -> None:
    assert main(["verify", file(honest=0, wrong=1)]) == 3
    assert "no calibration says how far honest engines differ here" in capsys.readouterr().out


def test_evidence_over_many_answers_convicts_though_each_passes(
    capsys, engine, tmp_path, calibration
) -> None:
    for number in range(40):
        request = tiny_request(number)
        one = SignedAnswer(request=request, response=anyio.run(lambda: honestly(request, wrong=True)))  # noqa: B023
        found = anyio.run(lambda: check_answer(one, engine, load_calibration(Path(calibration)), **LENIENT))  # noqa: B023
        if found.verdict.outcome == "pass":
            save_answer(tmp_path / "file", one.request, one.response)
    flags = ["--similarity", "0", "--calibration", calibration, "--json"]
    assert main(["verify", str(tmp_path / "file"), *flags]) == 1
    report = json.loads(capsys.readouterr().out)
    assert {one["outcome"] for one in report["answers"]} == {"pass"}
    assert report["evidence"][PROVER.ss58_address]["convicted"] is True


def test_a_calibration_for_another_engine_decides_nothing(capsys, engine, file, tmp_path) -> None:
    other = Calibration(model_digest="d" * 64, engine="huge 7", dtype="float32", bands=(band_with(),))
    flags = ["--calibration", str(save_calibration(other, tmp_path))]
    assert main(["verify", file(honest=0, wrong=1), *flags]) == 3
    assert "the calibration is for another reference: got engine huge 7" in capsys.readouterr().out


def test_without_an_engine_only_the_form_is_checked_and_the_report_says_so(capsys, engine, file) -> None:
    assert main(["verify", file(), "--engine", "none"]) == 3
    assert "the tokens were not checked: there was no engine" in capsys.readouterr().out


def test_a_forged_receipt_ends_with_1_without_an_engine(capsys, engine, tmp_path) -> None:
    request, response = anyio.run(whole_answer)
    forged = signed(request, response.completion, prover=Keypair.create_from_uri("//Mallory"))
    save_answer(tmp_path / "file", request, forged)
    assert main(["verify", str(tmp_path / "file"), "--engine", "none", "--json"]) == 1
    (one,) = json.loads(capsys.readouterr().out)["answers"]
    assert (one["outcome"], one["signed"]) == ("fail", False)


def test_an_engine_that_does_not_start_ends_with_3(capsys, engine, file) -> None:
    engine.down = True
    assert main(["verify", file()]) == 3
    assert "there is no engine: it does not start" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--engine", "any"], ["--similarity", "2"], ["--calibration", "none"]])
def test_a_wrong_call_ends_with_2(capsys, engine, file, flags) -> None:
    try:
        code = main(["verify", file(), *flags])
    except SystemExit as leave:
        code = int(leave.code or 0)
    assert code == 2
    assert flags[1] in capsys.readouterr().err


def test_a_file_that_holds_no_answers_ends_with_2(capsys, engine, tmp_path) -> None:
    (tmp_path / "file").write_text("{}\n")
    assert main(["verify", str(tmp_path / "file")]) == 2
    assert "line 1: not a signed answer" in capsys.readouterr().err


def test_nothing_that_a_file_says_reaches_the_terminal_as_it_is(capsys, engine, tmp_path) -> None:
    request, response = anyio.run(whole_answer)
    evil = "\x1b[2J[bold red]\u202e"
    changed = response.completion.model_copy(update={"text": evil})
    said = failed("exact", evil)
    save_answer(tmp_path / "file", request, signed(request, changed), said)
    assert main(["verify", str(tmp_path / "file")]) == 1
    out = capsys.readouterr().out
    assert "\x1b[2J" not in out
    assert "\u202e" not in out
    assert "stated     fail (exact): \\x1b[2J[bold red]\\u202e" in out


def test_the_report_for_machines_holds_what_the_other_one_says(capsys, engine, file) -> None:
    assert main(["verify", file(), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (one,) = report["answers"]
    assert (report["exit_code"], one["outcome"], one["replayed"], one["signed"]) == (0, "pass", True, True)
    assert (one["model"], one["sampling"]["temperature"]) == ("tiny", 0.8)


def test_the_page_s_script_makes_a_file_that_the_page_s_commands_check(tmp_path: Path) -> None:
    text = PAGE.read_text("utf-8")
    (script,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    commands = [
        shlex.split(line)
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    cache = os.environ.get("TARGON_CACHE", str(Path.home() / ".cache" / "targon"))
    environment = {**os.environ, "HOME": str(tmp_path), "TARGON_CACHE": cache}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True, timeout=240)
    codes = {}
    for words in commands:
        done = subprocess.run(
            [sys.executable, "-m", "targon.cli", *words[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        codes[" ".join(words)] = (done.returncode, done.stdout)
    (whole, said), (unaided, report) = codes.values()
    assert (whole, unaided) == (0, 3)
    assert "agreement  100.00% of tokens" in said
    assert json.loads(report)["answers"][0]["signed"] is True
