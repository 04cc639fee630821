"""What the chain keeps, read at one block and put into our words.

Runtimes differ in what they keep: storage that a runtime does not have reads as None.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bittensor import Substrate

from targon.chain.bittensor.epochs import Epochs, EpochsByNumber, EpochsCounted
from targon.chain.errors import WrongNetwork
from targon.chain.port import Anchor, Axon, Metagraph, Neuron, WeightsCommit
from targon.chain.rules import U16_MAX
from targon.protocol.primitives import Block, Digest, Hotkey, Uid

RAO_PER_TAO = 1_000_000_000

PALLET = "SubtensorModule"


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet at one block: its neurons, and what it asks of them."""

    metagraph: Metagraph
    updates: tuple[Block, ...]
    """By UID: the block that the rate limit counts from. A registration counts, too."""
    axon_blocks: tuple[Block, ...]
    """By UID: when the axon was announced; 0: never."""
    owner: Hotkey
    tempo: int
    version_key: int
    rate_limit: int
    serving_rate_limit: int
    commit_reveal: bool
    reveal_epochs: int
    min_weights: int
    """Least number of targets of a vector."""
    max_share: int
    """Largest share of one target, of 65535; 65535: any."""
    max_validators: int


async def read_subnet(substrate: Substrate, netuid: int, block_hash: str | None = None) -> Subnet:
    """The subnet as it stands, at the best block or another.

    Raises:
        WrongNetwork: if there is none with this netuid.
    """
    told = await substrate.runtime_call("SubnetInfoRuntimeApi", "get_metagraph", [netuid], block_hash)
    if told is None:
        raise WrongNetwork(
            f"chain: got netuid {netuid}, expected a subnet of this network; check --netuid, and whether "
            "--subtensor.network or --subtensor.chain_endpoint lead to the network that you mean"
        )
    return subnet_of(netuid, told)


def subnet_of(netuid: int, told: Mapping[str, Any]) -> Subnet:
    """A subnet from what the runtime says of it."""
    neurons = tuple(_neuron(told, place) for place in range(len(told["hotkeys"])))
    return Subnet(
        metagraph=Metagraph(netuid, Block(int(told["block"])), neurons),
        updates=tuple(Block(int(block)) for block in told["last_update"]),
        axon_blocks=tuple(Block(int(axon["block"])) for axon in told["axons"]),
        owner=Hotkey(str(told["owner_hotkey"])),
        tempo=int(told["tempo"]),
        version_key=int(told["weights_version"]),
        rate_limit=int(told["weights_rate_limit"]),
        serving_rate_limit=int(told["serving_rate_limit"]),
        commit_reveal=bool(told["commit_reveal_weights_enabled"]),
        reveal_epochs=int(told["commit_reveal_period"]),
        min_weights=int(told["min_allowed_weights"]),
        max_share=int(told["max_weights_limit"]),
        max_validators=int(told["max_validators"]),
    )


async def kept(
    substrate: Substrate,
    item: str,
    params: Sequence[Any],
    block_hash: str | None = None,
    pallet: str = PALLET,
) -> Any:  # noqa: ANN401  # whatever the item is
    """A stored value; None where this runtime keeps no such thing."""
    try:
        return await substrate.query(pallet, item, list(params), block_hash=block_hash)
    except ValueError as error:
        if "not found" in str(error):
            return None
        raise


async def read_weights(
    substrate: Substrate, netuid: int, uid: Uid, block_hash: str | None = None
) -> dict[Uid, int]:
    """The weights that a UID has on chain."""
    pairs = await kept(substrate, "Weights", [netuid, uid], block_hash)
    return {Uid(int(target)): int(weight) for target, weight in pairs or () if int(weight)}


async def read_counting_weights(substrate: Substrate, netuid: int, uid: Uid) -> dict[Uid, int]:
    """The weights of a UID that count at an epoch: those that its neuron set, on neurons that were there by then.
    Older runtimes keep others, too, and pass them over."""
    _, block_hash = await head(substrate)
    metagraph = (await read_subnet(substrate, netuid, block_hash)).metagraph
    neuron = metagraph.by_uid(uid)
    if neuron is None or neuron.last_update is None:
        return {}
    held = await read_weights(substrate, netuid, uid, block_hash)
    there = {each.uid for each in metagraph.neurons if each.registered_at < neuron.last_update}
    return {target: weight for target, weight in held.items() if target in there}


