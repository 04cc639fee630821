"""From network and endpoint to a chain that was seen to answer."""

from __future__ import annotations

import random
from collections.abc import Callable

from bittensor.result import BittensorError

from targon.chain.bittensor.adapter import BittensorChain
from targon.chain.bittensor.connection import Connection, SubstrateFactory, rpc_substrate
from targon.chain.bittensor.deadlines import Deadlines
from targon.chain.bittensor.endpoints import endpoints_of
from targon.chain.bittensor.held import HeldToClock, since_boot_s
from targon.chain.bittensor.state import read_subnet
from targon.chain.errors import WrongNetwork
from targon.protocol.primitives import Block


async def open_bittensor(
    network: str,
    chain_endpoint: str,
    netuid: int,
    *,
    substrate: SubstrateFactory = rpc_substrate,
    deadlines: Deadlines | None = None,
    jitter: Callable[[], float] = random.random,
    elapsed_s: Callable[[], float] = since_boot_s,
    seen: tuple[Block, float] | None = None,
) -> BittensorChain:
    """Connect to a subnet: by the network's name (finney, test, local), or by endpoints, which win over it.

    Args:
        chain_endpoint: one address or several with commas between them, tried in turn; empty: the network's own.
        substrate: from an address to the SDK's connection to it.
        jitter: a number from 0 to 1, drawn for each pause between attempts to connect.
        elapsed_s: the clock that block numbers are held to.
        seen: a block that was seen on the chain before, and how many seconds ago.

    Raises:
        UnsupportedEndpoint: if an address is none.
        ChainUnavailable: if nobody answers.
        WrongNetwork: if what answers is no Subtensor node, or the network has no such subnet.
    """
    limits = deadlines or Deadlines()
    endpoints = endpoints_of(network, chain_endpoint)
    connection = Connection(endpoints, substrate=substrate, deadlines=limits, jitter=jitter)
    opened = False
    try:
        await _check(connection, netuid)
        opened = True
    finally:
        if not opened:
            await connection.aclose()
    return BittensorChain(connection, netuid, limits, HeldToClock(connection, elapsed_s, seen))


async def _check(connection: Connection, netuid: int) -> None:
    await connection.open()
    try:
        await connection.ask(lambda substrate: read_subnet(substrate, netuid))
    except (BittensorError, ValueError, KeyError) as error:
        raise WrongNetwork(
            f"chain: got a node at {connection.endpoint} that doesn't know of subnets ({error}), expected a "
            "Subtensor node; check --subtensor.chain_endpoint"
        ) from error
