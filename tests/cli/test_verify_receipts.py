"""``targon verify`` of receipts: alone, as a gateway tells them, and beside the answers that they are for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from bittensor.keyfiles import Keypair
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from targon.cli import main
from targon.cli.commands import verify
from targon.protocol import AuditStatement, Digest, ReceiptStatement, countersignatures, receipts
from targon.protocol.messages import GenerateRequest, GenerateResponse
from targon.protocol.primitives import Block
from targon.verification import save_answer, statement_fault
from tests.verification.answers import PROVER, VERIFIER, signed, whole_answer

AUDIT = AuditStatement(outcome="pass", method="divergence", score=0.984375, reason="63 of 64", record=99)
OTHER = {
    "genesis": "99" * 32,
    "netuid": 5,
    "attempt": "99" * 8,
    "block": 76,
    "request_digest": "99" * 32,
    "completion_digest": "99" * 32,
    "model": "other",
    "model_digest": "99" * 32,
    "issued_at": 99,
    "salt": "99" * 32,
}


def statement_of(
    response: GenerateResponse, *, audit: AuditStatement | None = AUDIT, signer: Keypair = VERIFIER
) -> ReceiptStatement:
    countersignature = countersignatures.countersign(
        response.receipt, record=80 + 1000, record_hash=Digest("07" * 32), signer=signer
    )
    audit = audit and audit.model_copy(update={"record": 2000})
    return ReceiptStatement(
        receipt=response.receipt, countersignature=countersignature, block=Block(78), audit=audit
    )


@pytest.fixture(scope="module")
def answer() -> tuple[GenerateRequest, GenerateResponse]:
    return anyio.run(whole_answer)


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine may be started."""

    def opened(_: object) -> Any:
        raise AssertionError("a receipt needs no engine")

    monkeypatch.setattr(verify, "opened_engine", opened)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[ReceiptStatement], str]:
    def make(statement: ReceiptStatement) -> str:
        path = tmp_path / "receipt.json"
        path.write_bytes(statement.to_bytes())
        return str(path)

    return make


def test_a_receipt_that_both_signed_ends_with_0_without_an_engine(capsys, no_engine, answer, file) -> None:
    request, response = answer
    assert main(["verify", file(statement_of(response))]) == 0
    out = capsys.readouterr().out
    assert f"receipt    {request.digest()}" in out
    assert f"prover     {PROVER.ss58_address}, at 2027-01-15T08:00:00+00:00 by its clock" in out
    assert f"verifier   {VERIFIER.ss58_address}, attempt {request.attempt_number}" in out
    assert "block      77; the verifier says that it logged the answer in block 78" in out
    assert f"model      tiny, digest {'d' * 64}" in out
    assert f"signed     by both: {VERIFIER.ss58_address} says that the receipt is record 1080" in out
    assert "audit      the verifier says pass (divergence, 0.9844), in record 2000: 63 of 64" in out
    assert "not said   what was asked and answered" in out


def test_a_receipt_without_an_audit_says_that_nothing_is_known_of_one(capsys, answer, file) -> None:
    assert main(["verify", file(statement_of(answer[1], audit=None))]) == 0
    assert "there was none, or its verdict isn't published yet" in capsys.readouterr().out


