"""The doctor: checks everything that a role needs before it runs, and says what to do about what is wrong.

A check is a small function over ports and values that are passed in (:class:`Check`); :func:`examine` runs them at
once. :func:`prover_checks`, :func:`verifier_checks` and :func:`oracle_checks` say what a role needs. This room must
never change anything: it writes no log, announces no address, sets no weights, signs no commitment and makes no key.
And it never waits without a deadline.

A log in Redis is :mod:`targon.doctor.redis`, which only who has one imports: its client loads slowly.
"""

from __future__ import annotations

from targon.doctor.chain import TellsTime
from targon.doctor.engine import EnginePlace
from targon.doctor.examination import Check, Row, blocking, examine
from targon.doctor.findings import Finding, Outcome, Result, bad, good, note
from targon.doctor.keys import PASSWORD, WalletPlace
from targon.doctor.log import LogPlace
from targon.doctor.oracle import OraclePlan
from targon.doctor.oracles import OraclePlace
from targon.doctor.ports import AxonPlace
from targon.doctor.reach import Asked, ask
from targon.doctor.report import as_json, is_well, plain, show
from targon.doctor.roles import (
    Common,
    OracleNeeds,
    ProverNeeds,
    VerifierNeeds,
    oracle_checks,
    prover_checks,
    verifier_checks,
)
from targon.doctor.sqlite import SqlitePlace

__all__ = [
    "PASSWORD",
    "Asked",
    "AxonPlace",
    "Check",
    "Common",
    "EnginePlace",
    "Finding",
    "LogPlace",
    "OracleNeeds",
    "OraclePlace",
    "OraclePlan",
    "Outcome",
    "ProverNeeds",
    "Result",
    "Row",
    "SqlitePlace",
    "TellsTime",
    "VerifierNeeds",
    "WalletPlace",
    "as_json",
    "ask",
    "bad",
    "blocking",
    "examine",
    "good",
    "is_well",
    "note",
    "oracle_checks",
    "plain",
    "prover_checks",
    "show",
    "verifier_checks",
]