async def read_epochs(substrate: Substrate, netuid: int, block_hash: str, block: Block) -> Epochs:
    """The subnet's epochs, by the rule that this runtime has."""
    tempo = int(await kept(substrate, "Tempo", [netuid], block_hash))
    index = await kept(substrate, "SubnetEpochIndex", [netuid], block_hash)
    if index is None:
        return EpochsByNumber(netuid, tempo, block)
    return EpochsCounted(
        int(index),
        Block(int(await kept(substrate, "LastEpochBlock", [netuid], block_hash) or 0)),
        Block(int(await kept(substrate, "PendingEpochAt", [netuid], block_hash) or 0)),
        tempo,
    )


async def read_commits(
    substrate: Substrate, netuid: int, hotkey: Hotkey, at: tuple[Block, str] | None = None
) -> tuple[Block, tuple[WeightsCommit, ...]]:
    """The block (the best one, unless another is named with its hash), and every commit that the chain keeps of a
    hotkey there, expired ones too."""
    block, block_hash = at or await head(substrate)
    told = await kept(substrate, "WeightCommits", [netuid, hotkey], block_hash)
    if not told:
        return block, ()
    wait = int(await kept(substrate, "RevealPeriodEpochs", [netuid], block_hash))
    return block, commits_of(told, await read_epochs(substrate, netuid, block_hash, block), wait)


def commits_of(told: Sequence[Sequence[Any]], epochs: Epochs, wait: int) -> tuple[WeightsCommit, ...]:
    """Commits from (hash, block, …) as older runtimes keep them, or (hash, epoch, block, …) as newer ones do."""
    found = []
    for entry in told:
        epoch = epochs.of_commit(int(entry[1])) + wait
        made = int(entry[1] if isinstance(epochs, EpochsByNumber) else entry[2])
        found.append(
            WeightsCommit(_digest(str(entry[0])), Block(made), epochs.start(epoch), epochs.start(epoch + 1))
        )
    return tuple(found)


async def read_anchor(
    substrate: Substrate, netuid: int, hotkey: Hotkey, block_hash: str | None = None
) -> Anchor | None:
    """The digest that a hotkey put on chain; None if it put nothing, or something else."""
    told = await kept(substrate, "CommitmentOf", [netuid, hotkey], block_hash, pallet="Commitments")
    if not told:
        return None
    for field in _fields(told["info"]["fields"]):
        if "Sha256" in field:
            return Anchor(_digest(str(field["Sha256"])), Block(int(told["block"])))
    return None


async def head(substrate: Substrate) -> tuple[Block, str]:
    """The best block's number, and the hash under which to read it."""
    block = await substrate.block_number()
    return Block(block), await substrate.block_hash(block)


def _fields(told: Sequence[object]) -> list[Mapping[str, Any]]:
    """The fields of a commitment; the SDK nests each in a list of its own."""
    found: list[Mapping[str, Any]] = []
    for field in told:
        if isinstance(field, Mapping):
            found.append(field)
        elif isinstance(field, list | tuple):
            found += _fields(field)
    return found


def _digest(told: str) -> Digest:
    return Digest(told.removeprefix("0x"))


def _neuron(told: Mapping[str, Any], place: int) -> Neuron:
    registered_at = Block(int(told["block_at_registration"][place]))
    updated = Block(int(told["last_update"][place]))
    return Neuron(
        uid=Uid(place),
        hotkey=Hotkey(str(told["hotkeys"][place])),
        stake=int(told["total_stake"][place]) / RAO_PER_TAO,
        validator_permit=bool(told["validator_permit"][place]),
        axon=_axon(told["axons"][place]),
        registered_at=registered_at,
        # the chain counts the rate limit from the registration, which is no setting of weights
        last_update=updated if updated > registered_at else None,
        incentive=int(told["incentives"][place]) / U16_MAX,
        dividends=int(told["dividends"][place]) / U16_MAX,
    )


def with_public_axons_alone(subnet: Subnet) -> Subnet:
    """A subnet whose axons can all be called over the Internet: others count as none."""
    neurons = tuple(
        neuron if neuron.axon is None or is_public(neuron.axon.host) else replace(neuron, axon=None)
        for neuron in subnet.metagraph.neurons
    )
    return replace(subnet, metagraph=replace(subnet.metagraph, neurons=neurons))


def is_public(host: str) -> bool:
    """Whether an address can be called over the Internet."""
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_global and not address.is_multicast


def _axon(told: Mapping[str, Any]) -> Axon | None:
    number, port = int(told["ip"]), int(told["port"])
    if not number or not port:
        return None
    address = ipaddress.IPv6Address(number) if int(told["ip_type"]) == 6 else ipaddress.IPv4Address(number)
    return Axon(str(address), port)
