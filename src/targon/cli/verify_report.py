"""What ``targon verify`` found, for people and for machines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from targon.protocol.filed import ReceiptStatement
from targon.protocol.primitives import Hotkey
from targon.verification import CheckedAnswer, EvidenceState, NoBand, evidence_of

PASSED, FAILED, UNDECIDED = 0, 1, 3
"""The exit codes of a report."""

NOT_SAID = "what was asked and answered, and whether the model draws it: that takes the answer itself, with its request"
"""What a receipt without its answer can't show."""

_COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}


@dataclass(frozen=True, slots=True)
class CheckedStatement:
    """A verifier's statement about a receipt, and what is wrong with it, if anything is."""

    statement: ReceiptStatement
    fault: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found.

    Attributes:
        answers: in the order of the file.
        filed: for each answer, what was found of the statement that came with it; None: none did.
        statements: those without an answer.
        note: what was in the way.
    """

    answers: list[CheckedAnswer]
    filed: list[CheckedStatement | None]
    statements: list[CheckedStatement]
    note: str | None = None

    @property
    def evidence(self) -> dict[Hotkey, EvidenceState]:
        return evidence_of(self.answers)

    @property
    def exit_code(self) -> int:
        outcomes = {one.verdict.outcome for one in self.answers}
        faults = [one.fault for one in (*self.filed, *self.statements) if one is not None and one.fault]
        if "fail" in outcomes or faults or any(state.convicted for state in self.evidence.values()):
            return FAILED
        return UNDECIDED if "inconclusive" in outcomes else PASSED

    def as_json(self) -> dict[str, Any]:
        return {
            "answers": [
                _answer_as_json(one) | {"filed": None if filed is None else _statement_as_json(filed)}
                for one, filed in zip(self.answers, self.filed, strict=True)
            ],
            "statements": [_statement_as_json(one) for one in self.statements],
            "evidence": {
                prover: {"ln_e": state.log_e, "answers": state.completions, "tokens": state.tokens,
                         "convicted": state.convicted}
                for prover, state in self.evidence.items()
            },
            "note": self.note,
            "exit_code": self.exit_code,
        }  # fmt: skip

    def print(self) -> None:
        # What stands in the file is somebody else's: no markup, and nothing but printable ASCII of it.
        console = Console(highlight=False, markup=False, soft_wrap=True)
        for number, (one, filed) in enumerate(zip(self.answers, self.filed, strict=True), start=1):
            console.print(f"Answer {number} of {len(self.answers)}", style="bold")
            _print_lines(console, _lines(one))
            if filed is not None:
                _print_filed(console, filed)
            console.print(
                f"  {one.verdict.outcome:<10} {_plain(one.verdict.reason)}",
                style=_COLOURS[one.verdict.outcome],
            )
        for number, told in enumerate(self.statements, start=1):
            console.print(f"Receipt {number} of {len(self.statements)}", style="bold")
            _print_lines(console, _receipt_lines(told.statement))
            _print_filed(console, told)
            console.print(f"  not said   {NOT_SAID}")
        if self.note is not None:
            console.print(f"Note: {_plain(self.note)}.", style="yellow")
        for prover, state in self.evidence.items():
            said = ": convicted" if state.convicted else ", 9.2 convicts"
            console.print(
                f"{prover}: ln e = {state.log_e:.2f}{said}, over {state.completions} answers and {state.tokens} tokens "
                "(of answers that nobody picked for what is in them)"
            )


def _print_lines(console: Console, lines: list[tuple[str, str]]) -> None:
    for name, value in lines:
        console.print(f"  {name:<10} {value}")


def _print_filed(console: Console, told: CheckedStatement) -> None:
    """What a verifier says of a receipt, and whether both parties signed it."""
    body, audit = told.statement.countersignature.body, told.statement.audit
    if told.fault is not None:
        console.print(f"  wrong      {_plain(told.fault)}", style="red")
        return
    console.print(
        f"  signed     by both: {body.verifier} says that the receipt is record {body.record} of its log, whose "
        f"hash is {body.record_hash}",
        style="green",
    )
    if audit is None:
        said = "nothing of an audit: there was none, or its verdict isn't published yet"
    else:
        said = (
            f"{audit.outcome} ({_plain(audit.method)}, {audit.score:.4g}), in record {audit.record}: "
            f"{_plain(audit.reason)}"
        )
    console.print(f"  audit      the verifier says {said}")


def _receipt_lines(statement: ReceiptStatement) -> list[tuple[str, str]]:
    body = statement.receipt.body
    return [
        ("receipt", statement.receipt_id),
        ("prover", f"{body.prover}, at {_time(body.issued_at)} by its clock"),
        ("verifier", f"{body.verifier}, attempt {int(body.attempt, 16)}"),
        ("block", f"{body.block}; the verifier says that it logged the answer in block {statement.block}"),
        ("network", f"subnet {body.netuid} of the chain that begins with {body.genesis}"),
        ("model", f"{ascii(body.model)[1:-1]}, digest {body.model_digest}"),
        ("answer", f"digest {body.completion_digest}"),
    ]


def _statement_as_json(told: CheckedStatement) -> dict[str, Any]:
    statement = told.statement
    body, countersigned = statement.receipt.body, statement.countersignature.body
    return {
        "receipt_id": statement.receipt_id,
        "signed": told.fault is None,
        "fault": told.fault,
        "prover": body.prover,
        "verifier": body.verifier,
        "attempt": body.attempt,
        "netuid": body.netuid,
        "genesis": body.genesis,
        "block": body.block,
        "logged_in_block": statement.block,
        "record": countersigned.record,
        "record_hash": countersigned.record_hash,
        "issued_at": body.issued_at,
        "model": body.model,
        "model_digest": body.model_digest,
        "completion_digest": body.completion_digest,
        "audit": None if statement.audit is None else statement.audit.to_json(),
    }


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
