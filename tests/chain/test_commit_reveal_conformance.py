"""What every adapter does with weights that are committed to, with anchors, and with those who listen for blocks."""

from __future__ import annotations

from contextlib import aclosing

import anyio
import pytest
from bittensor.keyfiles import Keypair

from targon.chain import CommitRevealRefused, CommitRevealRequired, NotRegistered, RateLimited, WeightsRefused
from targon.protocol.primitives import Digest, Hotkey, Uid
from tests.chain.worlds import RATE_LIMIT, VERSION_KEY, World

pytestmark = pytest.mark.anyio

SALT = bytes(range(32))


async def validator(world: World) -> tuple[Keypair, Uid, Uid]:
    """One that may set weights on a subnet with commit-reveal, its UID and that of a prover."""
    signer, prover = Keypair.create_from_uri("//validator"), Keypair.create_from_uri("//prover")
    uid, target = await world.register(signer), await world.register(prover)
    await world.stake(signer, 100.0)
    await world.use_commit_reveal()
    await world.epoch()
    return signer, uid, target


async def until(world: World, block: int) -> None:
    await world.advance(max(0, block - await world.chain.block()))


async def test_the_subnet_says_that_it_uses_commit_reveal(world: World) -> None:
    assert not (await world.chain.info()).commit_reveal
    await world.use_commit_reveal()
    info = await world.chain.info()
    assert (info.commit_reveal, info.reveal_epochs) == (True, 1)


async def test_committed_weights_stand_once_they_are_revealed(world: World) -> None:
    signer, uid, target = await validator(world)
    weights = {target: 65_535, uid: 1}
    commit = await world.chain.commit_weights(signer, weights, VERSION_KEY, SALT)
    hotkey = Hotkey(signer.ss58_address)
    assert commit.digest == world.chain.commit_digest(hotkey, weights, VERSION_KEY, SALT)
    assert await world.chain.weights_commits(hotkey) == (commit,)
    assert await world.chain.weights_of(uid) == {}
    assert commit.block < commit.reveal_from < commit.reveal_until
    await until(world, commit.reveal_from)
    await world.chain.reveal_weights(signer, weights, VERSION_KEY, SALT)
    assert await world.chain.weights_of(uid) == weights
    assert await world.chain.weights_commits(hotkey) == ()


async def test_weights_cannot_be_set_outright_where_they_are_committed_to(world: World) -> None:
    signer, uid, target = await validator(world)
    with pytest.raises(CommitRevealRequired):
        await world.chain.set_weights(signer, {target: 65_535}, VERSION_KEY)
    assert await world.chain.weights_of(uid) == {}


async def test_weights_cannot_be_committed_to_where_they_are_set_outright(world: World) -> None:
    signer = Keypair.create_from_uri("//validator")
    uid = await world.register(signer)
    await world.stake(signer, 100.0)
    with pytest.raises(CommitRevealRefused):
        await world.chain.commit_weights(signer, {uid: 65_535}, VERSION_KEY, SALT)
    with pytest.raises(CommitRevealRefused):
        await world.chain.reveal_weights(signer, {uid: 65_535}, VERSION_KEY, SALT)


async def test_an_early_reveal_is_refused_with_the_block_to_wait_for(world: World) -> None:
    signer, uid, target = await validator(world)
    commit = await world.chain.commit_weights(signer, {target: 65_535}, VERSION_KEY, SALT)
    with pytest.raises(RateLimited) as caught:
        await world.chain.reveal_weights(signer, {target: 65_535}, VERSION_KEY, SALT)
    assert caught.value.allowed_at == commit.reveal_from
    assert await world.chain.weights_of(uid) == {}


@pytest.mark.parametrize("changed", ["weights", "version key", "salt"])
async def test_a_reveal_of_something_else_is_refused(world: World, changed: str) -> None:
    signer, uid, target = await validator(world)
    commit = await world.chain.commit_weights(signer, {target: 65_535}, VERSION_KEY, SALT)
    await until(world, commit.reveal_from)
    weights = {uid: 65_535} if changed == "weights" else {target: 65_535}
    version_key = VERSION_KEY + (changed == "version key")
    salt = bytes(32) if changed == "salt" else SALT
    with pytest.raises(CommitRevealRefused):
        await world.chain.reveal_weights(signer, weights, version_key, salt)
    assert await world.chain.weights_of(uid) == {}


