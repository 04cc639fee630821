"""A world on a Subtensor node whose sudo key is ``//Alice``: a subnet of its own for every test.

Where the node makes blocks on demand (``dev_newBlock``), it is asked for them; elsewhere blocks are waited for.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
from aiohttp import ClientSession
from bittensor import ExtrinsicResult, RpcSubstrate, calls
from bittensor.keyfiles import Keypair

from targon.chain import Chain
from targon.chain.bittensor import BittensorChain, Deadlines, open_bittensor
from targon.protocol.keys import Signer
from targon.protocol.primitives import Uid
from tests.chain.worlds import MAX_UIDS, RATE_LIMIT, TEMPO, VERSION_KEY

ENDPOINT_VARIABLE = "TARGON_TEST_SUBTENSOR"

OWNER = Keypair.create_from_uri("//Alice")
"""Sudo, owner of every subnet, and the coldkey of every hotkey here."""

RAO = 10**9

NEXT_OWNER_HOTKEY = itertools.count(time.time_ns())
"""A subnet's owner has a UID of its own; a hotkey that no other subnet has seen keeps subnets apart."""


def endpoint() -> str | None:
    """The node to test against, if one is named."""
    return os.environ.get(ENDPOINT_VARIABLE)


class SubtensorWorld:
    """One subnet. Its owner holds UID 0, so it has room for one neuron more than the port's other worlds."""

    def __init__(self, url: str, substrate: RpcSubstrate, netuid: int, chain: BittensorChain) -> None:
        self._url = url
        self._substrate = substrate
        self._netuid = netuid
        self._chain = chain

    @classmethod
    async def create(cls, _: Path) -> SubtensorWorld:
        url = endpoint()
        assert url is not None, f"{ENDPOINT_VARIABLE} names no endpoint"
        substrate = RpcSubstrate(url)
        await substrate.connect()
        netuid = await _new_subnet(substrate)
        return cls(url, substrate, netuid, await open_bittensor("", url, netuid))

    @property
    def url(self) -> str:
        return self._url

    @property
    def substrate(self) -> RpcSubstrate:
        return self._substrate

    @property
    def chain(self) -> Chain:
        return self._chain

    @property
    def netuid(self) -> int:
        return self._netuid

    async def register(self, signer: Signer) -> Uid:
        uid = await self._uid(signer)
        if uid is None:
            register = calls.SubtensorModule.burned_register(netuid=self._netuid, hotkey=signer.ss58_address)
            await send(self._substrate, register)
            uid = await self._uid(signer)
        assert uid is not None
        return uid

    async def stake(self, signer: Signer, amount_tao: float) -> None:
        await send(
            self._substrate,
            calls.SubtensorModule.add_stake(
                hotkey=signer.ss58_address, netuid=self._netuid, amount_staked=round(amount_tao * RAO)
            ),
        )
        await self.epoch()

    async def advance(self, blocks: int) -> None:
        await new_blocks(self._url, self._substrate, blocks)

    async def epoch(self) -> None:
        block = await self._substrate.block_number()
        await self.advance(await self._next_epoch() - block)

    async def use_commit_reveal(self) -> None:
        await self.sudo(
            calls.AdminUtils.sudo_set_commit_reveal_weights_interval(netuid=self._netuid, interval=1),
            calls.AdminUtils.sudo_set_commit_reveal_weights_enabled(netuid=self._netuid, enabled=True),
        )

    async def sudo(self, *wanted: Any) -> None:
        await sudo(self._substrate, *wanted)

    async def aclose(self) -> None:
        await self._chain.aclose()
        with anyio.move_on_after(Deadlines().close_s):  # the SDK was seen to hang there
            await self._substrate.close()

    async def _uid(self, signer: Signer) -> Uid | None:
        uid = await self._substrate.query("SubtensorModule", "Uids", [self._netuid, signer.ss58_address])
        return None if uid is None else Uid(int(uid))

    async def _next_epoch(self) -> int:
        """The block of the next epoch, asked of the runtime where it tells, else by the older rule."""
        try:
            told = await self._substrate.runtime_call(
                "SubnetInfoRuntimeApi", "get_next_epoch_start_block", [self._netuid]
            )
        except ValueError:
            block = await self._substrate.block_number()
            told = block + 1
            while (told + self._netuid + 1) % TEMPO:
                told += 1
        return int(told)


