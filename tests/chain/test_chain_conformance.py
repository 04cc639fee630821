"""What every adapter of the chain port must do; ``tests.chain.worlds`` has the chains that it is tried on."""

from __future__ import annotations

import re

import pytest
from bittensor.keyfiles import Keypair

from targon.chain import (
    Axon,
    AxonRefused,
    NotRegistered,
    NoValidatorPermit,
    RateLimited,
    UnknownBlock,
    WeightsRefused,
)
from targon.protocol.primitives import Block, Hotkey, Uid
from tests.chain.worlds import MAX_UIDS, RATE_LIMIT, TEMPO, VERSION_KEY, World

pytestmark = pytest.mark.anyio


def key(name: str) -> Keypair:
    return Keypair.create_from_uri(f"//{name}")


async def validator(world: World, name: str = "validator", stake: float = 100.0) -> tuple[Keypair, Uid]:
    signer = key(name)
    uid = await world.register(signer)
    await world.stake(signer, stake)
    await world.advance(1)
    return signer, uid


async def test_info_tells_the_subnets_settings(world: World) -> None:
    info = await world.chain.info()
    assert (info.netuid, info.tempo, info.weights_version_key) == (world.netuid, TEMPO, VERSION_KEY)
    assert info.weights_rate_limit == RATE_LIMIT
    assert info.block_seconds > 0


async def test_genesis_is_the_hash_of_block_zero(world: World) -> None:
    assert (await world.chain.info()).genesis == await world.chain.block_hash(Block(0))


async def test_blocks_pass(world: World) -> None:
    before = await world.chain.block()
    await world.advance(3)
    assert await world.chain.block() >= before + 3


async def test_every_block_has_a_hash_of_its_own_that_stays(world: World) -> None:
    await world.advance(2)
    current = await world.chain.block()
    numbers = range(max(0, current - 20), current + 1)
    hashes = [await world.chain.block_hash(Block(number)) for number in numbers]
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in hashes)
    assert len(set(hashes)) == len(hashes)
    await world.advance(2)
    assert await world.chain.block_hash(current) == hashes[-1]


async def test_a_future_block_is_unknown(world: World) -> None:
    current = await world.chain.block()
    with pytest.raises(UnknownBlock) as caught:
        await world.chain.block_hash(Block(current + 1_000))
    assert caught.value.block == current + 1_000
    assert caught.value.current >= current


async def test_a_registered_hotkey_stands_in_the_metagraph(world: World) -> None:
    signer = key("prover")
    before = await world.chain.block()
    uid = await world.register(signer)
    graph = await world.chain.metagraph()
    neuron = graph.by_uid(uid)
    assert neuron is not None
    assert neuron == graph.by_hotkey(Hotkey(signer.ss58_address))
    assert graph.netuid == world.netuid
    assert before <= neuron.registered_at <= graph.block
    assert (neuron.stake, neuron.validator_permit, neuron.axon, neuron.last_update) == (0, False, None, None)
    assert (neuron.incentive, neuron.dividends) == (0, 0)


async def test_the_metagraph_lists_neurons_in_uid_order(world: World) -> None:
    for name in "abc":
        await world.register(key(name))
    uids = [neuron.uid for neuron in (await world.chain.metagraph()).neurons]
    assert uids == sorted(uids)
    assert len(uids) >= 3


async def test_those_with_most_stake_hold_the_permits(world: World) -> None:
    uids = [(await validator(world, name, stake))[1] for name, stake in zip("abc", (10, 30, 20), strict=True)]
    graph = await world.chain.metagraph()
    permits = {neuron.uid for neuron in graph.neurons if neuron.validator_permit}
    assert permits == {uids[1], uids[2]}
    assert graph.by_uid(uids[1]).stake == pytest.approx(30)  # type: ignore[union-attr]


