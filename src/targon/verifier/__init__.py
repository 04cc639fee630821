"""The verifier: challenges provers, judges what they answer, keeps the log, sets weights.

It is built from ports and runs in one task group. It never decides by anything but its log: what it knows of
a prover is what the log's fold says, so that it can be killed at any moment and go on from there. (Which dialects
a prover offers it asks the prover itself, and logs with each attempt what it made of the answer.) It never
charges a prover for its own trouble.
"""

from __future__ import annotations

from targon.verifier.axon import AxonSettings, Serving
from targon.verifier.journal import Journal
from targon.verifier.opening import LogOfAnother
from targon.verifier.ports import Passage, PrivateInputs, PrivateInputUnavailable
from targon.verifier.role import Verifier
from targon.verifier.settings import VerifierSettings
from targon.verifier.statistics import StatisticsSchedule, statistics

__all__ = [
    "AxonSettings",
    "Journal",
    "LogOfAnother",
    "Passage",
    "PrivateInputUnavailable",
    "PrivateInputs",
    "Serving",
    "StatisticsSchedule",
    "Verifier",
    "VerifierSettings",
    "statistics",
]