async def send(substrate: RpcSubstrate, call: Any, signer: Keypair = OWNER) -> ExtrinsicResult:
    """Submit a call and wait for its block; a refusal fails the test."""
    result = await substrate.submit(await substrate.compose(call), signer, wait_for_finalization=False)
    return result.raise_for_failure()


async def sudo(substrate: RpcSubstrate, *wanted: Any) -> None:
    """Make these calls as root, all or none."""
    together = await substrate.compose(
        calls.Utility.batch_all(calls=[await substrate.compose(each) for each in wanted])
    )
    await send(substrate, calls.Sudo.sudo(call=together))


async def new_blocks(url: str, substrate: RpcSubstrate, count: int) -> None:
    """Let so many blocks pass."""
    if count <= 0:
        return
    wanted = await substrate.block_number() + count
    if not await _made_on_demand(url, count):
        while await substrate.block_number() < wanted:
            await anyio.sleep(0.1)


async def _made_on_demand(url: str, count: int) -> bool:
    async with ClientSession() as session, session.ws_connect(url) as socket:
        request = {"jsonrpc": "2.0", "id": 1, "method": "dev_newBlock", "params": [{"count": count}]}
        await socket.send_json(request)
        return "result" in await socket.receive_json()


async def _new_subnet(substrate: RpcSubstrate) -> int:
    """A subnet as every world of the port's tests has it; returns its netuid."""
    admin = calls.AdminUtils
    if await substrate.query("SubtensorModule", "NetworkRateLimit"):
        await sudo(
            substrate,
            admin.sudo_set_network_min_lock_cost(lock_cost=RAO),
            admin.sudo_set_lock_reduction_interval(interval=1),
            admin.sudo_set_subnet_limit(max_subnets=4_000),
            admin.sudo_set_network_rate_limit(rate_limit=0),
        )
    hotkey = Keypair.create_from_uri(f"//owner{next(NEXT_OWNER_HOTKEY)}")
    registered = await send(substrate, calls.SubtensorModule.register_network(hotkey=hotkey.ss58_address))
    netuid = next(
        int(event["attributes"][0]) for event in registered.events if event["event_id"] == "NetworkAdded"
    )
    counted = await _keeps(substrate, "SubnetEpochIndex")
    await sudo(
        substrate,
        # the older rule runs an epoch every tempo + 1 blocks
        admin.sudo_set_tempo(netuid=netuid, tempo=TEMPO if counted else TEMPO - 1),
        admin.sudo_set_weights_version_key(netuid=netuid, weights_version_key=VERSION_KEY),
        admin.sudo_set_weights_set_rate_limit(netuid=netuid, weights_set_rate_limit=RATE_LIMIT),
        admin.sudo_set_serving_rate_limit(netuid=netuid, serving_rate_limit=0),
        admin.sudo_set_max_allowed_uids(netuid=netuid, max_allowed_uids=MAX_UIDS + 1),
        admin.sudo_set_max_allowed_validators(netuid=netuid, max_allowed_validators=2),
        admin.sudo_set_immunity_period(netuid=netuid, immunity_period=0),
        admin.sudo_set_min_allowed_weights(netuid=netuid, min_allowed_weights=1),
        admin.sudo_set_max_registrations_per_block(netuid=netuid, max_registrations_per_block=256),
        admin.sudo_set_target_registrations_per_interval(
            netuid=netuid, target_registrations_per_interval=256
        ),
        admin.sudo_set_commit_reveal_weights_enabled(netuid=netuid, enabled=False),
        admin.sudo_set_subtoken_enabled(netuid=netuid, subtoken_enabled=True),
        # one TAO of stake is one of the subnet's own, whatever its pool holds
        await set_storage(substrate, "SubnetMechanism", [netuid], (0).to_bytes(2, "little")),
    )
    return netuid


async def set_storage(substrate: RpcSubstrate, item: str, params: Sequence[object], value: bytes) -> Any:
    """A call that writes a value as it is encoded; for root alone."""
    codec = await substrate.raw._runtimes.codec_at(None)
    key = codec.storage_key(codec.storage_entry("SubtensorModule", item), list(params))
    return calls.System.set_storage(items=[(f"0x{bytes(key).hex()}", f"0x{value.hex()}")])


async def _keeps(substrate: RpcSubstrate, item: str) -> bool:
    try:
        await substrate.query("SubtensorModule", item, [0])
    except ValueError:
        return False
    return True