@pytest.mark.parametrize("axon", [Axon("127.0.0.2", 8091), Axon("2001:db8::7", 65_535)])
async def test_an_announced_axon_is_found_and_moves(world: World, axon: Axon) -> None:
    signer = key("prover")
    uid = await world.register(signer)
    for announced in (Axon("127.0.0.2", 1), axon):
        await world.chain.serve_axon(signer, announced)
        neuron = (await world.chain.metagraph()).by_uid(uid)
        assert neuron is not None
        assert neuron.axon == announced


async def test_an_unregistered_hotkey_announces_nothing(world: World) -> None:
    stranger = key("stranger")
    with pytest.raises(NotRegistered) as caught:
        await world.chain.serve_axon(stranger, Axon("127.0.0.2", 8091))
    assert caught.value.hotkey == stranger.ss58_address


@pytest.mark.parametrize("axon", [Axon("example.org", 80), Axon("0.0.0.0", 80), Axon("10.0.0.1", 0)])
async def test_an_axon_that_nobody_could_reach_is_refused(world: World, axon: Axon) -> None:
    signer = key("prover")
    await world.register(signer)
    with pytest.raises(AxonRefused):
        await world.chain.serve_axon(signer, axon)


async def test_weights_stand_as_they_were_set(world: World) -> None:
    signer, uid = await validator(world)
    first, second = await world.register(key("a")), await world.register(key("b"))
    await world.advance(1)
    block = await world.chain.set_weights(signer, {first: 65_535, second: 13_107}, VERSION_KEY)
    assert await world.chain.weights_of(uid) == {first: 65_535, second: 13_107}
    neuron = (await world.chain.metagraph()).by_uid(uid)
    assert neuron is not None
    assert neuron.last_update == block


async def test_weights_are_kept_max_upscaled_without_zeros(world: World) -> None:
    signer, uid = await validator(world)
    a, b, c = [await world.register(key(name)) for name in "abc"]
    await world.chain.set_weights(signer, {a: 4, b: 1, c: 0}, VERSION_KEY)
    assert await world.chain.weights_of(uid) == {a: 65_535, b: 16_384}


async def test_new_weights_replace_the_old_ones(world: World) -> None:
    signer, uid = await validator(world)
    a, b = await world.register(key("a")), await world.register(key("b"))
    await world.chain.set_weights(signer, {a: 65_535}, VERSION_KEY)
    await world.advance(RATE_LIMIT)
    await world.chain.set_weights(signer, {b: 65_535}, VERSION_KEY + 1)
    assert await world.chain.weights_of(uid) == {b: 65_535}


async def test_who_set_no_weights_has_none(world: World) -> None:
    assert await world.chain.weights_of(await world.register(key("prover"))) == {}
    assert await world.chain.weights_of(Uid(60_000)) == {}


async def test_weights_of_an_unregistered_hotkey_are_refused(world: World) -> None:
    with pytest.raises(NotRegistered, match=r"register it with: .+"):
        await world.chain.set_weights(key("stranger"), {Uid(0): 1}, VERSION_KEY)


async def test_weights_without_a_permit_are_refused(world: World) -> None:
    signer = key("poor")
    uid = await world.register(signer)
    target = await world.register(key("prover"))
    with pytest.raises(NoValidatorPermit, match=f"UID {uid}"):
        await world.chain.set_weights(signer, {target: 65_535}, VERSION_KEY)


async def test_weights_of_outdated_software_are_refused(world: World) -> None:
    signer, uid = await validator(world)
    with pytest.raises(WeightsRefused, match="got 6, expected 7"):
        await world.chain.set_weights(signer, {uid: 65_535}, VERSION_KEY - 1)


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        ({}, "none above 0"),
        ({0: 0}, "none above 0"),
        ({0: 65_536}, "got 65536"),
        ({0: -1}, "got -1"),
        ({0: 0.5}, r"got 0\.5"),
        ({0: True}, "got True"),
        ({-1: 5}, "got UID -1"),
        ({70_000: 5}, "got UID 70000"),
        ({200: 5}, "unknown UIDs 200"),
        (dict.fromkeys(range(100), 5), "100 entries"),
    ],
)
async def test_malformed_weights_are_refused(world: World, weights: dict[Uid, int], complaint: str) -> None:
    signer, uid = await validator(world)
    with pytest.raises(WeightsRefused, match=complaint):
        await world.chain.set_weights(signer, weights, VERSION_KEY)
    assert await world.chain.weights_of(uid) == {}


