"""``targon verify``: an answer on file, checked again by anyone, without a network."""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import anyio
from pydantic import Field
from pydantic_settings import CliPositionalArg
from rich.console import Console

from targon.cli.engine import opened_engine
from targon.cli.options import EngineOptions, Options
from targon.engines import Engine, EngineError
from targon.protocol.primitives import Hotkey
from targon.verification import (
    SIMILARITY,
    AnswerFileError,
    Calibration,
    CalibrationError,
    CheckedAnswer,
    EvidenceState,
    NoBand,
    SignedAnswer,
    check_answer,
    check_unaided,
    evidence_of,
    find_calibration,
    load_calibration,
    read_answers,
)

PASSED, FAILED, UNUSABLE, UNDECIDED = 0, 1, 2, 3
"""The exit codes."""

Checked = list[CheckedAnswer]
Evidence = dict[Hotkey, EvidenceState]


class VerifyCommand(Options):
    """Check answers on file. Exit code: 0 all pass, 1 one fails, 2 no such file, 3 it could not be decided."""

    file: CliPositionalArg[Path]
    """File of signed answers, one on each line."""
    engine: EngineOptions | Literal["none"] = EngineOptions()
    """The engine to check with; '--engine none' checks signature, digests and form only."""
    calibration: Path | None = None
    """File that says how far honest engines differ from this one; without it, what comes with the software."""
    similarity: float = Field(SIMILARITY, ge=0.0, le=1.0)
    """Least share of tokens that must be what the sampler draws, but for a hair."""
    deadline: float = Field(300.0, gt=0.0)
    """Seconds that the engine has for one question."""
    as_json: bool = Field(False, validation_alias="json")
    """Print the report as JSON."""

    def run(self) -> int:
        return anyio.run(self._verify)

    async def _verify(self) -> int:
        try:
            answers = await anyio.to_thread.run_sync(lambda: list(read_answers(self.file)))
            if self.calibration is not None:
                load_calibration(self.calibration)  # whether it is one at all
        except (AnswerFileError, CalibrationError) as error:
            return _complain(str(error), UNUSABLE)
        checked: Checked = []
        calibration, note = None, None
        async with AsyncExitStack() as stack:
            engine: Engine | None = None
            if isinstance(self.engine, EngineOptions):
                try:
                    engine = await stack.enter_async_context(opened_engine(self.engine))
                    calibration = find_calibration(
                        engine.identity, [] if self.calibration is None else [self.calibration]
                    )
                except CalibrationError as error:
                    note = str(error)
                except EngineError as error:
                    note = f"there is no engine: {error}"
            for answer in answers:
                checked.append(await self._check(answer, engine, calibration))
        evidence = evidence_of(checked)
        if self.as_json:
            sys.stdout.write(json.dumps(_as_json(checked, evidence, note)) + "\n")
        else:
            _print(checked, evidence, note)
        return _exit_code(checked, evidence)

    async def _check(
        self, answer: SignedAnswer, engine: Engine | None, calibration: Calibration | None
    ) -> CheckedAnswer:
        if engine is None:
            return check_unaided(answer)
        return await check_answer(
            answer, engine, calibration, similarity_threshold=self.similarity, deadline_s=self.deadline
        )


def _exit_code(checked: Checked, evidence: Evidence) -> int:
    outcomes = {one.verdict.outcome for one in checked}
    if "fail" in outcomes or any(state.convicted for state in evidence.values()):
        return FAILED
    return UNDECIDED if "inconclusive" in outcomes else PASSED


def _complain(sentence: str, code: int) -> int:
    sys.stderr.write(f"targon: {sentence}\n")
    return code


# -- the report --------------------------------------------------------------------------------------------


def _as_json(checked: Checked, evidence: Evidence, note: str | None) -> dict[str, Any]:
    return {
        "answers": [_answer_as_json(one) for one in checked],
        "evidence": {
            prover: {"ln_e": state.log_e, "answers": state.completions, "tokens": state.tokens,
                     "convicted": state.convicted}
            for prover, state in evidence.items()
        },
        "note": note,
        "exit_code": _exit_code(checked, evidence),
    }  # fmt: skip


