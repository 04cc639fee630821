"""What the chain would refuse, told before anything is signed, in the words of the embedded chain.

The chain has the last word: where its rule has exceptions (its owner, a neuron that weighs itself alone), they
are left to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from targon.chain import rules
from targon.chain.bittensor.state import Subnet
from targon.chain.errors import (
    CommitRevealRefused,
    CommitRevealRequired,
    InsufficientStake,
    NotRegistered,
    NoValidatorPermit,
    RateLimited,
    WeightsRefused,
)
from targon.chain.port import Neuron, WeightsCommit
from targon.protocol.primitives import Block, Digest, Hotkey, Uid

MAX_UNREVEALED = 10
"""Most commits of one neuron that wait for their reveal."""


def registered(subnet: Subnet, hotkey: Hotkey, how_to_register: str) -> Neuron:
    """The neuron that a hotkey is.

    Raises:
        NotRegistered: if it is none.
    """
    neuron = subnet.metagraph.by_hotkey(hotkey)
    if neuron is None:
        raise NotRegistered(hotkey, subnet.metagraph.netuid, how_to_register)
    return neuron


def check_outright(subnet: Subnet) -> None:
    """Refuse weights that have to be committed to.

    Raises:
        CommitRevealRequired: if they have.
    """
    if subnet.commit_reveal:
        raise CommitRevealRequired(
            f"weights: got them outright, expected a commit to them, and their reveal {subnet.reveal_epochs} "
            "epoch(s) later: this subnet uses commit-reveal"
        )


def check_commit_reveal(subnet: Subnet, what: str) -> None:
    """Refuse a commit or reveal where weights are set outright.

    Raises:
        CommitRevealRefused: if they are.
    """
    if not subnet.commit_reveal:
        raise CommitRevealRefused(
            f"weights {what}: got one, expected weights set outright: this subnet doesn't use commit-reveal"
        )


def check_weights(
    subnet: Subnet, neuron: Neuron, weights: Mapping[Uid, int], version_key: int, least_stake: float
) -> None:
    """Refuse weights that this neuron may not set, or that nobody may.

    Raises:
        WeightsRefused, InsufficientStake, NoValidatorPermit.
    """
    neurons = len(subnet.metagraph.neurons)
    rules.check_length(weights, neurons)
    check_stake(neuron, least_stake)
    rules.check_version_key(version_key, subnet.version_key)
    weighs_itself = list(weights) == [neuron.uid]
    if not (neuron.validator_permit or weighs_itself or neuron.hotkey == subnet.owner):
        raise NoValidatorPermit(
            f"weights: got them from UID {neuron.uid}, which has no validator permit at {neuron.stake:g} TAO of "
            f"stake, expected one of the {subnet.max_validators} neurons with most stake at the last epoch; add "
            "some: btcli stake add"
        )
    rules.check_targets(weights, neurons)
    if weighs_itself:
        return
    least = min(subnet.min_weights, neurons)
    if len(weights) < least:
        raise WeightsRefused(
            f"weights: got {len(weights)} targets, expected {least} or more on this subnet; weigh more provers"
        )


def check_stake(neuron: Neuron, least_stake: float) -> None:
    """Refuse a neuron with too little stake for weights and commits.

    Raises:
        InsufficientStake: if it has.
    """
    if neuron.stake < least_stake:
        raise InsufficientStake(
            f"weights: got them from UID {neuron.uid} with {neuron.stake:g} TAO of stake, expected "
            f"{least_stake:g} or more; add some: btcli stake add"
        )


def check_pace(subnet: Subnet, neuron: Neuron, what: str) -> None:
    """Refuse a setting or a commit that comes too soon; the next block is the first that could take it.

    Raises:
        RateLimited: with the block to wait for.
    """
    last, block = subnet.updates[neuron.uid], subnet.metagraph.block
    allowed_at = Block(last + subnet.rate_limit)
    if last and block + 1 < allowed_at:
        since = "its registration" if neuron.last_update is None else "one"
        raise RateLimited(
            allowed_at,
            f"weights: got a {what} in block {block} after {since} in block {last}, expected "
            f"{subnet.rate_limit} blocks between them; try again from block {allowed_at} on",
        )


def check_axon_pace(subnet: Subnet, neuron: Neuron) -> None:
    """Refuse an announcement that comes too soon.

    Raises:
        RateLimited: with the block to wait for.
    """
    last, block = subnet.axon_blocks[neuron.uid], subnet.metagraph.block
    allowed_at = Block(last + subnet.serving_rate_limit)
    if last and block + 1 < allowed_at:
        raise RateLimited(
            allowed_at,
            f"axon: got an announcement in block {block} after one in block {last}, expected "
            f"{subnet.serving_rate_limit} blocks between them; try again from block {allowed_at} on",
        )


def check_room_for_commit(block: Block, commits: Sequence[WeightsCommit]) -> None:
    """Refuse a commit where too many wait for their reveal.

    Raises:
        CommitRevealRefused: if they do.
    """
    waiting = [each for each in commits if block < each.reveal_until]
    if len(waiting) >= MAX_UNREVEALED:
        raise CommitRevealRefused(
            f"weights commit: got another one while {len(waiting)} are unrevealed, expected at most "
            f"{MAX_UNREVEALED}; the oldest expires in block {waiting[0].reveal_until}"
        )


def check_reveal(block: Block, commits: Sequence[WeightsCommit], digest: Digest, reveal_epochs: int) -> None:
    """Refuse a reveal of what was not committed to, or has expired, or is too early.

    Raises:
        CommitRevealRefused, RateLimited.
    """
    found = next((each for each in reversed(commits) if each.digest == digest), None)
    if found is None:
        raise CommitRevealRefused(
            f"weights reveal: got weights that match none of the {len(commits)} commits, expected exactly what "
            "was committed to: weights, version key and salt"
        )
    if block >= found.reveal_until:
        raise CommitRevealRefused(
            f"weights reveal: got weights that were committed to in block {found.block}, expected them "
            f"{reveal_epochs} epoch(s) later: the commit has expired; commit to weights anew"
        )
    if block + 1 < found.reveal_from:
        raise RateLimited(
            found.reveal_from,
            f"weights reveal: got it in block {block}, expected block {found.reveal_from} to "
            f"{found.reveal_until - 1}; try again then",
        )
