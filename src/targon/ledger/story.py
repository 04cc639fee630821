"""Why a prover stands where it stands: its history in words, from the log and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from targon.ledger import rules
from targon.ledger.errors import UnknownProver
from targon.ledger.events import (
    Answered,
    Attempt,
    IntervalClosed,
    ProverConvicted,
    ProverJoined,
    ProverLeft,
    StepClosed,
    Verdict,
    WeightsSet,
    Withdrawn,
)
from targon.ledger.fold import Standings, replay
from targon.ledger.port import Log, Record
from targon.ledger.standing import ProverStanding
from targon.protocol.conviction import ALPHA, CONVICTION
from targon.protocol.primitives import Block, Hotkey, Uid
from targon.protocol.weights import MAX_WEIGHT

EntryKind = Literal[
    "joined", "left", "answered", "withdrawn", "verdict", "convicted", "score", "tier", "weight"
]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that moved, or could have moved, a prover's standing."""

    seq: int
    """The record in which it stands."""
    block: Block
    kind: EntryKind
    text: str
    """One line, for people."""


async def explain(log: Log, who: Uid | Hotkey) -> list[Entry]:
    """The history of one prover, oldest first.

    Args:
        who: a UID (of the hotkey that holds it now, else of the last one that held it) or a hotkey.

    Raises:
        UnknownProver: if the log says nothing of it.
    """
    hotkey = await _identify(log, who)
    standings = Standings()
    entries: list[Entry] = []
    async for record in log.read():
        before = standings.prover(hotkey) if _may_concern(record) else None
        attempt = _judged(standings, record)
        standings.apply(record)
        if _may_concern(record):
            entries += _tell(record, attempt, before, standings, hotkey)
    return entries


async def _identify(log: Log, who: Uid | Hotkey) -> Hotkey:
    standings = await replay(log)
    if isinstance(who, str):
        if standings.prover(who) is None:
            raise UnknownProver(f"got hotkey {who}, expected one that held a UID in this log")
        return who
    holder = standings.holder(who)
    if holder is not None:
        return holder.hotkey
    last: Hotkey | None = None
    async for record in log.read():
        if isinstance(record.event, ProverJoined) and record.event.uid == who:
            last = record.event.hotkey
    if last is None:
        held = ", ".join(str(prover.uid) for prover in standings.provers() if prover.uid is not None)
        raise UnknownProver(
            f"got UID {who}, expected one that a prover holds or held: {held or 'there is none'}"
        )
    return last


_ENDINGS = (Answered, Withdrawn, Verdict)
_CONCERNING = (
    ProverJoined,
    ProverLeft,
    *_ENDINGS,
    ProverConvicted,
    StepClosed,
    IntervalClosed,
    WeightsSet,
)


def _may_concern(record: Record) -> bool:
    return isinstance(record.event, _CONCERNING)


def _judged(standings: Standings, record: Record) -> Attempt | None:
    """The attempt whose end is told, while it awaits it."""
    event = record.event
    return standings.attempt(event.attempt) if isinstance(event, _ENDINGS) else None


