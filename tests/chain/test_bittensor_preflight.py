"""What is refused before anything is sent: each rule at its edge, on values alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from targon.chain import (
    CommitRevealRefused,
    CommitRevealRequired,
    InsufficientStake,
    Metagraph,
    Neuron,
    NotRegistered,
    NoValidatorPermit,
    RateLimited,
    WeightsCommit,
    WeightsRefused,
)
from targon.chain.bittensor import preflight
from targon.chain.bittensor.state import Subnet
from targon.protocol.primitives import Block, Digest, Hotkey, Uid

OWNER, VERIFIER, PROVER = Hotkey("owner"), Hotkey("verifier"), Hotkey("prover")


def neuron(uid: int, hotkey: Hotkey, *, permit: bool = False) -> Neuron:
    return Neuron(Uid(uid), hotkey, 100.0, permit, None, Block(10), None, 0.0, 0.0)


def subnet(block: int = 100) -> Subnet:
    neurons = (neuron(0, OWNER), neuron(1, VERIFIER, permit=True), neuron(2, PROVER))
    return Subnet(
        metagraph=Metagraph(4, Block(block), neurons),
        updates=(Block(0), Block(90), Block(90)),
        axon_blocks=(Block(0), Block(90), Block(90)),
        owner=OWNER,
        tempo=360,
        version_key=7,
        rate_limit=12,
        serving_rate_limit=12,
        commit_reveal=False,
        reveal_epochs=1,
        min_weights=2,
        max_share=65_535,
        max_validators=64,
    )


def commit(number: int, reveal_from: int = 200, reveal_until: int = 300) -> WeightsCommit:
    return WeightsCommit(Digest(f"{number:064x}"), Block(50), Block(reveal_from), Block(reveal_until))


def check(of: Hotkey, weights: dict[int, int], version_key: int = 7, least_stake: float = 100.0) -> None:
    here = subnet()
    caller = preflight.registered(here, of, "how")
    given = {Uid(uid): weight for uid, weight in weights.items()}
    preflight.check_weights(here, caller, given, version_key, least_stake)


def test_a_stranger_is_told_how_to_register() -> None:
    with pytest.raises(NotRegistered, match="register it with: how"):
        preflight.registered(subnet(), Hotkey("stranger"), "how")


def test_weights_that_the_chain_takes_pass() -> None:
    check(VERIFIER, {0: 1, 2: 65_535})


def test_the_owner_and_who_weighs_itself_alone_are_left_to_the_chain() -> None:
    check(OWNER, {1: 1, 2: 1})
    check(PROVER, {2: 1})


def test_without_a_permit_others_are_not_weighed() -> None:
    with pytest.raises(NoValidatorPermit, match="UID 2"):
        check(PROVER, {1: 1, 2: 1})


def test_least_stake_is_enough_and_a_little_less_is_not() -> None:
    check(VERIFIER, {0: 1, 2: 1}, least_stake=100.0)
    with pytest.raises(InsufficientStake):
        check(VERIFIER, {0: 1, 2: 1}, least_stake=100.000001)


@pytest.mark.parametrize(
    ("weights", "version_key", "complaint"),
    [
        ({0: 1, 1: 1, 2: 1, 3: 1}, 7, "got 4 entries, expected at most 3"),
        ({0: 1, 2: 1}, 6, "got 6, expected 7"),
        ({0: 1, 3: 1}, 7, "unknown UIDs 3"),
        ({2: 1}, 7, "got 1 targets, expected 2 or more"),
    ],
)
def test_weights_that_the_subnet_does_not_take_are_refused(
    weights: dict[int, int], version_key: int, complaint: str
) -> None:
    with pytest.raises(WeightsRefused, match=complaint):
        check(VERIFIER, weights, version_key)


def test_commit_reveal_is_asked_for_where_it_is_used_and_refused_elsewhere() -> None:
    preflight.check_outright(subnet())
    preflight.check_commit_reveal(replace(subnet(), commit_reveal=True), "commit")
    with pytest.raises(CommitRevealRequired):
        preflight.check_outright(replace(subnet(), commit_reveal=True))
    with pytest.raises(CommitRevealRefused):
        preflight.check_commit_reveal(subnet(), "commit")


def test_the_next_block_is_the_first_that_a_setting_or_an_axon_could_stand_in() -> None:
    late, early = subnet(101), subnet(100)
    for check_of in (lambda here, who: preflight.check_pace(here, who, "setting"), preflight.check_axon_pace):
        check_of(late, late.metagraph.neurons[1])
        with pytest.raises(RateLimited) as caught:
            check_of(early, early.metagraph.neurons[1])
        assert caught.value.allowed_at == 102


def test_who_was_never_heard_of_is_not_too_early() -> None:
    here = subnet(1)
    preflight.check_pace(here, here.metagraph.neurons[0], "setting")
    preflight.check_axon_pace(here, here.metagraph.neurons[0])


def test_ten_commits_may_wait_and_expired_ones_are_not_counted() -> None:
    ten = [commit(number) for number in range(10)]
    preflight.check_room_for_commit(Block(100), ten[:9])
    preflight.check_room_for_commit(Block(100), [*ten[:9], commit(99, reveal_until=100)])
    with pytest.raises(CommitRevealRefused, match="expires in block 300"):
        preflight.check_room_for_commit(Block(100), ten)


def test_a_reveal_is_taken_from_its_first_block_to_its_last() -> None:
    waiting = [commit(1), commit(2)]
    for block in (199, 200, 299):
        preflight.check_reveal(Block(block), waiting, commit(2).digest, 1)
    with pytest.raises(RateLimited) as caught:
        preflight.check_reveal(Block(198), waiting, commit(2).digest, 1)
    assert caught.value.allowed_at == 200
    with pytest.raises(CommitRevealRefused, match="has expired"):
        preflight.check_reveal(Block(300), waiting, commit(2).digest, 1)
    with pytest.raises(CommitRevealRefused, match="match none of the 2 commits"):
        preflight.check_reveal(Block(250), waiting, commit(3).digest, 1)
