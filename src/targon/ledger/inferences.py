"""What the events of inferences do to the standings; the others are in :mod:`targon.ledger.rules`."""

from __future__ import annotations

from targon.ledger.earning import counts, earn, reach, served, succeed
from targon.ledger.errors import InvalidHistory
from targon.ledger.events import Answered, Attempt, RoutesSet, Withdrawn
from targon.ledger.port import Record
from targon.ledger.standing import State
from targon.protocol.primitives import u64_hex


def routes_set(s: State, record: Record, event: RoutesSet) -> None:
    """``routes_set``: replaces the routes of its model."""
    uids = [uid for uid, _ in event.shares]
    if uids != sorted(set(uids)):
        raise InvalidHistory(record.seq, "got routes that are not in the order of UIDs, each once")
    s.routes[event.model] = dict(event.shares)
    reach(s, event.block)


def answered(s: State, record: Record, event: Answered) -> None:
    """``answered``: a success, unless an audit is to decide."""
    number = event.attempt
    attempt = _open_inference(s, record, number, "an answer")
    body = event.receipt.body
    named = (body.attempt, body.prover, body.request_digest)
    if named != (u64_hex(number), attempt.prover, attempt.request_digest):
        raise InvalidHistory(record.seq, f"got an answer to attempt {number} whose receipt names another")
    del s.open_attempts[number]
    state = s.provers[attempt.prover]
    state.inferences += 1
    state.audits += event.audited
    reach(s, event.block)
    if event.audited:
        s.under_audit[number] = attempt
        return
    if not counts(attempt):
        state.native += 1
        state.native_replies += 1
        return
    state.attempts += 1
    state.replies += 1
    succeed(s, attempt, event.tokens_per_s)
    earn(s, attempt, served(s, attempt, event.tokens_per_s))


def withdrawn(s: State, record: Record, event: Withdrawn) -> None:
    """``withdrawn``: counted, and nothing else."""
    attempt = _open_inference(s, record, event.attempt, "the withdrawal")
    del s.open_attempts[event.attempt]
    s.provers[attempt.prover].withdrawn += 1
    reach(s, event.block)


def _open_inference(s: State, record: Record, number: int, what: str) -> Attempt:
    attempt = s.open_attempts.get(number)
    if attempt is None or attempt.purpose != "inference":
        raise InvalidHistory(
            record.seq,
            f"got {what} of attempt {number}, expected an open inference",
        )
    return attempt
