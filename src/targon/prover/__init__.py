"""The prover: serves completions to verifiers over signed HTTP, with a signed receipt for each.

Callers are admitted by what the chain says of them, from a copy that is kept fresh in the background; work
waits in a bounded line ordered by the caller's stake. This room must never treat one request unlike another
by guessing what it is for, never wait for the chain to admit a caller, and never answer an attempt twice.
"""

from targon.prover.errors import BadSettings, CannotStart, ProverError
from targon.prover.role import Prover
from targon.prover.settings import ProverSettings

__all__ = ["BadSettings", "CannotStart", "Prover", "ProverError", "ProverSettings"]
