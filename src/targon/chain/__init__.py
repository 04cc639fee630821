"""The chain: who is registered, where, with what stake; blocks; weights.

One port, :class:`Chain`, and two adapters: :class:`EmbeddedChain`, a SQLite file that several processes share,
with Yuma consensus (:mod:`targon.chain.yuma`) at every epoch; and :mod:`targon.chain.bittensor`, a subnet of a
real network, imported where :func:`open_chain` is given such an endpoint. This room must never judge a prover or
compute a score: it stores what verifiers say, and pays by the rule. Everything it raises is a
:class:`ChainError`.
"""

from targon.chain.announcing import Announcer, host_to_announce
from targon.chain.embedded import EmbeddedChain
from targon.chain.endpoint import open_chain
from targon.chain.errors import (
    AxonRefused,
    CallRefused,
    ChainAhead,
    ChainError,
    ChainExists,
    ChainUnavailable,
    CommitRevealRefused,
    CommitRevealRequired,
    InsufficientStake,
    NotAnnounced,
    NotRegistered,
    NoValidatorPermit,
    RateLimited,
    StaleNonce,
    UnknownBlock,
    UnsupportedEndpoint,
    WeightsRefused,
    WrongNetwork,
)
from targon.chain.followed import FollowedChain
from targon.chain.networks import PUBLIC_NETWORKS
from targon.chain.port import Anchor, Axon, Chain, Metagraph, Neuron, SubnetInfo, WeightsCommit
from targon.chain.store import ChainSettings

__all__ = [
    "PUBLIC_NETWORKS",
    "Anchor",
    "Announcer",
    "Axon",
    "AxonRefused",
    "CallRefused",
    "Chain",
    "ChainAhead",
    "ChainError",
    "ChainExists",
    "ChainSettings",
    "ChainUnavailable",
    "CommitRevealRefused",
    "CommitRevealRequired",
    "EmbeddedChain",
    "FollowedChain",
    "InsufficientStake",
    "Metagraph",
    "Neuron",
    "NoValidatorPermit",
    "NotAnnounced",
    "NotRegistered",
    "RateLimited",
    "StaleNonce",
    "SubnetInfo",
    "UnknownBlock",
    "UnsupportedEndpoint",
    "WeightsCommit",
    "WeightsRefused",
    "WrongNetwork",
    "host_to_announce",
    "open_chain",
]
