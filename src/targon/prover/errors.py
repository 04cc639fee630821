"""The errors of a prover's own start. What it refuses its callers is a ``targon.transport.Refusal``.

ProverError
├── CannotStart    a part that it needs is not there: the chain, the engine, a UID of its own
└── BadSettings    settings that contradict one another
"""

from __future__ import annotations


class ProverError(Exception):
    """Anything that keeps a prover from running."""


class CannotStart(ProverError):
    """A part that the prover needs is not there; the message says which, and what to do."""


class BadSettings(ProverError):
    """Settings that contradict one another."""
