"""What attackers do, and what each method of verification sees of it.

Attacks are wrappers around a prover's engine, or engines that run less than the promised model. They are tried on
the real model, their answers are kept, and all methods judge the same answers: that is the matrix. The same answers,
served to users alone and audited as the protocol says, make careers: when each is caught, and what that costs it.
Nothing here is ever imported by a running prover, verifier or oracle.
"""

from __future__ import annotations

from targon.redteam.attacks import ATTACKS, QUICK, Attack, UnknownAttack, with_needs
from targon.redteam.bench import run_bench
from targon.redteam.chart import write_chart
from targon.redteam.cheats import Canned, Disguise, Truncated, Wrapper, WrongSeed
from targon.redteam.front_running_report import FrontRunning, table_of_front_running
from targon.redteam.front_running_run import run_front_running
from targon.redteam.generating import Bench
from targon.redteam.matrix import Matrix
from targon.redteam.organic_report import Organic, table_of_organic
from targon.redteam.organic_run import run_organic
from targon.redteam.page import page_of
from targon.redteam.report import table_of
from targon.redteam.workloads import calibration_passages, evaluation_passages

__all__ = [
    "ATTACKS",
    "QUICK",
    "Attack",
    "Bench",
    "Canned",
    "Disguise",
    "FrontRunning",
    "Matrix",
    "Organic",
    "Truncated",
    "UnknownAttack",
    "Wrapper",
    "WrongSeed",
    "calibration_passages",
    "evaluation_passages",
    "page_of",
    "run_bench",
    "run_front_running",
    "run_organic",
    "table_of",
    "table_of_front_running",
    "table_of_organic",
    "with_needs",
    "write_chart",
]
