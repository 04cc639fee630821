"""From a request, its completion and a reference engine to a verdict.

The methods are functions that take values and return a verdict; they are tried cheapest first. Nothing
here sends, stores or waits for anything but the reference engine, and nothing reads a clock or draws a
random number.
"""

from __future__ import annotations

from targon.verification.answer_file import (
    AnswerFileError,
    SignedAnswer,
    StatedVerdict,
    read_answers,
    read_filed,
    save_answer,
)
from targon.verification.bets import Bets, bets_of
from targon.verification.calibration import (
    Band,
    Calibration,
    CalibrationError,
    NoBand,
    Range,
    Scope,
    load_calibration,
    save_calibration,
)
from targon.verification.divergence import (
    Divergence,
    check_divergence,
    divergence_verdict,
    judge_divergence,
)
from targon.verification.evidence import EvidenceState, advance, trace
from targon.verification.exact import exact_verdict
from targon.verification.judge import Judgement, judge
from targon.verification.measuring import HonestRun, measure
from targon.verification.observations import Observations
from targon.verification.offline import (
    SIMILARITY,
    CheckedAnswer,
    Disagreement,
    check_answer,
    check_unaided,
    evidence_of,
)
from targon.verification.recheck import RecheckBounds, recheck
from targon.verification.shipped import find_calibration
from targon.verification.similarity import Embedder, judge_similarity
from targon.verification.statements import statement_fault
from targon.verification.structure import check_form, check_model, check_structure
from targon.verification.together import Gain, advance_by, gains_of
from targon.verification.verdict import Verdict, failed, inconclusive, reason_about

__all__ = [
    "SIMILARITY",
    "AnswerFileError",
    "Band",
    "Bets",
    "Calibration",
    "CalibrationError",
    "CheckedAnswer",
    "Disagreement",
    "Divergence",
    "Embedder",
    "EvidenceState",
    "Gain",
    "HonestRun",
    "Judgement",
    "NoBand",
    "Observations",
    "Range",
    "RecheckBounds",
    "Scope",
    "SignedAnswer",
    "StatedVerdict",
    "Verdict",
    "advance",
    "advance_by",
    "bets_of",
    "check_answer",
    "check_divergence",
    "check_form",
    "check_model",
    "check_structure",
    "check_unaided",
    "divergence_verdict",
    "evidence_of",
    "exact_verdict",
    "failed",
    "find_calibration",
    "gains_of",
    "inconclusive",
    "judge",
    "judge_divergence",
    "judge_similarity",
    "load_calibration",
    "measure",
    "read_answers",
    "read_filed",
    "reason_about",
    "recheck",
    "save_answer",
    "save_calibration",
    "statement_fault",
    "trace",
]
