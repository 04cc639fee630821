"""The Bittensor adapter of the chain port: a subnet of a real Subtensor network, through the ``bittensor`` SDK.

Its parts: :mod:`~.endpoints` (whom to call), :mod:`~.connection` (one connection that outlives its endpoints),
:mod:`~.held` (block numbers, held to the clock),
:mod:`~.state` (what the chain keeps, in our words), :mod:`~.epochs` and :mod:`~.commit_hash` (rules of the chain),
:mod:`~.preflight` and :mod:`~.refusals` (what the chain refuses, and why), :mod:`~.submission` (calls that are
never done twice), :mod:`~.adapter` (the port over these), :mod:`~.opening`.

Importing this takes the SDK, about half a second: ``targon.chain`` does so only when such an endpoint is opened.
"""

from targon.chain.bittensor.adapter import BittensorChain
from targon.chain.bittensor.deadlines import Deadlines
from targon.chain.bittensor.opening import open_bittensor

__all__ = ["BittensorChain", "Deadlines", "open_bittensor"]
