"""Calls that change the chain: signed once, sent until their fate is known, never done twice.

Rules:

1. A call is signed once, with the account's next nonce and for the next :data:`ERA_BLOCKS` blocks. Whatever is sent
   again is the same bytes, which the chain can take only once.
2. It is over when it stands in a block, or when the chain said that it refuses it.
3. If the answer is lost, blocks since the signing are searched for its hash. It can no longer come if the nonce
   was used by another call, or if its blocks have passed: only then is anything signed anew.
4. If that cannot be told in time, the caller is told so, and the next call of the same hotkey first finds out
   what became of this one; if it is the same call, and it stands, nothing is sent.

"In a block" means the best chain: a block that is replaced later takes its calls with it, back to the pool.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import structlog
from bittensor import ExtrinsicResult, Substrate
from bittensor.result import BittensorError

from targon.chain.bittensor.connection import Connection
from targon.chain.bittensor.deadlines import Deadlines
from targon.chain.bittensor.state import head
from targon.chain.errors import ChainError, ChainUnavailable
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block, Hotkey

ERA_BLOCKS = 32
"""For how long a signed call may still be taken: the SDK counts from the finalised block, a few behind the best
one; half of this would be gone when finality lags, twice as much is how long nobody could tell a call's fate."""

SIGNINGS = 3
"""How often a call is signed anew after another process used its nonce."""

Call = tuple[str, str, Mapping[str, Any]]
"""Pallet, function, parameters."""

UNDECIDED = frozenset(
    {
        "AlreadyImported",
        "Stale",
        "Future",
        "PriorityTooLow",
        "Usurped",
        "Retracted",
        "FinalityTimeout",
        "Dropped",
        "Invalid",
        None,
    }
)
"""Answers that don't say whether the call stands, or will."""

logger = structlog.get_logger(__name__)


class Refused(Exception):
    """The chain refused a call: for certain, and for good."""

    def __init__(self, name: str | None, message: str) -> None:
        self.name = name
        self.message = message
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Included:
    """A call that stands in a block."""

    block: Block
    block_hash: str


@dataclass(frozen=True, slots=True)
class _Signed:
    """A signed call: what the SDK wants to send one, and what is needed to find it again."""

    signer: Signer
    calls: tuple[Call, ...]
    data: bytes
    extrinsic_hash: str
    nonce: int
    signed_at: Block

    @property
    def data_hex(self) -> str:
        return "0x" + self.data.hex()

    @property
    def name(self) -> str:
        return self.calls[0][1]

    @property
    def expires(self) -> Block:
        """The first block that cannot take it any more."""
        return Block(self.signed_at + ERA_BLOCKS)


