"""How one subnet is read over a connection, and how calls to it are submitted: with errors that are ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from bittensor import Substrate
from bittensor.result import BittensorError

from targon.chain.bittensor import state
from targon.chain.bittensor.connection import Connection
from targon.chain.bittensor.deadlines import Deadlines
from targon.chain.bittensor.refusals import Caller, error_of
from targon.chain.bittensor.submission import Call, Included, Refused, Submitter
from targon.chain.errors import ChainError, ChainUnavailable
from targon.chain.networks import PUBLIC_NETWORKS
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block, Digest, Hotkey

T = TypeVar("T")


class SubnetAccess:
    """What stands between the chain port and a node: every answer and refusal of the SDK becomes one of this room."""

    def __init__(self, connection: Connection, netuid: int, deadlines: Deadlines) -> None:
        self._connection = connection
        self._netuid = netuid
        self._deadlines = deadlines
        self._submitter = Submitter(connection, deadlines)

    async def aclose(self) -> None:
        await self._connection.aclose()

    async def _subnet(self) -> state.Subnet:
        subnet = await self._read(lambda substrate: state.read_subnet(substrate, self._netuid))
        # what a stranger announces on a public network must not lead into this machine, or the net that it is in
        return state.with_public_axons_alone(subnet) if self._is_public() else subnet

    def _is_public(self) -> bool:
        return Digest(str(self._connection.genesis).removeprefix("0x")) in PUBLIC_NETWORKS.values()

    async def _submit(
        self, signer: Signer, given: tuple[Call, ...], check: Callable[[], Awaitable[Included | None]]
    ) -> Included:
        try:
            return await self._submitter.submit(signer, given, check)
        except Refused as refused:
            # what the check found in order may have changed since: ask it first, because it knows figures
            with suppress(ChainUnavailable):
                done = await check()
                if done is not None:
                    return done
            raise error_of(
                refused.name, refused.message, await self._caller(signer, refused.name)
            ) from refused
        except BittensorError as error:
            raise ChainUnavailable(
                f"chain: {given[0][1]}: the node at {self._connection.endpoint} answered {str(error)[:300]}, expected "
                "what became of it; it is looked up before it is tried again"
            ) from error
        except ValueError as error:
            raise ChainError(
                f"chain: {given[0][1]} could not be made for the node at {self._connection.endpoint} ({error}); "
                "is its runtime newer than this version's SDK? Upgrade bittensor"
            ) from error

    async def _caller(self, signer: Signer, refusal: str | None) -> Caller:
        async def read(substrate: Substrate) -> Block:
            block, block_hash = await state.head(substrate)
            if refusal != "SpaceLimitExceeded":
                return Block(block + 1)
            epochs = await state.read_epochs(substrate, self._netuid, block_hash, block)
            return epochs.start(epochs.current() + 1)

        return Caller(
            hotkey=Hotkey(signer.ss58_address),
            netuid=self._netuid,
            how_to_register=self._how_to_register(Hotkey(signer.ss58_address)),
            again_at=await self._read(read),
        )

    def _how_to_register(self, hotkey: Hotkey) -> str:
        return (
            f"btcli subnets register --netuid {self._netuid} --network {self._connection.endpoint} "
            f"--hotkey {hotkey} --wallet NAME"
        )

    async def _read(self, read: Callable[[Substrate], Awaitable[T]]) -> T:
        try:
            return await self._connection.ask(read)
        except (BittensorError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ChainUnavailable(
                f"chain: got an answer from {self._connection.endpoint} that cannot be used "
                f"({str(error)[:300]}), expected that of a Subtensor node; try another one with "
                "--subtensor.chain_endpoint, or upgrade bittensor"
            ) from error
