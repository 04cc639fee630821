"""What becomes of a call when the line breaks, the node forgets it, or somebody else uses its nonce."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from bittensor import ExtrinsicResult
from bittensor.keyfiles import Keypair

from targon.chain import (
    Axon,
    AxonRefused,
    ChainError,
    ChainUnavailable,
    CommitRevealRefused,
    InsufficientStake,
    RateLimited,
    WeightsRefused,
)
from targon.chain.bittensor.submission import ERA_BLOCKS, SIGNINGS
from targon.protocol.primitives import Block, Digest, Hotkey, Uid
from tests.chain.simulated_node import SimulatedSubstrate
from tests.chain.simulated_world import ENDPOINT, SimulatedWorld
from tests.chain.worlds import RATE_LIMIT, VERSION_KEY

pytestmark = pytest.mark.anyio

SIGNER = Keypair.create_from_uri("//validator")
HOTKEY = Hotkey(SIGNER.ss58_address)
SALT = bytes(range(32))


@pytest.fixture
async def world() -> AsyncIterator[SimulatedWorld]:
    built = await SimulatedWorld.create()
    yield built
    await built.aclose()


async def validator(world: SimulatedWorld) -> tuple[Uid, Uid]:
    uid = await world.register(SIGNER)
    target = await world.register(Keypair.create_from_uri("//prover"))
    await world.stake(SIGNER, 100.0)
    return uid, target


def taken(world: SimulatedWorld) -> int:
    """How many calls of the signer the chain took."""
    return world.network.nonces.get(SIGNER.ss58_address, 0)


async def test_a_call_whose_answer_is_lost_after_it_was_taken_is_not_sent_again(
    world: SimulatedWorld,
) -> None:
    uid, target = await validator(world)
    world.network.node(ENDPOINT).on_submission = ["break after"]
    block = await world.chain.set_weights(SIGNER, {target: 65_535}, VERSION_KEY)
    assert await world.chain.weights_of(uid) == {target: 65_535}
    assert block == world.network.block
    assert taken(world) == 1
    assert len(world.network.sent) == 1


async def test_a_call_that_was_lost_on_its_way_is_sent_again_as_the_same_bytes(world: SimulatedWorld) -> None:
    uid, target = await validator(world)
    world.network.node(ENDPOINT).on_submission = ["break before", "drop"]
    await world.chain.set_weights(SIGNER, {target: 65_535}, VERSION_KEY)
    assert await world.chain.weights_of(uid) == {target: 65_535}
    assert taken(world) == 1
    assert len(set(world.network.sent)) == 1


async def test_a_call_that_can_no_longer_come_is_signed_anew(world: SimulatedWorld) -> None:
    uid, target = await validator(world)
    world.network.node(ENDPOINT).on_submission = ["drop"] * 3
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.chain.set_weights, SIGNER, {target: 65_535}, VERSION_KEY)
        await anyio.sleep(0.1)
        world.network.advance(ERA_BLOCKS)
    assert await world.chain.weights_of(uid) == {target: 65_535}
    assert taken(world) == 1
    assert len(set(world.network.sent)) == 2


async def test_a_nonce_that_another_process_used_makes_it_sign_anew(world: SimulatedWorld) -> None:
    uid, target = await validator(world)
    world.network.node(ENDPOINT).on_submission = ["drop"]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.chain.set_weights, SIGNER, {target: 65_535}, VERSION_KEY)
        await anyio.sleep(0.1)
        world.network.nonces[SIGNER.ss58_address] = 1
        world.network.advance(1)
    assert await world.chain.weights_of(uid) == {target: 65_535}
    assert taken(world) == 2


async def test_a_call_that_never_comes_is_given_up(world: SimulatedWorld) -> None:
    _, target = await validator(world)
    world.network.node(ENDPOINT).on_submission = ["drop"] * 20

    async def another_process() -> None:
        while True:
            await anyio.sleep(0.05)
            world.network.nonces[SIGNER.ss58_address] = taken(world) + 1
            world.network.advance(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(another_process)
        with pytest.raises(ChainUnavailable, match=f"signed {SIGNINGS} times and never taken"):
            await world.chain.set_weights(SIGNER, {target: 65_535}, VERSION_KEY)
        tasks.cancel_scope.cancel()


async def test_a_call_of_unknown_fate_is_found_before_the_next_one_is_sent(world: SimulatedWorld) -> None:
    uid, target = await validator(world)
    node = world.network.node(ENDPOINT)
    node.on_submission = ["drop"] * 20
    with pytest.raises(ChainUnavailable, match="doesn't show yet whether it stands"):
        await world.chain.set_weights(SIGNER, {target: 65_535}, VERSION_KEY)
    node.on_submission = []
    (lost,) = set(world.network.sent)
    world.network.take(world.network.calls[lost])
    await world.chain.set_weights(SIGNER, {target: 65_535}, VERSION_KEY)
    assert await world.chain.weights_of(uid) == {target: 65_535}
    assert taken(world) == 1


async def test_a_lost_call_that_failed_in_its_block_is_told_as_refused_and_settled(
    world: SimulatedWorld,
) -> None:
    _, target = await validator(world)
    node = world.network.node(ENDPOINT)
    node.on_submission = ["drop"] * 20
    with pytest.raises(ChainUnavailable):
        await world.chain.set_weights(SIGNER, {target: 65_535}, VERSION_KEY)
    node.on_submission = []
    world.subnet.version_key += 1
    (lost,) = set(world.network.sent)
    world.network.take(world.network.calls[lost])
    with pytest.raises(WeightsRefused, match="got 7, expected 8"):
        await world.chain.set_weights(SIGNER, {target: 65_535}, VERSION_KEY)
    await world.chain.set_weights(SIGNER, {target: 65_535}, VERSION_KEY + 1)


async def test_two_calls_of_one_hotkey_come_one_after_the_other(world: SimulatedWorld) -> None:
    _, target = await validator(world)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.chain.set_weights, SIGNER, {target: 65_535}, VERSION_KEY)
        tasks.start_soon(world.chain.anchor, SIGNER, Digest("ab" * 32))
        tasks.start_soon(world.chain.serve_axon, SIGNER, Axon("127.0.0.2", 8091))
    assert taken(world) == 3
    assert len(world.network.sent) == 3


async def test_an_axon_that_is_announced_already_is_not_sent(world: SimulatedWorld) -> None:
    await validator(world)
    await world.chain.serve_axon(SIGNER, Axon("2001:db8::7", 8091))
    await world.chain.serve_axon(SIGNER, Axon("2001:DB8:0::7", 8091))
    assert len(world.network.sent) == 1


async def test_an_axon_that_moves_too_often_is_told_the_block_to_wait_for(world: SimulatedWorld) -> None:
    await validator(world)
    world.subnet.serving_rate_limit = 5
    await world.chain.serve_axon(SIGNER, Axon("127.0.0.2", 8091))
    with pytest.raises(RateLimited) as caught:
        await world.chain.serve_axon(SIGNER, Axon("127.0.0.2", 8092))
    assert caught.value.allowed_at == world.network.block + 5


async def test_an_address_that_only_the_chain_refuses_is_refused_by_its_name(world: SimulatedWorld) -> None:
    await validator(world)
    with pytest.raises(AxonRefused, match="InvalidIpAddress"):
        await world.chain.serve_axon(SIGNER, Axon("127.0.0.1", 8091))
    await world.chain.serve_axon(SIGNER, Axon("127.0.0.2", 8091))
    assert taken(world) == 1
    assert len(world.network.sent) == 2


async def test_too_little_stake_is_told_with_the_least(world: SimulatedWorld) -> None:
    _, target = await validator(world)
    world.subnet.least_stake_rao = 1_000 * 10**9
    with pytest.raises(InsufficientStake, match="with 100 TAO of stake, expected 1000 or more"):
        await world.chain.set_weights(SIGNER, {target: 65_535}, VERSION_KEY)


async def test_too_few_targets_are_told_with_the_least_number(world: SimulatedWorld) -> None:
    uid, target = await validator(world)
    world.subnet.min_weights = 2
    with pytest.raises(WeightsRefused, match="got 1 targets, expected 2 or more"):
        await world.chain.set_weights(SIGNER, {target: 65_535}, VERSION_KEY)
    await world.chain.set_weights(SIGNER, {target: 65_535, uid: 1}, VERSION_KEY)


async def test_a_share_that_only_the_chain_refuses_is_refused_by_its_name(world: SimulatedWorld) -> None:
    _, target = await validator(world)
    world.subnet.max_share = 30_000
    with pytest.raises(WeightsRefused, match="MaxWeightExceeded"):
        await world.chain.set_weights(SIGNER, {target: 65_535}, VERSION_KEY)
    assert taken(world) == 1


async def test_a_neuron_may_weigh_itself_without_a_permit(world: SimulatedWorld) -> None:
    uid = await world.register(SIGNER)
    await world.advance(RATE_LIMIT)
    await world.chain.set_weights(SIGNER, {uid: 65_535}, VERSION_KEY)
    assert await world.chain.weights_of(uid) == {uid: 65_535}


async def test_the_chain_takes_so_many_unrevealed_commits(world: SimulatedWorld) -> None:
    _, target = await validator(world)
    await world.use_commit_reveal()
    world.subnet.rate_limit = 0
    world.subnet.reveal_epochs = 5
    for number in range(10):
        await world.chain.commit_weights(SIGNER, {target: 65_535}, VERSION_KEY, bytes([number]) * 32)
    with pytest.raises(CommitRevealRefused, match="while 10 are unrevealed"):
        await world.chain.commit_weights(SIGNER, {target: 65_535}, VERSION_KEY, SALT)
    assert len(await world.chain.weights_commits(HOTKEY)) == 10


async def test_an_anchor_for_which_there_is_no_room_is_told_the_next_epoch(world: SimulatedWorld) -> None:
    await validator(world)
    subnet = world.subnet
    subnet.space[SIGNER.ss58_address, subnet.epoch] = 3_050
    with pytest.raises(RateLimited, match="SpaceLimitExceeded") as caught:
        await world.chain.anchor(SIGNER, Digest("ab" * 32))
    await world.advance(caught.value.allowed_at - world.network.block - 1)
    block = await world.chain.anchor(SIGNER, Digest("ab" * 32))
    assert block == caught.value.allowed_at


async def test_weights_that_another_process_replaced_at_once_are_not_said_to_stand(
    world: SimulatedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid, target = await validator(world)
    put = world.subnet._put_weights

    def put_and_replace(*given: object) -> None:
        put(*given)
        world.subnet.weights[uid] = [(uid, 65_535)]

    monkeypatch.setattr(world.subnet, "_put_weights", put_and_replace)
    with pytest.raises(ChainError, match=r"holds \{0*1: 65535\} of .*, expected \{2: 65535\}"):
        await world.chain.set_weights(SIGNER, {target: 65_535}, VERSION_KEY)


async def test_a_negative_block_has_no_hash(world: SimulatedWorld) -> None:
    with pytest.raises(ChainError, match="got -1, expected 0 or higher"):
        await world.chain.block_hash(Block(-1))


async def test_a_call_that_cannot_be_made_is_not_taken_for_one_that_the_runtime_lacks(
    world: SimulatedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, target = await validator(world)
    compose = SimulatedSubstrate.compose

    async def without_a_parameter(
        node: SimulatedSubstrate, call: tuple[str, str, dict[str, object]]
    ) -> object:
        if "mechanism" in call[1]:
            raise ValueError("missing call param")
        return await compose(node, call)

    monkeypatch.setattr(SimulatedSubstrate, "compose", without_a_parameter)
    with pytest.raises(ChainError, match="set_mechanism_weights could not be made"):
        await world.chain.set_weights(SIGNER, {target: 65_535}, VERSION_KEY)
    assert not world.network.sent


async def test_a_call_that_stands_nowhere_does_not_stand(
    world: SimulatedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, target = await validator(world)

    async def taken_somewhere(*_: object, **__: object) -> ExtrinsicResult:
        return ExtrinsicResult(success=True, message="Submitted (not waiting).")

    monkeypatch.setattr(SimulatedSubstrate, "submit_signed", taken_somewhere)
    with pytest.raises(ChainError, match="says that a call stands, but not where"):
        await world.chain.set_weights(SIGNER, {target: 65_535}, VERSION_KEY)
