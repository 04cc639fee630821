"""A Subtensor node in memory, behind the SDK's own seam (``bittensor.Substrate``).

It keeps what the pallets keep, in the shapes that the SDK hands out, refuses by the names that they refuse by, and
can fail as nodes and lines do: be down, fall silent, break before or after it took a call. That it refuses and
keeps what a real runtime does is seen by running the same conformance suite on one (``make test-chain``).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
from bittensor import ExtrinsicResult
from bittensor.result import ChainError, RpcConnectionError

from tests.chain.simulated_subnet import Refusal, SimulatedSubnet

POOL_REFUSALS = {"StakeAmountTooLow", "InvalidIpAddress"}
"""What a node refuses before a block holds it."""


@dataclass
class SimulatedNetwork:
    """What all nodes of a network know: blocks, accounts, subnets."""

    newer: bool
    """A runtime that counts epochs and knows mechanisms."""
    name: str = "one"
    block: int = 1
    nonces: dict[str, int] = field(default_factory=dict)
    subnets: dict[int, SimulatedSubnet] = field(default_factory=dict)
    outcomes: dict[tuple[int, str], ExtrinsicResult] = field(default_factory=dict)
    """By block and hash: what became of each call."""
    sent: list[str] = field(default_factory=list)
    """The hash of each call that reached a node, as often as it did."""
    calls: dict[str, SignedCall] = field(default_factory=dict)
    nodes: dict[str, NodeState] = field(default_factory=dict)

    def node(self, endpoint: str) -> NodeState:
        return self.nodes.setdefault(endpoint, NodeState())

    def substrate(self, endpoint: str) -> SimulatedSubstrate:
        return SimulatedSubstrate(self, endpoint)

    def hash_of(self, block: int) -> str:
        return "0x" + hashlib.sha256(f"{self.name} {block}".encode()).hexdigest()

    def advance(self, blocks: int) -> None:
        for _ in range(blocks):
            self.block += 1
            for subnet in self.subnets.values():
                subnet.on_block(self.block)

    def take(self, call: SignedCall) -> ExtrinsicResult:
        """Put a call into a new block."""
        if call.nonce != self.nonces.get(call.address, 0):
            raise Refusal("Stale" if call.nonce < self.nonces.get(call.address, 0) else "Future")
        if self.block + 1 >= call.birth + call.period:
            raise Refusal("AncientBirthBlock")
        _, function, params = call.call
        subnet = self.subnets[params["netuid"]]
        refused = None
        try:
            subnet.check_pool(call.address, function, params)
            self.advance(1)
            self.nonces[call.address] = call.nonce + 1
            subnet.dispatch(self.block, call.address, function, params)
        except Refusal as refusal:
            if refusal.name in POOL_REFUSALS:
                raise
            refused = ChainError(f"refused: {refusal.name}", refusal.name)
        result = ExtrinsicResult(
            success=refused is None,
            message="Success" if refused is None else str(refused),
            block_hash=self.hash_of(self.block),
            extrinsic_id=f"{self.block}-0001",
            error=refused,
        )
        self.outcomes[self.block, call.extrinsic_hash] = result
        return result


@dataclass
class NodeState:
    """How one node behaves now."""

    down: bool = False
    silent: bool = False
    announces: bool = True
    closes: bool = True
    ahead: int = 0
    """How much further than the chain's its blocks are."""
    on_submission: list[str] = field(default_factory=list)
    """What happens to the next submissions: ``break before``, ``break after``, or ``drop`` (nothing comes of it)."""
    connections: int = 0


@dataclass(frozen=True)
class SignedCall:
    call: tuple[str, str, Mapping[str, Any]]
    address: str
    nonce: int
    birth: int
    period: int
    extrinsic_hash: str


