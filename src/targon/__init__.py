"""TARGON: a redundant, deterministic verification network for LLM inference on Bittensor.

The code lives in rooms, each a package with one job; imports point down this list only:
``cli`` > ``localnet`` > ``redteam`` > ``verifier``, ``prover``, ``oracle`` > ``verification`` >
``chain``, ``ledger``, ``transport`` > ``engines`` > ``protocol``.
"""

__version__ = "0.1.0"
