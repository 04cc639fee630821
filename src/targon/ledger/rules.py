"""What each event does to the standings: one plain function per kind, in the order of a verifier's life.

A record that cannot follow the ones before it is refused as :class:`InvalidHistory`, and changes nothing:

* ``log_opened`` is the first record, and only that.
* ``prover_joined`` gives a hotkey a free UID, ``prover_left`` takes it back. What it earned stays its own.
* ``interval_opened`` needs the last interval closed, and a higher number.
* ``attempt`` needs an open interval and a prover that holds a UID; a challenge also a block whose step has not closed,
  and a user's inference a share in the routes of its model.
* ``answered`` needs its attempt, an inference, once, and a receipt that names both. Unless it is audited, it is a
  success, without a token verified.
* ``withdrawn`` needs its attempt, an inference, once. It moves no counter that decides anything.
* ``verdict`` needs its attempt, once, be it open or under audit. A pass or fail counts towards rate, total,
  probation and x; an inconclusive one does not. Work that is not counted moves two counters of its own and nothing
  else, whatever came of it; it leaves no evidence, and convicts nobody.
* ``prover_convicted`` needs evidence that convicts, and stands right after the verdict that carried it there. The
  prover keeps nothing but its hotkey (:func:`targon.protocol.conviction.sentence`).
* ``step_closed`` needs a verdict for every challenge up to its block. The score of every prover that earned or
  lost in a block takes one step with the sum; what inferences earned since the last step counts as this block's.
* ``interval_closed`` needs every challenge judged, every step closed, and the secret that was committed to.
  Tiers settle, request counters reset, this interval's median speeds become the next one's measure. Inferences
  may go on over an interval's end: they count in the interval in which they end.
* ``head_anchored`` needs the open interval, its own head, and comes once per interval.
* ``inputs_committed`` needs a commitment of this network's that is not kept already, ``relies_on`` one by each oracle
  that private inputs come from. With ``oracle_faulted``, they move nothing of a prover's.
* ``weights_set`` and ``weights_not_set`` need the proposal that they name, once; what is set is what was proposed.
  Then the records of the intervals that had closed when it was proposed may be published, but for those of intervals
  in which an attempt was made that is open still: their secret would tell its prover whether it is audited.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from targon.ledger.earning import counts as counts
from targon.ledger.earning import earn, move_scores, profile_of, reach, succeed
from targon.ledger.earning import served as served
from targon.ledger.earning import worth as worth
from targon.ledger.errors import InvalidHistory
from targon.ledger.events import (
    Attempt,
    BlocksSkipped,
    CalibrationAdopted,
    HeadAnchored,
    IntervalClosed,
    IntervalOpened,
    LogOpened,
    ProverConvicted,
    ProverJoined,
    ProverLeft,
    StepClosed,
    Verdict,
    WeightsNotSet,
    WeightsProposed,
    WeightsSet,
)
from targon.ledger.inferences import answered, routes_set, withdrawn
from targon.ledger.port import Record
from targon.ledger.relying import inputs_committed, oracle_faulted, relies_on
from targon.ledger.standing import Conviction, LastVerdict, Proposal, ProverStanding, ProverState, State
from targon.protocol import conviction, draws, rewards, tiers
from targon.protocol.primitives import Digest
from targon.protocol.profile import Profile


def fold(s: State, record: Record) -> None:
    """Fold the next record into a state.

    Raises:
        InvalidHistory: if it cannot follow; nothing has changed then.
    """
    if record.seq != s.seq + 1 or record.prev != s.hash:
        raise InvalidHistory(
            record.seq,
            f"it follows {record.prev[:12]}…, expected record {s.seq + 1} following {s.hash[:12]}…",
        )
    event = record.event
    kind = event.kind
    if s.opened is None and kind != "log_opened":
        raise InvalidHistory(record.seq, f"got {kind}, expected log_opened first")
    _RULES[kind](s, record, event)
    if kind != "verdict":
        s.just_judged = None
    s.seq = record.seq
    s.hash = record.hash


def _log_opened(s: State, record: Record, event: LogOpened) -> None:
    if s.opened is not None:
        raise InvalidHistory(record.seq, "got a second log_opened, expected one per log")
    s.opened = event


def _prover_joined(s: State, record: Record, event: ProverJoined) -> None:
    holder = s.uids.get(event.uid)
    if holder is not None:
        raise InvalidHistory(
            record.seq, f"{event.hotkey} joins as UID {event.uid}, which {holder} still holds"
        )
    state = s.provers.get(event.hotkey)
    if state is None:
        state = s.provers[event.hotkey] = ProverState(event.hotkey, event.uid, event.uid)
    elif state.uid is not None:
        raise InvalidHistory(
            record.seq, f"{event.hotkey} joins as UID {event.uid} while it still holds UID {state.uid}"
        )
    state.uid = state.last_uid = event.uid
    s.uids[event.uid] = event.hotkey
    reach(s, event.block)


def _prover_left(s: State, record: Record, event: ProverLeft) -> None:
    if s.uids.get(event.uid) != event.hotkey:
        raise InvalidHistory(record.seq, f"{event.hotkey} leaves UID {event.uid}, which it does not hold")
    del s.uids[event.uid]
    s.provers[event.hotkey].uid = None
    reach(s, event.block)


def _interval_opened(s: State, record: Record, event: IntervalOpened) -> None:
    if s.interval is not None:
        raise InvalidHistory(
            record.seq, f"interval {event.interval} opens while interval {s.interval} is open"
        )
    if s.last_interval is not None and event.interval <= s.last_interval:
        raise InvalidHistory(
            record.seq, f"interval {event.interval} opens after interval {s.last_interval} was closed"
        )
    s.interval = s.last_interval = event.interval
    s.interval_head, s.interval_seq = record.hash, record.seq
    s.commitment = Digest(event.commitment)
    reach(s, event.block)


def _attempt(s: State, record: Record, event: Attempt) -> None:
    state = s.provers.get(event.prover)
    block = event.block
    if s.interval is None:
        raise InvalidHistory(record.seq, "got an attempt between two intervals, expected one to be open")
    if state is None or state.uid is None:
        raise InvalidHistory(record.seq, f"got an attempt of {event.prover}, which holds no UID")
    if event.purpose == "challenge":
        if block <= s.last_step:
            raise InvalidHistory(
                record.seq, f"got an attempt in block {block}, but the step of block {s.last_step} has closed"
            )
        s.earned.setdefault(block, {})
    elif event.route is not None and state.uid not in s.routes.get(event.model, ()):
        raise InvalidHistory(
            record.seq,
            f"got a user's inference for UID {state.uid}, which has no share in the routes of {event.model}",
        )
    state.sent += 1
    s.open_attempts[record.seq] = event
    if block > s.block:
        s.block = block


def _verdict(s: State, record: Record, event: Verdict) -> None:
    attempt = s.open_attempts.get(event.attempt) or s.under_audit.get(event.attempt)
    if attempt is None:
        raise InvalidHistory(
            record.seq,
            f"got a verdict on attempt {event.attempt}, which is not open: none, or judged already",
        )
    outcome = event.outcome
    if outcome == "pass" and not event.replied:
        raise InvalidHistory(record.seq, f"attempt {event.attempt} passed without a reply")
    counted = counts(attempt)
    if not counted and (event.observed is not None or event.evidence_after is not None):
        raise InvalidHistory(
            record.seq,
            f"attempt {event.attempt} left evidence, but its dialect {attempt.dialect} leaves none, or no calibration "
            "covers it",
        )
    s.open_attempts.pop(event.attempt, None)
    s.under_audit.pop(event.attempt, None)
    state = s.provers[attempt.prover]
    state.last_verdict = LastVerdict(record.seq, outcome, event.method, event.reason)
    s.just_judged = (event.attempt, attempt.prover) if counted else None
    if not counted:
        state.native += 1
        state.native_replies += event.replied
        return
    if event.evidence_after is not None:
        state.evidence = event.evidence_after
    x = worth(s, attempt, event)
    if x is None:
        state.inconclusive += 1
        return
    state.attempts += 1
    state.replies += event.replied
    if outcome == "pass":
        succeed(s, attempt, event.tokens_per_s)
        state.verified_tokens += event.tokens
    earn(s, attempt, x)


def _prover_convicted(s: State, record: Record, event: ProverConvicted) -> None:
    if s.just_judged != (event.attempt, event.prover):
        raise InvalidHistory(
            record.seq,
            f"{event.prover} is convicted by attempt {event.attempt}, expected its verdict just before",
        )
    if not conviction.convicts(event.log_e):
        raise InvalidHistory(
            record.seq,
            f"{event.prover} is convicted with evidence of ln e = {event.log_e:.4g}, expected at least "
            f"{conviction.LOG_CONVICTION:.4g}",
        )
    state, left = s.provers[event.prover], conviction.sentence()
    state.tier, state.fallen_from = left.record.tier, left.record.fallen_from
    state.attempts, state.successes = left.record.attempts, left.record.successes
    state.replies, state.inconclusive = left.record.replies, left.record.inconclusive
    state.total_successes = left.record.total_successes
    state.settled_attempts = state.settled_successes = 0
    state.score, state.verified_tokens, state.evidence = left.score, left.verified_tokens, None
    for earned in (
        s.served,
        *s.earned.values(),
    ):  # what it earned in steps that are still open is forfeited, too
        earned.pop(event.prover, None)
    state.convictions += 1
    state.last_conviction = Conviction(record.seq, event.block, event.log_e, event.tokens, event.completions)
    state.first_conviction = state.first_conviction or state.last_conviction
    reach(s, event.block)


def _calibration_adopted(s: State, _record: Record, event: CalibrationAdopted) -> None:
    s.calibrations[event.model] = Digest(event.calibration)
    reach(s, event.block)


def _step_closed(s: State, record: Record, event: StepClosed) -> None:
    if event.block <= s.last_step:
        raise InvalidHistory(
            record.seq, f"the step of block {event.block} closes after that of {s.last_step}"
        )
    for number, attempt in s.open_attempts.items():
        if attempt.block <= event.block and attempt.purpose == "challenge":
            raise InvalidHistory(
                record.seq, f"the step of block {event.block} closes, but attempt {number} has no verdict"
            )
    last = s.earned.setdefault(event.block, {})
    for hotkey, earned in s.served.items():
        last.setdefault(hotkey, []).extend(earned)
    s.served = {}
    for block in sorted(block for block in s.earned if block <= event.block):
        move_scores(s, s.earned.pop(block))
    s.last_step = event.block
    reach(s, event.block)


def _interval_closed(s: State, record: Record, event: IntervalClosed) -> None:
    if event.interval != s.interval:
        raise InvalidHistory(
            record.seq,
            f"interval {event.interval} closes, but "
            + ("none is open" if s.interval is None else f"interval {s.interval} is open"),
        )
    challenges = [number for number, attempt in s.open_attempts.items() if attempt.purpose == "challenge"]
    if challenges:
        raise InvalidHistory(
            record.seq, f"interval {event.interval} closes, but attempt {min(challenges)} has no verdict"
        )
    if s.earned:
        raise InvalidHistory(
            record.seq, f"interval {event.interval} closes, but the step of block {min(s.earned)} has not"
        )
    if draws.commitment(bytes.fromhex(event.secret)) != s.commitment:
        raise InvalidHistory(
            record.seq, f"the secret of interval {event.interval} is not the one that was committed to"
        )
    move_scores(s, s.served)
    s.served = {}
    for state in s.provers.values():
        state.sent = state.inferences = state.audits = 0
        if state.attempts or state.inconclusive:
            _settle(state, profile_of(s))
    medians = {model: rewards.median_speed(speeds) for model, speeds in s.speeds.items()}
    s.medians = {model: median for model, median in medians.items() if median is not None}
    s.speeds = {}
    s.interval = None
    reach(s, event.block)


def _blocks_skipped(s: State, record: Record, event: BlocksSkipped) -> None:
    if event.last < event.first:
        raise InvalidHistory(
            record.seq, f"got blocks {event.first} to {event.last} skipped, expected first <= last"
        )
    s.blocks_skipped += event.last - event.first + 1
    s.last_skipped = max(s.last_skipped, event.last)
    reach(s, event.last)


def _head_anchored(s: State, record: Record, event: HeadAnchored) -> None:
    if event.interval != s.interval or event.head != s.interval_head:
        raise InvalidHistory(
            record.seq,
            f"the head {event.head[:12]}… of interval {event.interval} is anchored, expected the open interval's, "
            f"{s.interval_head[:12]}…",
        )
    if event.interval == s.anchored:
        raise InvalidHistory(record.seq, f"the head of interval {event.interval} is anchored a second time")
    s.anchored, s.anchored_block = event.interval, event.block


def _weights_proposed(s: State, record: Record, event: WeightsProposed) -> None:
    s.proposals[record.seq] = Proposal(
        block=event.block,
        version_key=event.version_key,
        weights=dict(event.weights),
        commit=None if event.commit is None else Digest(event.commit),
        releases=s.interval_seq,
    )
    s.proposed_block = event.block
    reach(s, event.block)


def _weights_set(s: State, record: Record, event: WeightsSet) -> None:
    weights = dict(event.weights)
    if event.proposal is not None:
        proposal = _proposal(s, record, event.proposal)
        if (proposal.weights, proposal.version_key) != (weights, event.version_key):
            raise InvalidHistory(record.seq, f"other weights are set than proposal {event.proposal} has")
        _release(s, event.proposal, s.proposals.pop(event.proposal).releases)
    s.weights = weights
    s.weights_block = event.block
    s.weights_refusal = None


def _weights_not_set(s: State, record: Record, event: WeightsNotSet) -> None:
    if event.proposal is None:
        _release(s, record.seq, s.interval_seq)
    else:
        _proposal(s, record, event.proposal)
        _release(s, event.proposal, s.proposals.pop(event.proposal).releases)
    s.weights_refusal = event.reason
    reach(s, event.block)


def _proposal(s: State, record: Record, number: int) -> Proposal:
    proposal = s.proposals.get(number)
    if proposal is None:
        raise InvalidHistory(
            record.seq, f"got the fate of proposal {number}, which is not open: none, or known already"
        )
    return proposal


def _release(s: State, number: int, before: int) -> None:
    """Let records be published once nothing hangs on them: an older proposal whose fate is open followed from them
    as well, and may stand among them."""
    s.settled[number] = before
    oldest = min(s.proposals, default=s.seq + 2)
    open_still = min(s.open_attempts, default=s.seq + 2)
    for done in [done for done in s.settled if done < oldest]:
        s.released = max(s.released, min(s.settled.pop(done), open_still))


_RULES: dict[str, Callable[[State, Record, Any], None]] = {
    "log_opened": _log_opened,
    "calibration_adopted": _calibration_adopted,
    "prover_joined": _prover_joined,
    "prover_left": _prover_left,
    "interval_opened": _interval_opened,
    "interval_closed": _interval_closed,
    "routes_set": routes_set,
    "attempt": _attempt,
    "answered": answered,
    "withdrawn": withdrawn,
    "verdict": _verdict,
    "prover_convicted": _prover_convicted,
    "step_closed": _step_closed,
    "blocks_skipped": _blocks_skipped,
    "head_anchored": _head_anchored,
    "inputs_committed": inputs_committed,
    "relies_on": relies_on,
    "oracle_faulted": oracle_faulted,
    "weights_proposed": _weights_proposed,
    "weights_set": _weights_set,
    "weights_not_set": _weights_not_set,
}


def settled(standing: ProverStanding | ProverState, profile: Profile) -> tuple[tiers.Record, tiers.Move]:
    """What an interval's end makes of a prover's tier, and why."""
    record = tiers.Record(
        tier=standing.tier,
        attempts=standing.attempts,
        successes=standing.successes,
        replies=standing.replies,
        inconclusive=standing.inconclusive,
        total_successes=standing.total_successes,
        fallen_from=standing.fallen_from,
    )
    return tiers.settle(record, profile)


def _settle(state: ProverState, profile: Profile) -> None:
    after, _ = settled(state, profile)
    if after.attempts < state.attempts:
        state.settled_attempts, state.settled_successes = state.attempts, state.successes
    state.tier, state.fallen_from = after.tier, after.fallen_from
    state.attempts, state.successes = after.attempts, after.successes
    state.replies, state.inconclusive = after.replies, after.inconclusive