def _answer_as_json(one: CheckedAnswer) -> dict[str, Any]:
    request, completion = one.answer.request, one.answer.response.completion
    body = one.answer.response.receipt.body
    signed = one.verdict.outcome != "fail" or "receipt" not in one.verdict.reason
    return {
        "outcome": one.verdict.outcome,
        "method": one.verdict.method,
        "score": one.verdict.score,
        "reason": one.verdict.reason,
        "signed": signed,
        "prover": body.prover,
        "verifier": body.verifier,
        "attempt": request.attempt,
        "block": body.block,
        "issued_at": body.issued_at,
        "model": body.model,
        "model_digest": body.model_digest,
        "sampling": request.sampling.to_json(),
        "tokens": len(completion.token_ids),
        "finish_reason": completion.finish_reason,
        "replayed": one.replayed,
        "evidence": one.verdict.evidence,
        "disagreed": [
            {"position": at.position, "claimed": at.claimed, "claimed_text": at.claimed_text,
             "best": at.best, "best_text": at.best_text, "margin": at.margin}
            for at in one.disagreements
        ],
        "calibrated": one.band is not None and not isinstance(one.band, NoBand),
        "stated": None if one.answer.verdict is None else one.answer.verdict.to_json(),
    }  # fmt: skip


def _print(checked: Checked, evidence: Evidence, note: str | None) -> None:
    # What stands in the file is somebody else's: no markup, and nothing but printable ASCII of it.
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for number, one in enumerate(checked, start=1):
        console.print(f"Answer {number} of {len(checked)}", style="bold")
        for name, value in _lines(one):
            console.print(f"  {name:<10} {value}")
        style = {"pass": "green", "fail": "red", "inconclusive": "yellow"}[one.verdict.outcome]
        console.print(f"  {one.verdict.outcome:<10} {_plain(one.verdict.reason)}", style=style)
    if note is not None:
        console.print(f"Note: {_plain(note)}.", style="yellow")
    for prover, state in evidence.items():
        said = ": convicted" if state.convicted else ", 9.2 convicts"
        console.print(
            f"{prover}: ln e = {state.log_e:.2f}{said}, over {state.completions} answers and {state.tokens} tokens "
            "(of answers that nobody picked for what is in them)"
        )


def _lines(one: CheckedAnswer) -> list[tuple[str, str]]:
    """The report on one answer, but for its verdict."""
    request, completion = one.answer.request, one.answer.response.completion
    body, sampling = one.answer.response.receipt.body, request.sampling
    issued = _time(body.issued_at)
    lines = [
        ("prover", f"{body.prover}, at {issued} by its clock"),
        ("verifier", f"{body.verifier}, attempt {int(request.attempt, 16)}, block {body.block}"),
        ("model", f"{ascii(body.model)[1:-1]}, digest {body.model_digest}"),
        (
            "asked",
            f"{len(request.messages)} messages; sampler {sampling.dialect}, T = {sampling.temperature:g}, top-p "
            f"{sampling.top_p:g}, top-k {sampling.top_k or 'off'}, seed {sampling.seed}, at most "
            f"{sampling.max_tokens} tokens" + (f", stop {list(sampling.stop)!a}" if sampling.stop else ""),
        ),
        (
            "answered",
            f"{len(completion.token_ids)} tokens, ended by {completion.finish_reason}: "
            f"{completion.text[:60]!a}" + (" ..." if len(completion.text) > 60 else ""),
        ),
        ("method", one.verdict.method),
    ]
    if one.divergence is not None and one.replayed:
        divergence = one.divergence
        drawn, expected = divergence.tail
        lines += [
            ("agreement", f"{divergence.agreement:.2%} of tokens; mean margin {divergence.mean_margin:.4f}"),
            (
                "surprisal",
                f"{divergence.surprisal:.3f} nats a token; {drawn} unlikely tokens, {expected:.1f} expected",
            ),
        ]
    lines += [
        (
            "disagrees",
            f"at position {at.position} it says {at.claimed_text!a} (token {at.claimed}), the sampler draws "
            f"{at.best_text!a} (token {at.best}), by a margin of {at.margin:.2f}",
        )
        for at in one.disagreements
    ]
    if one.answer.verdict is not None:
        stated = one.answer.verdict
        lines.append(("stated", f"{stated.outcome} ({_plain(stated.method)}): {_plain(stated.reason)}"))
    return lines


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s after 1970"


def _plain(text: str) -> str:
    """Text that may hold what others wrote, safe for a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
