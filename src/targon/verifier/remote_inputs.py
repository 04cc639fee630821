"""Private inputs from an oracle: asked for by place, and checked before they are used.

What it committed to is read every few blocks, checked, and logged before its period begins
(:mod:`targon.verifier.commitments`). An oracle that doesn't answer is left alone for a while, each time for longer. One
that is caught at something is named in the log and left: for good if it said two things under its signature, which no
outage explains, else for an interval, since what lies between us may have spoiled an answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

import anyio
import anyio.to_thread
import numpy as np
import numpy.typing as npt
import structlog

from targon.chain import Axon, Chain, ChainError
from targon.http import Malformed
from targon.ledger import Caught, InputsCommitted, OracleFaulted
from targon.protocol.errors import InvalidSignature, PrivateInputMismatch
from targon.protocol.keys import Signer, verify_signature
from targon.protocol.primitives import Block, Digest, Hotkey
from targon.protocol.private_inputs import (
    Commitment,
    CommitmentBody,
    PrivateInput,
    PrivateInputBody,
    check_input,
    signed_input,
)
from targon.transport import BadResponse, Code, OracleClient, Refused, TransportError
from targon.verifier.addresses import address_of
from targon.verifier.commitments import (
    MOST_BYTES,
    Commitments,
    NoPlace,
    NotCovered,
    OracleCaught,
    own_leaves,
)
from targon.verifier.fitness import Unfit, check_fit
from targon.verifier.journal import Journal
from targon.verifier.permit import OurPlace, Permit
from targon.verifier.ports import PrivateInputUnavailable

INPUT_S: Final = 5.0
"""How long an oracle has for one private input, and for its commitments."""
LOOK_BLOCKS: Final = 4
"""Blocks between two looks at what it committed to."""
LOOK_CLOSELY: Final = 6
"""Blocks before the end of what is committed to, from which on each block brings a look."""
MAX_AWAY_BLOCKS: Final = 60
"""Longest that one is left alone that says what it committed to, and gives none of it."""
UNSETTLED_BLOCKS: Final = 3
"""How many of a period's first blocks whose each leaf is may be in doubt in: the chain may replace a new block."""
MAX_PAGES: Final = 4
"""Of what it committed to, that are read in one look. What is left is read in the next."""
FOR_GOOD: Final[frozenset[Caught]] = frozenset({"equivocated", "unchained"})
"""What nothing but the oracle itself can have done."""
_GARBLED: Final = frozenset({"malformed", "too_large", "inconsistent"})

logger = structlog.get_logger(__name__)


class OutOfPlaces(PrivateInputUnavailable):
    """All of a block's places are taken."""


class Unsettled(Exception):
    """The oracle may have seen another first block of the period than we did."""


