"""The public audit: a verifier's log as signed segments, and everything that they say computed again.

What a verifier publishes is read as a stranger's: each line's hash, each segment's manifest, every tier, score and
weight, every draw. This room must never trust a number that it can compute, never keep a whole log in memory, and never
write to the log or the chain that it looks at.
"""

from targon.audit.auditing import audit_folder
from targon.audit.errors import AuditError, ExportRefused, Unreadable
from targon.audit.exporting import Exporter, Transcripts
from targon.audit.faults import Fault, Faults
from targon.audit.fetching import fetch_segments, is_url
from targon.audit.folding import Wanted
from targon.audit.onchain import compare_with_chain
from targon.audit.oracles import OracleReport, compare
from targon.audit.places import check_places
from targon.audit.report import Report
from targon.audit.reveals import check_reveals
from targon.audit.reverifying import reverify

__all__ = [
    "AuditError",
    "ExportRefused",
    "Exporter",
    "Fault",
    "Faults",
    "OracleReport",
    "Report",
    "Transcripts",
    "Unreadable",
    "Wanted",
    "audit_folder",
    "check_places",
    "check_reveals",
    "compare",
    "compare_with_chain",
    "fetch_segments",
    "is_url",
    "reverify",
]
