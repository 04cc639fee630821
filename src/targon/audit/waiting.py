"""Audited answers that wait for their verdicts, and what is told of draws that can't be chance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from targon.audit.drawing import Drawing
from targon.audit.report import Report
from targon.ledger import Standings
from targon.protocol.primitives import Hotkey

INTERVALS: Final = 2
"""Intervals after its own in which an audited answer is judged, unless the verifier's engine is in trouble."""
BLOCKS: Final = 300
"""At least so many blocks, about an hour, and it is a fault where answers that came an hour later were judged."""


@dataclass
class Waiting:
    """Who waits, and since when."""

    interval: int = 0
    """The one that was opened last."""
    _since: dict[int, tuple[Hotkey, int, int]] = field(default_factory=dict)
    """By attempt: prover, and interval and block of the answer."""
    _judged: int = 0
    """The newest block of an answer that was judged."""

    def begin(self, number: int, prover: Hotkey, block: int) -> None:
        """An answer is to be audited."""
        self._since[number] = prover, self.interval, block

    def end(self, number: int) -> None:
        """An attempt has its verdict."""
        _, _, block = self._since.pop(number, (None, None, 0))
        self._judged = max(self._judged, block)

    def tell(self, standings: Standings, report: Report) -> None:
        """Note who waits, and name those who wait for too long."""
        late: dict[Hotkey, int] = {}
        left_out: dict[Hotkey, int] = {}
        for number, (prover, interval, block) in self._since.items():
            report.awaiting_by_prover[prover] = report.awaiting_by_prover.get(prover, 0) + 1
            if self.interval - interval > INTERVALS:
                late[prover] = late.get(prover, 0) + 1
                if self._judged - block > BLOCKS:
                    left_out.setdefault(prover, number)
        for prover, count in late.items():
            report.notes.append(
                f"{count} audited answers of {prover} have waited for their verdicts for over {INTERVALS} intervals"
            )
        for prover, number in left_out.items():
            report.faults.add(
                "audit",
                f"prover {prover}",
                f"no verdict on the audited answer {number} by block {standings.block}",
                f"one: answers that came over {BLOCKS} blocks later were judged",
            )


def tell_of_chances(drawing: Drawing, report: Report) -> None:
    """Name draws that can't be chance. Where nearly everybody is busy, who is free may be drawn a little more often
    at first: so of routes it is a note."""
    for prover, chance in drawing.audit_chances.items():
        if chance.odd:
            report.faults.add(
                "audit",
                f"prover {prover}",
                f"{chance.drawn:.0f} of its inferences drawn for an audit",
                f"{chance}: draws that were waited for are no chance",
            )
    for prover, chance in drawing.route_chances.items():
        if chance.odd:
            report.notes.append(
                f"{chance.drawn:.0f} users' requests were first drawn for {prover}, where chance gives {chance}"
            )