def test_the_report_on_a_receipt_for_machines(capsys, answer, file) -> None:
    request, response = answer
    assert main(["verify", file(statement_of(response)), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (one,) = report["statements"]
    assert (report["exit_code"], report["answers"], one["signed"], one["fault"]) == (0, [], True, None)
    assert (one["receipt_id"], one["record"], one["audit"]["outcome"]) == (request.digest(), 1080, "pass")


def test_a_receipt_can_be_piped_in(answer) -> None:
    command = [sys.executable, "-m", "targon.cli", "verify", "-", "--json"]
    piped = statement_of(answer[1]).to_bytes()
    done = subprocess.run(command, input=piped, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["statements"][0]["signed"] is True


@pytest.mark.parametrize("field", OTHER)
def test_a_receipt_with_a_field_changed_ends_with_1_and_says_whose_signature_broke(
    capsys, answer, file, field: str
) -> None:
    statement = statement_of(answer[1])
    body = statement.receipt.body.model_copy(update={field: OTHER[field]})
    changed = statement.receipt.model_copy(update={"body": body})
    assert main(["verify", file(statement.model_copy(update={"receipt": changed}))]) == 1
    assert f"wrong      statement refused: receipt: the signature is not {PROVER.ss58_address}'s" in (
        capsys.readouterr().out
    )


def test_a_countersignature_by_somebody_else_ends_with_1(capsys, answer, file) -> None:
    forged = statement_of(answer[1], signer=Keypair.create_from_uri("//Mallory"))
    assert main(["verify", file(forged)]) == 1
    assert f"countersignature: the signature is not {VERIFIER.ss58_address}'s" in capsys.readouterr().out


def test_a_countersignature_for_another_receipt_is_named(capsys, answer, file) -> None:
    request, response = answer
    other = statement_of(signed(request, response.completion, model_digest="e" * 64))
    mixed = other.model_copy(update={"receipt": response.receipt})
    assert main(["verify", file(mixed)]) == 1
    assert "countersignature receipt_digest: got '" in capsys.readouterr().out


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_byte_of_what_was_signed_can_be_changed_unseen(tmp_path: Path, answer, data) -> None:
    whole = bytearray(statement_of(answer[1], audit=None).to_bytes())
    start = whole.index(b'"countersignature"')
    place = data.draw(st.integers(start, len(whole) - 2))
    old = whole[place]
    whole[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != old))
    path = tmp_path / "receipt.json"
    path.write_bytes(bytes(whole))
    command = verify.VerifyCommand.model_validate({"file": path, "engine": "none"})
    assert command.run() in (1, 2)


@pytest.mark.parametrize("change", ["pretty", "twice", "spaced"])
def test_a_receipt_that_was_formatted_anew_is_refused_and_the_message_says_why(
    capsys, tmp_path: Path, answer, change: str
) -> None:
    whole = statement_of(answer[1]).to_bytes()
    text = {
        "pretty": b'{"audit":\n' + whole.removeprefix(b'{"audit":'),
        "twice": whole.replace(b'"block":78', b'"block":79,"block":78'),
        "spaced": whole.replace(b'"block":78', b'"block": 78'),
    }[change]
    (tmp_path / "receipt.json").write_bytes(text)
    assert main(["verify", str(tmp_path / "receipt.json")]) == 2
    err = capsys.readouterr().err
    assert "line 1: " in err
    assert "canonical form" in err or "not a statement about a receipt" in err


# -- beside an answer ----------------------------------------------------------------------------------------


def test_an_answer_is_checked_with_the_statement_that_was_saved_with_it(
    capsys, tmp_path: Path, answer
) -> None:
    request, response = answer
    save_answer(tmp_path / "file", request, response, statement=statement_of(response))
    assert main(["verify", str(tmp_path / "file"), "--engine", "none"]) == 3
    assert "signed     by both" in capsys.readouterr().out


def test_a_statement_in_a_file_of_its_own_is_checked_with_its_answer(
    capsys, tmp_path: Path, answer, file
) -> None:
    request, response = answer
    save_answer(tmp_path / "file", request, response)
    flags = ["--engine", "none", "--receipt", file(statement_of(response)), "--json"]
    assert main(["verify", str(tmp_path / "file"), *flags]) == 3
    (one,) = json.loads(capsys.readouterr().out)["answers"]
    assert (one["filed"]["signed"], one["filed"]["record"]) == (True, 1080)


def test_a_statement_for_no_answer_in_the_file_ends_with_2(capsys, tmp_path: Path, answer, file) -> None:
    request, response = answer
    other = request.model_copy(update={"salt": "aa" * 32})
    completion = response.completion.model_copy(update={"request_digest": other.digest()})
    save_answer(tmp_path / "file", other, signed(other, completion))
    flags = ["--engine", "none", "--receipt", file(statement_of(response))]
    assert main(["verify", str(tmp_path / "file"), *flags]) == 2
    assert "expected one of an answer in" in capsys.readouterr().err


def test_an_answer_where_a_statement_is_expected_ends_with_2(capsys, tmp_path: Path, answer) -> None:
    save_answer(tmp_path / "file", *answer)
    flags = ["--engine", "none", "--receipt", str(tmp_path / "file")]
    assert main(["verify", str(tmp_path / "file"), *flags]) == 2
    assert "expected what a gateway says of its receipt" in capsys.readouterr().err


def test_a_statement_about_another_receipt_for_the_same_request_ends_with_1(
    capsys, tmp_path: Path, answer
) -> None:
    """A prover that signs two answers to one request, and a verifier that logged the other."""
    request, response = answer
    other = signed(request, response.completion, model_digest="e" * 64)
    save_answer(tmp_path / "file", request, response, statement=statement_of(other))
    assert main(["verify", str(tmp_path / "file"), "--engine", "none"]) == 1
    assert "it is about another receipt for this request than the answer came with" in capsys.readouterr().out


def test_a_statement_about_another_request_is_a_fault(answer) -> None:
    request, response = answer
    other = request.model_copy(update={"salt": "aa" * 32})
    fault = statement_fault(statement_of(response), other, response)
    assert fault is not None
    assert "request_digest" in fault


def test_nothing_that_a_statement_says_reaches_the_terminal_as_it_is(capsys, answer, file) -> None:
    evil = "\x1b[2J[bold red]\u202e"
    audit = AuditStatement(outcome="fail", method=evil, score=0.0, reason=evil, record=99)
    _, response = answer
    body = response.receipt.body.model_copy(update={"model": evil})
    receipt = response.receipt.model_copy(
        update={"body": body, "signature": bytes(PROVER.sign(receipts.signed_bytes(body))).hex()}
    )
    statement = statement_of(response.model_copy(update={"receipt": receipt}), audit=audit)
    assert main(["verify", file(statement)]) == 0
    out = capsys.readouterr().out
    assert "\x1b[2J" not in out
    assert "\u202e" not in out