@pytest.mark.parametrize("version_key", [-1, 1 << 64])
async def test_a_version_key_that_is_no_u64_is_refused(world: World, version_key: int) -> None:
    signer, uid = await validator(world)
    with pytest.raises(WeightsRefused, match="version key"):
        await world.chain.set_weights(signer, {uid: 1}, version_key)


async def test_weights_set_too_soon_are_refused_with_the_block_to_wait_for(world: World) -> None:
    signer, uid = await validator(world)
    target = await world.register(key("prover"))
    block = await world.chain.set_weights(signer, {target: 65_535}, VERSION_KEY)
    with pytest.raises(RateLimited) as caught:
        await world.chain.set_weights(signer, {uid: 65_535}, VERSION_KEY)
    assert caught.value.allowed_at == block + RATE_LIMIT
    assert await world.chain.weights_of(uid) == {target: 65_535}
    await world.advance(caught.value.allowed_at - await world.chain.block())
    await world.chain.set_weights(signer, {target: 65_535}, VERSION_KEY)


async def test_an_epoch_pays_provers_by_weight_and_verifiers_by_bonds(world: World) -> None:
    signer, uid = await validator(world)
    a, b = await world.register(key("a")), await world.register(key("b"))
    await world.advance(1)
    await world.chain.set_weights(signer, {a: 65_535, b: 21_845}, VERSION_KEY)
    await world.epoch()
    graph = await world.chain.metagraph()
    incentive = {neuron.uid: neuron.incentive for neuron in graph.neurons}
    assert incentive[a] == pytest.approx(0.75, abs=1e-4)
    assert incentive[b] == pytest.approx(0.25, abs=1e-4)
    assert {neuron.uid: neuron.dividends for neuron in graph.neurons}[uid] == pytest.approx(1, abs=1e-4)


async def test_a_full_subnet_replaces_the_worst_and_forgets_it(world: World) -> None:
    signer, uid = await validator(world)
    provers = [key(f"prover{place}") for place in range(MAX_UIDS - 1)]
    uids = [await world.register(prover) for prover in provers]
    await world.chain.serve_axon(provers[3], Axon("127.0.0.2", 8091))
    await world.advance(1)
    weights = {target: 65_535 - place for place, target in enumerate(uids)} | {uids[3]: 1}
    await world.chain.set_weights(signer, weights, VERSION_KEY)
    await world.epoch()
    newcomer = key("newcomer")
    assert await world.register(newcomer) == uids[3]
    graph = await world.chain.metagraph()
    neuron = graph.by_uid(uids[3])
    assert neuron is not None
    assert neuron.hotkey == newcomer.ss58_address
    assert graph.by_hotkey(Hotkey(provers[3].ss58_address)) is None
    assert (neuron.axon, neuron.last_update, neuron.incentive, neuron.stake) == (None, None, 0, 0)
    assert uids[3] not in {target for target, value in (await world.chain.weights_of(uid)).items() if value}


async def test_a_registered_hotkey_is_told_its_uid_and_a_stranger_how_to_get_one(world: World) -> None:
    signer = key("prover")
    uid = await world.register(signer)
    assert await world.chain.require_uid(Hotkey(signer.ss58_address)) == uid
    stranger = Hotkey(key("stranger").ss58_address)
    with pytest.raises(NotRegistered, match=r"register it with: .*register") as caught:
        await world.chain.require_uid(stranger)
    assert caught.value.hotkey == stranger
