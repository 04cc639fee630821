"""What an oracle has committed to, as far as a verifier saw it: decides what follows, and what it is caught at. No I/O.

Rules:

1. Each commitment is signed by the oracle, for this network.
2. No two contradict each other: each block's private inputs are in one of them alone, and each number has one.
3. Each names the one before it, where that was seen; and later numbers are of later blocks.
4. A period serves where its commitment was seen before its first block. One that was seen later may have been made when
   the oracle knew whose each private input would be; be it late, or we, its inputs are not taken.
5. They are taken one after the other, without gaps, and of those that aren't over no more than MOST_OPEN: more wait in
   the oracle's list. So a list that never ends fills no log, and pushes nothing out that is needed.
6. In an interval, no more of them are taken than MOST_BYTES hold: what comes beyond waits for the next interval. An
   oracle whose text comes slowly makes periods of one block, and has room for them; one that fills logs hasn't.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from targon.ledger import Caught
from targon.ledger.relying import KEPT_COMMITMENTS
from targon.protocol.errors import InvalidSignature, PrivateInputMismatch
from targon.protocol.primitives import Block, Digest, Hotkey, Interval
from targon.protocol.private_inputs import (
    Commitment,
    CommitmentBody,
    PrivateInput,
    check_commitment,
    contradict,
    deal,
)
from targon.protocol.schedule import INTERVAL_BLOCKS, interval_of

MOST_OPEN: Final = KEPT_COMMITMENTS
"""Commitments of periods that aren't over that are taken at once: an honest oracle has made two."""
MOST_BYTES: Final = 4 << 20
"""Of the commitments that are taken in an interval: 360 of one block each for 64 verifiers have half of it."""
MOST_AT_ONCE: Final = 64
"""That are looked at of one list."""


class OracleCaught(Exception):
    """What an oracle said can't be.

    Attributes:
        what: by name.
        detail: in words.
        shown: the commitments that it was caught by, which together are proof.
        given: the private input that it was caught by.
    """

    def __init__(
        self,
        what: Caught,
        detail: str,
        *,
        shown: tuple[Commitment, ...] = (),
        given: PrivateInput | None = None,
    ) -> None:
        self.what: Caught = what
        self.detail = detail
        self.shown = shown
        self.given = given
        super().__init__(f"{what}: {detail}")


class NotCovered(Exception):
    """No commitment serves for a block; its text says why."""


class NoPlace(NotCovered):
    """The commitment for a block has no place for the verifier."""


