"""The chain port over a Subtensor node."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import anyio
import structlog
from bittensor import Substrate, calls
from bittensor.result import BittensorError

from targon.chain import rules
from targon.chain.bittensor import preflight, state
from targon.chain.bittensor.access import SubnetAccess
from targon.chain.bittensor.commit_hash import commit_hash, salt_words
from targon.chain.bittensor.connection import Connection
from targon.chain.bittensor.deadlines import Deadlines
from targon.chain.bittensor.held import HeldToClock
from targon.chain.bittensor.submission import Call, Included
from targon.chain.errors import (
    AxonRefused,
    ChainAhead,
    ChainError,
    ChainUnavailable,
    UnknownBlock,
    WrongNetwork,
)
from targon.chain.port import Anchor, Axon, Metagraph, SubnetInfo, WeightsCommit
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block, Digest, Hotkey, Uid

MAIN_MECHANISM = 0
"""A subnet may have several incentive mechanisms; this network uses the first."""

AXON_PROTOCOL = 4
"""What neurons of the network announce for HTTP; nobody reads it here."""

AXON_VERSION = 1

logger = structlog.get_logger(__name__)


class BittensorChain(SubnetAccess):
    """A chain adapter over the SDK. One instance serves many tasks;
    :func:`targon.chain.bittensor.open_bittensor` makes one.

    Reads are of the best block. The hotkey signs everything; the coldkey is never needed.
    """

    def __init__(self, connection: Connection, netuid: int, deadlines: Deadlines, held: HeldToClock) -> None:
        super().__init__(connection, netuid, deadlines)
        self._held = held
        self._highest = Block(0)

    async def info(self) -> SubnetInfo:
        async def read(substrate: Substrate) -> SubnetInfo:
            subnet = await state.read_subnet(substrate, self._netuid)
            block, block_hash = await state.head(substrate)
            epochs = await state.read_epochs(substrate, self._netuid, block_hash, block)
            return SubnetInfo(
                netuid=self._netuid,
                genesis=Digest(str(self._connection.genesis).removeprefix("0x")),
                block_seconds=float(await substrate.block_time()),
                tempo=epochs.spacing,
                weights_version_key=subnet.version_key,
                weights_rate_limit=subnet.rate_limit,
                commit_reveal=subnet.commit_reveal,
                reveal_epochs=subnet.reveal_epochs,
            )

        return await self._read(read)

    async def block(self) -> Block:
        """The best block's number; never below one that was told before, though the next node may lag.

        Raises:
            ChainAhead: if the chain can't be there by now.
        """

        async def read(substrate: Substrate) -> tuple[Block, float]:
            return Block(await substrate.block_number()), float(await substrate.block_time())

        told, block_seconds = await self._read(read)
        await self._held.check(told, block_seconds)
        self._highest = max(self._highest, told)
        return self._highest

    async def block_hash(self, block: Block) -> Digest:
        """A block's hash on the best chain; one less than a few blocks old may still be replaced.

        Raises:
            UnknownBlock: if the block lies in the future.
        """
        if block < 0:
            raise ChainError(f"block: got {block}, expected 0 or higher")

        async def read(substrate: Substrate) -> str:
            try:
                return await substrate.block_hash(block)
            except BittensorError:
                current = Block(await substrate.block_number())
                if block > current:
                    raise UnknownBlock(block, current) from None
                raise

        return Digest((await self._read(read)).removeprefix("0x"))

    async def blocks(self) -> AsyncGenerator[Block, None]:
        """The current block, then each new one: by subscription, and by looking where there is none.

        An announcement only wakes us: what is told is the newest block, so that a caller who was busy doesn't
        work through those that passed meanwhile.
        """
        last = -1
        while True:
            try:
                current = await self.block()
                if current > last:
                    last = current
                    yield current
                async with aclosing(self._connection.heads()) as heads:
                    async for announced in heads:
                        if announced > last and (current := await self.block()) > last:
                            last = current
                            yield current
            except ChainAhead:
                pass  # it was said when it began
            except (ChainUnavailable, WrongNetwork) as error:
                logger.warning("chain_not_heard", error=str(error))
            await anyio.sleep(self._deadlines.poll_s)

    async def metagraph(self) -> Metagraph:
        metagraph = (await self._subnet()).metagraph
        block_seconds = float(await self._read(lambda substrate: substrate.block_time()))
        await self._held.check(metagraph.block, block_seconds)
        return metagraph

    async def require_uid(self, hotkey: Hotkey) -> Uid:
        """The UID that a hotkey holds.

        Raises:
            NotRegistered: if it holds none.
        """
        return preflight.registered(await self._subnet(), hotkey, self._how_to_register(hotkey)).uid

    async def block_time(self, block: Block) -> float:
        """When a block was made, in seconds since 1970-01-01 UTC: by the clock of the node that made it."""
        block_hash = await self.block_hash(block)
        told = await self._read(lambda substrate: substrate.query("Timestamp", "Now", [], f"0x{block_hash}"))
        return int(told) / 1_000

    async def weights_of(self, uid: Uid) -> dict[Uid, int]:
        return await self._read(lambda substrate: state.read_counting_weights(substrate, self._netuid, uid))

    async def serve_axon(self, signer: Signer, axon: Axon) -> None:
        """Announce where a neuron serves. The chain refuses 127.0.0.1, but not the rest of loopback.

        Raises:
            NotRegistered, AxonRefused, RateLimited.
        """
        rules.check_axon(axon.host, axon.port)
        if self._is_public() and not state.is_public(axon.host):
            raise AxonRefused(
                f"axon: got {axon.host}, expected an address that others on this network can call; give the one that "
                "they see with --axon.external_ip"
            )
        address = ipaddress.ip_address(axon.host)
        call: Call = calls.SubtensorModule.serve_axon(
            netuid=self._netuid,
            version=AXON_VERSION,
            ip=int(address),
            port=axon.port,
            ip_type=address.version,
            protocol=AXON_PROTOCOL,
            placeholder1=0,
            placeholder2=0,
        )

        async def check() -> Included | None:
            subnet = await self._subnet()
            neuron = preflight.registered(
                subnet, Hotkey(signer.ss58_address), self._how_to_register(Hotkey(signer.ss58_address))
            )
            if neuron.axon == Axon(str(address), axon.port):
                return Included(subnet.metagraph.block, "")
            preflight.check_axon_pace(subnet, neuron)
            return None

        await self._submit(signer, (call,), check)

    async def set_weights(self, signer: Signer, weights: Mapping[Uid, int], version_key: int) -> Block:
        """Set a verifier's weights; they were read back from the block that is returned.

        Raises:
            NotRegistered, NoValidatorPermit, InsufficientStake, WeightsRefused, CommitRevealRequired, RateLimited.
        """
        vector = rules.well_formed(weights, version_key)
        given = {"dests": list(vector), "weights": list(vector.values()), "version_key": version_key}

        async def check() -> None:
            subnet, least_stake = await self._subnet_and_least_stake()
            neuron = preflight.registered(
                subnet, Hotkey(signer.ss58_address), self._how_to_register(Hotkey(signer.ss58_address))
            )
            preflight.check_outright(subnet)
            preflight.check_weights(subnet, neuron, vector, version_key, least_stake)
            preflight.check_pace(subnet, neuron, "setting")

        included = await self._submit(
            signer, self._either("set_mechanism_weights", "set_weights", given), check
        )
        await self._prove_weights(signer, vector, included)
        return included.block

    def commit_digest(
        self, hotkey: Hotkey, weights: Mapping[Uid, int], version_key: int, salt: bytes
    ) -> Digest:
        return commit_hash(hotkey, self._netuid, weights, version_key, salt)

    async def commit_weights(
        self, signer: Signer, weights: Mapping[Uid, int], version_key: int, salt: bytes
    ) -> WeightsCommit:
        """Commit to weights; they stand when they are revealed. What the chain asks of them it asks only then.

        Raises:
            NotRegistered, InsufficientStake, CommitRevealRefused, RateLimited.
            WeightsRefused: if they could be nobody's on any chain.
        """
        hotkey = Hotkey(signer.ss58_address)
        digest = self.commit_digest(hotkey, rules.well_formed(weights, version_key), version_key, salt)

        async def check() -> None:
            subnet, least_stake = await self._subnet_and_least_stake()
            neuron = preflight.registered(subnet, hotkey, self._how_to_register(Hotkey(signer.ss58_address)))
            preflight.check_commit_reveal(subnet, "commit")
            preflight.check_stake(neuron, least_stake)
            preflight.check_pace(subnet, neuron, "commit")
            preflight.check_room_for_commit(*await self._commits(hotkey))

        given = {"commit_hash": f"0x{digest}"}
        included = await self._submit(
            signer, self._either("commit_mechanism_weights", "commit_weights", given), check
        )
        _, commits = await self._commits(hotkey, included)
        found = next((each for each in reversed(commits) if each.digest == digest), None)
        if found is None:
            raise ChainError(
                f"weights commit: block {included.block} holds no commit {digest} of {hotkey}, expected the one "
                "that was just taken there; read the chain's commits before committing again"
            )
        return found

    async def reveal_weights(
        self, signer: Signer, weights: Mapping[Uid, int], version_key: int, salt: bytes
    ) -> Block:
        """Reveal weights that were committed to; they were read back from the block that is returned.

        Raises:
            NotRegistered, NoValidatorPermit, InsufficientStake, WeightsRefused, CommitRevealRefused, RateLimited.
        """
        vector = rules.well_formed(weights, version_key)
        hotkey = Hotkey(signer.ss58_address)
        digest = self.commit_digest(hotkey, vector, version_key, salt)

        async def check() -> None:
            subnet, least_stake = await self._subnet_and_least_stake()
            neuron = preflight.registered(subnet, hotkey, self._how_to_register(Hotkey(signer.ss58_address)))
            preflight.check_commit_reveal(subnet, "reveal")
            preflight.check_reveal(*await self._commits(hotkey), digest, subnet.reveal_epochs)
            preflight.check_weights(subnet, neuron, vector, version_key, least_stake)

        given = {
            "uids": list(vector),
            "values": list(vector.values()),
            "salt": salt_words(salt),
            "version_key": version_key,
        }
        included = await self._submit(
            signer, self._either("reveal_mechanism_weights", "reveal_weights", given), check
        )
        await self._prove_weights(signer, vector, included)
        return included.block

    async def weights_commits(self, hotkey: Hotkey) -> tuple[WeightsCommit, ...]:
        block, commits = await self._commits(hotkey)
        return tuple(each for each in commits if block < each.reveal_until)

    async def anchor(self, signer: Signer, digest: Digest) -> Block:
        """Put a digest on chain, as a commitment of one SHA-256; it was read back from the block returned.

        Raises:
            NotRegistered.
            RateLimited: if this hotkey's space is used up; there is room for some thirty an epoch.
        """
        hotkey = Hotkey(signer.ss58_address)
        call: Call = calls.Commitments.set_commitment(
            netuid=self._netuid, info={"fields": [{"Sha256": f"0x{digest}"}]}
        )

        async def check() -> None:
            preflight.registered(
                await self._subnet(), hotkey, self._how_to_register(Hotkey(signer.ss58_address))
            )

        included = await self._submit(signer, (call,), check)
        found = await self._read(
            lambda substrate: state.read_anchor(substrate, self._netuid, hotkey, included.block_hash)
        )
        if found is None or found.digest != digest:
            raise ChainError(
                f"anchor: block {included.block} holds {found.digest if found else 'nothing'} of {hotkey}, "
                f"expected {digest}, which was just taken there; is another process using this hotkey?"
            )
        return included.block

    async def anchor_of(self, hotkey: Hotkey) -> Anchor | None:
        return await self._read(lambda substrate: state.read_anchor(substrate, self._netuid, hotkey))

    async def _subnet_and_least_stake(self) -> tuple[state.Subnet, float]:
        async def read(substrate: Substrate) -> tuple[state.Subnet, float]:
            least = await state.kept(substrate, "StakeThreshold", [])
            return await state.read_subnet(substrate, self._netuid), int(least or 0) / state.RAO_PER_TAO

        return await self._read(read)

    async def _commits(
        self, hotkey: Hotkey, included: Included | None = None
    ) -> tuple[Block, tuple[WeightsCommit, ...]]:
        at = (included.block, included.block_hash) if included else None
        return await self._read(lambda substrate: state.read_commits(substrate, self._netuid, hotkey, at))

    def _either(self, newer: str, older: str, given: Mapping[str, object]) -> tuple[Call, Call]:
        """A call by mechanism, and the one of runtimes that know of none."""
        return (
            (state.PALLET, newer, {"netuid": self._netuid, "mecid": MAIN_MECHANISM, **given}),
            (state.PALLET, older, {"netuid": self._netuid, **given}),
        )

    async def _prove_weights(self, signer: Signer, vector: Mapping[Uid, int], included: Included) -> None:
        """See that the chain holds what was sent.

        Raises:
            ChainError: if it holds something else.
        """
        expected = rules.max_upscaled(vector)
        hotkey = Hotkey(signer.ss58_address)

        async def read(substrate: Substrate) -> dict[Uid, int]:
            uid = await state.kept(substrate, "Uids", [self._netuid, hotkey], included.block_hash)
            if uid is None:
                return {}
            return await state.read_weights(substrate, self._netuid, Uid(int(uid)), included.block_hash)

        held = await self._read(read)
        if held != expected:
            raise ChainError(
                f"weights: block {included.block} holds {_some(held)} of {hotkey}, expected {_some(expected)}, "
                "which were just taken there; is another process using this hotkey?"
            )


def _some(weights: Mapping[Uid, int]) -> str:
    """The first few of a vector, for a message."""
    listed = ", ".join(f"{uid}: {weight}" for uid, weight in list(weights.items())[:8])
    return f"{{{listed}{', …' if len(weights) > 8 else ''}}}"
