"""A verifier that doesn't follow its own draws: each way of it is named, and by what was to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.written_log import MODEL
from targon.audit.drawing import OWN_EARLIEST_BLOCKS
from targon.ledger import Record, Route
from targon.protocol import draws, routing
from targon.protocol.audits import OWN_LATEST_BLOCKS, own_inference_due
from targon.protocol.primitives import Block
from targon.verification import Observations
from tests.audit.test_suited import FAVOURITE, FIRST, Suited, audited, events_of, kinds

pytestmark = pytest.mark.anyio


class Asking(Suited):
    """Asks its favourite at the turn that a test has it take, wherever there is one."""

    def turn(self, falls: list[bool]) -> int | None:
        """Of turns, each of which falls on the favourite or not, one that isn't its first."""
        raise NotImplementedError

    def _inference(self, block: Block) -> list[Record]:
        number = self.next
        shares = list(self.standings.routes(MODEL).items())
        turn = self.turn(
            [routing.pick(draws.route_draw(self._secret, number, turn), shares) == FIRST for turn in range(8)]
        )
        if turn is None or self._left(FAVOURITE) < 1:
            return super()._inference(block)
        is_audited = self._is_audited(number, FAVOURITE)
        made = self.add(self._attempt(FAVOURITE, block, "inference", Route(turn=turn)))
        return [*made, *self._answer(number, FAVOURITE, block, audited=is_audited)]


class OnNobody(Asking):
    def turn(self, falls: list[bool]) -> int | None:
        return None if falls[0] else 0


class OnceMore(Asking):
    def turn(self, falls: list[bool]) -> int | None:
        again = [turn for turn, each in enumerate(falls) if each][1:]
        return again[0] if again else None


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (OnNobody, "on whom that turn's draw falls"),
        (OnceMore, "at the first turn that falls on it"),
    ],
)
async def test_whoever_is_asked_at_another_turn_than_its_own_is_named(
    tmp_path: Path, kind: type[Asking], told: str
) -> None:
    report = await audited(events_of(kind(per_block=1, challenges=1, signed=False).live(32)), tmp_path)
    assert kinds(report) == {"draw"}
    assert all(told in fault.expected for fault in report.faults.kept)


class OnceUnbidden(Suited):
    """Sends its favourite an inference of its own, once, when none was due for a long time before and after."""

    sent: Block | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.profile = self.profile.model_copy(update={"interval_blocks": 200})

    def _own(self, block: Block) -> list[Record]:
        near = range(max(0, block - OWN_LATEST_BLOCKS), block + OWN_EARLIEST_BLOCKS + 1)
        if self.sent is not None or near.stop > 200 or any(self._due(Block(each)) for each in near):
            return []
        self.sent = block
        number = self.next
        made = self.add(self._attempt(FAVOURITE, block, "inference", None))
        return [*made, *self._answer(number, FAVOURITE, block, audited=True)]

    def _due(self, block: Block) -> bool:
        draw = draws.own_inference_draw(self._secret, block, self._keys[FAVOURITE])
        return own_inference_due(draw, audits=0, interval_blocks=200)


async def test_one_inference_of_its_own_that_was_not_due_is_named(tmp_path: Path) -> None:
    life = OnceUnbidden(per_block=0, challenges=1, signed=False)
    life.live(401)
    assert life.sent is not None
    (fault,) = (await audited(events_of(life), tmp_path)).faults.kept
    assert (fault.kind, "none was due" in fault.expected) == ("draw", True)


class AtTheLast(OnceUnbidden):
    """Sends each inference of its own in the last block in which it may."""

    def _own(self, block: Block) -> list[Record]:
        made: list[Record] = []
        due = Block(block - OWN_LATEST_BLOCKS + 1)
        if due >= 0 and block < 200 and self._due(due) and self._left(FAVOURITE) > 0:
            number = self.next
            made = self.add(self._attempt(FAVOURITE, block, "inference", None))
            made += self._answer(number, FAVOURITE, block, audited=True)
        return made


async def test_inferences_of_its_own_that_are_sent_as_late_as_may_be_are_told_apart(tmp_path: Path) -> None:
    """What was drawn since for the same prover is not taken for what is only being sent now."""
    life = AtTheLast(per_block=0, challenges=1, signed=False)
    life.live(201)
    report = await audited(events_of(life), tmp_path)
    assert kinds(report) == set()
    assert report.draws.own >= 3


class Suspicious(Suited):
    """Its provers' answers have more mismatches than honest ones', though seldom enough to convict them at once."""

    def _observation(self, place: int) -> Observations:
        usual = super()._observation(place)
        mismatched = (usual.gaps < 0.2) & (np.random.default_rng(place + 100).random(64) < 0.4)
        fields = {name: getattr(usual, name) for name in Observations.__slots__}
        return Observations.unpack(Observations(**fields | {"mismatched": mismatched}).pack())


async def test_whoever_is_suspected_is_audited_more_often_and_that_is_as_drawn(tmp_path: Path) -> None:
    life = Suspicious(per_block=4, challenges=2, signed=False).live(40)
    assert max(state.log_e for state in life._states.values()) > 1.0
    report = await audited(events_of(life), tmp_path)
    assert kinds(report) == set()
    assert report.draws.audits > 50