def _tell(
    record: Record,
    attempt: Attempt | None,
    before: ProverStanding | None,
    standings: Standings,
    hotkey: Hotkey,
) -> list[Entry]:
    """What one record, just folded in, means for a prover."""
    event = record.event
    after = standings.prover(hotkey)
    if after is None:
        return []
    told: tuple[EntryKind, str] | None = None
    if isinstance(event, ProverJoined | ProverLeft):
        if event.hotkey == hotkey:
            told = _told_of_seat(event, before)
    elif isinstance(event, Verdict):
        if attempt is not None and attempt.prover == hotkey:
            told = "verdict", _verdict_in_words(attempt, event, standings.worth(attempt, event))
    elif isinstance(event, Answered):
        if attempt is not None and attempt.prover == hotkey:
            told = "answered", _answer_in_words(event, standings.earned_by(attempt, event))
    elif isinstance(event, Withdrawn):
        if attempt is not None and attempt.prover == hotkey:
            told = "withdrawn", f"inference withdrawn: {_WITHDRAWN[event.why]}; counts for nothing"
    elif isinstance(event, ProverConvicted):
        if event.prover == hotkey:
            told = "convicted", _conviction_in_words(event)
    elif before is not None and isinstance(event, StepClosed):
        if before.score != after.score:
            told = (
                "score",
                f"score {before.score:.4f} → {after.score:.4f} after the work of block {event.block}",
            )
    elif before is not None and isinstance(event, IntervalClosed):
        told = "tier", _tier_in_words(event, before, standings)
    elif isinstance(event, WeightsSet):
        told = _told_of_weight(event, after)
    if told is None:
        return []
    block = attempt.block if attempt is not None else getattr(event, "block", standings.block)
    return [Entry(record.seq, block, *told)]


def _told_of_seat(event: ProverJoined | ProverLeft, before: ProverStanding | None) -> tuple[EntryKind, str]:
    if isinstance(event, ProverLeft):
        return "left", f"left UID {event.uid}; it keeps its standing"
    if before is None:
        return "joined", f"joined as UID {event.uid}, a new hotkey"
    return (
        "joined",
        f"came back as UID {event.uid} with what it had: {before.tier.label}, score {before.score:.4f}",
    )


_WITHDRAWN = {
    "user_left": "whoever had asked hung up",
    "outrun": "another prover, asked for the same, began to answer first",
    "busy": "it was sent more than it takes at once, and refused",
    "unservable": "our own engine refuses what was asked, as it did",
}


def _answer_in_words(event: Answered, x: float | None) -> str:
    answer = f"inference answered: {event.tokens} tokens"
    if event.audited:
        return f"{answer}; drawn for an audit, which decides what it earns"
    return f"{answer}; {_worth_in_words(x)}"


def _worth_in_words(x: float | None) -> str:
    return f"earns {x:+.3f}" if x is not None else "counts for nothing"


def _verdict_in_words(attempt: Attempt, verdict: Verdict, x: float | None) -> str:
    outcome = {"pass": "passed", "fail": "failed", "inconclusive": "inconclusive"}[verdict.outcome]
    return f"{attempt.purpose} {outcome} ({verdict.method}): {verdict.reason}; {_worth_in_words(x)}"


def _conviction_in_words(event: ProverConvicted) -> str:
    fits = f" What fits best: {event.looks_like}." if event.looks_like else ""
    return (
        f"convicted after {event.tokens} verified tokens of {event.completions} answers: the evidence reached "
        f"e = {_large(event.log_e)}, and an honest prover's ever reaches {CONVICTION:,.0f} with probability "
        f"{ALPHA:g} at most.{fits} It falls to Bronze, with score and weight 0, until as many tokens as the "
        "probation asks for were verified anew"
    )


def _large(log_e: float) -> str:
    """e in digits, however large."""
    exponent = math.floor(log_e / math.log(10.0))
    return f"{math.exp(log_e):,.0f}" if exponent < 9 else f"10^{exponent}"


def _tier_in_words(event: IntervalClosed, before: ProverStanding, standings: Standings) -> str:
    _, move = rules.settled(before, standings.profile)
    change = f"{move.before.label} → {move.after.label}" if move.before != move.after else move.after.label
    return f"interval {event.interval}: {move.kind}, {change}: {move.why}"


def _told_of_weight(event: WeightsSet, after: ProverStanding) -> tuple[EntryKind, str] | None:
    if after.uid is None:
        return None
    weight = dict(event.weights).get(after.uid, 0)
    why = "" if weight else ": on probation" if after.on_probation else f": score {after.score:.4f}"
    if not weight and after.on_probation and after.last_conviction is not None:
        why = f": on probation since its conviction in block {after.last_conviction.block}"
    return "weight", f"weight {weight} of {MAX_WEIGHT}{why}"