class Commitments:
    """Those of one oracle that count now: the running period's, and what comes after it."""

    def __init__(self, oracle: Hotkey, genesis: Digest, netuid: int) -> None:
        self.oracle = oracle
        self._network = genesis, netuid
        self._kept: list[tuple[Commitment, Block]] = []
        self._taken = Interval(-1), 0
        """Bytes of the commitments that were taken in an interval."""
        self._crowded = Interval(-1)
        """The interval in which there was no room for another."""

    def keep(self, commitment: Commitment, seen: Block) -> None:
        """Keep one that was looked at, with the block that it was first seen in."""
        self._kept = [*self._kept, (commitment, seen)][-KEPT_COMMITMENTS:]
        if commitment.body.last >= seen:  # of those that are over nothing is written down
            self._taken = interval_of(seen), self._bytes_in(seen) + len(commitment.to_bytes())

    def is_crowded(self, block: Block) -> bool:
        """Whether there was no room for another in a block's interval."""
        return self._crowded == interval_of(block)

    def _bytes_in(self, block: Block) -> int:
        interval, taken = self._taken
        return taken if interval == interval_of(block) else 0

    @property
    def newest(self) -> CommitmentBody | None:
        return self._kept[-1][0].body if self._kept else None

    def strange(self, listed: Sequence[Commitment]) -> bool:
        """Whether there is one in a list that was not seen before."""
        known = [commitment.body for commitment, _ in self._kept]
        return any(commitment.body not in known for commitment in listed)

    def unseen(self, listed: Sequence[Commitment], block: Block) -> list[Commitment]:
        """Those of a list that come next, each looked at.

        Args:
            block: the newest one.

        Raises:
            OracleCaught: at the first that can't be.
        """
        known = [commitment for commitment, _ in self._kept]
        found: list[Commitment] = []
        size = self._bytes_in(block)
        for commitment in listed[:MOST_AT_ONCE]:
            body = commitment.body
            if (body.genesis, body.netuid, body.oracle) != (*self._network, self.oracle):
                raise OracleCaught(
                    "malformed",
                    f"a commitment of {body.oracle} for subnet {body.netuid} of {body.genesis[:12]}…, expected its own "
                    f"for subnet {self._network[1]} of {self._network[0][:12]}…",
                )
            if any(body == other.body for other in known):
                continue
            self._look(commitment, known)
            newest = known[-1].body.number if known else body.number - 1
            if body.number < newest:
                continue  # it is older than all that count, and contradicts none of them
            if body.number > newest + 1:
                raise OracleCaught(
                    "malformed", f"commitment {body.number} next to {newest}, expected {newest + 1}"
                )
            if sum(other.body.last >= block for other in known) >= MOST_OPEN:
                break
            if body.last >= block:
                size += len(commitment.to_bytes())
                if size > MOST_BYTES:
                    self._crowded = interval_of(block)
                    break
            known.append(commitment)
            found.append(commitment)
        return found

    def _look(self, commitment: Commitment, known: Sequence[Commitment]) -> None:
        body, before = commitment.body, None
        try:
            check_commitment(commitment)
            for one in known:
                other = one.body
                if contradict(other, body):
                    raise OracleCaught(
                        "equivocated",
                        f"commitment {body.number} for blocks {body.first} to {body.last} with root {body.root[:12]}…, "
                        f"and commitment {other.number} for blocks {other.first} to {other.last} with root "
                        f"{other.root[:12]}…",
                        shown=(one, commitment),
                    )
            for one in known:
                other = one.body
                if (other.number < body.number) != (other.last < body.first):
                    before = one
                    raise PrivateInputMismatch(
                        "number",
                        f"{body.number}, for blocks {body.first} to {body.last}",
                        f"in the order of blocks: {other.number} is for blocks {other.first} to {other.last}",
                        of="commitment",
                    )
                if other.number == body.number - 1:
                    before = one
            if before is not None:
                check_commitment(commitment, before.body)
        except InvalidSignature as error:
            raise OracleCaught("unsigned", f"commitment {body.number}: {error}") from error
        except PrivateInputMismatch as error:
            shown = (commitment,) if before is None else (before, commitment)
            raise OracleCaught("unchained", f"commitment {body.number}: {error}", shown=shown) from error

    def covering(self, block: Block, verifier: Hotkey) -> CommitmentBody:
        """The commitment whose period a block lies in, with places for a verifier.

        Raises:
            NotCovered: if there is none that serves.
        """
        for commitment, seen in self._kept:
            body = commitment.body
            if not body.first <= block <= body.last:
                continue
            if seen >= body.first:
                raise NotCovered(
                    f"its commitment to blocks {body.first} to {body.last} was first seen in block {seen}, not before"
                )
            if verifier not in body.verifiers:
                raise NoPlace(f"it has no place for this verifier in blocks {body.first} to {body.last}")
            return body
        if self.is_crowded(block):
            again = (interval_of(block) + 1) * INTERVAL_BLOCKS
            raise NotCovered(
                f"it commits too often: {MOST_BYTES} bytes of its commitments are taken in an interval, and the next "
                f"one begins in block {again}"
            )
        raise NotCovered(f"it has committed to nothing for block {block}, as far as was seen")

    def follows(self, block: Block) -> bool:
        """Whether what comes after a block's period is committed to already."""
        return any(commitment.body.first > block for commitment, _ in self._kept)

    def left(self, block: Block) -> int:
        """Blocks to the end of what is committed to; 0: it has ended."""
        newest = self.newest
        return 0 if newest is None else max(0, newest.last - block)


def own_leaves(body: CommitmentBody, first_hash: str, verifier: Hotkey) -> npt.NDArray[np.int64]:
    """A verifier's leaves of a period: (blocks, places)."""
    blocks = body.last - body.first + 1
    dealt = deal(body, first_hash).reshape(blocks, len(body.verifiers), body.places)
    return dealt[:, body.verifiers.index(verifier), :].copy()  # the others' need not be kept
