"""What an audit finds wrong: each fault with its name, its place, what was got and what was expected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

FaultKind = Literal[
    "tampered",
    "reordered",
    "omitted",
    "forked",
    "truncated",
    "malformed",
    "signature",
    "stranger",
    "history",
    "commitment",
    "draw",
    "audit",
    "weights",
    "evidence",
    "receipt",
    "chain",
    "transcript",
    "reverify",
    "oracle_equivocated",
    "oracle_unchained",
    "oracle_unsigned",
    "oracle_reveal",
    "accusation",
    "reliance",
]
"""
- ``tampered``: not what its hash or its manifest says.
- ``reordered``, ``omitted``: records or segments that stand elsewhere, or nowhere.
- ``forked``: two histories for one place.
- ``truncated``: it breaks off.
- ``malformed``: none of what it should be.
- ``signature``: not signed by the verifier.
- ``stranger``: of another verifier, or another network.
- ``history``: a record that cannot follow the ones before it.
- ``commitment``, ``draw``: not what was committed to; not what the secret draws.
- ``audit``: an inference that was audited though it wasn't drawn, or the other way round.
- ``weights``, ``evidence``: not what the log makes them.
- ``receipt``: one that names something else, or that the log does not hold.
- ``chain``: not what the chain holds.
- ``transcript``: a published answer that is not the logged one.
- ``reverify``: an answer that one's own engine judges otherwise.
- ``oracle_equivocated``: an oracle signed two commitments that contradict each other. Its fault, and proven.
- ``oracle_unchained``: an oracle signed a commitment that doesn't follow the one before. Its fault.
- ``oracle_unsigned``: a commitment in the log that its oracle didn't sign.
- ``oracle_reveal``: what an oracle revealed of a period isn't what it committed to. Its fault.
- ``accusation``: the log says that an oracle was caught, and what it shows of that isn't so.
- ``reliance``: private inputs in blocks for which no commitment had been seen beforehand; a verdict that rests on
  other engines than the log says.
"""

KEPT: Final = 200
"""Most faults that are kept word for word; the others are counted."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong."""

    kind: FaultKind
    where: str
    """``segment 3``, ``record 1234``, …"""
    got: str
    expected: str
    record: int | None = None
    """The record it was found at; None: at none."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: got {self.got}, expected {self.expected}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Faults:
    """All that was found, the first ones word for word."""

    def __init__(self) -> None:
        self.kept: list[Fault] = []
        self.counts: Counter[str] = Counter()

    def add(self, kind: FaultKind, where: str | int, got: object, expected: object) -> None:
        """Note a fault; ``where`` is a record's place, if it is a number."""
        record = where if isinstance(where, int) else None
        place = f"record {where}" if isinstance(where, int) else where
        self.extend([Fault(kind, place, _short(got), _short(expected), record)])

    def extend(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            self.counts[fault.kind] += 1
            if len(self.kept) < KEPT:
                self.kept.append(fault)

    @property
    def total(self) -> int:
        return self.counts.total()


def _short(value: object) -> str:
    """What others wrote, cut, and safe for a terminal."""
    text = value if isinstance(value, str) else repr(value)
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:300])
    return shown if len(text) <= 300 else shown + "…"
