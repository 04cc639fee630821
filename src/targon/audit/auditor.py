"""The audit of a folder of segments: folded again from the first record, while another process hashes every line.

Both read the files themselves, so that nothing has to be handed over. Whatever the fold finds at or after a record that
is not what its hash says is not reported: it follows from that.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from targon.audit.beside import Hashing
from targon.audit.folding import CommitDigest, Folding, Wanted
from targon.audit.report import Report
from targon.audit.shelf import Shelf
from targon.ledger import Standings


def audit_shelf(
    shelf: Shelf,
    report: Report,
    *,
    calibrations: Sequence[Path] = (),
    commit_digest: CommitDigest | None = None,
    wanted: Wanted | None = None,
    progress: Callable[[int], None] | None = None,
) -> Standings:
    """Hash and fold everything, and make every draw again. It blocks for as long as it takes.

    Args:
        calibrations: files and folders of them, beside those that come with the software.
        commit_digest: the chain's; None: commits to weights are not checked.
        wanted: what is to be noted on the way.
        progress: told how many records were folded, now and then.

    Raises:
        AuditError: if the process that hashes ended by itself.
    """
    began = time.monotonic()
    tasks = shelf.tasks()
    hashing = Hashing(tasks, calibrations)
    folding = Folding(shelf, commit_digest, wanted or Wanted())
    collects = gc.isenabled()
    gc.disable()  # millions of small objects, and no cycles among them
    try:
        folding.run(progress)
        hashed = hashing.results()
    finally:
        if collects:
            gc.enable()
        hashing.close()
    first_bad = None
    for found in hashed:
        report.faults.extend(found.faults)
        if found.faults and first_bad is None:
            first_bad = tasks[found.number].first + found.records
    for fault in sorted(
        [*folding.faults.kept, *(fault for found in hashed for fault in found.evidence)],
        key=lambda fault: -1 if fault.record is None else fault.record,
    ):
        if first_bad is None or (fault.record is not None and fault.record < first_bad):
            report.faults.extend([fault])
    if first_bad is None:
        unkept = folding.faults.total - len(folding.faults.kept)
        if unkept:
            report.notes.append(f"{unkept} more faults are not listed")
    folding.tell(report)
    if first_bad is not None:
        report.records = min(report.records, first_bad)
        report.notes.append(
            f"what is said of provers and weights hangs on record {first_bad}, which is not as it should be"
        )
    report.evidence_checked, report.evidence_unchecked, report.calibrations_missing = hashing.counted
    report.seconds = time.monotonic() - began
    return folding.standings