class SimulatedSubstrate:
    """The SDK's connection to one node: as much of ``bittensor.Substrate`` as the adapter uses."""

    def __init__(self, network: SimulatedNetwork, endpoint: str) -> None:
        self._network = network
        self._node = network.node(endpoint)
        self._open = False

    async def connect(self) -> None:
        if self._node.down:
            raise RpcConnectionError("could not connect to any endpoint: connection refused")
        self._node.connections += 1
        self._open = True

    async def close(self) -> None:
        self._open = False
        if not self._node.closes:
            await anyio.sleep_forever()

    async def block_number(self) -> int:
        await self._answering()
        return self._network.block + self._node.ahead

    async def block_hash(self, block: int | None = None) -> str:
        await self._answering()
        if block is not None and block > self._network.block:
            raise ChainError(f"no block at height {block}")
        return self._network.hash_of(self._network.block if block is None else block)

    async def block_time(self) -> float:
        return 12.0

    async def query(
        self, module: str, item: str, params: Sequence[Any] | None = None, block_hash: str | None = None
    ) -> Any:
        await self._answering()
        if module == "System":
            return {"nonce": self._network.nonces.get((params or [""])[0], 0)}
        if item == "StakeThreshold":
            return max(subnet.least_stake_rao for subnet in self._network.subnets.values())
        netuid, *rest = params or [0]
        found = self._network.subnets[netuid].storage(item, rest, newer=self._network.newer)
        if found is None:
            raise ValueError(f"storage function {module}.{item} not found")
        return found()

    async def runtime_call(
        self, api: str, method: str, params: Sequence[Any], block_hash: str | None = None
    ) -> Any:
        await self._answering()
        subnet = self._network.subnets.get(params[0])
        return None if subnet is None else subnet.metagraph(self._network.block + self._node.ahead)

    async def compose(self, call: tuple[str, str, Mapping[str, Any]]) -> object:
        await self._answering()
        module, function, _ = call
        if "mechanism" in function and not self._network.newer:
            raise ValueError(f"call {module}.{function} not found")
        return call

    async def sign_extrinsic(self, call: Any, keypair: Any, *, nonce: int, period: int) -> tuple[bytes, str]:
        data = repr((call, keypair.ss58_address, nonce, self._network.block)).encode()
        extrinsic_hash = "0x" + hashlib.blake2b(data + keypair.sign(data), digest_size=32).hexdigest()
        signed = SignedCall(call, keypair.ss58_address, nonce, self._network.block, period, extrinsic_hash)
        self._network.calls[extrinsic_hash] = signed
        return data, extrinsic_hash

    async def submit_signed(
        self, extrinsic: Any, keypair: Any, *, wait_for_inclusion: bool, wait_for_finalization: bool
    ) -> ExtrinsicResult:
        await self._answering()
        fault = self._node.on_submission.pop(0) if self._node.on_submission else ""
        if fault == "break before":
            self._break()
        self._network.sent.append(extrinsic.extrinsic_hash)
        if fault == "drop":
            await anyio.sleep_forever()
        try:
            result = self._network.take(self._network.calls[extrinsic.extrinsic_hash])
        except Refusal as refusal:
            error = ChainError(f"refused by the pool: {refusal.name}", refusal.name)
            return ExtrinsicResult(success=False, message=str(error), error=error)
        if fault == "break after":
            self._break()
        return result

    async def find_extrinsic(self, extrinsic_hash: str, block_hash: str) -> ExtrinsicResult | None:
        await self._answering()
        for (block, held), result in self._network.outcomes.items():
            if held == extrinsic_hash and self._network.hash_of(block) == block_hash:
                return result
        return None

    async def blocks(self, *, finalized: bool = False) -> AsyncGenerator[dict[str, Any], None]:
        seen = 0
        while True:
            await self._answering()
            if not self._node.announces:
                raise RpcConnectionError("Connection lost while waiting for a subscription response")
            if self._network.block + self._node.ahead > seen:
                seen = self._network.block + self._node.ahead
                yield {"header": {"number": seen}}
            await anyio.sleep(0.01)

    async def _answering(self) -> None:
        if self._node.down or not self._open:
            raise RpcConnectionError("the connection was lost")
        if self._node.silent:
            await anyio.sleep_forever()

    def _break(self) -> None:
        self._open = False
        raise RpcConnectionError("Connection dropped while an extrinsic submission was in flight")


def factory(*networks: tuple[SimulatedNetwork, str]) -> Callable[[str], Any]:
    """From an endpoint to a connection to the network that has a node there."""
    return partial(_at, {endpoint: network for network, endpoint in networks})


def _at(networks: Mapping[str, SimulatedNetwork], endpoint: str) -> SimulatedSubstrate:
    return networks[endpoint].substrate(endpoint)
