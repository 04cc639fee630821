"""From an error's name on chain to our own error, with what was got, what was expected, and what to do.

The names are those of opentensor/subtensor (``pallets/subtensor/src/macros/errors.rs``,
``pallets/commitments/src/lib.rs``), and those that the SDK gives to refusals by the pool of transactions.
Most refusals are told beforehand, with figures, by :mod:`targon.chain.bittensor.preflight`; what is said here is
for those that are not, and for what changed on chain in between.
"""

from __future__ import annotations

from dataclasses import dataclass

from targon.chain.errors import (
    AxonRefused,
    ChainError,
    CommitRevealRefused,
    CommitRevealRequired,
    InsufficientStake,
    NotRegistered,
    NoValidatorPermit,
    RateLimited,
    WeightsRefused,
    WrongNetwork,
)
from targon.protocol.primitives import Block, Hotkey


@dataclass(frozen=True, slots=True)
class Caller:
    """Who called, and where."""

    hotkey: Hotkey
    netuid: int
    how_to_register: str
    again_at: Block
    """The block from which a call that came too soon may be tried again, as far as can be told."""


_UNREGISTERED = frozenset(
    {
        "HotKeyNotRegisteredInSubNet",
        "HotKeyNotRegisteredInNetwork",
        "HotKeyAccountNotExists",
        "AccountNotAllowedCommit",
        "UidNotFound",
    }
)

_TOO_SOON = {
    "SettingWeightsTooFast": "weights: got a setting too soon after the one before",
    "CommittingWeightsTooFast": "weights commit: got one too soon after the one before",
    "RevealTooEarly": "weights reveal: got it before the epoch in which it is taken",
    "ServingRateLimitExceeded": "axon: got an announcement too soon after the one before",
    "SpaceLimitExceeded": "anchor: got more than the chain takes of one hotkey in an epoch",
    "CommitmentSetRateLimitExceeded": "anchor: got one too soon after the one before",
    "RateLimitExceeded": "got a call too soon after the one before",
    "TxRateLimitExceeded": "got a call too soon after the one before",
}

_OTHERS: dict[str, tuple[type[ChainError], str]] = {
    "NeuronNoValidatorPermit": (
        NoValidatorPermit,
        "weights: got them from a neuron without a validator permit, expected one with; add stake and wait for "
        "the next epoch",
    ),
    "NotEnoughStakeToSetWeights": (
        InsufficientStake,
        "weights: got them from a neuron with less stake than the network's least; add some: btcli stake add",
    ),
    "StakeAmountTooLow": (
        InsufficientStake,
        "weights: got them from a neuron with less stake than the network's least; add some: btcli stake add",
    ),
    "IncorrectWeightVersionKey": (
        WeightsRefused,
        "version key: got one lower than the subnet's; upgrade this verifier",
    ),
    "UidVecContainInvalidOne": (
        WeightsRefused,
        "weights: got a UID that nobody holds, expected UIDs of the metagraph; read it again",
    ),
    "InvalidUid": (WeightsRefused, "weights: got a UID that nobody holds; read the metagraph again"),
    "DuplicateUids": (WeightsRefused, "weights: got a UID twice, expected each UID once"),
    "WeightVecNotEqualSize": (
        WeightsRefused,
        "weights: got lists of UIDs and of values that differ in length",
    ),
    "InputLengthsUnequal": (WeightsRefused, "weights: got lists of UIDs and of values that differ in length"),
    "WeightVecLengthIsLow": (
        WeightsRefused,
        "weights: got fewer targets than the subnet's least number; weigh more provers",
    ),
    "UidsLengthExceedUidsInSubNet": (
        WeightsRefused,
        "weights: got more entries than the subnet has neurons; read the metagraph again",
    ),
    "MaxWeightExceeded": (
        WeightsRefused,
        "weights: got a target with a larger share than the subnet's largest; spread them over more provers",
    ),
    "CanNotSetRootNetworkWeights": (
        WeightsRefused,
        "weights: got netuid 0, expected a subnet; check --netuid",
    ),
    "CommitRevealEnabled": (
        CommitRevealRequired,
        "weights: got them outright, expected a commit to them, and their reveal later: this subnet uses "
        "commit-reveal",
    ),
    "CommitRevealDisabled": (
        CommitRevealRefused,
        "weights: got a commit or reveal, expected them set outright: this subnet doesn't use commit-reveal",
    ),
    "NoWeightsCommitFound": (
        CommitRevealRefused,
        "weights reveal: got one where no commit waits for it; commit to weights first",
    ),
    "ExpiredWeightCommit": (
        CommitRevealRefused,
        "weights reveal: got it after its epoch: the commit has expired; commit to weights anew",
    ),
    "InvalidRevealCommitHashNotMatch": (
        CommitRevealRefused,
        "weights reveal: got weights that match no commit, expected exactly what was committed to: weights, "
        "version key and salt",
    ),
    "TooManyUnrevealedCommits": (
        CommitRevealRefused,
        "weights commit: got one more than the chain keeps unrevealed; reveal, or wait until the oldest expires",
    ),
    "InvalidIpAddress": (
        AxonRefused,
        "axon: got an address that the chain doesn't take (loopback 127.0.0.1, or a reserved one); announce the one "
        "under which others reach this neuron",
    ),
    "InvalidIpType": (AxonRefused, "axon: got an address that is neither IPv4 nor IPv6"),
    "InvalidPort": (AxonRefused, "axon: got a port that the chain doesn't take, expected 1 to 65535"),
    "SubNetworkDoesNotExist": (
        WrongNetwork,
        "chain: got a netuid that the network doesn't have; check --netuid",
    ),
    "SubnetNotExists": (WrongNetwork, "chain: got a netuid that the network doesn't have; check --netuid"),
    "MechanismDoesNotExist": (
        WrongNetwork,
        "chain: got a netuid that the network doesn't have; check --netuid",
    ),
    "BadRequest": (
        ChainError,
        "chain: got a call that the node refused before any block, without a reason; if it persists, is the "
        "runtime newer than this version's SDK? Upgrade bittensor",
    ),
    "Payment": (
        ChainError,
        "chain: the hotkey's account cannot be charged; send a little TAO to the hotkey: btcli wallet transfer",
    ),
    "BadProof": (
        ChainError,
        "chain: got a signature that the chain doesn't accept; if its runtime was just upgraded, try again, else "
        "check --wallet.hotkey",
    ),
}

KNOWN = frozenset({*_UNREGISTERED, *_TOO_SOON, *_OTHERS})
"""Every name that has words of its own here."""


def error_of(name: str | None, message: str, caller: Caller) -> ChainError:
    """Our error for a refusal by the chain."""
    if name in _UNREGISTERED:
        return NotRegistered(caller.hotkey, caller.netuid, caller.how_to_register)
    if name in _TOO_SOON:
        text = f"{_TOO_SOON[name]}; try again from block {caller.again_at} on ({name})"
        return RateLimited(caller.again_at, text)
    if name in _OTHERS:
        kind, text = _OTHERS[name]
        return kind(f"{text} ({name})")
    return ChainError(f"chain: the call was refused: {name or 'no name given'}: {message[:300]}")
