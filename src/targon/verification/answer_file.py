"""Answers and receipts on file: what anyone needs to check them again, without a network.

A file holds one answer on each line, or one statement of a verifier about a receipt, in its canonical form
(RFC 8785), so that no two programs can read one line differently. Whoever hands over such a file is believed in
nothing: it is bounded in size, and parsed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field

from targon.protocol.errors import MalformedMessage
from targon.protocol.filed import ReceiptStatement
from targon.protocol.messages import GenerateRequest, GenerateResponse, Message
from targon.protocol.verdicts import Outcome
from targon.verification.verdict import Verdict

MAX_LINE_BYTES: Final = 64 << 20
"""The longest line: the longest answer that the transport takes (32 MiB), and as much for its request."""

MAX_ANSWERS: Final = 10_000
"""Most answers, or statements, in one file."""


_STATEMENT: Final = b'{"audit":'
"""How a statement's canonical form begins, and no answer's."""

K = TypeVar("K", bound=Message)


class AnswerFileError(Exception):
    """A file holds no answers that could be checked. The message says what was got, expected, and what to do."""


class StatedVerdict(Message):
    """What a verifier said of an answer. Nothing rests on it: it is shown beside what the check finds."""

    outcome: Outcome
    method: Annotated[str, Field(max_length=64)]
    score: Annotated[float, Field(ge=0.0, le=1.0)]
    reason: Annotated[str, Field(max_length=2000)]


class SignedAnswer(Message):
    """One answer: what was asked, what was answered, and the receipt that the prover signed."""

    version: Literal[1] = 1
    request: GenerateRequest
    response: GenerateResponse
    verdict: StatedVerdict | None = None
    statement: ReceiptStatement | None = None
    """What the verifier has on file of the receipt, with its countersignature; None: it was not asked."""


def save_answer(
    path: Path,
    request: GenerateRequest,
    response: GenerateResponse,
    verdict: Verdict | None = None,
    *,
    statement: ReceiptStatement | None = None,
) -> None:
    """Append an answer to a file; the file is made if there is none. Blocks while it writes.

    Args:
        verdict: what was said of it, if anything was.
        statement: what the verifier has on file of its receipt.

    Raises:
        OSError: if the file can't be written.
    """
    stated = None
    if verdict is not None:
        stated = StatedVerdict(
            outcome=verdict.outcome, method=verdict.method, score=verdict.score, reason=verdict.reason[:2000]
        )
    answer = SignedAnswer(request=request, response=response, verdict=stated, statement=statement)
    with path.open("ab") as file:
        file.write(answer.to_bytes() + b"\n")


def read_answers(path: Path) -> Iterator[SignedAnswer]:
    """The answers of a file, in its order. Blocks while it reads.

    Raises:
        AnswerFileError: if the file can't be read, holds none, or a line is none.
    """
    for number, one in enumerate(read_filed(path), start=1):
        if not isinstance(one, SignedAnswer):
            raise AnswerFileError(
                f"{path}, line {number}: got a statement about a receipt, expected a signed answer: request, answer "
                "and receipt"
            )
        yield one


def read_filed(path: Path) -> Iterator[SignedAnswer | ReceiptStatement]:
    """The answers, and the statements about receipts, of a file, in its order. Blocks while it reads.

    Raises:
        AnswerFileError: if the file can't be read, holds none, or a line is neither.
    """
    number = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                yield _parse(path, number, line)
    except OSError as error:
        raise AnswerFileError(f"{path}: could not be read: {error.strerror}") from error
    if number == 0:
        raise AnswerFileError(f"{path}: got an empty file, expected an answer on each line")


def _parse(path: Path, number: int, line: bytes) -> SignedAnswer | ReceiptStatement:
    where = f"{path}, line {number}"
    if number > MAX_ANSWERS:
        raise AnswerFileError(f"{where}: expected at most {MAX_ANSWERS} answers; split the file")
    if len(line) > MAX_LINE_BYTES:
        raise AnswerFileError(f"{where}: expected at most {MAX_LINE_BYTES >> 20} MiB in a line")
    data = line.removesuffix(b"\n")
    if data.startswith(_STATEMENT):
        return _canonical(ReceiptStatement, where, data, "statement about a receipt", "a gateway tells")
    return _canonical(SignedAnswer, where, data, "signed answer", "`save_answer` writes")


def _canonical(kind: type[K], where: str, data: bytes, name: str, as_who: str) -> K:
    try:
        one = kind.from_bytes(data)
        canonical = one.to_bytes() == data
    except MalformedMessage as error:
        raise AnswerFileError(f"{where}: not a {name}: {error}") from error
    if not canonical:
        raise AnswerFileError(
            f"{where}: got JSON that is not in its canonical form (RFC 8785), expected it as {as_who} "
            "it: no spaces, sorted keys, none twice, no unset field left out"
        )
    return one
