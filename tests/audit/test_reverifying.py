"""Published answers are drawn alike by everybody, must be the logged ones, and must be judged as they were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmarks.written_log import GENESIS, MODEL, NETUID, Life
from targon.audit import Exporter, Report, Wanted, audit_folder, reverify
from targon.ledger import Attempt, Verdict
from targon.protocol import receipts, segments
from targon.protocol.messages import ChatMessage, Completion, GenerateRequest, GenerateResponse, Sampling
from targon.protocol.primitives import Block, Hotkey, TokenId, u64_hex
from targon.verification import CheckedAnswer, SignedAnswer
from targon.verification.verdict import Verdict as Found
from tests.audit.world import PROVERS, VERIFIER, Published, a_log

pytestmark = pytest.mark.anyio

PROVER = PROVERS[0]


def answer(number: int) -> SignedAnswer:
    """A signed answer to the attempt of a number."""
    request = GenerateRequest(
        salt="01" * 32,
        genesis=GENESIS,
        netuid=NETUID,
        verifier=Hotkey(VERIFIER.ss58_address),
        prover=Hotkey(PROVER.ss58_address),
        attempt=u64_hex(number),
        block=Block(5),
        block_hash="03" * 32,
        log_head="04" * 32,
        model=MODEL,
        messages=(ChatMessage(role="user", content="Why?"),),
        sampling=Sampling(seed="00" * 8, temperature=0.8, max_tokens=3),
    )
    completion = Completion(
        salt="05" * 32,
        request_digest=request.digest(),
        token_ids=(TokenId(5), TokenId(6), TokenId(2)),
        finish_reason="stop",
        text="So.",
    )
    receipt = receipts.issue(
        request, completion, model_digest="cd" * 32, issued_at=1_790_000_000, salt=bytes(32), signer=PROVER
    )
    return SignedAnswer(request=request, response=GenerateResponse(completion=completion, receipt=receipt))


def logged(one: SignedAnswer, wanted: Wanted, *, score: float = 1.0) -> None:
    """Let the log hold an answer, passed with a score."""
    number = int(one.request.attempt_number)
    wanted.attempts[number] = Attempt(
        block=Block(5),
        purpose="challenge",
        prover=one.request.prover,
        request_digest=one.request.digest(),
        model=MODEL,
        dialect="targon/1",
        max_tokens=3,
    )
    wanted.verdicts[number] = Verdict(
        attempt=number,
        outcome="pass",
        method="divergence",
        score=score,
        reason="as drawn",
        replied=True,
        receipt=one.response.receipt,
    )


async def judged(one: SignedAnswer, *, outcome: str, score: float, wanted: Wanted) -> Report:
    async def check(again: SignedAnswer) -> CheckedAnswer:
        found = Found(
            outcome="pass" if outcome == "pass" else "fail", method="divergence", score=score, reason=""
        )
        return CheckedAnswer(again, found)

    report = Report()
    await reverify([one], check, wanted, report)
    return report


async def test_an_answer_that_is_judged_alike_is_exact() -> None:
    wanted, one = Wanted(), answer(7)
    logged(one, wanted)
    report = await judged(one, outcome="pass", score=0.995, wanted=wanted)
    assert report.exact
    assert report.reverified[0]["attempt"] == 7


@pytest.mark.parametrize(("outcome", "score"), [("fail", 0.99), ("pass", 0.9)])
async def test_one_that_is_judged_otherwise_is_named(outcome: str, score: float) -> None:
    wanted, one = Wanted(), answer(7)
    logged(one, wanted)
    report = await judged(one, outcome=outcome, score=score, wanted=wanted)
    assert set(report.faults.counts) == {"reverify"}


async def test_one_that_is_not_the_logged_one_is_named() -> None:
    wanted, one = Wanted(), answer(7)
    logged(one, wanted)
    other = one.model_copy(update={"request": one.request.model_copy(update={"salt": "77" * 32})})
    assert set((await judged(other, outcome="pass", score=1.0, wanted=wanted)).faults.counts) == {
        "transcript"
    }
    unknown = await judged(answer(8), outcome="pass", score=1.0, wanted=wanted)
    assert set(unknown.faults.counts) == {"transcript"}


class Kept:
    """Answers to some attempts."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = list(numbers)

    def lines(self, first: int, last: int) -> Iterable[bytes]:
        return [answer(number).to_bytes() for number in self._numbers if first <= number <= last]


@pytest.fixture
async def with_answers(life: Life, tmp_path: Path) -> Published:
    async with a_log(tmp_path / "log.sqlite", [record.event for record in life.records]) as log:
        assert life.standings.opened is not None
        exporter = Exporter(tmp_path / "segments", log, VERIFIER, Kept(range(10, 200, 7)))
        await exporter.export(life.standings.opened, life.standings.released)
    return Published(tmp_path / "segments")


async def test_which_answers_are_drawn_follows_from_the_log_alone(with_answers: Published) -> None:
    _, drawn = audit_folder(with_answers.folder, answers=5)
    head = bytes.fromhex(with_answers.manifest(with_answers.count - 1).body.head)
    ranked = sorted(range(10, 200, 7), key=lambda n: hashlib.sha256(head + n.to_bytes(8, "big")).digest())
    assert [int(one.request.attempt_number) for one in drawn] == ranked[:5]


@pytest.mark.parametrize("content", [b"", b"{}\n", None])
async def test_answers_that_are_not_what_was_published_are_named(
    with_answers: Published, content: bytes | None
) -> None:
    path = with_answers.folder / segments.transcripts_file(1)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    report, _ = audit_folder(with_answers.folder, answers=5)
    assert set(report.faults.counts) == {"omitted" if content is None else "tampered"}