class RemoteInputs:
    """One oracle's private inputs.

    Args:
        permit: our own, by which is judged whether it leaves us out.
        tell: counts a trouble, by its kind.
        pardoned: whether what the log says it was caught at until now is to be forgotten.
    """

    def __init__(
        self,
        oracle: Hotkey,
        host: str,
        port: int,
        *,
        client: OracleClient,
        signer: Signer,
        chain: Chain,
        journal: Journal,
        permit: Permit,
        tell: Callable[[str], None],
        pardoned: bool = False,
    ) -> None:
        self.oracle = oracle
        self._host = host
        self._port = port
        self._client = client
        self._signer = signer
        self._me = Hotkey(signer.ss58_address)
        self._chain = chain
        self._journal = journal
        self._place_of_ours = OurPlace(oracle, self._me, permit, tell)
        self._tell = tell
        self._pardoned = pardoned
        self._pardoned_to = journal.head.seq if pardoned else -1
        self._made: Commitments | None = None
        self._looked: Block | None = None
        self._failures = 0
        self._unread_until = self._away_until = Block(0)
        self._away = "it was not asked yet"
        self._places: dict[Block, dict[int, int]] = {}
        self._dealt: dict[Digest, npt.NDArray[np.int64]] = {}
        """Our leaves of a period: (blocks, places)."""
        self._dealing = anyio.Lock()
        self._reading = anyio.Lock()
        self._denouncing = False

    # -- whether it serves -------------------------------------------------------------------------------

    def trouble(self, block: Block) -> str | None:
        """Why a block's private inputs can't be had from it; None: they can."""
        caught = self._caught(block)
        if caught is not None:
            return caught
        if self._looked is None or block < self._away_until:
            return self._away
        try:
            self._commitments.covering(block, self._me)
        except NoPlace as error:
            return self._place_of_ours.left_out or str(error)
        except NotCovered as error:
            return str(error)
        return None

    def _caught(self, block: Block) -> str | None:
        state = self._journal.standings.oracles.get(self.oracle)
        fault = None if state is None else state.fault
        if fault is None or fault.seq <= self._pardoned_to:
            return None
        if fault.what in FOR_GOOD:
            return f"{fault.what} (block {fault.block}): it isn't used until you pardon it (--oracle.pardon)"
        until = fault.block + self._journal.standings.profile.interval_blocks
        return (
            f"{fault.what} (block {fault.block}): it isn't used until block {until}"
            if block < until
            else None
        )

    @property
    def _commitments(self) -> Commitments:
        if self._made is None:
            standings = self._journal.standings
            assert standings.opened is not None  # nothing is asked before the log is open
            made = Commitments(self.oracle, Digest(standings.opened.genesis), standings.opened.netuid)
            state = standings.oracles.get(self.oracle)
            if state is not None and not self._pardoned:
                for commitment, seen in zip(state.commitments, state.seen, strict=True):
                    made.keep(commitment, seen)
            self._made = made
        return self._made

    # -- what it committed to ----------------------------------------------------------------------------

    async def look(self, block: Block) -> None:
        """Look at what it committed to, if that is due in a block. Its troubles, and ours, are noted."""
        if self._caught(block) is not None or block < self._unread_until or not self._due(block):
            return
        try:
            with anyio.fail_after(INPUT_S):
                await self._read()
        except OracleCaught as caught:
            await self._denounce(caught, block)
        except (TransportError, TimeoutError, OSError) as error:
            if await self._failed(error, block, Block(block + LOOK_BLOCKS)):
                self._unread_until, self._looked = Block(block + LOOK_BLOCKS), None
        except ChainError as error:
            logger.warning("oracle_not_looked_at", oracle=self.oracle, error=str(error))
        else:
            self._looked = block
        self._forget(block)

    def _due(self, block: Block) -> bool:
        if self._looked is None or block >= self._looked + LOOK_BLOCKS:
            return True
        return self._commitments.left(block) <= LOOK_CLOSELY and not self._commitments.follows(block)

    async def _read(self) -> None:
        endpoint = await self._endpoint()
        async with self._reading:
            for _ in range(MAX_PAGES):
                newest = self._commitments.newest
                start = await self._begin(endpoint) if newest is None else newest.number
                if start is None:
                    return  # it has committed to nothing yet
                listed = await self._client.commitments(endpoint, self.oracle, self._signer, start)
                if newest is not None and all(one.body.number != newest.number for one in listed):
                    listed = await self._told_instead(endpoint)
                if not self._commitments.strange(listed):
                    return
                seen = await self._chain.block()
                crowded = self._commitments.is_crowded(seen)
                unseen = self._commitments.unseen(listed, seen)
                if not crowded and self._commitments.is_crowded(seen):
                    self._say_too_often(seen)
                for commitment in unseen:
                    await self._keep(commitment, seen)
                if not unseen:
                    return

    def _say_too_often(self, block: Block) -> None:
        self._tell("too_often")
        logger.error(
            "oracle_commits_too_often",
            oracle=self.oracle,
            block=block,
            expected=f"at most {MOST_BYTES} bytes of commitments in an interval",
            do="its private inputs are used again in the next interval: ask its operator for longer periods",
        )

    async def _told_instead(self, endpoint: Axon) -> tuple[Commitment, ...]:
        """What an oracle tells that no longer tells what it signed: it lost its memory, or has two."""
        start = await self._begin(endpoint)
        if start is None:
            return ()
        return await self._client.commitments(endpoint, self.oracle, self._signer, start)

    async def _begin(self, endpoint: Axon) -> int | None:
        """The number of the oldest commitment that still matters, for who has seen none; None: there is none."""
        status = await self._client.oracle_status(endpoint, self.oracle, self._signer)
        return status.periods[0].number if status.periods else None

    async def _keep(self, commitment: Commitment, seen: Block) -> None:
        logged = self._logged(commitment)
        if (
            logged is None and commitment.body.last >= seen
        ):  # of those that are over, only the chain of them counts
            await self._journal.append(InputsCommitted(block=seen, commitment=commitment))
        self._commitments.keep(commitment, seen if logged is None else logged)
        self._place_of_ours.look(commitment.body)

    def _logged(self, commitment: Commitment) -> Block | None:
        """The block that the log says it was first seen in; None: it doesn't stand there."""
        state = self._journal.standings.oracles.get(self.oracle)
        known = () if state is None else zip(state.commitments, state.seen, strict=True)
        return next((seen for kept, seen in known if kept.body == commitment.body), None)

    # -- private inputs ----------------------------------------------------------------------------------

    async def private_input(self, block: Block, draw: int) -> PrivateInputBody:
        """The private input of a draw's place; places are taken in the order in which draws first ask.

        Raises:
            OutOfPlaces: if the block's are all taken.
            PrivateInputUnavailable: if the oracle doesn't give it. It is left alone then for a while.
        """
        trouble = self.trouble(block)
        if trouble is not None:
            raise PrivateInputUnavailable(f"oracle {self.oracle}: {trouble}")
        try:
            with anyio.fail_after(INPUT_S):
                given = await self._ask(block, draw)
        except OracleCaught as caught:
            await self._denounce(caught, block)
            raise PrivateInputUnavailable(f"oracle {self.oracle}: {caught}") from caught
        except (TransportError, TimeoutError, OSError, Unfit, Unsettled) as error:
            if block >= self._away_until:  # else it is one of many that were asked at once
                again = Block(block + min(2 << self._failures, MAX_AWAY_BLOCKS))
                if await self._failed(error, block, again):
                    self._away_until, self._failures = again, self._failures + 1
            raise PrivateInputUnavailable(f"oracle {self.oracle}: {self._away}") from error
        except (ChainError, NotCovered) as error:
            raise PrivateInputUnavailable(f"oracle {self.oracle}: {error}") from error
        self._failures = 0
        return given.body

    async def _ask(self, block: Block, draw: int) -> PrivateInput:
        """A private input of a block, or of the oracle's newest, where that has come meanwhile."""
        endpoint = await self._endpoint()
        moved = False
        while True:
            body = self._commitments.covering(block, self._me)
            place = self._place(block, draw, body.places)
            try:
                given = await self._client.private_input(endpoint, self.oracle, self._signer, place, block)
            except Refused as error:
                if error.code == Code.BLOCK_GONE and not moved:
                    block, moved = max(Block(block + 1), await self._chain.block()), True
                elif error.code == Code.BLOCK_NOT_YET:
                    await anyio.sleep(min(1.0, error.retry_after_s or 1.0))
                else:
                    raise
            else:
                await self._check(given, body, block, place)
                return given

    def _place(self, block: Block, draw: int, places: int) -> int:
        taken = self._places.setdefault(block, {})
        place = taken.get(draw)
        if place is None:
            if len(taken) >= places:
                self._tell("out_of_places")
                raise OutOfPlaces(f"oracle {self.oracle}: all {places} places of block {block} are taken")
            place = taken[draw] = len(taken)
        return place

    async def _check(self, given: PrivateInput, body: CommitmentBody, block: Block, place: int) -> None:
        """Check a private input.

        Raises:
            OracleCaught: if it isn't what it must be.
        """
        said = given.body
        try:
            verify_signature(self.oracle, signed_input(said), bytes.fromhex(given.signature))
        except InvalidSignature as error:
            raise OracleCaught("unsigned", f"block {block}, place {place}: {error}") from error
        if (said.block, said.place) != (block, place):
            detail = f"got block {said.block}, place {said.place}, expected block {block}, place {place}"
            raise OracleCaught("misdealt", detail, given=given)
        try:
            await self._hold_to(given, body)
        except PrivateInputMismatch as error:
            if error.field == "leaf" and block < body.first + UNSETTLED_BLOCKS:
                raise Unsettled(str(error)) from error
            if error.field == "commitment":
                with contextlib.suppress(TransportError):
                    await self._read()  # if it shows another for this block, it is caught there
            what: Caught = "uncommitted" if error.field in ("root", "proof") else "misdealt"
            raise OracleCaught(what, f"block {block}, place {place}: {error}", given=given) from error
        check_fit(said.text)

    async def _hold_to(self, given: PrivateInput, body: CommitmentBody) -> None:
        check_input(given, body, verifier=self._me)
        said = given.body
        place = said.block - body.first, said.place
        if (await self._deal(body))[place] == said.leaf:
            return
        # The newest blocks of a chain may still be replaced: it may have dealt by what is now the first block.
        self._dealt.pop(body.digest(), None)
        expected = int((await self._deal(body))[place])
        if said.leaf != expected:
            raise PrivateInputMismatch("leaf", said.leaf, expected)

    async def _deal(self, body: CommitmentBody) -> npt.NDArray[np.int64]:
        """Our leaves of a period: (blocks, places)."""
        digest = body.digest()
        async with self._dealing:
            if digest not in self._dealt:
                first_hash = await self._chain.block_hash(body.first)
                made = await anyio.to_thread.run_sync(own_leaves, body, first_hash, self._me)
                self._dealt = {**dict(list(self._dealt.items())[-1:]), digest: made}
            return self._dealt[digest]

    # -- troubles ----------------------------------------------------------------------------------------

    async def _failed(self, error: Exception, block: Block, again: Block) -> bool:
        """Say that it didn't answer, or refused, and is asked again in a block; False: it is caught by its answer."""
        garbled = isinstance(error, BadResponse) and error.reason in _GARBLED
        if garbled and not isinstance(error.__cause__, Malformed):  # whoever speaks no HTTP may be anybody
            await self._denounce(OracleCaught("malformed", str(error)), block)
            return False
        if isinstance(error, Refused):
            kind, why = "refused", f"it refuses: {error.message} ({error.code})"
        elif isinstance(error, TransportError):
            kind, why = "away", f"it doesn't answer: {error}"
        elif isinstance(error, TimeoutError):
            kind, why = "away", f"it gave nothing within {INPUT_S:g} s"
        elif isinstance(error, Unfit):
            kind, why = "unfit", f"what it gave can't be asked about: {error}"
        elif isinstance(error, Unsettled):
            kind, why = "unsettled", f"it may have seen another block begin the period than we did: {error}"
        else:
            kind, why = "away", f"its address can't be found: {error}"
        self._away = f"{why}; it is asked again in block {again}"
        self._tell(kind)
        logger.warning("oracle_away", oracle=self.oracle, why=self._away, block=block)
        return True

    async def _denounce(self, caught: OracleCaught, block: Block) -> None:
        """Name it in the log, once for all that were asked at once."""
        if self._denouncing or self._caught(block) is not None:
            return
        self._denouncing = True
        try:
            await self._write_down(caught, block)
        finally:
            self._denouncing = False

    async def _write_down(self, caught: OracleCaught, block: Block) -> None:
        events: list[InputsCommitted | OracleFaulted] = []
        for commitment in caught.shown:
            if self._logged(commitment) is None:
                seen = await self._chain_block(block)
                events.append(InputsCommitted(block=seen, commitment=commitment))
        events.append(
            OracleFaulted(
                block=block,
                oracle=self.oracle,
                what=caught.what,
                detail=caught.detail[:500],
                given=caught.given,
            )
        )
        self._tell(caught.what)
        logger.error("oracle_caught", oracle=self.oracle, what=caught.what, detail=caught.detail, block=block)
        await self._journal.append(*events)

    async def _chain_block(self, block: Block) -> Block:
        try:
            return max(block, await self._chain.block())
        except ChainError:
            return block

    def _forget(self, block: Block) -> None:
        for old in [each for each in self._places if each < block - LOOK_BLOCKS]:
            del self._places[old]

    async def _endpoint(self) -> Axon:
        return await address_of(self._host, self._port)
