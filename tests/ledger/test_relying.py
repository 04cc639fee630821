"""What a log says of oracles, and what the fold holds it to."""

from __future__ import annotations

from functools import cache

import pytest
from bittensor.keyfiles import Keypair
from pydantic import ValidationError

from targon.ledger import (
    InputsCommitted,
    InvalidHistory,
    OracleFaulted,
    ReliesOn,
    Snapshot,
    Standings,
    parse_event,
)
from targon.ledger.relying import KEPT_COMMITMENTS
from targon.protocol import private_inputs
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.private_inputs import NO_COMMITMENT, Commitment, CommitmentBody
from tests.ledger.history import ALICE, VERIFIER, History

ORACLE = Keypair.create_from_uri("//Oracle")
HOTKEY = Hotkey(ORACLE.ss58_address)


@cache  # each signature of the same is another
def commitment(number: int = 0, *, genesis: str = "ab" * 32, root: str = "01" * 32) -> Commitment:
    body = CommitmentBody(
        genesis=genesis,
        netuid=4,
        oracle=HOTKEY,
        number=number,
        first=Block(10 * number + 10),
        last=Block(10 * number + 19),
        verifiers=(VERIFIER,),
        places=2,
        root=root,
        secret="02" * 32,
        source="03" * 32,
        previous=NO_COMMITMENT,
    )
    return private_inputs.commit(body, ORACLE)


def committed(number: int = 0, block: int = 5, **changes: str) -> InputsCommitted:
    return InputsCommitted(block=Block(block), commitment=commitment(number, **changes))


def relies_on(*inputs: Hotkey, block: int = 6) -> ReliesOn:
    return ReliesOn(block=Block(block), inputs=inputs, why="its next period was committed to in time")


def faulted(block: int = 7) -> OracleFaulted:
    return OracleFaulted(block=Block(block), oracle=HOTKEY, what="misdealt", detail="got leaf 3, expected 4")


@pytest.mark.parametrize("event", [committed(), relies_on(HOTKEY), relies_on(), faulted()])
def test_each_is_read_back_from_its_canonical_bytes(event: InputsCommitted | ReliesOn | OracleFaulted):
    assert parse_event(event.to_bytes()) == event


def test_standings_tell_what_is_relied_on_and_who_was_caught():
    history = History.begun(ALICE).add(committed(), relies_on(HOTKEY), faulted(), relies_on(block=8))
    found = history.standings.oracles[HOTKEY]
    assert found.commitments == [commitment(0)]
    assert found.seen == [5]
    assert (found.fault is not None and found.fault.what) == "misdealt"
    assert history.standings.relies_on == relies_on(block=8)


def test_only_the_newest_commitments_are_kept():
    history = History.begun(ALICE).add(*(committed(number) for number in range(KEPT_COMMITMENTS + 2)))
    found = history.standings.oracles[HOTKEY]
    assert [kept.body.number for kept in found.commitments] == [2, 3, 4]
    assert len(found.seen) == KEPT_COMMITMENTS


def test_they_move_nothing_of_a_provers():
    plain = History.begun(ALICE).step(5, (ALICE, "pass"))
    told = History.begun(ALICE).add(committed(), relies_on(HOTKEY)).step(5, (ALICE, "pass")).add(faulted())
    one, other = plain.standings.prover(ALICE), told.standings.prover(ALICE)
    assert one is not None
    assert other is not None
    assert (one.score, one.tier, one.attempts) == (other.score, other.tier, other.attempts)


def test_a_snapshot_keeps_them():
    history = History.begun(ALICE).add(committed(), relies_on(HOTKEY), faulted())
    snapshot = Snapshot(history.head, history.standings.to_snapshot())
    again = Standings.from_snapshot(snapshot)
    assert again.oracles == history.standings.oracles
    assert again.relies_on == history.standings.relies_on
    assert again.to_snapshot() == history.standings.to_snapshot()


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ([committed(genesis="ac" * 32)], "got a commitment for subnet 4 of acacacacacac"),
        ([committed(), committed(block=6)], "logged a second time"),
        ([relies_on(HOTKEY)], "expected a commitment of its before"),
        ([faulted(), relies_on(HOTKEY)], "expected a commitment of its before"),
    ],
)
def test_what_cannot_follow_is_refused(
    events: list[InputsCommitted | ReliesOn | OracleFaulted], problem: str
):
    history = History.begun(ALICE)
    with pytest.raises(InvalidHistory, match=problem):
        history.add(*events)


def test_two_commitments_that_contradict_each_other_may_both_stand_in_a_log():
    history = History.begun(ALICE).add(committed(), committed(root="04" * 32))
    assert len(history.standings.oracles[HOTKEY].commitments) == 2


@pytest.mark.parametrize(("reference", "agreeing"), [((), 1), ((HOTKEY,), 0), ((HOTKEY,), 2)])
def test_as_many_must_agree_as_there_are_and_one_at_least(reference: tuple[Hotkey, ...], agreeing: int):
    with pytest.raises(ValidationError, match="agreeing"):
        ReliesOn(block=Block(1), reference=reference, agreeing=agreeing, why="it was told so")