class Submitter:
    """Sends calls, those of one hotkey one after the other."""

    def __init__(self, connection: Connection, deadlines: Deadlines) -> None:
        self._connection = connection
        self._deadlines = deadlines
        self._turns: defaultdict[Hotkey, anyio.Lock] = defaultdict(anyio.Lock)
        self._unsettled: dict[Hotkey, _Signed] = {}

    async def submit(
        self, signer: Signer, calls: tuple[Call, ...], preflight: Callable[[], Awaitable[Included | None]]
    ) -> Included:
        """Send the first of these calls that the runtime has. ``preflight`` is asked before anything is signed:
        it raises where the chain would refuse, and says where there is nothing to do.

        Raises:
            Refused: if the chain refused it.
            ChainUnavailable: if it couldn't be sent, or its fate couldn't be told; it may be called again.
        """
        hotkey = Hotkey(signer.ss58_address)
        async with self._turns[hotkey]:
            earlier = await self._settle_earlier(hotkey)
            if earlier is not None and earlier[0] == calls:
                return earlier[1]
            done = await preflight()
            if done is not None:
                return done
            for _ in range(SIGNINGS):
                signed = await self._sign(signer, calls)
                self._unsettled[hotkey] = signed
                try:
                    included = await self._send(signed)
                except Refused:
                    del self._unsettled[hotkey]
                    raise
                del self._unsettled[hotkey]
                if included is not None:
                    return included
                logger.warning("chain_call_did_not_come", hotkey=hotkey, call=signed.name, nonce=signed.nonce)
        raise ChainUnavailable(
            f"chain: {calls[0][1]} was signed {SIGNINGS} times and never taken; is another process using the "
            "same hotkey? Let one at a time do so"
        )

    async def _settle_earlier(self, hotkey: Hotkey) -> tuple[tuple[Call, ...], Included] | None:
        """What became of a call whose fate was unknown, if it stands."""
        signed = self._unsettled.get(hotkey)
        if signed is None:
            return None
        try:
            included = await self._settle(signed)
        except Refused:
            included = None
        self._unsettled.pop(hotkey, None)
        return None if included is None else (signed.calls, included)

    async def _sign(self, signer: Signer, calls: tuple[Call, ...]) -> _Signed:
        async def sign(substrate: Substrate) -> _Signed:
            block, block_hash = await head(substrate)
            nonce = await _nonce(substrate, signer.ss58_address, block_hash)
            data, found = await substrate.sign_extrinsic(
                await _composed(substrate, calls), signer, nonce=nonce, period=ERA_BLOCKS
            )
            return _Signed(signer, calls, bytes(data), found, nonce, block)

        return await self._connection.ask(sign)

    async def _send(self, signed: _Signed) -> Included | None:
        """Send it and wait. None: it did not come, and cannot come any more.

        Raises:
            Refused: if the chain refused it.
        """
        try:
            result = await self._connection.once(
                lambda substrate: substrate.submit_signed(
                    signed, signed.signer, wait_for_inclusion=True, wait_for_finalization=False
                ),
                within_s=self._deadlines.inclusion_s,
            )
        except (ChainUnavailable, BittensorError) as error:
            logger.warning("chain_call_unanswered", call=signed.name, error=str(error)[:300])
            return await self._settle(signed)
        if result.success or result.block_hash is not None:
            return self._included(result)
        name = result.error.name if result.error else None
        if name in UNDECIDED:
            logger.warning("chain_call_undecided", call=signed.name, answer=result.message[:300])
            return await self._settle(signed)
        raise Refused(name, result.message)

    async def _settle(self, signed: _Signed) -> Included | None:
        """Find out what became of it, sending the same bytes again while it may still come.

        Raises:
            Refused: if it stands in a block, and failed there.
            ChainUnavailable: if it cannot be told in time.
        """
        searched = signed.signed_at
        with anyio.move_on_after(self._deadlines.settling_s):
            while True:
                block, nonce = await self._connection.ask(partial(_standing, signed.signer.ss58_address))
                over = nonce > signed.nonce or block >= signed.expires
                # once it is over, from the start again: a block that was searched may have been replaced
                for number in range((signed.signed_at if over else searched) + 1, block + 1):
                    found = await self._connection.ask(partial(_find, signed.extrinsic_hash, number))
                    if found is not None:
                        return self._included(found)
                if over:
                    return None
                if block > searched or block == signed.signed_at:
                    await self._send_again(signed)
                searched = block
                await anyio.sleep(self._deadlines.poll_s)
        raise ChainUnavailable(
            f"chain: {signed.name} was sent, and the chain doesn't show yet whether it stands: it may until "
            f"block {signed.expires}; call again, and that is found out before anything is sent"
        )

    async def _send_again(self, signed: _Signed) -> None:
        try:
            await self._connection.once(
                lambda substrate: substrate.submit_signed(
                    signed, signed.signer, wait_for_inclusion=False, wait_for_finalization=False
                )
            )
        except (ChainUnavailable, BittensorError) as error:
            logger.info("chain_call_not_sent_again", call=signed.name, error=str(error)[:300])

    def _included(self, result: ExtrinsicResult) -> Included:
        if not result.success:
            raise Refused(result.error.name if result.error else None, result.message)
        if result.extrinsic_id is None or result.block_hash is None:
            raise ChainError("chain: the SDK says that a call stands, but not where; expected its block")
        return Included(Block(int(result.extrinsic_id.partition("-")[0])), result.block_hash)


async def _composed(substrate: Substrate, calls: tuple[Call, ...]) -> object:
    """The first of the calls that this runtime has."""
    for call in calls[:-1]:
        try:
            return await substrate.compose(call)
        except ValueError as error:
            if "not found" not in str(error):
                raise
    return await substrate.compose(calls[-1])


async def _nonce(substrate: Substrate, address: str, block_hash: str) -> int:
    """The account's next nonce at a block; calls that wait in a pool are not counted."""
    account = await substrate.query("System", "Account", [address], block_hash=block_hash)
    return int(account["nonce"])


async def _standing(address: str, substrate: Substrate) -> tuple[Block, int]:
    """The best block, and the account's next nonce there."""
    block, block_hash = await head(substrate)
    return block, await _nonce(substrate, address, block_hash)


async def _find(extrinsic_hash: str, number: int, substrate: Substrate) -> ExtrinsicResult | None:
    """What became of a call, if it stands in this block."""
    return await substrate.find_extrinsic(extrinsic_hash, await substrate.block_hash(number))
