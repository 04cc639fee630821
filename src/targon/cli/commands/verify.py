"""``targon verify``: answers and receipts on file, checked again by anyone, without a network."""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

import anyio
from pydantic import Field
from pydantic_settings import CliPositionalArg

from targon.cli.engine import opened_engine
from targon.cli.options import EngineOptions, Options
from targon.cli.verify_report import CheckedStatement, Report
from targon.engines import Engine, EngineError
from targon.protocol.filed import ReceiptStatement
from targon.verification import (
    SIMILARITY,
    AnswerFileError,
    Calibration,
    CalibrationError,
    CheckedAnswer,
    SignedAnswer,
    check_answer,
    check_unaided,
    find_calibration,
    load_calibration,
    read_filed,
    statement_fault,
)

UNUSABLE = 2
"""The exit code where there is nothing to check; the others are the report's."""

Filed = list[SignedAnswer | ReceiptStatement]


class VerifyCommand(Options):
    """Check answers and receipts on file. Exit code: 0 all right, 1 something is wrong, 2 no such file, 3 undecided."""

    file: CliPositionalArg[Path]
    """File of signed answers, one on each line, or what a gateway says of a receipt; '-' reads what is piped in."""
    receipt: Path | None = None
    """File with what a gateway says of the answers' receipts, to be checked with them: one statement on each line."""
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
            filed = await anyio.to_thread.run_sync(self._read)
            if self.calibration is not None:
                load_calibration(self.calibration)  # whether it is one at all
        except (AnswerFileError, CalibrationError) as error:
            return _complain(str(error), UNUSABLE)
        answers = [one for one in filed if isinstance(one, SignedAnswer)]
        statements = [one for one in filed if isinstance(one, ReceiptStatement)]
        checked, note = await self._check_all(answers)
        report = Report(
            checked,
            [_of_answer(answer) for answer in answers],
            [CheckedStatement(one, statement_fault(one)) for one in statements],
            note,
        )
        if self.as_json:
            sys.stdout.write(json.dumps(report.as_json()) + "\n")
        else:
            report.print()
        return report.exit_code

    def _read(self) -> Filed:
        """What is on file, each answer with the statement that is given for it.

        Raises:
            AnswerFileError: if a file is none, or a statement is for no answer.
        """
        filed = list(read_filed(Path("/dev/stdin") if self.file == Path("-") else self.file))
        if self.receipt is None:
            return filed
        given: dict[str, ReceiptStatement] = {}
        for one in read_filed(self.receipt):
            if not isinstance(one, ReceiptStatement):
                raise AnswerFileError(
                    f"{self.receipt}: got an answer, expected what a gateway says of its receipt "
                    "(GET /v1/receipts/{id})"
                )
            given[one.receipt_id] = one
        for place, one in enumerate(filed):
            if isinstance(one, SignedAnswer) and (statement := given.pop(one.request.digest(), None)):
                filed[place] = one.model_copy(update={"statement": statement})
        if given:
            raise AnswerFileError(
                f"{self.receipt}: got a statement about the receipt {min(given)}, expected one of an answer in "
                f"{self.file}"
            )
        return filed

    async def _check_all(self, answers: list[SignedAnswer]) -> tuple[list[CheckedAnswer], str | None]:
        """What is found of each answer, and what was in the way."""
        calibration, note = None, None
        async with AsyncExitStack() as stack:
            engine: Engine | None = None
            if answers and isinstance(self.engine, EngineOptions):
                try:
                    engine = await stack.enter_async_context(opened_engine(self.engine))
                    calibration = find_calibration(
                        engine.identity, [] if self.calibration is None else [self.calibration]
                    )
                except CalibrationError as error:
                    note = str(error)
                except EngineError as error:
                    note = f"there is no engine: {error}"
            return [await self._check(answer, engine, calibration) for answer in answers], note

    async def _check(
        self, answer: SignedAnswer, engine: Engine | None, calibration: Calibration | None
    ) -> CheckedAnswer:
        if engine is None:
            return check_unaided(answer)
        return await check_answer(
            answer, engine, calibration, similarity_threshold=self.similarity, deadline_s=self.deadline
        )


def _of_answer(answer: SignedAnswer) -> CheckedStatement | None:
    """What is found of the statement that comes with an answer; None: none does."""
    if answer.statement is None:
        return None
    fault = statement_fault(answer.statement, answer.request, answer.response)
    return CheckedStatement(answer.statement, fault)


def _complain(sentence: str, code: int) -> int:
    sys.stderr.write(f"targon: {sentence}\n")
    return code
