"""From a request, its completion and a reference engine to a verdict.

The methods are functions that take values and return a verdict; they are tried cheapest first. Nothing
here sends, stores or waits for anything but the reference engine, and nothing reads a clock or draws a
random number.
"""

from __future__ import annotations

from targon.verification.bets import Bets, bets_of
from targon.verification.calibration import (
    Band,
    Calibration,
    CalibrationError,
    HonestRun,
    NoBand,
    Range,
    Scope,
    load_calibration,
    measure,
    save_calibration,
)
from targon.verification.divergence import Divergence, check_divergence, divergence_verdict
from targon.verification.evidence import EvidenceState, advance, trace
from targon.verification.exact import exact_verdict
from targon.verification.judge import judge
from targon.verification.observations import Observations
from targon.verification.structure import check_structure
from targon.verification.verdict import Verdict, failed, inconclusive

__all__ = [
    "Band",
    "Bets",
    "Calibration",
    "CalibrationError",
    "Divergence",
    "EvidenceState",
    "HonestRun",
    "NoBand",
    "Observations",
    "Range",
    "Scope",
    "Verdict",
    "advance",
    "bets_of",
    "check_divergence",
    "check_structure",
    "divergence_verdict",
    "exact_verdict",
    "failed",
    "inconclusive",
    "judge",
    "load_calibration",
    "measure",
    "save_calibration",
    "trace",
]