async def test_a_commit_that_was_not_revealed_in_time_has_expired(world: World) -> None:
    signer, uid, target = await validator(world)
    commit = await world.chain.commit_weights(signer, {target: 65_535}, VERSION_KEY, SALT)
    await until(world, commit.reveal_until)
    assert await world.chain.weights_commits(Hotkey(signer.ss58_address)) == ()
    with pytest.raises(CommitRevealRefused):
        await world.chain.reveal_weights(signer, {target: 65_535}, VERSION_KEY, SALT)
    assert await world.chain.weights_of(uid) == {}


async def test_commits_have_a_rate_limit(world: World) -> None:
    signer, _, target = await validator(world)
    first = await world.chain.commit_weights(signer, {target: 65_535}, VERSION_KEY, SALT)
    with pytest.raises(RateLimited) as caught:
        await world.chain.commit_weights(signer, {target: 65_535}, VERSION_KEY, bytes(32))
    assert caught.value.allowed_at == first.block + RATE_LIMIT
    await until(world, caught.value.allowed_at)
    second = await world.chain.commit_weights(signer, {target: 65_535}, VERSION_KEY, bytes(32))
    commits = await world.chain.weights_commits(Hotkey(signer.ss58_address))
    assert [each.digest for each in commits] == [first.digest, second.digest]


async def test_revealing_a_later_commit_forgets_the_earlier_ones(world: World) -> None:
    signer, uid, target = await validator(world)
    first = await world.chain.commit_weights(signer, {uid: 65_535}, VERSION_KEY, SALT)
    await until(world, first.block + RATE_LIMIT)
    second = await world.chain.commit_weights(signer, {target: 65_535}, VERSION_KEY, SALT)
    await until(world, second.reveal_from)
    await world.chain.reveal_weights(signer, {target: 65_535}, VERSION_KEY, SALT)
    assert await world.chain.weights_commits(Hotkey(signer.ss58_address)) == ()
    with pytest.raises(CommitRevealRefused):
        await world.chain.reveal_weights(signer, {uid: 65_535}, VERSION_KEY, SALT)
    assert await world.chain.weights_of(uid) == {target: 65_535}


async def test_outdated_software_cannot_reveal(world: World) -> None:
    signer, uid, target = await validator(world)
    commit = await world.chain.commit_weights(signer, {target: 65_535}, VERSION_KEY - 1, SALT)
    await until(world, commit.reveal_from)
    with pytest.raises(WeightsRefused, match="got 6, expected 7"):
        await world.chain.reveal_weights(signer, {target: 65_535}, VERSION_KEY - 1, SALT)
    assert await world.chain.weights_of(uid) == {}


async def test_an_unregistered_hotkey_commits_to_nothing(world: World) -> None:
    await world.use_commit_reveal()
    with pytest.raises(NotRegistered):
        await world.chain.commit_weights(
            Keypair.create_from_uri("//stranger"), {Uid(0): 1}, VERSION_KEY, SALT
        )


async def test_nothing_is_committed_to_for_an_empty_vector(world: World) -> None:
    signer, _, target = await validator(world)
    with pytest.raises(WeightsRefused, match="none above 0"):
        await world.chain.commit_weights(signer, {target: 0}, VERSION_KEY, SALT)


async def test_the_newest_anchor_stands_with_its_block(world: World) -> None:
    signer = Keypair.create_from_uri("//verifier")
    await world.register(signer)
    hotkey = Hotkey(signer.ss58_address)
    assert await world.chain.anchor_of(hotkey) is None
    for text in ("ab", "cd"):
        block = await world.chain.anchor(signer, Digest(text * 32))
        found = await world.chain.anchor_of(hotkey)
        assert found is not None
        assert (found.digest, found.block) == (text * 32, block)
        await world.advance(1)


async def test_a_stranger_anchors_nothing(world: World) -> None:
    stranger = Keypair.create_from_uri("//stranger")
    with pytest.raises(NotRegistered):
        await world.chain.anchor(stranger, Digest("ab" * 32))
    assert await world.chain.anchor_of(Hotkey(stranger.ss58_address)) is None


async def test_who_listens_hears_of_blocks_in_rising_order(world: World) -> None:
    heard = []
    with anyio.fail_after(20):
        async with aclosing(world.chain.blocks()) as blocks:
            async for block in blocks:
                heard.append(block)
                if len(heard) == 3:
                    break
                await world.advance(2)
    assert heard[1] >= heard[0] + 2
    assert heard[2] >= heard[1] + 2
