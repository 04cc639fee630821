"""What only a real runtime can show: its refusals, provoked without asking beforehand; who was replaced; scarce room.

Collected where a node is named.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from bittensor import calls
from bittensor.keyfiles import Keypair

from targon.chain import AxonRefused, CommitRevealRefused, InsufficientStake, NotRegistered, RateLimited
from targon.chain.bittensor.adapter import BittensorChain
from targon.chain.bittensor.commit_hash import commit_hash, salt_words
from targon.chain.bittensor.refusals import KNOWN
from targon.chain.bittensor.submission import Included, Refused
from targon.chain.port import Axon
from targon.protocol.primitives import Digest, Hotkey, Uid
from tests.chain.subtensor_world import RAO, SubtensorWorld
from tests.chain.worlds import MAX_UIDS, VERSION_KEY

pytestmark = pytest.mark.anyio

SIGNER, POOR = Keypair.create_from_uri("//validator"), Keypair.create_from_uri("//poor")
STRANGER = Keypair.create_from_uri("//stranger")
HOTKEY = Hotkey(SIGNER.ss58_address)
SALT = bytes(range(32))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[SubtensorWorld]:
    built = await SubtensorWorld.create(tmp_path)
    yield built
    await built.aclose()


async def refusal(node: SubtensorWorld, signer: Keypair, call: Any) -> str | None:
    """The name by which the chain refuses a call that nobody checked beforehand; None: it took it."""

    async def unchecked() -> Included | None:
        return None

    chain = node.chain
    assert isinstance(chain, BittensorChain)
    try:
        await chain._submitter.submit(signer, (call,), unchecked)
    except Refused as refused:
        return refused.name if refused.name in KNOWN else f"{refused.name}, which is not known"
    return None


def weights(node: SubtensorWorld, vector: Mapping[int, int], key: int = VERSION_KEY) -> Any:
    return calls.SubtensorModule.set_weights(
        netuid=node.netuid, dests=list(vector), weights=list(vector.values()), version_key=key
    )


def commit(node: SubtensorWorld, vector: Mapping[Uid, int], salt: bytes = SALT) -> Any:
    digest = commit_hash(HOTKEY, node.netuid, vector, VERSION_KEY, salt)
    return calls.SubtensorModule.commit_weights(netuid=node.netuid, commit_hash=f"0x{digest}")


def reveal(node: SubtensorWorld, vector: Mapping[Uid, int], salt: bytes = SALT) -> Any:
    return calls.SubtensorModule.reveal_weights(
        netuid=node.netuid,
        uids=list(vector),
        values=list(vector.values()),
        salt=salt_words(salt),
        version_key=VERSION_KEY,
    )


def axon(node: SubtensorWorld, ip: int = 0x7F000002, port: int = 8091, ip_type: int = 4) -> Any:
    return calls.SubtensorModule.serve_axon(
        netuid=node.netuid,
        version=1,
        ip=ip,
        port=port,
        ip_type=ip_type,
        protocol=4,
        placeholder1=0,
        placeholder2=0,
    )


async def test_weights_are_refused_by_the_names_that_are_known(node: SubtensorWorld) -> None:
    admin, netuid = calls.AdminUtils, node.netuid
    uid, poor = await node.register(SIGNER), await node.register(POOR)
    await node.stake(SIGNER, 100.0)
    both = {uid: 1, poor: 65_535}
    unequal = calls.SubtensorModule.set_weights(
        netuid=netuid, dests=[uid], weights=[1, 2], version_key=VERSION_KEY
    )
    twice = calls.SubtensorModule.set_weights(
        netuid=netuid, dests=[uid, uid], weights=[1, 2], version_key=VERSION_KEY
    )
    assert await refusal(node, STRANGER, weights(node, both)) == "HotKeyNotRegisteredInSubNet"
    assert await refusal(node, POOR, weights(node, both)) == "NeuronNoValidatorPermit"
    assert await refusal(node, SIGNER, unequal) == "WeightVecNotEqualSize"
    assert await refusal(node, SIGNER, twice) == "DuplicateUids"
    assert (
        await refusal(node, SIGNER, weights(node, dict.fromkeys(range(9), 1)))
        == "UidsLengthExceedUidsInSubNet"
    )
    assert await refusal(node, SIGNER, weights(node, both, VERSION_KEY - 1)) == "IncorrectWeightVersionKey"
    assert await refusal(node, SIGNER, weights(node, {77: 1})) == "UidVecContainInvalidOne"
    await node.sudo(admin.sudo_set_min_allowed_weights(netuid=netuid, min_allowed_weights=2))
    assert await refusal(node, SIGNER, weights(node, {poor: 1})) == "WeightVecLengthIsLow"
    await node.sudo(
        ("AdminUtils", "sudo_set_max_weight_limit", {"netuid": netuid, "max_weight_limit": 40_000})
    )
    assert await refusal(node, SIGNER, weights(node, both)) == "MaxWeightExceeded"
    await node.sudo(
        ("AdminUtils", "sudo_set_max_weight_limit", {"netuid": netuid, "max_weight_limit": 65_535})
    )
    assert await refusal(node, SIGNER, weights(node, both)) is None
    assert await refusal(node, SIGNER, weights(node, both)) == "SettingWeightsTooFast"
    assert await refusal(node, SIGNER, commit(node, both)) == "CommitRevealDisabled"
    assert await refusal(node, SIGNER, reveal(node, both)) == "CommitRevealDisabled"


async def test_commits_and_reveals_are_refused_by_the_names_that_are_known(node: SubtensorWorld) -> None:
    uid = await node.register(SIGNER)
    await node.register(POOR)
    await node.use_commit_reveal()
    await node.stake(SIGNER, 100.0)
    mine = {uid: 65_535}
    assert await refusal(node, SIGNER, weights(node, mine)) == "CommitRevealEnabled"
    assert await refusal(node, STRANGER, commit(node, mine)) == "HotKeyNotRegisteredInSubNet"
    assert await refusal(node, SIGNER, reveal(node, mine)) == "NoWeightsCommitFound"
    assert await refusal(node, SIGNER, commit(node, mine)) is None
    assert await refusal(node, SIGNER, commit(node, mine)) == "CommittingWeightsTooFast"
    assert await refusal(node, SIGNER, reveal(node, mine)) == "RevealTooEarly"
    assert await refusal(node, SIGNER, reveal(node, mine, bytes(32))) == "InvalidRevealCommitHashNotMatch"
    await node.epoch()
    await node.epoch()
    assert await refusal(node, SIGNER, reveal(node, mine)) == "ExpiredWeightCommit"


async def test_the_chain_keeps_ten_unrevealed_commits_of_a_neuron(node: SubtensorWorld) -> None:
    uid = await node.register(SIGNER)
    await node.use_commit_reveal()
    admin = calls.AdminUtils
    await node.sudo(
        admin.sudo_set_weights_set_rate_limit(netuid=node.netuid, weights_set_rate_limit=0),
        admin.sudo_set_commit_reveal_weights_interval(netuid=node.netuid, interval=4),
    )
    for number in range(10):
        assert await refusal(node, SIGNER, commit(node, {uid: 1}, bytes([number]) * 32)) is None
    assert await refusal(node, SIGNER, commit(node, {uid: 1})) == "TooManyUnrevealedCommits"
    assert len(await node.chain.weights_commits(HOTKEY)) == 10
    with pytest.raises(CommitRevealRefused, match="while 10 are unrevealed"):
        await node.chain.commit_weights(SIGNER, {uid: 1}, VERSION_KEY, SALT)


async def test_axons_and_anchors_are_refused_by_the_names_that_are_known(node: SubtensorWorld) -> None:
    await node.register(SIGNER)
    assert await refusal(node, STRANGER, axon(node)) == "HotKeyNotRegisteredInNetwork"
    assert await refusal(node, SIGNER, axon(node, ip=0x7F000001)) == "InvalidIpAddress"
    assert await refusal(node, SIGNER, axon(node, ip_type=5)) == "BadRequest"
    assert await refusal(node, SIGNER, axon(node, port=0)) == "InvalidPort"
    await node.sudo(
        calls.AdminUtils.sudo_set_serving_rate_limit(netuid=node.netuid, serving_rate_limit=50),
    )
    assert await refusal(node, SIGNER, axon(node)) is None
    assert await refusal(node, SIGNER, axon(node, port=8092)) == "ServingRateLimitExceeded"
    with pytest.raises(RateLimited, match="expected 50 blocks between them"):
        await node.chain.serve_axon(SIGNER, Axon("127.0.0.2", 8092))
    with pytest.raises(AxonRefused):
        await node.chain.serve_axon(SIGNER, Axon("127.0.0.2", 0))
    anchor = calls.Commitments.set_commitment(
        netuid=node.netuid, info={"fields": [{"Sha256": "0x" + "ab" * 32}]}
    )
    assert await refusal(node, STRANGER, anchor) == "AccountNotAllowedCommit"


async def test_an_anchor_for_which_there_is_no_room_is_told_the_next_epoch(node: SubtensorWorld) -> None:
    await node.register(SIGNER)
    await node.epoch()
    await node.sudo(calls.Commitments.set_max_space(new_limit=150))
    try:
        await node.chain.anchor(SIGNER, Digest("ab" * 32))
        with pytest.raises(RateLimited, match="SpaceLimitExceeded") as caught:
            await node.chain.anchor(SIGNER, Digest("cd" * 32))
        await node.advance(caught.value.allowed_at - await node.chain.block())
        await node.chain.anchor(SIGNER, Digest("cd" * 32))
    finally:
        await node.sudo(calls.Commitments.set_max_space(new_limit=3_100))
    anchor = await node.chain.anchor_of(HOTKEY)
    assert anchor is not None
    assert anchor.digest == "cd" * 32


async def test_too_little_stake_is_refused_before_and_by_the_chain(node: SubtensorWorld) -> None:
    uid = await node.register(SIGNER)
    target = await node.register(POOR)
    await node.stake(SIGNER, 100.0)
    await node.sudo(calls.AdminUtils.sudo_set_stake_threshold(min_stake=1_000 * RAO))
    try:
        assert await refusal(node, SIGNER, weights(node, {target: 1})) == "StakeAmountTooLow"
        with pytest.raises(
            InsufficientStake, match=f"UID {uid} with 100 TAO of stake, expected 1000 or more"
        ):
            await node.chain.set_weights(SIGNER, {target: 65_535}, VERSION_KEY)
    finally:
        await node.sudo(calls.AdminUtils.sudo_set_stake_threshold(min_stake=0))


async def test_a_verifier_that_was_replaced_is_told_how_to_register_again(node: SubtensorWorld) -> None:
    uid = await node.register(SIGNER)
    for place in range(MAX_UIDS - 1):
        await node.register(Keypair.create_from_uri(f"//prover{place}"))
    await node.chain.set_weights(SIGNER, {uid: 65_535}, VERSION_KEY)
    await node.epoch()
    while (await node.chain.metagraph()).by_hotkey(HOTKEY) is not None:
        await node.register(Keypair.create_from_uri(f"//newcomer{await node.chain.block()}"))
    assert await node.chain.weights_of(uid) == {}
    how = rf"btcli subnets register --netuid {node.netuid} --network ws://\S+ --hotkey {HOTKEY} --wallet NAME"
    with pytest.raises(NotRegistered, match=how):
        await node.chain.set_weights(SIGNER, {uid: 65_535}, VERSION_KEY)
    with pytest.raises(NotRegistered):
        await node.chain.anchor(SIGNER, Digest("ab" * 32))
