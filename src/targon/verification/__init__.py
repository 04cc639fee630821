"""From a request, its completion and a reference engine to a verdict.

The methods are functions that take values and return a verdict; they are tried cheapest first. Nothing
here sends, stores or waits for anything but the reference engine, and nothing reads a clock or draws a
random number.
"""

from __future__ import annotations

from targon.verification.exact import GroundTruth, compare
from targon.verification.judge import generate_ground_truth, judge
from targon.verification.structure import check_structure
from targon.verification.verdict import Verdict, failed, inconclusive

__all__ = [
    "GroundTruth",
    "Verdict",
    "check_structure",
    "compare",
    "failed",
    "generate_ground_truth",
    "inconclusive",
    "judge",
]
