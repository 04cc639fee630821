"""A world on a simulated Subtensor node: blocks pass when the test says so."""

from __future__ import annotations

from pathlib import Path

from bittensor.keyfiles import Keypair

from targon.chain import Chain
from targon.chain.bittensor import BittensorChain, Deadlines, open_bittensor
from targon.protocol.keys import Signer
from targon.protocol.primitives import Uid
from tests.chain.simulated_node import SimulatedNetwork
from tests.chain.simulated_subnet import SimulatedSubnet
from tests.chain.worlds import MAX_UIDS, RATE_LIMIT, TEMPO, VERSION_KEY

NETUID = 4
ENDPOINT = "ws://node-1:9944"

IMPATIENT = Deadlines(
    connect_s=1.0,
    answer_s=0.2,
    read_s=1.0,
    inclusion_s=0.2,
    settling_s=0.5,
    poll_s=0.01,
    silence_s=0.3,
    close_s=0.2,
    first_pause_s=0.01,
    most_pause_s=0.05,
)
"""Deadlines for a node that answers at once or never."""


def network(*, newer: bool = False, name: str = "one") -> SimulatedNetwork:
    """A network with one subnet, whose owner holds UID 0."""
    built = SimulatedNetwork(newer=newer, name=name)
    owner = Keypair.create_from_uri("//owner").ss58_address
    subnet = SimulatedSubnet(
        netuid=NETUID,
        owner=owner,
        newer=newer,
        tempo=TEMPO if newer else TEMPO - 1,
        version_key=VERSION_KEY,
        rate_limit=RATE_LIMIT,
        max_uids=MAX_UIDS + 1,
        max_validators=2,
    )
    subnet.register(owner, built.block)
    built.subnets[NETUID] = subnet
    return built


class SimulatedWorld:
    """The Bittensor adapter over a simulated node, of an older or a newer runtime."""

    def __init__(self, built: SimulatedNetwork, chain: BittensorChain) -> None:
        self.network = built
        self._chain = chain

    @classmethod
    async def create(cls, *, newer: bool = False, endpoints: str = ENDPOINT) -> SimulatedWorld:
        built = network(newer=newer)
        return cls(
            built,
            await open_bittensor("", endpoints, NETUID, substrate=built.substrate, deadlines=IMPATIENT),
        )

    @classmethod
    async def older(cls, _: Path) -> SimulatedWorld:
        return await cls.create(newer=False)

    @classmethod
    async def newer(cls, _: Path) -> SimulatedWorld:
        return await cls.create(newer=True)

    @property
    def chain(self) -> Chain:
        return self._chain

    @property
    def netuid(self) -> int:
        return NETUID

    @property
    def subnet(self) -> SimulatedSubnet:
        return self.network.subnets[NETUID]

    async def register(self, signer: Signer) -> Uid:
        self.network.advance(1)
        return Uid(self.subnet.register(signer.ss58_address, self.network.block))

    async def stake(self, signer: Signer, amount_tao: float) -> None:
        self.subnet.stakes[signer.ss58_address] = round(amount_tao * 10**9)
        await self.epoch()

    async def advance(self, blocks: int) -> None:
        self.network.advance(blocks)

    async def epoch(self) -> None:
        before = self.subnet.epoch
        while self.subnet.epoch == before:
            self.network.advance(1)

    async def use_commit_reveal(self) -> None:
        self.subnet.commit_reveal = True

    async def aclose(self) -> None:
        await self._chain.aclose()
