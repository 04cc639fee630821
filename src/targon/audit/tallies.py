"""What an audit counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """What became of one prover's attempts, and how often the draw fell on it without one."""

    attempts: int = 0
    answered: int = 0
    audited: int = 0
    passed: int = 0
    failed: int = 0
    inconclusive: int = 0
    user_left: int = 0
    outrun: int = 0
    busy: int = 0
    unservable: int = 0
    passed_over: int = 0
    """Users' requests whose draw fell on it before it fell on who was asked."""
    not_challenged: int = 0
    """Blocks in which others were challenged whose rank was behind its own."""
    own_missed: int = 0
    """Blocks in which an inference of the verifier's own was due for it, and none was sent."""


@dataclass(slots=True)
class Counts:
    """How many draws were made again, and how many could not be."""

    routes: int = 0
    audits: int = 0
    challenges: int = 0
    own: int = 0
    unchecked: int = 0
    """Attempts whose interval's secret is not revealed."""
